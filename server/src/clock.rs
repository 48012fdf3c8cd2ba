//! Time and randomness, handed in: a test holds the clock still and knows what the dice will say.
//!
//! Everything here goes by a monotonic clock: a wall clock jumps, and a lease that a jump ends is a module that is compiled
//! twice; so durations travel between programs. The calendar is asked only for what outlives this process or was written
//! by another one: when a token ends, when a result was published.

use std::fmt;
use std::io;
use std::ops::Add;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use pcmcache_shared::Digest;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// A moment of a [`Clock`]: the time since that clock was made. Moments of two clocks have nothing in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(Duration);

impl Moment {
    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, after: Duration) -> Self {
        Self(self.0.saturating_add(after))
    }
}

/// A clock that never goes back.
#[async_trait]
pub trait Clock: Send + Sync + fmt::Debug {
    /// Now.
    fn now(&self) -> Moment;

    /// The calendar's time, in seconds since 1970. It may jump.
    fn unix_s(&self) -> u64;

    /// Returns once it is `moment` or later.
    async fn sleep_until(&self, moment: Moment);

    /// Returns after `duration`.
    async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.now() + duration).await;
    }
}

/// The system's monotonic clock.
#[derive(Debug)]
pub struct SystemClock {
    start: tokio::time::Instant,
}

impl SystemClock {
    /// A clock that starts now.
    #[expect(clippy::new_without_default, reason = "starting a clock is an act, not a default")]
    pub fn new() -> Self {
        Self { start: tokio::time::Instant::now() }
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Moment {
        Moment(self.start.elapsed())
    }

    #[expect(clippy::disallowed_methods, reason = "the one place where the calendar enters the server")]
    fn unix_s(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        #[cfg(feature = "failpoints")]
        let now = now.saturating_add_signed(pcmcache_shared::wall::shift_s());
        now
    }

    async fn sleep_until(&self, moment: Moment) {
        tokio::time::sleep_until(self.start + moment.0).await;
    }
}

/// Where the calendar of a [`ManualClock`] starts: in 2033.
pub const MANUAL_START_S: u64 = 2_000_000_000;

/// A clock that stands still until a test moves it.
#[derive(Debug, Default)]
pub struct ManualClock {
    now: watch::Sender<Moment>,
}

impl ManualClock {
    /// Moves the clock; who sleeps until then wakes.
    pub fn advance(&self, by: Duration) {
        self.now.send_modify(|now| *now = *now + by);
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Moment {
        *self.now.borrow()
    }

    fn unix_s(&self) -> u64 {
        MANUAL_START_S + self.now().0.as_secs()
    }

    async fn sleep_until(&self, moment: Moment) {
        let mut now = self.now.subscribe();
        // The sender lives as long as `self`, so this ends by reaching the moment only.
        let _ = now.wait_for(|now| *now >= moment).await;
    }
}

/// Where random bytes come from.
pub trait Entropy: Send + Sync + fmt::Debug {
    /// Sixteen bytes that nobody can guess.
    fn bytes(&self) -> io::Result<[u8; 16]>;
}

/// The system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    #[expect(clippy::disallowed_methods, reason = "the one place where entropy enters the server")]
    fn bytes(&self) -> io::Result<[u8; 16]> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(bytes)
    }
}

/// Bytes that repeat with each run: for tests.
#[derive(Debug, Default)]
pub struct CountedEntropy {
    count: AtomicU64,
}

impl Entropy for CountedEntropy {
    fn bytes(&self) -> io::Result<[u8; 16]> {
        let name = Digest::of(self.count.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        Ok(name.as_bytes().first_chunk().copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_sleeper_wakes_when_the_clock_is_moved_there_and_not_before() {
        let clock = Arc::new(ManualClock::default());
        let sleeper = tokio::spawn({
            let clock = Arc::clone(&clock);
            async move { clock.sleep(Duration::from_secs(10)).await }
        });
        tokio::task::yield_now().await;
        clock.advance(Duration::from_secs(9));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_secs(1));
        sleeper.await.unwrap();
        assert_eq!(clock.now().since(Moment::default()), Duration::from_secs(10));
    }

    #[test]
    fn counted_entropy_never_says_the_same_twice() {
        let entropy = CountedEntropy::default();
        assert_ne!(entropy.bytes().unwrap(), entropy.bytes().unwrap());
    }
}
