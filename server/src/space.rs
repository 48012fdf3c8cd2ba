//! Room on the disk: how much a store may take, and what it has taken.
//!
//! Invariant: the bytes of blobs, of stages and of what was moved aside never exceed [`Bounds::max_size`], those visible in a
//! scope never its quota, and the disk keeps [`Bounds::keep_free`] for others. A store reserves what an upload
//! declares before it takes the first byte, so none of them is found out half way.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;

use pcmcache_shared::Scope;

/// How much a store may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// All files of blobs, in bytes: whole, on their way, moved aside. `None`: the disk is the bound.
    pub max_size: Option<u64>,
    /// What may be visible in a scope, in bytes. A blob that two scopes have counts in both.
    pub quotas: BTreeMap<Scope, u64>,
    /// What stays free on the disk, in bytes: for the index, and for whatever else lives there.
    pub keep_free: u64,
}

impl Bounds {
    /// What is left free on the disk where nothing else was said.
    pub const KEEP_FREE: u64 = 1 << 30;

    /// The largest blob that may ever fit into the scope, in bytes.
    pub fn largest(&self, scope: &Scope) -> u64 {
        let quota = self.quotas.get(scope).copied().unwrap_or(u64::MAX);
        self.max_size.unwrap_or(u64::MAX).min(quota)
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self { max_size: None, quotas: BTreeMap::new(), keep_free: Self::KEEP_FREE }
    }
}

/// Which bound something runs into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// That of all blobs.
    Size,
    /// That of a scope.
    Quota(Scope),
    /// That of the disk.
    Disk,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size => f.write_str("the store is at its bound (--max-size)"),
            Self::Quota(scope) => write!(f, "the scope '{scope}' is at its quota (--quota)"),
            Self::Disk => f.write_str("the disk has no more space than is kept free (--keep-free)"),
        }
    }
}

/// There is no room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// Because of what.
    pub bound: Bound,
    /// How many bytes must go first.
    pub missing: u64,
}

/// What a store has taken, in bytes where nothing else is said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// Whether all is counted yet: a start counts in the background, and until it is done nothing is taken in.
    pub counted: bool,
    /// How many blobs there are.
    pub blobs: u64,
    /// What they take.
    pub blob_bytes: u64,
    /// What uploads on their way have reserved.
    pub reserved_bytes: u64,
    /// What of it the disk has not given yet.
    pub unallocated_bytes: u64,
    /// What was moved aside, being damaged.
    pub damaged_bytes: u64,
    /// What was removed while downloads had it open: the disk gives it back when they end.
    pub unlinked_open_bytes: u64,
    /// The bound of all but the last, if there is one.
    pub max_size: Option<u64>,
    /// What is free on the disk; `None` where it does not say.
    pub disk_free: Option<u64>,
    /// What stays free there.
    pub keep_free: u64,
    /// Each scope's part.
    pub scopes: BTreeMap<Scope, ScopeUsage>,
}

impl Usage {
    /// What counts against [`Usage::max_size`].
    pub fn total(&self) -> u64 {
        self.blob_bytes + self.reserved_bytes + self.damaged_bytes
    }

    /// How much more fits under the bound.
    pub fn room(&self, bound: &Bound) -> u64 {
        let (limit, taken) = match bound {
            Bound::Size => (self.max_size, self.total()),
            Bound::Quota(scope) => {
                let of = self.scopes.get(scope).copied().unwrap_or_default();
                (of.quota, of.bytes + of.reserved_bytes)
            }
            Bound::Disk => (self.disk_free, self.keep_free.saturating_add(self.unallocated_bytes)),
        };
        limit.map_or(u64::MAX, |limit| limit.saturating_sub(taken))
    }
}

/// What a scope has taken, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScopeUsage {
    /// What is visible in it.
    pub bytes: u64,
    /// What uploads into it have reserved.
    pub reserved_bytes: u64,
    /// Its bound, if there is one.
    pub quota: Option<u64>,
}

/// What a disk says of itself: handed in, so that a test can fill it.
pub trait Disk: Send + Sync + fmt::Debug {
    /// How many bytes this process may still write.
    fn free(&self) -> io::Result<u64>;
}

/// The disk that a path lies on.
#[derive(Debug)]
pub struct DiskOf(pub PathBuf);

impl Disk for DiskOf {
    fn free(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.0)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}
