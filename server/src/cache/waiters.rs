//! Who waits for a claim.
//!
//! Invariant: no wake-up is lost. A waiter arms itself before it looks, and one that leaves without the lease wakes
//! the next, since it may have been the only one that was woken. A wake-up too many costs a look.
//!
//! Who waits for a claim without ever taking its lease, a watcher or a job of another scope, is a guest: a lease that is
//! free is offered to all others first, one look each, however many guests there are. A guest of another scope would take
//! what is published in its own as well, so it hears of both.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pcmcache_shared::{Claim, Scope, mutant};
use tokio::sync::Notify;

use crate::clock::Moment;
use crate::share::Shares;

/// The claim of a scope.
pub(crate) type ScopedClaim = (Scope, Claim);

#[derive(Debug)]
pub(crate) struct Waiters {
    queues: Mutex<Queues>,
}

#[derive(Debug)]
struct Queues {
    by_claim: HashMap<ScopedClaim, Queue>,
    /// Where those who would take a result of this claim wait, beside its own queue; and how many of them.
    abroad: HashMap<ScopedClaim, BTreeMap<ScopedClaim, usize>>,
    places: Shares,
    last_place: u64,
}

#[derive(Debug, Default)]
struct Queue {
    bell: Arc<Notify>,
    /// Who waits, by the number of its place.
    waiting: BTreeMap<u64, String>,
    /// How many of them would take the lease.
    takers: usize,
    guests_bell: Arc<Notify>,
    /// When it was last rung for all.
    rung: Option<Moment>,
}

impl Queues {
    fn leave_abroad(&mut self, from: &Scope, at: &ScopedClaim) {
        let home = (from.clone(), at.1);
        let Some(abroad) = self.abroad.get_mut(&home) else { return };
        if let Some(count) = abroad.get_mut(at) {
            *count -= 1;
            if *count == 0 {
                abroad.remove(at);
            }
        }
        if abroad.is_empty() {
            self.abroad.remove(&home);
        }
    }
}

impl Queue {
    /// One that would take the lease looks again; where there is none, all guests do.
    fn wake_one(&self) {
        match self.takers {
            0 => self.guests_bell.notify_waiters(),
            _ => self.bell.notify_one(),
        }
    }
}

/// Whether who waits would take the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    /// It would.
    Taker,
    /// It only waits for what comes of it.
    Guest,
}

/// A place in the queue of a claim; dropped, it is left.
#[derive(Debug)]
pub(crate) struct Waiter {
    waiters: Arc<Waiters>,
    at: ScopedClaim,
    from: Scope,
    waits_as: As,
    since: Moment,
    place: u64,
    bell: Arc<Notify>,
    has_lease: bool,
}

impl Waiters {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        let (by_claim, abroad) = (HashMap::new(), HashMap::new());
        let queues = Queues { by_claim, abroad, places: Shares::new(limit), last_place: 0 };
        Arc::new(Self { queues: Mutex::new(queues) })
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place in the queue for one who asks from this scope, or `None` if too many wait. The name is for people.
    pub(crate) fn enter(
        self: &Arc<Self>,
        at: &ScopedClaim,
        from: &Scope,
        waits_as: As,
        name: &str,
        now: Moment,
    ) -> Option<Waiter> {
        let mut queues = self.queues();
        if !queues.places.take(from) {
            return None;
        }
        queues.last_place += 1;
        let place = queues.last_place;
        if at.0 != *from {
            *queues.abroad.entry((from.clone(), at.1)).or_default().entry(at.clone()).or_default() += 1;
        }
        let queue = queues.by_claim.entry(at.clone()).or_default();
        queue.waiting.insert(place, name.to_owned());
        let bell = match waits_as {
            As::Taker => {
                queue.takers += 1;
                Arc::clone(&queue.bell)
            }
            As::Guest => Arc::clone(&queue.guests_bell),
        };
        let (waiters, at, from) = (Arc::clone(self), at.clone(), from.clone());
        Some(Waiter { waiters, at, from, waits_as, since: now, place, bell, has_lease: false })
    }

    /// One of those who would take the lease looks again.
    pub(crate) fn wake_one(&self, at: &ScopedClaim) {
        if let Some(queue) = self.queues().by_claim.get(at) {
            queue.wake_one();
        }
    }

    /// All who wait look again.
    pub(crate) fn wake_all(&self, at: &ScopedClaim, now: Moment) {
        if mutant!("waiters-not-woken") {
            return;
        }
        let Queues { by_claim, abroad, .. } = &mut *self.queues();
        if let Some(queue) = by_claim.get_mut(at) {
            queue.rung = Some(now);
            queue.bell.notify_waiters();
            queue.guests_bell.notify_waiters();
        }
        for elsewhere in
            abroad.get(at).filter(|_| !mutant!("guests-unheard")).into_iter().flat_map(BTreeMap::keys)
        {
            if let Some(queue) = by_claim.get_mut(elsewhere) {
                queue.rung = Some(now);
                queue.guests_bell.notify_waiters();
            }
        }
    }

    /// Who waits here, the first that came first.
    pub(crate) fn at(&self, at: &ScopedClaim) -> Vec<String> {
        let queues = self.queues();
        queues.by_claim.get(at).map(|queue| queue.waiting.values().cloned().collect()).unwrap_or_default()
    }

