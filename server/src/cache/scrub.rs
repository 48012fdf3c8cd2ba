//! Scrubbing a blob: all of it is read, from the disk, and compared with its name.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use pcmcache_shared::Digest;
use pcmcache_shared::digest::{CHUNK, Hashing};

use super::{Cache, CacheError};
use crate::blobs::Opened;
use crate::clock::{Clock, Moment};
use crate::fault::Fault;

/// What reading a blob again showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scrubbed {
    /// It is what its name says.
    Sound {
        /// Its size in bytes.
        bytes: u64,
    },
    /// It is not; it was moved aside, and the results that name it answer nobody.
    Damaged {
        /// How many bytes there are of it.
        bytes: u64,
    },
    /// It went meanwhile, or nobody put it.
    Gone,
}

impl Cache {
    /// Reads a blob again, no faster than `pace` lets it.
    pub(crate) async fn scrub_blob(&self, digest: Digest, pace: &mut Pace) -> Result<Scrubbed, CacheError> {
        let Some(opened) = self.rooms.blobs.open_on_disk(digest).await? else { return Ok(Scrubbed::Gone) };
        let stat = opened.stat();
        let actual = if stat.has_its_size() { hash(&*opened, pace).await? } else { None };
        let bytes = stat.size;
        self.counters.scrubbed_blobs.one();
        self.counters.scrubbed_bytes.add(bytes);
        if actual == Some(digest) {
            return Ok(Scrubbed::Sound { bytes });
        }
        match self.condemn(digest, stat.version).await? {
            true => Ok(Scrubbed::Damaged { bytes }),
            false => Ok(Scrubbed::Gone),
        }
    }
}

/// The digest of all that can be read; `None` if it was cut meanwhile, or the disk does not give it.
async fn hash(opened: &dyn Opened, pace: &mut Pace) -> Result<Option<Digest>, CacheError> {
    let mut hash = Hashing::new(io::sink());
    while hash.size() < opened.stat().size {
        let bytes = match opened.read(hash.size(), CHUNK).await {
            Ok(bytes) if !bytes.is_empty() => bytes,
            Ok(_) => return Ok(None),
            Err(fault @ Fault::Broken { .. }) => {
                tracing::error!(%fault, "a blob cannot be read; it counts as damaged");
                return Ok(None);
            }
            Err(fault) => return Err(fault.into()),
        };
        hash.write_all(&bytes).map_err(|error| CacheError::io("hash a blob", error))?;
        pace.after(bytes.len() as u64).await;
    }
    Ok(Some(hash.finish().1))
}

/// Holds back whoever reads more than so many bytes a second.
#[derive(Debug)]
pub(crate) struct Pace {
    clock: Arc<dyn Clock>,
    rate: Option<u64>,
    /// Until then what was read is paid for.
    next: Moment,
}

impl Pace {
    /// At most `rate` bytes a second, or as fast as it goes.
    pub(crate) fn new(clock: Arc<dyn Clock>, rate: Option<u64>) -> Self {
        let next = clock.now();
        Self { clock, rate, next }
    }

    /// So many bytes were read; returns when the next may be.
    async fn after(&mut self, bytes: u64) {
        let Some(rate) = self.rate else { return };
        let cost = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate.max(1));
        // What it rested meanwhile is not made up for.
        self.next = self.next.max(self.clock.now()) + cost;
        self.clock.sleep_until(self.next).await;
    }
}
