//! Eviction: what has not been used for longest goes when room is needed; what took long to compile, per byte, goes later.
//!
//! Order, which is the rule: a result vanishes, durably, before any blob that only it named. So at no instant does a result
//! answer whose blobs are gone, and a kill in between leaves blobs that nobody needs, which the sweep takes.
//!
//! What never goes: a result that answered within the last ten minutes, for its client may still be fetching; a blob that is
//! pinned; a result that was marked to be kept, or that a profile in use names (see `profiles`). A download that began goes on to its end, since an open file outlives its
//! name. If nothing may go, nothing gives way: the upload that needs room gets 507, at once, and again in a while.

mod release;
mod worth;

use std::sync::Arc;
use std::time::Duration;

use pcmcache_shared::{ActionKey, Scope, failpoint};
use tokio::sync::{Mutex, MutexGuard};

use self::release::release;
use super::pins::PIN;
use super::{Cache, CacheError, on_its_own};
use crate::blobs::Freed;
use crate::clock::Moment;
use crate::results::{Overdue, Standing};
use crate::space::Bound;

/// How many results are considered in one look over all that are there.
const CANDIDATES: usize = 4096;
/// How many results go in one transaction.
const BATCH: usize = 32;
/// How long an eviction that found nothing is taken for the answer.
const BARREN: Duration = Duration::from_secs(5);
/// How often blobs that no result names are looked for when room is needed: there may be many of them where uploads
/// are not followed by their result.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// How long an eviction that did not help, though it freed what was missing, is taken for the answer: where blobs have another
/// link or the disk fills up otherwise, it must not cost the whole store.
const IN_VAIN: Duration = Duration::from_secs(10 * 60);
/// How many batches may go without freeing anything.
const FRUITLESS: u32 = 8;

/// Whose turn it is to remove something: one at a time.
#[derive(Debug, Default)]
pub(crate) struct Evictor {
    turn: Mutex<Turn>,
}

/// While it lives nothing is removed.
#[derive(Debug)]
#[must_use = "dropped, it lets removals go on"]
pub struct Paused<'a>(#[expect(dead_code, reason = "held, not read")] MutexGuard<'a, Turn>);

#[derive(Debug, Default)]
struct Turn {
    swept: Option<Moment>,
    /// The bounds under which nothing can go, and until when that is taken for granted.
    barren: Vec<(Bound, Moment)>,
}

/// So much room is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) bound: Bound,
    pub(crate) bytes: u64,
}

impl Wanted {
    fn is_there(&self, cache: &Cache) -> bool {
        cache.usage().room(&self.bound) >= self.bytes
    }

    /// Whose results may go for it.
    fn of(&self) -> Option<&Scope> {
        match &self.bound {
            Bound::Quota(scope) => Some(scope),
            Bound::Size | Bound::Disk => None,
        }
    }
}

impl Cache {
    /// Holds all removals back: eviction, aging, the sweep. Uploads that need room are refused meanwhile.
    pub async fn pause_removals(&self) -> Paused<'_> {
        Paused(self.evictor.turn.lock().await)
    }

    /// Marks a result to be kept, or no longer: eviction and aging pass over it.
    pub async fn keep(&self, scope: &Scope, action: ActionKey, kept: bool) -> Result<(), CacheError> {
        Ok(self.rooms.results.keep(scope, action, kept).await?)
    }
}

/// Removes the blobs of a shard that nobody needs, and says how many.
pub async fn sweep_shard(cache: &Cache, shard: u8) -> Result<u64, CacheError> {
    let _turn = cache.evictor.turn.lock().await;
    release::sweep(cache, shard).await
}

/// Makes room, and says whether there is what was wanted. It goes on to its end, also where whoever asked goes away.
pub(crate) async fn make_room(cache: &Arc<Cache>, wanted: Wanted) -> Result<bool, CacheError> {
    let cache = Arc::clone(cache);
    on_its_own("make room", async move { evict(&cache, &wanted).await }).await
}

async fn evict(cache: &Arc<Cache>, wanted: &Wanted) -> Result<bool, CacheError> {
    let mut turn = cache.evictor.turn.lock().await;
    let now = cache.rooms.clock.now();
    turn.barren.retain(|(_, until)| *until > now);
    if wanted.is_there(cache) {
        return Ok(true);
    }
    if turn.barren.iter().any(|(bound, _)| *bound == wanted.bound) {
        return Ok(false);
    }
    if wanted.of().is_none() {
        // They help a person, not a build.
        cache.rooms.blobs.discard_damaged().await?;
    }
    if turn.swept.is_none_or(|swept| now.since(swept) >= SWEEP_EVERY) && !wanted.is_there(cache) {
        for shard in 0..=u8::MAX {
            release::sweep(cache, shard).await?;
        }
        turn.swept = Some(now);
    }
    let pause = match evict_results(cache, wanted).await? {
        Outcome::Enough => return Ok(true),
        Outcome::NothingLeft => BARREN,
        Outcome::InVain => IN_VAIN,
    };
    turn.barren.push((wanted.bound.clone(), now + pause));
    Ok(false)
}

