//! What runs beside the requests, a little at a time: the sweep, eviction ahead of need, aging, use times.
//!
//! Nothing waits for it: a store whose upkeep hangs takes in what there is room for, and refuses the rest.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use crate::cache::{Cache, CacheError, Wanted, age, make_room, sweep_shard};
use crate::space::Bound;

/// How long it rests between two shards; a round of all 256 takes about a quarter of an hour.
const REST: Duration = Duration::from_secs(4);
/// How often use times are written.
const FLUSH_EVERY: Duration = Duration::from_secs(60);

/// What the upkeep is told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plan {
    /// Results that were not used for so long go.
    pub max_age: Option<Duration>,
    /// So many bytes a second are read again to see whether the disk still has them.
    pub scrub_rate: Option<u64>,
}

/// Keeps the store for ever: run it as a task beside the server, abort it at the end.
pub async fn run(cache: Arc<Cache>, plan: Plan) {
    let clock = Arc::clone(&cache.rooms.clock);
    let mut flushed = clock.now();
    loop {
        for shard in 0..=u8::MAX {
            clock.sleep(REST).await;
            match sweep_shard(&cache, shard).await {
                Ok(0) => {}
                Ok(swept) => tracing::info!(shard, swept, "removed blobs that no result needs"),
                Err(error) => warn("the sweep", &error),
            }
            if let Err(error) = make_room_ahead(&cache).await {
                warn("eviction", &error);
            }
            if cache.uses.are_many() || clock.now().since(flushed) >= FLUSH_EVERY {
                flushed = clock.now();
                if let Err(error) = cache.flush_uses().await {
                    warn("writing use times", &error);
                }
            }
        }
        if let Err(error) = cache.rooms.leases.forget_expired().await {
            warn("removing expired leases", &error);
        }
        if let Err(error) = cache.rooms.results.tidy().await {
            warn("tidying up", &error);
        }
        if let Some(max_age) = plan.max_age {
            match age(&cache, max_age).await {
                Ok(0) => {}
                Ok(aged) => tracing::info!(aged, "removed results that nobody used"),
                Err(error) => warn("aging", &error),
            }
        }
    }
}

fn warn(what: &str, error: &impl Display) {
    tracing::warn!(%error, "{what} failed; the upkeep will come back to it");
}

/// Evicts once a bound is nearly reached, so that uploads seldom have to wait for it.
async fn make_room_ahead(cache: &Arc<Cache>) -> Result<(), CacheError> {
    let usage = cache.usage();
    if !usage.counted {
        return Ok(());
    }
    let quotas = usage.scopes.iter().filter_map(|(scope, of)| Some((Bound::Quota(scope.clone()), of.quota?)));
    let bounds = usage.max_size.map(|size| (Bound::Size, size)).into_iter().chain(quotas);
    // At 95 % down to 90 %.
    let mut wanted: Vec<_> = bounds.map(|(bound, size)| (bound, size / 20, size / 10)).collect();
    wanted.push((Bound::Disk, 1, usage.keep_free / 8));
    for (bound, least, bytes) in wanted {
        if usage.room(&bound) < least {
            let before = cache.counters().evicted_bytes;
            let made = make_room(cache, Wanted { bound: bound.clone(), bytes }).await?;
            let evicted = cache.counters().evicted_bytes.saturating_sub(before);
            if evicted > 0 {
                tracing::info!(%bound, evicted, enough = made, "evicted what was used least recently");
            }
        }
    }
    Ok(())
}
