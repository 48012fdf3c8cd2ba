//! Bounded waiting.

use std::time::{Duration, Instant};

/// Looks until there is something to see, or panics with `what` once `limit` has passed.
pub fn within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// [`within`] a time that only a hang exceeds.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    within(Duration::from_secs(60), what, || condition().then_some(()));
}
