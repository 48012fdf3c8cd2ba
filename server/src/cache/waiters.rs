//! Who waits for a claim.
//!
//! Invariant: no wake-up is lost. A waiter arms itself before it looks, and one that leaves without the lease wakes
//! the next, since it may have been the only one that was woken. A wake-up too many costs a look.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pcmcache_shared::{Claim, Scope};
use tokio::sync::Notify;

use crate::clock::Moment;

/// The claim of a scope.
pub(crate) type ScopedClaim = (Scope, Claim);

#[derive(Debug)]
pub(crate) struct Waiters {
    queues: Mutex<Queues>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Queues {
    by_claim: HashMap<ScopedClaim, Queue>,
    waiting: usize,
    last_place: u64,
}

#[derive(Debug, Default)]
struct Queue {
    bell: Arc<Notify>,
    /// Who waits, by the number of its place.
    waiting: BTreeMap<u64, String>,
    /// When it was last rung for all.
    rung: Option<Moment>,
}

/// A place in the queue of a claim; dropped, it is left.
#[derive(Debug)]
pub(crate) struct Waiter {
    waiters: Arc<Waiters>,
    at: ScopedClaim,
    since: Moment,
    place: u64,
    bell: Arc<Notify>,
    has_lease: bool,
}

impl Waiters {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { queues: Mutex::default(), limit })
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place in the queue, or `None` if too many wait. The name is for people.
    pub(crate) fn enter(self: &Arc<Self>, at: &ScopedClaim, name: &str, now: Moment) -> Option<Waiter> {
        let mut queues = self.queues();
        if queues.waiting >= self.limit {
            return None;
        }
        queues.waiting += 1;
        queues.last_place += 1;
        let place = queues.last_place;
        let queue = queues.by_claim.entry(at.clone()).or_default();
        queue.waiting.insert(place, name.to_owned());
        let bell = Arc::clone(&queue.bell);
        Some(Waiter { waiters: Arc::clone(self), at: at.clone(), since: now, place, bell, has_lease: false })
    }

    /// One of those who wait looks again.
    pub(crate) fn wake_one(&self, at: &ScopedClaim) {
        if let Some(queue) = self.queues().by_claim.get(at) {
            queue.bell.notify_one();
        }
    }

    /// All who wait look again.
    pub(crate) fn wake_all(&self, at: &ScopedClaim, now: Moment) {
        if let Some(queue) = self.queues().by_claim.get_mut(at) {
            queue.rung = Some(now);
            queue.bell.notify_waiters();
        }
    }

    /// Who waits here, the first that came first.
    pub(crate) fn at(&self, at: &ScopedClaim) -> Vec<String> {
        let queues = self.queues();
        queues.by_claim.get(at).map(|queue| queue.waiting.values().cloned().collect()).unwrap_or_default()
    }

    /// How many wait now.
    pub(crate) fn waiting(&self) -> usize {
        self.queues().waiting
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
        queues.waiting -= 1;
        if let Some(queue) = queues.by_claim.get_mut(&self.at) {
            queue.waiting.remove(&self.place);
            if queue.waiting.is_empty() {
                queues.by_claim.remove(&self.at);
            } else if !self.has_lease {
                queue.bell.notify_one();
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

    #[tokio::test]
    async fn one_or_all_are_woken() {
        let waiters = Waiters::new(10);
        let (a, b) = (
            waiters.enter(&claim(), "a", Moment::default()).unwrap(),
            waiters.enter(&claim(), "a", Moment::default()).unwrap(),
        );
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
            let (a, b) = (
                waiters.enter(&claim(), "a", Moment::default()).unwrap(),
                waiters.enter(&claim(), "a", Moment::default()).unwrap(),
            );
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
    async fn the_crowd_is_bounded_and_an_empty_queue_is_forgotten() {
        let waiters = Waiters::new(1);
        let first = waiters.enter(&claim(), "a", Moment::default()).unwrap();
        assert!(waiters.enter(&claim(), "b", Moment::default()).is_none());
        assert_eq!(waiters.at(&claim()), ["a"]);
        drop(first);
        assert_eq!(waiters.waiting(), 0);
        assert!(waiters.queues().by_claim.is_empty());
        assert!(waiters.enter(&claim(), "a", Moment::default()).is_some());
    }
}
