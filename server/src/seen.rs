//! What happened, as people ask about it: in which scope, with which module, now and lately. The cache tells it, and
//! never asks it for anything but the hits that show only later (see [`offers`](self)).
//!
//! Invariants: everything here is bounded, whatever clients send; it is in memory, and no lock is held across a wait.
//! The counts of all that happened are the cache's own [`Snapshot`](crate::cache::Snapshot).

mod builds;
mod modules;
mod offers;
mod scopes;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pcmcache_shared::api::OfferedSet;
use pcmcache_shared::api::acquire::AcquireRequest;
use pcmcache_shared::{ActionKey, Claim, Cost, Fence, Scope, UnitKey};
use prometheus_client::metrics::histogram::Histogram;

use self::builds::Builds;
pub use self::builds::{Building, Ended, Finished};
pub(crate) use self::modules::{Kept as KeptModules, Modules};
pub use self::modules::{Missed, Slow};
use self::offers::Offers;
use self::scopes::Scopes;
pub use self::scopes::{Named, ScopeCounts};
use crate::clock::{Clock, Moment};

/// How many results that differed are remembered for people.
const DIVERGENCES: usize = 50;

/// Bounds of the histograms of short times, in seconds: a millisecond to a minute.
pub(crate) const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];
/// Bounds of the histogram of waits, in seconds: as long as compiles take.
const WAITS: [f64; 11] = [0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 1800.0];

/// Two builders made different outputs of one action.
#[derive(Debug, Clone)]
pub struct Divergence {
    /// Where.
    pub scope: Scope,
    /// Of which action.
    pub action: ActionKey,
    /// What people call it.
    pub subject: String,
    /// Who was first.
    pub first: String,
    /// Who was second.
    pub second: String,
    /// When.
    pub at: Moment,
}

/// What happened; see the module.
#[derive(Debug)]
pub struct Seen {
    clock: Arc<dyn Clock>,
    scopes: Mutex<Scopes>,
    modules: Mutex<Modules>,
    builds: Mutex<Builds>,
    offers: Mutex<Offers>,
    divergences: Mutex<VecDeque<Divergence>>,
    /// From a publish to the answer of who waited for it.
    pub(crate) woken: Histogram,
    /// How long acquires waited for someone else's build.
    pub(crate) waits: Histogram,
}

