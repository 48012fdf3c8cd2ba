//! Counters: what launches came to.
//!
//! A handful of sealed files, each under a lock of its own so that launchers rarely meet. A launch adds what it
//! counted once, at its end; a killed one counts nothing.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use fs_err::os::unix::fs::OpenOptionsExt;
use serde::{Deserialize, Serialize};

use super::Store;
use super::sealed::{self, Sealed};
use crate::os;

/// What launches came to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Compilers actually run for cacheable compile commands.
    pub compiles: u64,
    /// Scanners actually run.
    pub scans: u64,
    /// Commands answered by the local store.
    pub local_hits: u64,
    /// Commands answered by the server.
    pub remote_hits: u64,
    /// Commands that waited for someone else's build of the same thing.
    pub waits: u64,
    /// Compiles whose result lost to one published first, and which took that one's bytes.
    pub adopted: u64,
    /// Compiles whose result differs from the published one, and which could not take that one's bytes.
    pub diverged: u64,
    /// Commands that went to the compiler unchanged, by reason.
    pub bypassed: BTreeMap<String, u64>,
    /// Faults of the cache, by kind; none of them fails a build.
    pub errors: BTreeMap<String, u64>,
    /// Bytes of blobs sent to the server.
    pub uploaded_bytes: u64,
    /// Bytes of blobs fetched from the server.
    pub downloaded_bytes: u64,
}

impl Counts {
    /// Counts a fault of this kind.
    pub fn error(&mut self, kind: &str) {
        *self.errors.entry(kind.to_owned()).or_default() += 1;
    }

    /// Counts a command that was not cached for this reason.
    pub fn bypass(&mut self, reason: &str) {
        *self.bypassed.entry(reason.to_owned()).or_default() += 1;
    }

    /// Adds the others.
    pub fn add(&mut self, other: &Self) {
        let scalars = [
            (&mut self.compiles, other.compiles),
            (&mut self.scans, other.scans),
            (&mut self.local_hits, other.local_hits),
            (&mut self.remote_hits, other.remote_hits),
            (&mut self.waits, other.waits),
            (&mut self.adopted, other.adopted),
            (&mut self.diverged, other.diverged),
            (&mut self.uploaded_bytes, other.uploaded_bytes),
            (&mut self.downloaded_bytes, other.downloaded_bytes),
        ];
        for (mine, theirs) in scalars {
            *mine = mine.saturating_add(theirs);
        }
        for (mine, theirs) in [(&mut self.bypassed, &other.bypassed), (&mut self.errors, &other.errors)] {
            for (name, count) in theirs {
                *mine.entry(name.clone()).or_default() += count;
            }
        }
    }
}

const SHARDS: u32 = 8;
const MAX_STATS: u64 = 1024 * 1024;
/// A holder needs microseconds; a stopped one costs a launch this long and its counts, nothing else.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

impl Store {
    /// Adds what a launch counted.
    pub fn count(&self, counts: &Counts) -> io::Result<()> {
        self.with_shard(std::process::id() % SHARDS, |known| {
            let mut sum = known;
            sum.add(counts);
            sum
        })
    }

    /// The sum over all launches since the last [`Store::zero_counts`].
    pub fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for shard in 0..SHARDS {
            sum.add(&self.read_shard(shard));
        }
        sum
    }

    /// Starts again from zero.
    pub fn zero_counts(&self) -> io::Result<()> {
        (0..SHARDS).try_for_each(|shard| self.with_shard(shard, |_| Counts::default()))
    }

    fn read_shard(&self, shard: u32) -> Counts {
        match sealed::read(&self.root().join(format!("stats/{shard}")), MAX_STATS) {
            Sealed::Whole(body) => serde_json::from_slice(&body).unwrap_or_default(),
            Sealed::Missing | Sealed::Damaged => Counts::default(),
        }
    }

    fn with_shard(&self, shard: u32, change: impl FnOnce(Counts) -> Counts) -> io::Result<()> {
        let directory = self.root().join("stats");
        let lock_path = directory.join(format!("{shard}.lock"));
        let open = || {
            fs_err::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock_path)
        };
        let lock = open().or_else(|_| {
            fs_err::create_dir_all(&directory)?;
            open()
        })?;
        let pause = Duration::from_millis(1);
        let mut waited = Duration::ZERO;
        while !os::try_lock(lock.file())? {
            if waited >= LONGEST_WAIT {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            std::thread::sleep(pause);
            waited += pause;
        }
        let counts = change(self.read_shard(shard));
        sealed::write(&directory.join(shard.to_string()), &serde_json::to_vec(&counts)?)
    }
}
