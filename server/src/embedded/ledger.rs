//! The ledger: what the files of a store take, what is reserved for those on their way, and whether more fits.
//!
//! Invariants: a reservation is made before its stage is opened, and given back after the stage is gone or has become a
//! blob; a file is added as it takes its place and taken off once it is unlinked. So the sum is never less than what
//! lies on the disk. Files are counted place by place ([`Places`]) and under the lock of the place, so that a count
//! that runs beside uploads is exact; scopes are counted from the index, by its one writer.
//!
//! It lives in memory: a kill cannot leave it wrong, and every start counts the files anew. The sums of the scopes are in the
//! index as well ([`scopes`](super::scopes)).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pcmcache_shared::Scope;
use tokio::sync::watch;

use crate::space::{Bound, Bounds, Disk, ScopeUsage, Shortage, Usage};

/// The place of what was moved aside; those before it are the shards of the blobs.
pub(super) const DAMAGED: usize = 256;
/// How many places there are.
pub(super) const PLACES: usize = DAMAGED + 1;

#[derive(Debug)]
pub(super) struct Ledger {
    bounds: Bounds,
    disk: Arc<dyn Disk>,
    state: Mutex<State>,
    counted: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    places: Vec<Option<Content>>,
    reserved: u64,
    /// What of it the disk has not given yet.
    unallocated: u64,
    scopes: HashMap<Scope, InScope>,
    /// Those whose stored bytes changed since the index was told.
    changed: HashSet<Scope>,
    /// A batch of writes failed after its rows were counted: ask the index again.
    scopes_doubtful: bool,
}

/// What a place holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct InScope {
    stored: u64,
    reserved: u64,
}

impl Content {
    pub(super) fn add(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
    }
}

impl State {
    fn stored(&self) -> u64 {
        self.places.iter().flatten().map(|content| content.bytes).sum()
    }
}

