//! The clocks of one host: a monotonic one that is a little fast or slow, and a calendar that may jump.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use pcmcache_server::clock::{Clock, Moment};
use tokio::time::Instant;

/// Where all calendars start: in 2033.
const START_S: u64 = 2_000_000_000;
/// Nobody sleeps for longer than that, whatever they say: a world is over by then.
const LONGEST_SLEEP: Duration = Duration::from_secs(100_000);

/// What time a host takes it to be.
pub(crate) struct HostClock {
    start: Instant,
    /// How many millionths faster than the world's its monotonic clock runs.
    fast_ppm: i64,
    /// By how much its calendar is off, in milliseconds.
    off_ms: AtomicI64,
}

impl HostClock {
    /// One that starts now.
    pub(crate) fn new(fast_ppm: i64) -> Self {
        Self { start: Instant::now(), fast_ppm, off_ms: AtomicI64::new(0) }
    }

    /// How many of the world's seconds one of this host's takes.
    pub(crate) fn pace(&self) -> f64 {
        1e6 / (1_000_000 + self.fast_ppm) as f64
    }

    /// Sets the calendar forward, or back.
    pub(crate) fn jump(&self, by_ms: i64) {
        self.off_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// What the calendar shows.
    pub(crate) fn calendar(&self) -> SystemTime {
        let ms = START_S as i64 * 1000 + self.off_ms.load(Ordering::Relaxed) + self.ran().as_millis() as i64;
        UNIX_EPOCH + Duration::from_millis(ms.max(0) as u64)
    }

    fn ran(&self) -> Duration {
        let nanos = self.start.elapsed().as_nanos() as i128;
        Duration::from_nanos((nanos * i128::from(1_000_000 + self.fast_ppm) / 1_000_000) as u64)
    }
}

impl fmt::Debug for HostClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostClock")
    }
}

#[async_trait]
impl Clock for HostClock {
    fn now(&self) -> Moment {
        Moment::default() + self.ran()
    }

    fn unix_s(&self) -> u64 {
        self.calendar().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    async fn sleep_until(&self, moment: Moment) {
        loop {
            let left = moment.since(self.now());
            if left.is_zero() {
                return;
            }
            // The world's clock goes by the millisecond, and the last one may be too early by this one.
            let left = left.min(LONGEST_SLEEP).mul_f64(self.pace()).max(Duration::from_millis(1));
            tokio::time::sleep(left).await;
        }
    }
}
