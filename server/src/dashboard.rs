//! What the dashboard shows: the state of the server in one answer, as far as whoever looks may see it.
//!
//! Who may see all sees the counts over time and the store too; who reads some scopes sees what goes on in those, and
//! nothing from which one could tell what goes on in others. Durations travel, timestamps never.

mod page;

use std::time::Duration;

use pcmcache_shared::{ActionKey, ReleaseReason, Scope};
use serde::Serialize;
use utoipa::ToSchema;

pub use self::page::{Asset, PAGE, POLICY, asset};
use crate::cache::{Build, Cache, CacheError};
use crate::clock::Moment;
use crate::history::{History, Over, Span};
use crate::seen::{Divergence, Ended, Finished, Missed, Named, ScopeCounts, Slow};

/// Rows of each list, at most.
const ROWS: usize = 15;
/// Builds that are listed, and waiters of each.
const BUILDS: usize = 60;
const WAITERS: usize = 12;

/// Of which scopes someone may see what goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// Of all, and of the whole server.
    All,
    /// Of these.
    Scopes(Vec<Scope>),
}

impl Sight {
    fn sees(&self, scope: &Scope) -> bool {
        match self {
            Self::All => true,
            Self::Scopes(scopes) => scopes.contains(scope),
        }
    }
}

/// The state of the server.
#[derive(Debug, Serialize, ToSchema)]
pub struct Dashboard {
    /// Which version it is.
    version: &'static str,
    /// Since when it runs.
    up_s: u64,
    /// The scopes that are shown; `null` if all are.
    sees: Option<Vec<Scope>>,
    /// What happened over time.
    over: Option<Over>,
    /// What is being built, what most wait for first.
    building: Vec<Building>,
    /// How many builds there are in all.
    builds: usize,
    /// How many wait for one of them.
    waiting: usize,
    /// The builds that ended last.
    finished: Vec<Done>,
    /// The modules that were missed most, today and yesterday.
    missed: Vec<Missed>,
    /// The modules that took longest, today and yesterday.
    slowest: Vec<Slow>,
    /// Results that differed from the one that was there.
    diverged: Vec<Diverged>,
    /// The scopes, since the server started.
    scopes: Vec<ScopeRow>,
    /// The store.
    store: Option<Store>,
}

/// A build that is under way.
#[derive(Debug, Serialize, ToSchema)]
struct Building {
    /// What tells it from others: the claim and the grant.
    id: String,
    scope: Scope,
    /// The source, as the compiler is given it; empty if the client did not say.
    subject: String,
    /// Who builds it.
    holder: String,
    for_ms: u64,
    /// What it cost the last time.
    expected_ms: Option<u64>,
    /// How many wait for it.
    waiting: usize,
    /// Some of those who do.
    waiters: Vec<String>,
}

/// A build that ended.
#[derive(Debug, Serialize, ToSchema)]
struct Done {
    id: String,
    scope: Scope,
    subject: String,
    holder: String,
    how: How,
    /// Why it was given back.
    reason: Option<ReleaseReason>,
    took_ms: u64,
    ago_ms: u64,
}

/// How a build ended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum How {
    /// With a result.
    Published,
    /// It was given back.
    Released,
    /// Its holder vanished or was too slow.
    Lost,
}

/// Two builders made different outputs of one action.
#[derive(Debug, Serialize, ToSchema)]
struct Diverged {
    scope: Scope,
    action: ActionKey,
    subject: String,
    first: String,
    second: String,
    ago_ms: u64,
}

/// What happened in a scope.
#[derive(Debug, Serialize, ToSchema)]
struct ScopeRow {
    /// The scope; `null` for those that have no counts of their own, together.
    scope: Option<Scope>,
    #[serde(flatten)]
    counts: ScopeCounts,
    /// The bytes that are visible in it.
    bytes: Option<u64>,
    quota: Option<u64>,
}

/// The store, in bytes where nothing else is said.
#[derive(Debug, Serialize, ToSchema)]
struct Store {
    results: Option<u64>,
    blobs: u64,
    blob_bytes: u64,
    reserved_bytes: u64,
    damaged_bytes: u64,
    unlinked_open_bytes: u64,
    max_size: Option<u64>,
    disk_free: Option<u64>,
    keep_free: u64,
    /// Blobs found damaged since the server started.
    damaged_blobs: u64,
    /// Bytes that the scrub read again since then, and how often it has read all there is.
    scrubbed_bytes: u64,
    scrub_rounds: u64,
    /// The shard, of 256, at which it is now.
    scrub_shard: u8,
    /// Uploads and publishes refused since then for want of room.
    refused: u64,
}

