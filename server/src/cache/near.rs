//! What is asked for over and over, near at hand: who may see which blob, and the bytes of small blobs, each read whole and
//! found right. Neither costs a look at the disk.
//!
//! Invariant: what is here is what the store would say. Whatever takes something away (an eviction, a damaged copy, a
//! revocation) forgets it here once it is done, and whoever was looking meanwhile keeps nothing of what they saw: an
//! [`Epoch`] that is over takes nothing in. All of it is bounded, and a kill loses it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use pcmcache_shared::Digest;

use crate::blobs::{Opened, Stat, Version};
use crate::fault::Fault;
use crate::trust::View;

/// The largest blob that is kept: most objects and all texts, and no BMI.
pub(crate) const MAX_KEPT: u64 = 64 * 1024;
/// What all of them may take, in bytes; half of it in each of two generations.
const ROOM: usize = 64 * 1024 * 1024;
/// What a blob takes beside its bytes, about.
const OVERHEAD: usize = 256;
/// The most blobs of which it is known who sees them; then all is forgotten, which costs a look each.
const MAX_SEEN: usize = 100_000;
/// The most views that are known to see one blob.
const MAX_VIEWS: usize = 8;

/// Between two removals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

#[derive(Debug, Default)]
pub(crate) struct Near {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    epoch: u64,
    seen: HashMap<Digest, Vec<View>>,
    /// What was asked for lately, and what was before: when the first is full, the second is forgotten.
    young: HashMap<Digest, Kept>,
    young_bytes: usize,
    old: HashMap<Digest, Kept>,
}

/// A small blob in memory.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    bytes: Bytes,
    stat: Stat,
}

impl Near {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be asked for before the store is.
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.state().epoch)
    }

    /// Whether it is known that the view has the blob in it.
    pub(crate) fn sees(&self, view: &View, digest: Digest) -> bool {
        self.state().seen.get(&digest).is_some_and(|views| views.contains(view))
    }

    /// The store said in this epoch that the view has the blob in it.
    pub(crate) fn saw(&self, epoch: Epoch, view: &View, digest: Digest) {
        let mut state = self.state();
        if state.epoch != epoch.0 {
            return;
        }
        if state.seen.len() >= MAX_SEEN {
            state.seen.clear();
        }
        let views = state.seen.entry(digest).or_default();
        views.truncate(MAX_VIEWS - 1);
        views.push(view.clone());
    }

    /// The blob, if it is here.
    pub(crate) fn get(&self, digest: Digest) -> Option<Kept> {
        let mut state = self.state();
        if let Some(kept) = state.young.get(&digest) {
            return Some(kept.clone());
        }
        let kept = state.old.remove(&digest)?;
        state.put(digest, kept.clone());
        Some(kept)
    }

    /// In this epoch the store gave these bytes, all of the blob's, and they were those of its name.
    pub(crate) fn keep(&self, epoch: Epoch, digest: Digest, stat: Stat, bytes: &Bytes) {
        let mut state = self.state();
        if state.epoch == epoch.0 && bytes.len() as u64 <= MAX_KEPT {
            // Copied where it is part of something larger, which it would keep in memory.
            state.put(digest, Kept { bytes: Bytes::copy_from_slice(bytes), stat });
        }
    }

    /// Something was taken away: who saw what is asked anew, and these blobs are read anew.
    pub(crate) fn forget(&self, digests: impl IntoIterator<Item = Digest>) {
        let mut state = self.state();
        state.epoch += 1;
        state.seen.clear();
        for digest in digests {
            state.old.remove(&digest);
            if let Some(kept) = state.young.remove(&digest) {
                state.young_bytes -= kept.cost();
            }
        }
    }
}

impl State {
    fn put(&mut self, digest: Digest, kept: Kept) {
        let cost = kept.cost();
        if self.young_bytes + cost > ROOM / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += cost;
        if let Some(before) = self.young.insert(digest, kept) {
            self.young_bytes -= before.cost();
        }
    }
}

impl Kept {
    fn cost(&self) -> usize {
        self.bytes.len() + OVERHEAD
    }

    /// All of them.
    pub(crate) fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// To be read like any other copy.
    pub(crate) fn open(self) -> Arc<dyn Opened> {
        Arc::new(self)
    }
}

#[async_trait]
impl Opened for Kept {
    fn stat(&self) -> Stat {
        self.stat
    }

    async fn read(&self, offset: u64, at_most: usize) -> Result<Bytes, Fault> {
        let length = self.bytes.len();
        let from = usize::try_from(offset).unwrap_or(length).min(length);
        Ok(self.bytes.slice(from..from.saturating_add(at_most).min(length)))
    }

    async fn version(&self) -> Result<Version, Fault> {
        Ok(self.stat.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::Principal;

    fn view() -> View {
        Principal::anyone().view(&pcmcache_shared::Scope::default()).unwrap()
    }

    fn stat(size: u64) -> Stat {
        Stat { size, promised: size, version: Version(Digest::of("version")) }
    }

    fn keep(near: &Near, name: &str, size: usize) -> Digest {
        let digest = Digest::of(name);
        near.keep(near.epoch(), digest, stat(size as u64), &vec![0; size].into());
        digest
    }

    #[test]
    fn what_was_looked_at_before_a_removal_is_not_kept_after_it() {
        let (near, digest) = (Near::default(), Digest::of("a"));
        let before = near.epoch();
        near.saw(before, &view(), digest);
        near.keep(before, digest, stat(1), &Bytes::from_static(b"a"));
        assert!(near.sees(&view(), digest) && near.get(digest).is_some());
        near.forget([digest]);
        assert!(!near.sees(&view(), digest) && near.get(digest).is_none());
        near.saw(before, &view(), digest);
        near.keep(before, digest, stat(1), &Bytes::from_static(b"a"));
        assert!(!near.sees(&view(), digest) && near.get(digest).is_none());
    }

    #[test]
    fn a_removal_takes_its_own_blobs_and_all_that_is_known_of_who_sees() {
        let near = Near::default();
        let [gone, stays] = ["gone", "stays"].map(|name| keep(&near, name, 10));
        near.saw(near.epoch(), &view(), stays);
        near.forget([gone]);
        assert!(near.get(gone).is_none() && near.get(stays).is_some());
        assert!(!near.sees(&view(), stays));
        assert_eq!(near.state().young_bytes, 10 + OVERHEAD);
    }

    #[test]
    fn what_is_asked_for_stays_and_the_rest_makes_way() {
        let near = Near::default();
        let asked = keep(&near, "asked", 1000);
        let size = MAX_KEPT as usize;
        for number in 0..4 * ROOM / size {
            keep(&near, &number.to_string(), size);
            assert!(near.get(asked).is_some(), "{number}");
            let state = near.state();
            let held: usize = state.young.values().chain(state.old.values()).map(Kept::cost).sum();
            assert!(held <= ROOM, "{held}");
        }
        assert!(near.get(Digest::of("0")).is_none());
        let large = keep(&near, "large", size + 1);
        assert!(near.get(large).is_none());
    }

    #[tokio::test]
    async fn it_is_read_like_a_file() {
        let near = Near::default();
        near.keep(near.epoch(), Digest::of("hello"), stat(5), &Bytes::from_static(b"hello"));
        let opened = near.get(Digest::of("hello")).unwrap().open();
        for (offset, at_most, read) in [(0, 9, "hello"), (1, 2, "el"), (5, 1, ""), (9, 9, "")] {
            assert_eq!(opened.read(offset, at_most).await.unwrap(), read, "{offset} {at_most}");
        }
    }
}