/// A hit that showed only when nobody asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) cost: Cost,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            scopes: Mutex::default(),
            modules: Mutex::default(),
            builds: Mutex::default(),
            offers: Mutex::default(),
            divergences: Mutex::default(),
            woken: Histogram::new(SECONDS),
            waits: Histogram::new(WAITS),
        }
    }

    fn count(&self, scope: &Scope, count: impl FnOnce(&mut ScopeCounts)) {
        count(lock(&self.scopes).of(scope, self.clock.now()));
    }

    /// A result was served.
    pub(crate) fn hit(&self, scope: &Scope, cost: Cost) {
        self.count(scope, |counts| {
            counts.hits += 1;
            counts.saved_ms += cost.wall_ms;
        });
    }

    /// Nothing was there: someone compiles.
    pub(crate) fn missed(&self, scope: &Scope, subject: &str) {
        self.count(scope, |counts| counts.misses += 1);
        lock(&self.modules).missed(scope, subject);
    }

    /// A client was given include sets and results; it takes one, or asks again.
    pub(crate) fn offered(&self, scope: &Scope, unit: UnitKey, sets: &[OfferedSet]) {
        let now = self.clock.now();
        lock(&self.offers).push(scope, unit, sets, now);
    }

    /// A client asks: if it was offered something, it did not take it.
    pub(crate) fn asked(&self, scope: &Scope, request: &AcquireRequest) {
        if let Some(unit) = request.unit.filter(|_| !request.known.is_empty()) {
            lock(&self.offers).withdraw(scope, unit, &request.known);
        }
    }

    /// The hits that showed since this was asked last.
    pub(crate) fn settle(&self) -> Vec<Taken> {
        let settled = lock(&self.offers).settle(self.clock.now());
        settled
            .into_iter()
            .map(|(scope, cost)| {
                self.hit(&scope, cost);
                Taken { cost }
            })
            .collect()
    }

    /// A lease was granted, or its holder came back to it.
    pub(crate) fn granted(&self, at: &(Scope, Claim), fence: Fence, request: &AcquireRequest) {
        let building = Building {
            scope: at.0.clone(),
            claim: at.1,
            fence,
            subject: request.subject.clone(),
            holder: request.holder.clone(),
            since: self.clock.now(),
        };
        lock(&self.builds).begin(building);
    }

    /// A lease ended.
    pub(crate) fn ended(&self, at: &(Scope, Claim), fence: Fence, how: Ended) {
        lock(&self.builds).end(at, fence, how, self.clock.now());
    }

    /// An acquire waits for someone else's build.
    pub(crate) fn waited(&self, scope: &Scope) {
        self.count(scope, |counts| counts.waited += 1);
    }

    /// A result is there now.
    pub(crate) fn published(&self, scope: &Scope, subject: &str, cost: Cost) {
        self.count(scope, |counts| {
            counts.published += 1;
            counts.built_ms += cost.wall_ms;
        });
        lock(&self.modules).built(scope, subject, cost);
    }

    /// Someone made other outputs of an action whose result is there.
    pub(crate) fn diverged(&self, divergence: Divergence) {
        self.count(&divergence.scope, |counts| counts.diverged += 1);
        let mut divergences = lock(&self.divergences);
        divergences.truncate(DIVERGENCES - 1);
        divergences.push_front(divergence);
    }

    /// Bytes came.
    pub(crate) fn uploaded(&self, scope: &Scope, bytes: u64) {
        self.count(scope, |counts| counts.uploaded_bytes += bytes);
    }

    /// Bytes went.
    pub(crate) fn served(&self, scope: &Scope, bytes: u64) {
        self.count(scope, |counts| counts.served_bytes += bytes);
    }

    /// A wait is over, with or without a result.
    pub(crate) fn waited_for(&self, duration: Duration) {
        self.waits.observe(duration.as_secs_f64());
    }

    /// One who waited for a result has it, this long after it was published.
    pub(crate) fn woke(&self, after: Duration) {
        self.woken.observe(after.as_secs_f64());
    }

    /// The counts of each scope, the busiest first; those of scopes that have no room of their own come last.
    pub fn scopes(&self) -> Vec<(Named, ScopeCounts)> {
        lock(&self.scopes).list()
    }

    /// The builds that were begun and not ended; a lease that ran out may still be among them.
    pub fn builds(&self) -> Vec<Building> {
        lock(&self.builds).running()
    }

    /// The builds that ended last, the last one first.
    pub fn finished(&self) -> Vec<Finished> {
        lock(&self.builds).finished()
    }

    /// The lease of a build ran out.
    pub(crate) fn lost(&self, building: &Building) {
        self.ended(&(building.scope.clone(), building.claim), building.fence, Ended::Lost);
    }

    /// The last results that differed, the last one first.
    pub fn divergences(&self) -> Vec<Divergence> {
        lock(&self.divergences).iter().cloned().collect()
    }

    /// The modules that were missed most and those that took longest, of the scopes that may be seen.
    pub fn modules(&self, at_most: usize, sees: impl Fn(&Scope) -> bool) -> (Vec<Missed>, Vec<Slow>) {
        let modules = lock(&self.modules);
        (modules.most_missed(at_most, &sees), modules.slowest(at_most, &sees))
    }

    /// What is known of modules, to be kept over a restart, or put back after one.
    pub(crate) fn with_modules<T>(&self, act: impl FnOnce(&mut Modules) -> T) -> T {
        act(&mut lock(&self.modules))
    }
}
