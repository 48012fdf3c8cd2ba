//! Builds: who builds what now, and which ended last.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use pcmcache_shared::{Claim, Fence, ReleaseReason, Scope};

use crate::clock::Moment;
use crate::leases::MAX_LEASES;

/// Ended builds that are remembered.
const FINISHED: usize = 50;

/// A build that someone has a lease for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Building {
    /// Where.
    pub scope: Scope,
    /// What the lease is on.
    pub claim: Claim,
    /// The number of the grant.
    pub fence: Fence,
    /// What people call it; empty if the client did not say.
    pub subject: String,
    /// Who builds.
    pub holder: String,
    /// Since when.
    pub since: Moment,
}

/// How a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With a result.
    Published,
    /// Its holder gave it back.
    Released(ReleaseReason),
    /// Its holder vanished, or was too slow.
    Lost,
}

/// A build that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// What it was.
    pub building: Building,
    /// How it ended.
    pub how: Ended,
    /// How long it took.
    pub took: Duration,
    /// When it ended.
    pub at: Moment,
}

#[derive(Debug, Default)]
pub(super) struct Builds {
    running: HashMap<(Scope, Claim), Building>,
    finished: VecDeque<Finished>,
}

impl Builds {
    /// A holder that comes back to its lease goes on, and begins nothing.
    pub(super) fn begin(&mut self, building: Building) {
        let at = (building.scope.clone(), building.claim);
        match self.running.get(&at) {
            Some(before) if before.fence == building.fence => {}
            Some(_) => self.replace(at, building),
            None if self.running.len() < MAX_LEASES => drop(self.running.insert(at, building)),
            // The leases have the same bound, so these are leases that ran out and were not looked at since.
            None => {
                self.running.clear();
                self.running.insert(at, building);
            }
        }
    }

    fn replace(&mut self, at: (Scope, Claim), building: Building) {
        let now = building.since;
        if let Some(before) = self.running.insert(at, building) {
            self.finish(before, Ended::Lost, now);
        }
    }

    pub(super) fn end(&mut self, at: &(Scope, Claim), fence: Fence, how: Ended, now: Moment) {
        if let Some(building) = self.forget(at, fence) {
            self.finish(building, how, now);
        }
    }

    pub(super) fn forget(&mut self, at: &(Scope, Claim), fence: Fence) -> Option<Building> {
        self.running
            .get(at)
            .is_some_and(|building| building.fence == fence)
            .then(|| self.running.remove(at))?
    }

    fn finish(&mut self, building: Building, how: Ended, at: Moment) {
        let took = at.since(building.since);
        self.finished.truncate(FINISHED - 1);
        self.finished.push_front(Finished { building, how, took, at });
    }

    pub(super) fn running(&self) -> Vec<Building> {
        self.running.values().cloned().collect()
    }

    pub(super) fn finished(&self) -> Vec<Finished> {
        self.finished.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn building(claim: &str, fence: u64, since: u64) -> Building {
        Building {
            scope: Scope::default(),
            claim: Claim::of(claim),
            fence: Fence(fence),
            subject: claim.to_owned(),
            holder: "a host".to_owned(),
            since: Moment::default() + Duration::from_secs(since),
        }
    }

    #[test]
    fn a_build_runs_until_its_own_grant_ends() {
        let mut builds = Builds::default();
        let at = (Scope::default(), Claim::of("a"));
        builds.begin(building("a", 1, 0));
        builds.begin(building("a", 1, 9));
        assert_eq!(builds.running(), [building("a", 1, 0)], "who comes back goes on");
        builds.end(&at, Fence(7), Ended::Published, Moment::default());
        assert_eq!(builds.running().len(), 1, "another grant's end");
        builds.begin(building("a", 2, 10));
        builds.end(&at, Fence(2), Ended::Published, Moment::default() + Duration::from_secs(12));
        assert_eq!(builds.running(), []);
        let ends: Vec<_> = builds.finished().into_iter().map(|end| (end.how, end.took.as_secs())).collect();
        assert_eq!(ends, [(Ended::Published, 2), (Ended::Lost, 10)]);
    }

    #[test]
    fn few_ends_are_remembered() {
        let mut builds = Builds::default();
        for fence in 0..100 {
            builds.begin(building("a", fence, 0));
        }
        assert_eq!(builds.finished().len(), FINISHED);
    }
}
