//! Which stored copies were read whole and found right lately, so that they need not be hashed again whenever one is read. A
//! copy whose version changed counts as never read. One whose bytes the disk itself changed keeps its version, so a
//! copy is believed for a while only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pcmcache_shared::Digest;

use crate::blobs::Version;
use crate::clock::{Clock, Moment};

/// For how long a copy that was found right is believed.
pub(crate) const BELIEVED: Duration = Duration::from_secs(10 * 60);
/// The most that are remembered; then all are forgotten, which costs a read each.
const MAX_VERIFIED: usize = 100_000;

#[derive(Debug)]
pub(crate) struct Verified {
    clock: Arc<dyn Clock>,
    copies: Mutex<HashMap<Digest, (Version, Moment)>>,
}

impl Verified {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, copies: Mutex::default() }
    }

    fn copies(&self) -> MutexGuard<'_, HashMap<Digest, (Version, Moment)>> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn remember(&self, digest: Digest, version: Version) {
        let until = self.clock.now() + BELIEVED;
        let mut copies = self.copies();
        if copies.len() >= MAX_VERIFIED {
            copies.clear();
        }
        copies.insert(digest, (version, until));
    }

    pub(crate) fn knows(&self, digest: Digest, version: Version) -> bool {
        let now = self.clock.now();
        self.copies().get(&digest).is_some_and(|(known, until)| *known == version && now < *until)
    }

    pub(crate) fn forget(&self, digest: Digest) {
        self.copies().remove(&digest);
    }
}