/// What evicting results came to.
enum Outcome {
    /// There is room.
    Enough,
    /// Nothing more may go.
    NothingLeft,
    /// What went did not make the room that it should have.
    InVain,
}

async fn evict_results(cache: &Arc<Cache>, wanted: &Wanted) -> Result<Outcome, CacheError> {
    let missing = wanted.bytes.saturating_sub(cache.usage().room(&wanted.bound));
    let (mut freed, mut fruitless) = (0, 0);
    while !wanted.is_there(cache) {
        let cold = coldest(cache, wanted.of(), worth::overdue).await?;
        if cold.is_empty() {
            return Ok(Outcome::NothingLeft);
        }
        let mut cold = cold.as_slice();
        while !cold.is_empty() {
            let room = cache.usage().room(&wanted.bound);
            let (batch, rest) = cold.split_at(enough_of(cold, wanted.bytes.saturating_sub(room)));
            cold = rest;
            let bytes = remove(cache, batch).await?.1.bytes;
            if wanted.is_there(cache) {
                return Ok(Outcome::Enough);
            }
            freed += bytes;
            let is_fruitless = bytes == 0 && cache.usage().room(&wanted.bound) <= room;
            fruitless = if is_fruitless { fruitless + 1 } else { 0 };
            if fruitless >= FRUITLESS || (wanted.bound == Bound::Disk && freed >= missing.saturating_mul(2)) {
                return Ok(Outcome::InVain);
            }
        }
    }
    Ok(Outcome::Enough)
}

/// How many of the first of them are to go for so many bytes, as far as that can be told before; at least one.
fn enough_of(cold: &[Standing], bytes: u64) -> usize {
    let mut left = bytes;
    let short = cold.iter().take(BATCH).take_while(|standing| {
        let was_short = left > 0;
        left = left.saturating_sub(standing.bytes);
        was_short
    });
    short.count().max(1).min(cold.len())
}

/// Removes the results that nobody used for `max_age`; says how many.
pub(crate) async fn age(cache: &Arc<Cache>, max_age: Duration) -> Result<u64, CacheError> {
    let _turn = cache.evictor.turn.lock().await;
    let mut aged = 0;
    loop {
        let mut old = coldest(cache, None, worth::idle).await?;
        old.retain(|standing| standing.idle > max_age);
        for batch in old.chunks(BATCH) {
            aged += remove(cache, batch).await?.0;
        }
        if old.is_empty() {
            cache.counters.aged_results.add(aged);
            return Ok(aged);
        }
    }
}

/// The results that should go first and may go.
async fn coldest(
    cache: &Arc<Cache>,
    of: Option<&Scope>,
    overdue: Overdue,
) -> Result<Vec<Standing>, CacheError> {
    // Right after a start nothing can be freed, so nothing is to go.
    if cache.pins.pin_everything().await {
        return Ok(Vec::new());
    }
    cache.flush_uses().await?;
    let pinned = cache.named_by_profiles().await?;
    let mut cold = cache.rooms.results.coldest(of, CANDIDATES, PIN, overdue, &pinned).await?;
    cold.retain(|standing| !cache.uses.has(&standing.scope, standing.action));
    Ok(cold)
}

/// Removes these results, then the blobs that nobody else names; says how many results went, and what that freed.
async fn remove(cache: &Arc<Cache>, batch: &[Standing]) -> Result<(u64, Freed), CacheError> {
    let names = batch.iter().map(|standing| (standing.scope.clone(), standing.action)).collect();
    // Some may have answered since they were looked for, while others went.
    let removed = cache.rooms.results.remove(cache.uses.choose(names), PIN).await;
    cache.uses.removed();
    // Also after an error: some may have gone.
    cache.near.forget([]);
    let removed = removed?;
    failpoint!("evict.results");
    cache.counters.evicted_results.add(removed.results);
    let freed = release(cache, removed.named).await?;
    failpoint!("evict.blobs");
    cache.counters.evicted_bytes.add(freed.bytes);
    Ok((removed.results, freed))
}
