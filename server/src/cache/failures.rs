//! Which claims a holder gave up with a reason that concerns everyone, a short while ago.
//!
//! In memory only: after a restart the next builder finds out again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pcmcache_shared::ReleaseReason;
use pcmcache_shared::api::limits;

use super::waiters::ScopedClaim;
use crate::clock::{Clock, Moment};
use crate::share::Shares;

/// The most that are kept; beyond, the next builder finds out again.
const MAX_FAILURES: usize = 100_000;
/// How often room is made by looking for those that are over.
const SEARCH_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Failures {
    clock: Arc<dyn Clock>,
    recent: Mutex<Recent>,
}

#[derive(Debug)]
struct Recent {
    by_claim: HashMap<ScopedClaim, (ReleaseReason, Moment)>,
    places: Shares,
    next_search: Moment,
}

impl Recent {
    fn remove(&mut self, at: &ScopedClaim) {
        if self.by_claim.remove(at).is_some() {
            self.places.give_back(&at.0);
        }
    }

    /// A place for another of this scope, once those that are over are gone.
    fn make_room(&mut self, at: &ScopedClaim, now: Moment) -> bool {
        if self.by_claim.contains_key(at) || self.places.take(&at.0) {
            return true;
        }
        // Not at every note: who floods must not have all the others wait for the search.
        if now < self.next_search {
            return false;
        }
        self.next_search = now + SEARCH_EVERY;
        let over: Vec<_> =
            self.by_claim.iter().filter(|(_, (_, until))| *until <= now).map(|(at, _)| at.clone()).collect();
        over.iter().for_each(|at| self.remove(at));
        self.places.take(&at.0)
    }
}

impl Failures {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let places = Shares::new(MAX_FAILURES);
        let recent = Recent { by_claim: HashMap::new(), places, next_search: Moment::default() };
        Self { clock, recent: Mutex::new(recent) }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, at: &ScopedClaim, reason: ReleaseReason) {
        let now = self.clock.now();
        let mut recent = self.recent();
        if recent.make_room(at, now) {
            recent.by_claim.insert(at.clone(), (reason, now + limits::ALONE_FOR));
        }
    }

    pub(crate) fn reason(&self, at: &ScopedClaim) -> Option<ReleaseReason> {
        let now = self.clock.now();
        let mut recent = self.recent();
        let (reason, until) = *recent.by_claim.get(at)?;
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
