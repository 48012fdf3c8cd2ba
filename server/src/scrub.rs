//! The scrub: all blobs are read again, over and over, at a bounded rate, so that what a disk loses is found while it can
//! still be made again, and not when a build needs it.
//!
//! How far it came is kept, so that a restart goes on there.

use std::sync::Arc;
use std::time::Duration;

use pcmcache_shared::Digest;

use crate::cache::{Cache, CacheError, Pace, Scrubbed};

/// What it rests after a shard, and after one that could not be scrubbed.
const REST: Duration = Duration::from_secs(1);

/// What a scrub found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// How many blobs were read.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that were not what their names say. They were moved aside.
    pub damaged: Vec<Digest>,
}

/// Scrubs for ever, at so many bytes a second: run it as a task beside the server, abort it at the end.
pub async fn run(cache: Arc<Cache>, rate: u64) {
    let mut pace = Pace::new(Arc::clone(&cache.rooms.clock), Some(rate));
    let mut shard = match cache.rooms.blobs.scrub_at().await {
        Ok(shard) => shard,
        Err(error) => {
            tracing::warn!(%error, "how far the scrub came is not known; it begins anew");
            0
        }
    };
    loop {
        let mut findings = Findings::default();
        if let Err(error) = scrub_shard(&cache, shard, &mut pace, &mut findings).await {
            tracing::warn!(shard, %error, "the scrub of a shard failed; it goes on with the next");
        }
        if shard == u8::MAX {
            cache.counters.scrub_rounds.one();
            tracing::info!("the scrub has read all blobs once more");
        }
        shard = shard.wrapping_add(1);
        if let Err(error) = cache.rooms.blobs.set_scrub_at(shard).await {
            tracing::warn!(%error, "how far the scrub came could not be noted");
        }
        cache.rooms.clock.sleep(REST).await;
    }
}

/// Scrubs all there is once, as fast as it goes, and says after each shard how far it is.
pub async fn once(cache: &Cache, mut told: impl FnMut(u8, &Findings)) -> Result<Findings, CacheError> {
    let mut pace = Pace::new(Arc::clone(&cache.rooms.clock), None);
    let mut findings = Findings::default();
    for shard in 0..=u8::MAX {
        scrub_shard(cache, shard, &mut pace, &mut findings).await?;
        told(shard, &findings);
    }
    cache.counters.scrub_rounds.one();
    Ok(findings)
}

async fn scrub_shard(
    cache: &Cache,
    shard: u8,
    pace: &mut Pace,
    findings: &mut Findings,
) -> Result<(), CacheError> {
    for digest in cache.rooms.blobs.list(shard).await? {
        let bytes = match cache.scrub_blob(digest, pace).await? {
            Scrubbed::Sound { bytes } => bytes,
            Scrubbed::Damaged { bytes } => {
                findings.damaged.push(digest);
                bytes
            }
            Scrubbed::Gone => continue,
        };
        findings.blobs += 1;
        findings.bytes += bytes;
    }
    Ok(())
}
