//! Leases in memory: who holds what, until when. The embedded store keeps its live leases here too, and adds a row
//! for each grant.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pcmcache_shared::{Claim, Fence, Scope, mutant};

use crate::clock::{Clock, Moment};
use crate::fault::Fault;
use crate::leases::{Ask, Grant, Lease, Leases, MAX_LEASES, RESTART_GRACE};
use crate::share::Shares;
use crate::trust::WriterSet;

/// How often room is made by looking for leases that ran out.
const SEARCH_EVERY: Duration = Duration::from_secs(1);

/// Leases in memory.
#[derive(Debug)]
pub struct MemoryLeases {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    leases: HashMap<(Scope, Claim), Held>,
    places: Shares,
    last_fence: u64,
    next_search: Moment,
}

impl State {
    fn new() -> Self {
        Self {
            leases: HashMap::new(),
            places: Shares::new(MAX_LEASES),
            last_fence: 0,
            next_search: Moment::default(),
        }
    }

    fn insert(&mut self, key: (Scope, Claim), held: Held) {
        let scope = key.0.clone();
        if self.leases.insert(key, held).is_none() {
            self.places.force(&scope);
        }
    }

    fn remove(&mut self, key: &(Scope, Claim)) {
        if self.leases.remove(key).is_some() {
            self.places.give_back(&key.0);
        }
    }

    fn expired(&self, now: Moment) -> Vec<(Scope, Claim, Fence)> {
        let expired = self.leases.iter().filter(|(_, held)| held.deadline <= now);
        expired.map(|((scope, claim), held)| (scope.clone(), *claim, held.fence)).collect()
    }

    fn forget(&mut self, expired: &[(Scope, Claim, Fence)]) {
        expired.iter().for_each(|(scope, claim, _)| self.remove(&(scope.clone(), *claim)));
    }

    /// Whether the scope may have one more, once those that ran out are forgotten.
    fn has_room(&mut self, scope: &Scope, now: Moment) -> bool {
        if !self.places.take(scope) {
            // Not at every ask: who floods must not have all the others wait for the search.
            if now < self.next_search {
                return false;
            }
            self.next_search = now + SEARCH_EVERY;
            self.forget(&self.expired(now));
            if !self.places.take(scope) {
                return false;
            }
        }
        // The insertion takes it.
        self.places.give_back(scope);
        true
    }
}

#[derive(Debug)]
struct Held {
    fence: Fence,
    ask: Ask,
    /// When it ends without a renewal.
    deadline: Moment,
    /// When it ends however often it is renewed.
    end: Moment,
    /// Whether its grant is as durable as the store makes it. Until then it keeps others out, and nobody holds it.
    is_written: bool,
}

impl Held {
    fn new(fence: Fence, ask: Ask, now: Moment, lives: Duration) -> Self {
        let end = now + ask.at_most;
        Self { fence, ask, deadline: (now + lives).min(end), end, is_written: false }
    }

    /// What others may see of it, if it lives.
    fn lease(&self, now: Moment) -> Option<Lease> {
        let expires_in = Some(self.deadline.since(now)).filter(|left| !left.is_zero())?;
        Some(Lease {
            fence: self.fence,
            secret: self.ask.secret.clone(),
            request_id: self.ask.request_id.clone(),
            holder: self.ask.holder.clone(),
            expected: self.ask.expected,
            expires_in,
        })
    }
}

