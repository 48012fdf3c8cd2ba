//! How long an agent lives: what it is busy with, and since when it is not.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How often it looks whether it should end.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What it read at its start (the system's certificates, the way to the server's name) grows old.
const OLD: Duration = Duration::from_secs(3600);

/// One agent's life.
#[derive(Debug)]
pub(super) struct Life {
    began: Instant,
    work: Mutex<Work>,
}

#[derive(Debug)]
struct Work {
    open: usize,
    passed_on: u64,
    /// When something last began or ended.
    last: Instant,
}

/// Something that it is busy with, until it is dropped.
#[derive(Debug)]
pub(super) struct Busy(Arc<Life>);

impl Drop for Busy {
    fn drop(&mut self) {
        let mut work = self.0.work();
        work.open -= 1;
        work.last = Instant::now();
    }
}

impl Life {
    pub(super) fn begin() -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self { began: now, work: Mutex::new(Work { open: 0, passed_on: 0, last: now }) })
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is busy until what this returns is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        let mut work = self.work();
        work.open += 1;
        work.last = Instant::now();
        Busy(Arc::clone(self))
    }

    /// One more request goes on.
    pub(super) fn pass_on(&self) {
        self.work().passed_on += 1;
    }

    /// How many did.
    pub(super) fn passed_on(&self) -> u64 {
        self.work().passed_on
    }

    /// Ends when nobody asked for as long as `idle`, when it is old, or when it is not `in_place` any more.
    pub(super) async fn end(&self, idle: Duration, in_place: impl Fn() -> bool) {
        while !self.is_over(Instant::now(), idle) && in_place() {
            sleep(LOOK_EVERY.min(idle)).await;
        }
    }

    fn is_over(&self, now: Instant, idle: Duration) -> bool {
        let work = self.work();
        let is_idle = work.open == 0 && now.duration_since(work.last) >= idle;
        is_idle || now.duration_since(self.began) >= OLD
    }

    /// Ends when it is busy with nothing any more, or has been for too `long`.
    pub(super) async fn rest(&self, long: Duration) {
        let by = Instant::now() + long;
        while self.work().open > 0 && Instant::now() < by {
            sleep(LOOK_EVERY / 10).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_over_when_nobody_asked_for_a_while_and_not_while_it_is_busy() {
        let life = Life::begin();
        let idle = Duration::from_secs(60);
        let later = |seconds| Instant::now() + Duration::from_secs(seconds);
        assert!(!life.is_over(later(59), idle));
        assert!(life.is_over(later(61), idle));
        let (first, second) = (life.busy(), life.busy());
        drop(first);
        assert!(!life.is_over(later(3000), idle), "it is busy");
        assert!(life.is_over(later(3601), idle), "it is old");
        drop(second);
        assert!(!life.is_over(later(59), idle), "it was busy just now");
        assert!(life.is_over(later(61), idle));
    }
}
