//! Which claims a holder gave up with a reason that concerns everyone, a short while ago.
//!
//! In memory only: after a restart the next builder finds out again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pcmcache_shared::ReleaseReason;
use pcmcache_shared::api::limits;

use super::waiters::ScopedClaim;
use crate::clock::{Clock, Moment};

/// The most that are kept; beyond, the next builder finds out again.
const MAX_FAILURES: usize = 100_000;

#[derive(Debug)]
pub(crate) struct Failures {
    clock: Arc<dyn Clock>,
    recent: Mutex<HashMap<ScopedClaim, (ReleaseReason, Moment)>>,
}

impl Failures {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, recent: Mutex::default() }
    }

    fn recent(&self) -> MutexGuard<'_, HashMap<ScopedClaim, (ReleaseReason, Moment)>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, at: &ScopedClaim, reason: ReleaseReason) {
        let now = self.clock.now();
        let mut recent = self.recent();
        if recent.len() >= MAX_FAILURES {
            recent.retain(|_, (_, until)| *until > now);
        }
        if recent.len() < MAX_FAILURES {
            recent.insert(at.clone(), (reason, now + limits::ALONE_FOR));
        }
    }

    pub(crate) fn reason(&self, at: &ScopedClaim) -> Option<ReleaseReason> {
        let now = self.clock.now();
        let mut recent = self.recent();
        let (reason, until) = *recent.get(at)?;
        if until <= now {
            recent.remove(at);
            return None;
        }
        Some(reason)
    }

    pub(crate) fn forget(&self, at: &ScopedClaim) {
        self.recent().remove(at);
    }
}