    /// How many wait now.
    pub(crate) fn waiting(&self) -> usize {
        self.queues().places.taken()
    }
}

impl Waiter {
    /// What rings when it is time to look again. Enable it before looking.
    pub(crate) fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.bell)
    }

    pub(crate) fn is_at(&self, at: &ScopedClaim) -> bool {
        self.at == *at
    }

    /// Since when it waits.
    pub(crate) fn since(&self) -> Moment {
        self.since
    }

    /// When all who wait here were last told to look again.
    pub(crate) fn rung(&self) -> Option<Moment> {
        self.waiters.queues().by_claim.get(&self.at)?.rung
    }

    /// Leaves with the lease: the others go on waiting.
    pub(crate) fn leave_with_lease(mut self) {
        self.has_lease = true;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut queues = self.waiters.queues();
        queues.places.give_back(&self.from);
        queues.leave_abroad(&self.from, &self.at);
        if let Some(queue) = queues.by_claim.get_mut(&self.at) {
            queue.waiting.remove(&self.place);
            if self.waits_as == As::Taker {
                queue.takers -= 1;
            }
            if queue.waiting.is_empty() {
                queues.by_claim.remove(&self.at);
            } else if self.waits_as == As::Taker && !self.has_lease {
                queue.wake_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt;

    use super::*;

    fn claim() -> ScopedClaim {
        (Scope::default(), Claim::of("claim"))
    }

    fn enter(waiters: &Arc<Waiters>) -> Option<Waiter> {
        waiters.enter(&claim(), &claim().0, As::Taker, "a", Moment::default())
    }

    #[tokio::test]
    async fn one_or_all_are_woken() {
        let waiters = Waiters::new(10);
        let (a, b) = (enter(&waiters).unwrap(), enter(&waiters).unwrap());
        let (a, b) = (a.bell(), b.bell());
        let (mut a, mut b) = (pin!(a.notified()), pin!(b.notified()));
        a.as_mut().enable();
        b.as_mut().enable();
        waiters.wake_one(&claim());
        assert_eq!((a.as_mut().now_or_never(), b.as_mut().now_or_never()), (Some(()), None));
        waiters.wake_all(&claim(), Moment::default());
        assert_eq!(b.as_mut().now_or_never(), Some(()));
    }

    #[tokio::test]
    async fn who_leaves_empty_handed_wakes_the_next() {
        for (with_lease, woken) in [(false, Some(())), (true, None)] {
            let waiters = Waiters::new(10);
            let (a, b) = (enter(&waiters).unwrap(), enter(&waiters).unwrap());
            let b = b.bell();
            let mut b = pin!(b.notified());
            b.as_mut().enable();
            if with_lease {
                a.leave_with_lease()
            } else {
                drop(a)
            }
            assert_eq!(b.as_mut().now_or_never(), woken);
        }
    }

    #[tokio::test]
    async fn guests_take_no_turn_from_those_who_would_build() {
        let waiters = Waiters::new(10);
        let guest = waiters.enter(&claim(), &claim().0, As::Guest, "g", Moment::default()).unwrap();
        let taker = enter(&waiters).unwrap();
        let (guest_bell, taker_bell) = (guest.bell(), taker.bell());
        let (mut guest, mut woken) = (pin!(guest_bell.notified()), pin!(taker_bell.notified()));
        guest.as_mut().enable();
        woken.as_mut().enable();
        waiters.wake_one(&claim());
        assert_eq!((guest.as_mut().now_or_never(), woken.as_mut().now_or_never()), (None, Some(())));
        // It leaves empty-handed, and nobody is left who would build.
        drop(taker);
        assert_eq!(guest.as_mut().now_or_never(), Some(()));
    }

    #[tokio::test]
    async fn a_guest_of_another_scope_hears_of_its_own_too() {
        let (waiters, at) = (Waiters::new(10), claim());
        let [home, stranger] = ["pr-17", "pr-18"].map(|scope| (scope.parse::<Scope>().unwrap(), at.1));
        let guests =
            [(); 2].map(|()| waiters.enter(&at, &home.0, As::Guest, "g", Moment::default()).unwrap());
        let bell = guests[0].bell();
        let woken = |of: &ScopedClaim| {
            let mut rung = pin!(bell.notified());
            rung.as_mut().enable();
            waiters.wake_all(of, Moment::default());
            rung.as_mut().now_or_never().is_some()
        };
        assert!(woken(&at) && woken(&home) && !woken(&stranger));
        let [first, last] = guests;
        drop(first);
        assert!(woken(&home), "another of them still waits");
        drop(last);
        assert!(waiters.queues().abroad.is_empty() && waiters.queues().by_claim.is_empty());
    }

    #[tokio::test]
    async fn the_crowd_is_bounded_and_an_empty_queue_is_forgotten() {
        let waiters = Waiters::new(1);
        let first = enter(&waiters).unwrap();
        assert!(enter(&waiters).is_none());
        assert_eq!(waiters.at(&claim()), ["a"]);
        drop(first);
        assert_eq!(waiters.waiting(), 0);
        assert!(waiters.queues().by_claim.is_empty());
        assert!(enter(&waiters).is_some());
    }
}
