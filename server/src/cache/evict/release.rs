//! The one room from which blobs are removed: those that nobody names and nobody has pinned.
//!
//! Invariant: a blob leaves a scope only if no result there names it and nobody has pinned it, and the pins stand still while
//! it does. A publish pins its blobs before it looks for them and names them within the pin, so a blob is at every
//! moment pinned, named, or free to go. It is removed when it has left every scope. Stages are swept by the store, at its start.

use pcmcache_shared::{Digest, mutant};

use crate::blobs::Freed;
use crate::cache::{Cache, CacheError};

/// How many blobs go at once: nobody can pin meanwhile.
const BATCH: usize = 64;

/// Removes the blobs of a shard that nobody needs, and says how many.
pub(super) async fn sweep(cache: &Cache, shard: u8) -> Result<u64, CacheError> {
    let stored = cache.rooms.blobs.list(shard).await?;
    let freed = release(cache, stored).await?;
    cache.counters.swept_blobs.add(freed.files);
    Ok(freed.files)
}

/// Takes each of these out of the scopes that do not need it, and removes those that none does.
pub(super) async fn release(cache: &Cache, digests: Vec<Digest>) -> Result<Freed, CacheError> {
    let mut freed = Freed::default();
    for batch in digests.chunks(BATCH) {
        let mut needed = cache.rooms.results.named_in(batch.to_vec()).await?;
        let unpinned = cache.pins.unpinned(batch.to_vec()).await;
        needed.retain(|(digest, _)| unpinned.digests.contains(digest) || mutant!("sweep-races-publish"));
        if !needed.is_empty() {
            let retained = cache.rooms.blobs.retain(needed).await;
            // Also after an error: some may have gone.
            cache.near.forget(batch.iter().copied());
            freed += retained?;
        }
    }
    Ok(freed)
}