impl Dashboard {
    /// What `sight` sees now, and of the time that ends now.
    pub async fn of(cache: &Cache, history: &History, sight: &Sight, span: Span) -> Result<Self, CacheError> {
        let now = cache.rooms.clock.now();
        let (seen, all) = (cache.seen(), *sight == Sight::All);
        let mut builds = cache.builds().await?;
        builds.retain(|build| sight.sees(&build.building.scope));
        builds.sort_by_key(|build| (usize::MAX - build.waiters.len(), build.building.since));
        let (missed, slowest) = seen.modules(ROWS, |scope| sight.sees(scope));
        let finished = seen.finished().into_iter().filter(|done| sight.sees(&done.building.scope));
        let diverged = seen.divergences().into_iter().filter(|diverged| sight.sees(&diverged.scope));
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            up_s: now.since(Moment::default()).as_secs(),
            sees: match sight {
                Sight::All => None,
                Sight::Scopes(scopes) => Some(scopes.clone()),
            },
            over: all.then(|| history.over(span, cache)),
            builds: builds.len(),
            waiting: builds.iter().map(|build| build.waiters.len()).sum(),
            building: builds.into_iter().take(BUILDS).map(|build| Building::of(build, now, all)).collect(),
            finished: finished.take(ROWS).map(|done| Done::of(done, now)).collect(),
            missed,
            slowest,
            diverged: diverged.take(ROWS).map(|diverged| Diverged::of(diverged, now)).collect(),
            scopes: scopes(cache, sight),
            store: if all { Some(Store::of(cache).await) } else { None },
        })
    }
}

fn scopes(cache: &Cache, sight: &Sight) -> Vec<ScopeRow> {
    let usage = cache.usage();
    let rows = cache.seen().scopes().into_iter().map(|(named, counts)| match named {
        Named::Scope(scope) => {
            let taken = usage.scopes.get(&scope);
            let (bytes, quota) = (taken.map(|taken| taken.bytes), taken.and_then(|taken| taken.quota));
            ScopeRow { scope: Some(scope), counts, bytes, quota }
        }
        Named::Others => ScopeRow { scope: None, counts, bytes: None, quota: None },
    });
    let sees = |row: &ScopeRow| row.scope.as_ref().map_or(*sight == Sight::All, |scope| sight.sees(scope));
    rows.filter(sees).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Building {
    /// Who waits may do so from a scope that not everyone sees, so not everyone is told their names.
    fn of(build: Build, now: Moment, names: bool) -> Self {
        let Build { building, expected, waiters } = build;
        Self {
            id: format!("{}-{}", building.claim, building.fence.0),
            for_ms: millis(now.since(building.since)),
            expected_ms: expected.map(millis),
            waiting: waiters.len(),
            waiters: waiters.into_iter().take(if names { WAITERS } else { 0 }).collect(),
            scope: building.scope,
            subject: building.subject,
            holder: building.holder,
        }
    }
}

impl Done {
    fn of(done: Finished, now: Moment) -> Self {
        let Finished { building, how, took, at } = done;
        let (how, reason) = match how {
            Ended::Published => (How::Published, None),
            Ended::Released(reason) => (How::Released, Some(reason)),
            Ended::Lost => (How::Lost, None),
        };
        Self {
            id: format!("{}-{}", building.claim, building.fence.0),
            scope: building.scope,
            subject: building.subject,
            holder: building.holder,
            how,
            reason,
            took_ms: millis(took),
            ago_ms: millis(now.since(at)),
        }
    }
}

impl Diverged {
    fn of(divergence: Divergence, now: Moment) -> Self {
        let Divergence { scope, action, subject, first, second, at } = divergence;
        Self { scope, action, subject, first, second, ago_ms: millis(now.since(at)) }
    }
}

impl Store {
    async fn of(cache: &Cache) -> Self {
        let (usage, counts) = (cache.usage(), cache.counters());
        Self {
            // A store that does not answer is no reason to show nothing.
            results: cache.results().await.ok(),
            blobs: usage.blobs,
            blob_bytes: usage.blob_bytes,
            reserved_bytes: usage.reserved_bytes,
            damaged_bytes: usage.damaged_bytes,
            unlinked_open_bytes: usage.unlinked_open_bytes,
            max_size: usage.max_size,
            disk_free: usage.disk_free,
            keep_free: usage.keep_free,
            damaged_blobs: counts.damaged_blobs,
            scrubbed_bytes: counts.scrubbed_bytes,
            scrub_rounds: counts.scrub_rounds,
            scrub_shard: cache.rooms.blobs.scrub_at().await.unwrap_or_default(),
            refused: counts.store_full,
        }
    }
}
