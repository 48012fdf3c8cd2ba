//! Random moments that can be had again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Numbers that follow from a seed (splitmix64): `PCMCACHE_TEST_SEED`, else one of this moment, which is printed.
#[derive(Debug)]
pub struct Chance {
    state: u64,
}

impl Chance {
    /// A seed, printed so that a failure can be replayed.
    pub fn new(test: &str) -> Self {
        let named = std::env::var("PCMCACHE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |past| past.as_nanos() as u64);
        let state = named.unwrap_or_else(now);
        println!("{test}: PCMCACHE_TEST_SEED={state}");
        Self { state }
    }

    /// Of this seed.
    pub const fn seeded(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }

    /// A time below `end`.
    pub fn moment(&mut self, end: Duration) -> Duration {
        Duration::from_micros(self.below(end.as_micros() as u64))
    }
}