impl Ledger {
    pub(super) fn new(bounds: Bounds, disk: Arc<dyn Disk>) -> Self {
        let state = State {
            places: vec![None; PLACES],
            reserved: 0,
            unallocated: 0,
            scopes: HashMap::new(),
            changed: HashSet::new(),
            scopes_doubtful: false,
        };
        Self { bounds, disk, state: Mutex::new(state), counted: watch::Sender::new(false) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Says `true` once every place is counted; until then nothing is reserved.
    pub(super) fn counted(&self) -> watch::Receiver<bool> {
        self.counted.subscribe()
    }

    /// What the place holds. Its lock is held.
    pub(super) fn count(&self, place: usize, content: Content) {
        let mut state = self.state();
        if let Some(slot) = state.places.get_mut(place) {
            *slot = Some(content);
        }
        if state.places.iter().all(Option::is_some) {
            self.counted.send_if_modified(|counted| !std::mem::replace(counted, true));
        }
    }

    /// Takes room for `length` bytes in the scope, or says what is in the way.
    pub(super) fn reserve(self: &Arc<Self>, scope: &Scope, length: u64) -> Result<Reservation, Shortage> {
        let mut state = self.state();
        let short = |bound, wanted: u64, limit: u64| match wanted.checked_sub(limit) {
            None | Some(0) => Ok(()),
            Some(missing) => Err(Shortage { bound, missing }),
        };
        let of_scope = state.scopes.get(scope).copied().unwrap_or_default();
        if let Some(quota) = self.bounds.quotas.get(scope) {
            let wanted = of_scope.stored.saturating_add(of_scope.reserved).saturating_add(length);
            short(Bound::Quota(scope.clone()), wanted, *quota)?;
        }
        if let Some(max_size) = self.bounds.max_size {
            let wanted = state.stored().saturating_add(state.reserved).saturating_add(length);
            short(Bound::Size, wanted, max_size)?;
        }
        // A disk that does not say how full it is says so when it is written to.
        if let Ok(free) = self.disk.free() {
            let wanted = self.bounds.keep_free.saturating_add(state.unallocated).saturating_add(length);
            short(Bound::Disk, wanted, free)?;
        }
        state.reserved += length;
        state.unallocated += length;
        state.scopes.entry(scope.clone()).or_default().reserved += length;
        Ok(Reservation {
            ledger: Arc::clone(self),
            scope: scope.clone(),
            of_scope: length,
            of_store: length,
            unallocated: length,
        })
    }

    /// A file of `bytes` took its place, and that of one of `replaced` bytes. The place's lock is held.
    pub(super) fn placed(&self, place: usize, bytes: u64, replaced: Option<u64>, room: &mut Reservation) {
        let mut state = self.state();
        state.add(place, bytes);
        if let Some(replaced) = replaced {
            state.take_off(place, replaced);
        }
        room.give_back_to(&mut state);
    }

    /// A file of `bytes` is there now. The place's lock is held.
    pub(super) fn added(&self, place: usize, bytes: u64) {
        self.state().add(place, bytes);
    }

    /// A file of `bytes` is gone. The place's lock is held.
    pub(super) fn removed(&self, place: usize, bytes: u64) {
        self.state().take_off(place, bytes);
    }

    /// A blob became visible in the scope. The index's writer calls it.
    pub(super) fn shown(&self, scope: &Scope, bytes: u64) {
        let mut state = self.state();
        let of_scope = state.scopes.entry(scope.clone()).or_default();
        of_scope.stored = of_scope.stored.saturating_add(bytes);
        state.note_changed(scope);
    }

    /// A blob is no longer visible in the scope. The index's writer calls it.
    pub(super) fn hidden(&self, scope: &Scope, bytes: u64) {
        let mut state = self.state();
        if let Some(of_scope) = state.scopes.get_mut(scope) {
            of_scope.stored = of_scope.stored.saturating_sub(bytes);
            state.note_changed(scope);
        }
    }

    /// The scopes whose bytes changed since this was last asked, with what they have now.
    pub(super) fn take_changed(&self) -> Vec<(Scope, u64)> {
        let mut state = self.state();
        let changed = std::mem::take(&mut state.changed);
        let stored = |scope: &Scope| state.scopes.get(scope).map_or(0, |of_scope| of_scope.stored);
        changed.into_iter().map(|scope| (scope.clone(), stored(&scope))).collect()
    }

    /// What is visible in each scope, as the index has it while nobody writes to it.
    pub(super) fn count_scopes(&self, counted: HashMap<Scope, u64>) {
        let mut state = self.state();
        state.scopes_doubtful = false;
        state.changed.clear();
        for of_scope in state.scopes.values_mut() {
            of_scope.stored = 0;
        }
        for (scope, bytes) in counted {
            state.scopes.entry(scope).or_default().stored = bytes;
        }
        state.scopes.retain(|_, of_scope| of_scope.stored > 0 || of_scope.reserved > 0);
    }

    /// Rows that were counted may not have been written.
    pub(super) fn doubt_scopes(&self) {
        self.state().scopes_doubtful = true;
    }

    pub(super) fn doubts_scopes(&self) -> bool {
        self.state().scopes_doubtful
    }

    /// What is reserved for files on their way.
    pub(super) fn reserved(&self) -> u64 {
        self.state().reserved
    }

    pub(super) fn usage(&self, unlinked_open_bytes: u64) -> Usage {
        let state = self.state();
        let content = |place: &Option<Content>| place.unwrap_or_default();
        let (shards, damaged) = state.places.split_at(DAMAGED.min(state.places.len()));
        let mut scopes: BTreeMap<Scope, ScopeUsage> = self
            .bounds
            .quotas
            .iter()
            .map(|(scope, quota)| {
                (scope.clone(), ScopeUsage { quota: Some(*quota), ..ScopeUsage::default() })
            })
            .collect();
        for (scope, of_scope) in &state.scopes {
            let usage = scopes.entry(scope.clone()).or_default();
            (usage.bytes, usage.reserved_bytes) = (of_scope.stored, of_scope.reserved);
        }
        Usage {
            counted: *self.counted.borrow(),
            blobs: shards.iter().map(|place| content(place).files).sum(),
            blob_bytes: shards.iter().map(|place| content(place).bytes).sum(),
            reserved_bytes: state.reserved,
            unallocated_bytes: state.unallocated,
            damaged_bytes: damaged.iter().map(|place| content(place).bytes).sum(),
            unlinked_open_bytes,
            max_size: self.bounds.max_size,
            disk_free: self.disk.free().ok(),
            keep_free: self.bounds.keep_free,
            scopes,
        }
    }
}

/// A place that is not counted yet is counted later, with what is there then.
impl State {
    fn note_changed(&mut self, scope: &Scope) {
        if !self.changed.contains(scope) {
            self.changed.insert(scope.clone());
        }
    }

    fn add(&mut self, place: usize, bytes: u64) {
        if let Some(Some(content)) = self.places.get_mut(place) {
            content.files += 1;
            content.bytes += bytes;
        }
    }

    fn take_off(&mut self, place: usize, bytes: u64) {
        if let Some(Some(content)) = self.places.get_mut(place) {
            content.files = content.files.saturating_sub(1);
            content.bytes = content.bytes.saturating_sub(bytes);
        }
    }
}

/// Room that is taken; dropped, it is given back.
#[derive(Debug)]
pub(super) struct Reservation {
    ledger: Arc<Ledger>,
    scope: Scope,
    of_scope: u64,
    of_store: u64,
    unallocated: u64,
}

impl Reservation {
    /// How many bytes it is for.
    pub(super) fn length(&self) -> u64 {
        self.of_store
    }

    /// The disk has given `bytes` of it.
    pub(super) fn allocated(&mut self, bytes: u64) {
        let bytes = bytes.min(self.unallocated);
        self.unallocated -= bytes;
        let mut state = self.ledger.state();
        state.unallocated = state.unallocated.saturating_sub(bytes);
    }

    /// The store's part; the scope's is held until its row is written.
    fn give_back_to(&mut self, state: &mut State) {
        state.reserved = state.reserved.saturating_sub(std::mem::take(&mut self.of_store));
        state.unallocated = state.unallocated.saturating_sub(std::mem::take(&mut self.unallocated));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let ledger = Arc::clone(&self.ledger);
        let mut state = ledger.state();
        self.give_back_to(&mut state);
        if let Some(of_scope) = state.scopes.get_mut(&self.scope) {
            of_scope.reserved = of_scope.reserved.saturating_sub(self.of_scope);
            if (of_scope.stored, of_scope.reserved) == (0, 0) {
                state.scopes.remove(&self.scope);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Debug)]
    struct Free(AtomicU64);

    impl Disk for Free {
        fn free(&self) -> io::Result<u64> {
            Ok(self.0.load(Ordering::Relaxed))
        }
    }

    fn ledger(max_size: u64, quota: u64, free: u64) -> (Arc<Ledger>, Arc<Free>) {
        let disk = Arc::new(Free(AtomicU64::new(free)));
        let quotas = [("small".parse().unwrap(), quota)].into();
        let bounds = Bounds { max_size: Some(max_size), quotas, keep_free: 100 };
        let ledger = Arc::new(Ledger::new(bounds, Arc::clone(&disk) as _));
        (0..PLACES).for_each(|place| ledger.count(place, Content::default()));
        (ledger, disk)
    }

    fn shortage(bound: Bound, missing: u64) -> Shortage {
        Shortage { bound, missing }
    }

    #[test]
    fn each_bound_refuses_by_name_what_it_has_no_room_for() {
        let (ledger, disk) = ledger(1000, 300, 10_000);
        let (main, small): (Scope, Scope) = (Scope::default(), "small".parse().unwrap());
        let held = ledger.reserve(&main, 600).unwrap();
        assert_eq!(ledger.reserve(&main, 401).unwrap_err(), shortage(Bound::Size, 1));
        assert_eq!(ledger.reserve(&small, 310).unwrap_err(), shortage(Bound::Quota(small.clone()), 10));
        let all = ledger.reserve(&small, 300).unwrap();
        assert_eq!(ledger.usage(0).reserved_bytes, 900);
        drop((held, all));
        // What is reserved and not written yet is not there for others, though the disk still says so.
        disk.0.store(700, Ordering::Relaxed);
        let mut half = ledger.reserve(&main, 400).unwrap();
        assert_eq!(ledger.reserve(&main, 201).unwrap_err(), shortage(Bound::Disk, 1));
        disk.0.store(300, Ordering::Relaxed);
        half.allocated(400);
        assert!(ledger.reserve(&main, 200).is_ok());
        drop(half);
        let usage = ledger.usage(0);
        assert_eq!((usage.total(), usage.scopes[&small].reserved_bytes), (0, 0));
    }

    #[test]
    fn what_is_placed_counts_once_and_its_scope_is_charged_until_its_row_is_there() {
        let (ledger, _) = ledger(1000, 300, 10_000);
        let small: Scope = "small".parse().unwrap();
        let mut room = ledger.reserve(&small, 200).unwrap();
        ledger.placed(7, 200, None, &mut room);
        assert_eq!(ledger.usage(0).total(), 200);
        assert!(ledger.reserve(&small, 101).is_err(), "the row is not there yet");
        ledger.shown(&small, 200);
        drop(room);
        assert!(ledger.reserve(&small, 100).is_ok());
        let mut again = ledger.reserve(&small, 100).unwrap();
        ledger.placed(7, 100, Some(200), &mut again);
        assert_eq!((ledger.usage(0).blobs, ledger.usage(0).blob_bytes), (1, 100));
        drop(again);
        ledger.hidden(&small, 200);
        ledger.removed(7, 100);
        let usage = ledger.usage(0);
        assert_eq!((usage.total(), usage.blobs, usage.scopes[&small].bytes), (0, 0, 0));
    }

    #[test]
    fn a_place_counts_what_it_holds_when_it_is_counted() {
        let (bounds, disk) = (Bounds::default(), Arc::new(Free(AtomicU64::new(u64::MAX))));
        let ledger = Arc::new(Ledger::new(bounds, disk));
        ledger.added(3, 50);
        assert!(!*ledger.counted().borrow());
        for place in 0..PLACES {
            ledger.count(place, Content { files: 1, bytes: 10 });
            ledger.added(place, 1);
        }
        assert!(*ledger.counted().borrow());
        let usage = ledger.usage(0);
        assert_eq!((usage.blobs, usage.blob_bytes, usage.damaged_bytes), (512, 256 * 11, 11));
    }
}
