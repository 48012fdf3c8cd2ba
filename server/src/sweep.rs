//! The sweep: what nobody needs any more is removed, a little at a time.
//!
//! Invariant: a blob is removed only if no result references it and nobody has pinned it, and the pins stand still while
//! it is. A publish pins its blobs before it looks for them and references them within the pin, so a blob is at every
//! moment pinned, referenced, or free to go. Stages are swept by the store, at its start.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::{Cache, CacheError};

/// How long the sweep rests between two shards; a round of all 256 takes about a quarter of an hour.
const REST: Duration = Duration::from_secs(4);
/// How many blobs go at once: nobody can pin meanwhile.
const BATCH: usize = 64;

/// Sweeps for ever: run it as a task beside the server, abort it at the end.
pub async fn run(cache: Arc<Cache>) {
    loop {
        for shard in 0..=u8::MAX {
            cache.rooms.clock.sleep(REST).await;
            match sweep_shard(&cache, shard).await {
                Ok(0) => {}
                Ok(swept) => tracing::info!(shard, swept, "removed blobs that no result needs"),
                Err(error) => tracing::warn!(shard, %error, "the sweep failed; it will come back"),
            }
        }
        match cache.rooms.leases.forget_expired().await {
            Ok(expired) => cache.counters.expired.add(expired as u64),
            Err(error) => {
                tracing::warn!(%error, "expired leases could not be removed; the sweep will come back");
            }
        }
    }
}

/// Removes the blobs of a shard that nobody needs, and says how many.
pub async fn sweep_shard(cache: &Cache, shard: u8) -> Result<usize, CacheError> {
    let rooms = &cache.rooms;
    let stored = rooms.blobs.list(shard).await?;
    let candidates = rooms.results.unreferenced(stored).await?;
    let mut swept = 0;
    for batch in candidates.chunks(BATCH) {
        let unpinned = cache.pins.unpinned(batch.to_vec()).await;
        if !unpinned.digests.is_empty() {
            rooms.blobs.remove(&unpinned.digests).await?;
            swept += unpinned.digests.len();
        }
    }
    cache.counters.swept_blobs.add(swept as u64);
    Ok(swept)
}