impl MemoryLeases {
    /// No leases yet; deadlines are of this clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::new(State::new()) }
    }

    fn now(&self) -> Moment {
        if mutant!("wall-clock-lease") {
            return Moment::default() + Duration::from_secs(self.clock.unix_s());
        }
        self.clock.now()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lease, if it is this grant and lives.
    fn living<T>(&self, at: (&Scope, Claim, Fence), act: impl FnOnce(&mut Held, Moment) -> T) -> Option<T> {
        let (scope, claim, fence) = at;
        let now = self.now();
        let mut state = self.state();
        let held = state.leases.get_mut(&(scope.clone(), claim))?;
        if held.fence != fence {
            return None;
        }
        held.lease(now)?;
        Some(act(held, now))
    }

    /// Takes in a lease that an earlier process granted: it lives for [`RESTART_GRACE`].
    pub fn restore(&self, scope: Scope, claim: Claim, fence: Fence, ask: Ask) {
        let held = Held::new(fence, ask, self.now(), RESTART_GRACE);
        self.state().insert((scope, claim), Held { is_written: true, ..held });
    }

    /// The next fence is above this one.
    pub fn fence_at_least(&self, fence: Fence) {
        let mut state = self.state();
        state.last_fence = state.last_fence.max(fence.0);
    }

    /// [`Leases::grant`], but for what makes it durable: until [`MemoryLeases::written_now`] nobody holds it.
    pub fn grant_now(&self, scope: &Scope, claim: Claim, ask: Ask) -> Grant {
        let now = self.now();
        let mut state = self.state();
        let key = (scope.clone(), claim);
        let before = state.leases.get(&key);
        if let Some(lease) = before.and_then(|held| held.lease(now)) {
            return Grant::Held(lease);
        }
        let took_over = before.is_some();
        if !took_over && !state.has_room(scope, now) {
            return Grant::Crowded;
        }
        state.last_fence += 1;
        let ttl = ask.ttl;
        let held = Held::new(Fence(state.last_fence), ask, now, ttl);
        let lease = held.lease(now);
        state.insert(key, held);
        match lease {
            Some(lease) => Grant::New { lease, took_over },
            None => Grant::Crowded,
        }
    }

    pub(crate) fn current_now(&self, scope: &Scope, claim: Claim) -> Option<Lease> {
        let now = self.now();
        self.state().leases.get(&(scope.clone(), claim))?.lease(now)
    }

    pub(crate) fn extend_now(
        &self,
        scope: &Scope,
        claim: Claim,
        fence: Fence,
        ttl: Duration,
    ) -> Option<Duration> {
        let extend = |held: &mut Held, now: Moment| {
            (held.is_written || mutant!("unwritten-grant-resumed")).then(|| {
                held.deadline = (now + ttl).min(held.end);
                held.deadline.since(now)
            })
        };
        self.living((scope, claim, fence), extend).flatten()
    }

    /// The grant is durable. It counts from now, however long that took.
    pub fn written_now(&self, scope: &Scope, claim: Claim, fence: Fence, ttl: Duration) -> Option<Duration> {
        self.living((scope, claim, fence), |held, _| held.is_written = true)?;
        self.extend_now(scope, claim, fence, ttl)
    }

    pub(crate) fn shrink_now(&self, scope: &Scope, claim: Claim, fence: Fence, to: Duration) {
        self.living((scope, claim, fence), |held, now| held.deadline = held.deadline.min(now + to));
    }

    pub(crate) fn end_now(&self, scope: &Scope, claim: Claim, fence: Fence) -> bool {
        let lived = self.living((scope, claim, fence), |_, _| ()).is_some();
        let mut state = self.state();
        let key = (scope.clone(), claim);
        if state.leases.get(&key).is_some_and(|held| held.fence == fence) {
            state.remove(&key);
        }
        lived
    }

    pub(crate) fn held_by_now(&self, revoked: &WriterSet) -> Vec<(Scope, Claim, Fence)> {
        let state = self.state();
        let held = state.leases.iter().filter(|(_, held)| revoked.has_any(&held.ask.writers));
        held.map(|((scope, claim), held)| (scope.clone(), *claim, held.fence)).collect()
    }

    pub(crate) fn forget_expired_now(&self) -> Vec<(Scope, Claim, Fence)> {
        let now = self.now();
        let mut state = self.state();
        let expired = state.expired(now);
        state.forget(&expired);
        expired
    }
}

