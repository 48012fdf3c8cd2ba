//! Every rule of the server lives here: who gets a lease, what may be published, what is served. The back ends
//! below hold what they are given; HTTP above reads and writes and decides nothing.
//!
//! Safety rests on digests and create-once results, which the back ends keep; what is in memory here (who waits, which
//! stream holds what, what failed, what is pinned) saves work, and a kill loses it at the cost of some.

mod acquire;
mod counters;
mod error;
mod evict;
mod failures;
mod holds;
mod learnt;
mod lease;
mod look;
mod lookup;
mod near;
mod pins;
mod profiles;
mod publish;
mod read;
mod scrub;
mod sight;
mod upload;
mod uses;
mod verified;
mod waiters;

use std::sync::{Arc, RwLock};
use std::time::Duration;

use tracing::Instrument as _;

pub use self::acquire::AcquireStream;
use self::counters::Counters;
pub use self::counters::Snapshot;
pub use self::error::CacheError;
use self::evict::Evictor;
pub use self::evict::{Paused, sweep_shard};
pub(crate) use self::evict::{Wanted, age, make_room};
use self::failures::Failures;
use self::holds::Holds;
pub use self::lease::{MAX_HOLD, MIN_HOLD};
pub use self::lookup::Found;
use self::near::Near;
use self::pins::Pins;
use self::profiles::Named;
pub use self::publish::Published;
pub use self::read::{BlobRead, ByteStream, IN_FILE, Piece, PieceStream};
pub(crate) use self::scrub::Pace;
pub use self::scrub::Scrubbed;
pub use self::upload::{Upload, Uploaded};
use self::uses::Uses;
use self::verified::Verified;
use self::waiters::Waiters;
use crate::blobs::Blobs;
use crate::clock::{Clock, Entropy, Moment};
use crate::leases::Leases;
use crate::profiles::Profiles;
use crate::results::Results;
use crate::seen::{Building, Seen};
use crate::space::Usage;
use crate::trust::Revoked;

/// How much a server takes on.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest blob, in bytes.
    pub max_blob: u64,
    /// The most acquires that wait at once, of one scope half of that; beyond, they are told to compile alone.
    pub max_waiters: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_blob: 4 * 1024 * 1024 * 1024, max_waiters: 20_000 }
    }
}

/// The rooms a cache stands on.
#[derive(Debug, Clone)]
pub struct Rooms {
    /// Where bytes lie.
    pub blobs: Arc<dyn Blobs>,
    /// Where results lie.
    pub results: Arc<dyn Results>,
    /// Where profiles lie.
    pub profiles: Arc<dyn Profiles>,
    /// Where leases lie.
    pub leases: Arc<dyn Leases>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where secrets come from.
    pub entropy: Arc<dyn Entropy>,
}

/// A build that is under way.
#[derive(Debug, Clone)]
pub struct Build {
    /// What, who, since when.
    pub building: Building,
    /// What it is expected to cost, where that is known.
    pub expected: Option<Duration>,
    /// Who waits for it, by the names that holders have.
    pub waiters: Vec<String>,
}

/// The cache: see the module.
#[derive(Debug)]
pub struct Cache {
    pub(crate) rooms: Rooms,
    pub(crate) pins: Pins,
    pub(crate) counters: Counters,
    pub(crate) seen: Seen,
    pub(crate) uses: Uses,
    evictor: Evictor,
    named: Named,
    limits: Limits,
    verified: Verified,
    near: Arc<Near>,
    waiters: Arc<Waiters>,
    holds: Arc<Holds>,
    failures: Failures,
    revoked: RwLock<Revoked>,
}

impl Cache {
    /// A cache over these rooms. Everything that is stored counts as pinned for its first ten minutes.
    pub fn new(rooms: Rooms, limits: Limits) -> Arc<Self> {
        let clock = || Arc::clone(&rooms.clock);
        Arc::new(Self {
            pins: Pins::new(clock()),
            counters: Counters::default(),
            seen: Seen::new(clock()),
            uses: Uses::new(clock()),
            evictor: Evictor::default(),
            named: Named::default(),
            limits,
            verified: Verified::new(clock()),
            near: Arc::default(),
            waiters: Waiters::new(limits.max_waiters),
            holds: Arc::default(),
            failures: Failures::new(clock()),
            revoked: RwLock::default(),
            rooms,
        })
    }

    /// What happened since the start.
    pub fn counters(&self) -> Snapshot {
        for taken in self.seen.settle() {
            self.counters.hit(taken.cost);
        }
        self.counters.snapshot()
    }

    /// What the store has taken, and its bounds.
    pub fn usage(&self) -> Usage {
        self.rooms.blobs.usage()
    }

    /// What happened, as people ask about it.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// The builds that are under way, each with those who wait for it.
    pub async fn builds(&self) -> Result<Vec<Build>, CacheError> {
        let mut builds = Vec::new();
        for building in self.seen.builds() {
            let current = self.rooms.leases.current(&building.scope, building.claim).await?;
            match current.filter(|lease| lease.fence == building.fence) {
                Some(lease) => {
                    let waiters = self.waiters.at(&(building.scope.clone(), building.claim));
                    builds.push(Build { building, expected: lease.expected, waiters });
                }
                None => self.seen.lost(&building),
            }
        }
        Ok(builds)
    }

    /// The time by the clock that credentials go by.
    pub fn now(&self) -> Moment {
        self.rooms.clock.now()
    }

    /// How many acquires wait now.
    pub fn waiting(&self) -> usize {
        self.waiters.waiting()
    }

    /// How many results there are, over all scopes. That it answers shows that the store does.
    pub async fn results(&self) -> Result<u64, CacheError> {
        Ok(self.rooms.results.count().await?)
    }
}

/// Runs `act` to its end, also where whoever asked for it goes away meanwhile.
async fn on_its_own<T: Send + 'static>(
    operation: &'static str,
    act: impl Future<Output = Result<T, CacheError>> + Send + 'static,
) -> Result<T, CacheError> {
    // It ends otherwise only with the runtime.
    tokio::spawn(act.in_current_span()).await.unwrap_or(Err(CacheError::Unavailable { operation }))
}
