//! Every rule of the server lives here: who gets a lease, what may be published, what is served. The back ends
//! below hold what they are given; HTTP above reads and writes and decides nothing.
mod acquire;
mod counters;
mod error;
mod read;
mod upload;

use std::sync::Arc;

use pcmcache_shared::api::KeyedResult;
use pcmcache_shared::api::acquire::AcquireRequest;
use pcmcache_shared::api::actions::PublishRequest;
use pcmcache_shared::api::leases::{Hold, ReleaseRequest, Renewed};
use pcmcache_shared::api::lookup::{LookupAnswer, LookupRequest};
use pcmcache_shared::{ActionKey, Claim, Digest, Scope};

pub use self::acquire::AcquireStream;
pub use self::counters::Snapshot;
pub use self::error::CacheError;
pub use self::read::{BlobRead, ByteStream};
pub use self::upload::{Upload, Uploaded};
use crate::blobs::Blobs;
use crate::clock::{Clock, Entropy};
use crate::leases::Leases;
use crate::results::Results;

/// How much a server takes on.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest blob, in bytes.
    pub max_blob: u64,
    /// The most acquires that wait at once; beyond, they are told to compile alone.
    pub max_waiters: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_blob: 4 * 1024 * 1024 * 1024, max_waiters: 10_000 }
    }
}

/// The rooms a cache stands on.
#[derive(Debug, Clone)]
pub struct Rooms {
    /// Where bytes lie.
    pub blobs: Arc<dyn Blobs>,
    /// Where results lie.
    pub results: Arc<dyn Results>,
    /// Where leases lie.
    pub leases: Arc<dyn Leases>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where secrets come from.
    pub entropy: Arc<dyn Entropy>,
}

/// The cache: see the module.
#[derive(Debug)]
pub struct Cache {
    rooms: Rooms,
    limits: Limits,
    counters: counters::Counters,
}

/// What a publish did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// It is the result of its key now.
    Stored,
    /// The same outputs were there.
    Same,
}

impl Cache {
    /// A cache over these rooms.
    pub fn new(rooms: Rooms, limits: Limits) -> Arc<Self> {
        Arc::new(Self { rooms, limits, counters: counters::Counters::default() })
    }

    /// What happened since the start.
    pub fn counters(&self) -> Snapshot {
        self.counters.snapshot()
    }

    /// How many results there are, over all scopes. That it answers shows that the store does.
    pub async fn results(&self) -> Result<u64, CacheError> {
        Ok(self.rooms.results.count().await?)
    }

    /// Looks, and if nothing is there, gets the right to build it or waits for who has.
    pub async fn acquire(
        self: &Arc<Self>,
        scope: &Scope,
        request: AcquireRequest,
    ) -> Result<AcquireStream, CacheError> {
        let _ = (scope, request, self.limits);
        Err(CacheError::NoLease)
    }

    /// The holder is alive.
    pub async fn renew(&self, scope: &Scope, claim: Claim, hold: &Hold) -> Result<Renewed, CacheError> {
        let _ = (scope, claim, hold);
        Err(CacheError::NoLease)
    }

    /// The holder gives the lease back without a result.
    pub async fn release(
        self: &Arc<Self>,
        scope: &Scope,
        claim: Claim,
        request: &ReleaseRequest,
    ) -> Result<(), CacheError> {
        let _ = (scope, claim, request);
        Err(CacheError::NoLease)
    }

    /// Publishes.
    pub async fn publish(
        self: &Arc<Self>,
        scope: &Scope,
        key: ActionKey,
        request: PublishRequest,
    ) -> Result<Published, CacheError> {
        let _ = (scope, key, request);
        Err(CacheError::NoLease)
    }

    /// The result of a key, if there is one that may answer.
    pub async fn result(
        self: &Arc<Self>,
        scope: &Scope,
        key: ActionKey,
    ) -> Result<Option<KeyedResult>, CacheError> {
        let _ = (scope, key);
        Err(CacheError::NoLease)
    }

    /// What there is of many units and actions.
    pub async fn lookup(
        self: &Arc<Self>,
        scope: &Scope,
        request: &LookupRequest,
    ) -> Result<LookupAnswer, CacheError> {
        let _ = (scope, request);
        Err(CacheError::NoLease)
    }

    /// Begins an upload of `length` bytes; dropped before its finish, nothing of it is left.
    pub async fn begin_upload(
        self: &Arc<Self>,
        scope: &Scope,
        digest: Digest,
        length: u64,
    ) -> Result<Upload, CacheError> {
        let _ = (scope, digest, length);
        Err(CacheError::NoLease)
    }

    /// Opens a blob.
    pub async fn open_blob(
        self: &Arc<Self>,
        scope: &Scope,
        digest: Digest,
    ) -> Result<Option<BlobRead>, CacheError> {
        let _ = (scope, digest);
        Err(CacheError::NoLease)
    }

    /// The size of a blob that is there, and will be for ten minutes at least.
    pub async fn has_blob(
        self: &Arc<Self>,
        scope: &Scope,
        digest: Digest,
    ) -> Result<Option<u64>, CacheError> {
        let _ = (scope, digest);
        Err(CacheError::NoLease)
    }
}