#[async_trait]
impl Leases for MemoryLeases {
    async fn grant(&self, scope: &Scope, claim: Claim, ask: Ask) -> Result<Grant, Fault> {
        let ttl = ask.ttl;
        let grant = self.grant_now(scope, claim, ask);
        if let Grant::New { lease, .. } = &grant {
            self.written_now(scope, claim, lease.fence, ttl);
        }
        Ok(grant)
    }

    async fn current(&self, scope: &Scope, claim: Claim) -> Result<Option<Lease>, Fault> {
        Ok(self.current_now(scope, claim))
    }

    async fn extend(
        &self,
        scope: &Scope,
        claim: Claim,
        fence: Fence,
        ttl: Duration,
    ) -> Result<Option<Duration>, Fault> {
        Ok(self.extend_now(scope, claim, fence, ttl))
    }

    async fn shrink(&self, scope: &Scope, claim: Claim, fence: Fence, to: Duration) -> Result<(), Fault> {
        self.shrink_now(scope, claim, fence, to);
        Ok(())
    }

    async fn end(&self, scope: &Scope, claim: Claim, fence: Fence) -> Result<bool, Fault> {
        Ok(self.end_now(scope, claim, fence))
    }

    async fn held_by(&self, revoked: &WriterSet) -> Result<Vec<(Scope, Claim, Fence)>, Fault> {
        Ok(self.held_by_now(revoked))
    }

    async fn forget_expired(&self) -> Result<usize, Fault> {
        Ok(self.forget_expired_now().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn ask(ttl: Duration) -> Ask {
        Ask {
            request_id: "once".to_owned(),
            holder: String::new(),
            writers: Vec::new(),
            secret: pcmcache_shared::Secret::from_random([7; 16]),
            expected: None,
            ttl,
            at_most: ttl * 2,
        }
    }

    /// A clock whose calendar somebody sets.
    #[derive(Debug, Default)]
    struct Jumping {
        clock: ManualClock,
        calendar_s: std::sync::atomic::AtomicU64,
    }

    #[async_trait]
    impl Clock for Jumping {
        fn now(&self) -> Moment {
            self.clock.now()
        }

        fn unix_s(&self) -> u64 {
            self.calendar_s.load(std::sync::atomic::Ordering::Relaxed)
        }

        async fn sleep_until(&self, moment: Moment) {
            self.clock.sleep_until(moment).await;
        }
    }

    #[tokio::test]
    async fn no_jump_of_the_calendar_ends_a_lease_or_keeps_it() {
        let clock = Arc::new(Jumping::default());
        let leases = MemoryLeases::new(Arc::clone(&clock) as _);
        let (scope, claim, ttl) = (Scope::default(), Claim::of("c"), Duration::from_secs(15));
        for jump in [0, 4_000_000_000, 1, 2_000_000_000] {
            leases.grant(&scope, claim, ask(ttl)).await.unwrap();
            clock.calendar_s.store(jump, std::sync::atomic::Ordering::Relaxed);
            clock.clock.advance(ttl - Duration::from_millis(1));
            assert!(leases.current_now(&scope, claim).is_some(), "{jump}");
            clock.clock.advance(Duration::from_millis(1));
            assert!(leases.current_now(&scope, claim).is_none(), "{jump}");
        }
    }

    #[test]
    fn a_grant_that_is_not_written_keeps_others_out_and_is_not_resumed() {
        let leases = MemoryLeases::new(Arc::new(ManualClock::default()));
        let (scope, claim, ttl) = (Scope::default(), Claim::of("c"), Duration::from_secs(15));
        let Grant::New { lease, .. } = leases.grant_now(&scope, claim, ask(ttl)) else { panic!("no grant") };
        assert!(matches!(leases.grant_now(&scope, claim, ask(ttl)), Grant::Held(_)));
        assert_eq!(leases.extend_now(&scope, claim, lease.fence, ttl), None);
        assert_eq!(leases.written_now(&scope, claim, lease.fence, ttl), Some(ttl));
        assert_eq!(leases.extend_now(&scope, claim, lease.fence, ttl), Some(ttl));
    }
}
