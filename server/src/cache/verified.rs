//! Which stored copies were read whole and found right, so that a range of one need not be preceded by reading all of it
//! again. A copy whose version changed counts as never read.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pcmcache_shared::Digest;

use crate::blobs::Version;

/// The most that are remembered; then all are forgotten, which costs a read each.
const MAX_VERIFIED: usize = 100_000;

#[derive(Debug, Default)]
pub(crate) struct Verified {
    copies: Mutex<HashMap<Digest, Version>>,
}

impl Verified {
    fn copies(&self) -> MutexGuard<'_, HashMap<Digest, Version>> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn remember(&self, digest: Digest, version: Version) {
        let mut copies = self.copies();
        if copies.len() >= MAX_VERIFIED {
            copies.clear();
        }
        copies.insert(digest, version);
    }

    pub(crate) fn knows(&self, digest: Digest, version: Version) -> bool {
        self.copies().get(&digest) == Some(&version)
    }

    pub(crate) fn forget(&self, digest: Digest) {
        self.copies().remove(&digest);
    }
}
