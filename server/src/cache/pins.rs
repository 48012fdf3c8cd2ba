//! Pins: what a client was told is there stays there for ten minutes, so that it can act on it.
//!
//! Invariant: between the moment a blob was pinned and the end of the pin, the sweep does not remove it. The sweep
//! holds the lock while it removes, so a pin either comes first, or comes after and then finds the blob gone.
//! Pins are in memory only: after a start, and when there are too many to keep, everything counts as pinned.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pcmcache_shared::Digest;
use tokio::sync::{Mutex, MutexGuard};

use crate::clock::{Clock, Moment};

/// How long a pin holds.
pub(crate) const PIN: Duration = Duration::from_secs(10 * 60);
/// The most pins that are kept one by one.
const MAX_PINS: usize = 200_000;

#[derive(Debug)]
pub(crate) struct Pins {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Until then everything is pinned.
    everything: Moment,
    until: HashMap<Digest, Moment>,
}

/// While it lives nothing can be pinned.
#[derive(Debug)]
pub(crate) struct Unpinned<'a> {
    /// Those that nobody has pinned.
    pub(crate) digests: Vec<Digest>,
    _lock: MutexGuard<'a, State>,
}

impl Pins {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let everything = clock.now() + PIN;
        Self { clock, state: Mutex::new(State { everything, until: HashMap::new() }) }
    }

    /// Pins them, whether or not they are there: one pins first and looks then.
    pub(crate) async fn pin(&self, digests: impl IntoIterator<Item = Digest>) {
        let mut state = self.state.lock().await;
        let until = self.clock.now() + PIN;
        state.until.extend(digests.into_iter().map(|digest| (digest, until)));
        if state.until.len() > MAX_PINS {
            state.everything = until;
            state.until.clear();
        }
    }

    /// Whether just now everything counts as pinned.
    pub(crate) async fn pin_everything(&self) -> bool {
        self.state.lock().await.everything > self.clock.now()
    }

    /// Those of the candidates that may go, as long as the answer is held.
    pub(crate) async fn unpinned(&self, mut candidates: Vec<Digest>) -> Unpinned<'_> {
        let mut state = self.state.lock().await;
        let now = self.clock.now();
        state.until.retain(|_, until| *until > now);
        match state.everything > now {
            true => candidates.clear(),
            false => candidates.retain(|digest| !state.until.contains_key(digest)),
        }
        Unpinned { digests: candidates, _lock: state }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[tokio::test]
    async fn a_pin_holds_for_ten_minutes_and_a_start_pins_everything() {
        let clock = Arc::new(ManualClock::default());
        let pins = Pins::new(Arc::clone(&clock) as Arc<dyn Clock>);
        let (a, b) = (Digest::of("a"), Digest::of("b"));
        assert_eq!(pins.unpinned(vec![a, b]).await.digests, []);
        clock.advance(PIN);
        pins.pin([a]).await;
        assert_eq!(pins.unpinned(vec![a, b]).await.digests, [b]);
        clock.advance(PIN);
        assert_eq!(pins.unpinned(vec![a, b]).await.digests, [a, b]);
    }

    #[tokio::test]
    async fn too_many_pins_pin_everything() {
        let clock = Arc::new(ManualClock::default());
        let pins = Pins::new(Arc::clone(&clock) as Arc<dyn Clock>);
        clock.advance(PIN);
        let flood = (0..=MAX_PINS as u64).map(|n| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_le_bytes());
            Digest::from_bytes(bytes)
        });
        pins.pin(flood).await;
        assert_eq!(pins.unpinned(vec![Digest::of("other")]).await.digests, []);
        assert_eq!(pins.state.lock().await.until.len(), 0);
    }
}
