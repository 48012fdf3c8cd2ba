//! When results were used, and what eviction goes by: a row for each result, small enough to look over all of them.
//!
//! Time is the store's own: the seconds that it was open, over all its processes. So no wall clock that jumps, and no holiday
//! over which the server was off, makes everything look old. A kill loses what was not noted yet, of time and of uses.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use pcmcache_shared::{ActionKey, Scope};
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use super::index::{Index, corrupted};
use super::tables::{META, Name, RESULTS, decode, of_scope};
use crate::clock::{Clock, Moment};
use crate::results::{Overdue, Pinned, Standing, StoredResult, Use};

/// (scope, action key) -> (last use, in seconds of the store's own time; cost in ms; bytes of the outputs).
pub(super) const USED: TableDefinition<(&str, Name), (u64, u64, u64)> = TableDefinition::new("used");
/// (scope, action key): eviction passes over it.
pub(super) const KEPT: TableDefinition<(&str, Name), ()> = TableDefinition::new("kept");

/// The store's own time.
#[derive(Debug)]
pub(super) struct Age {
    clock: Arc<dyn Clock>,
    opened: Moment,
    before_s: u64,
}

impl Age {
    /// Goes on where the last process was last heard of.
    pub(super) fn restore(index: &Index, clock: Arc<dyn Clock>) -> Result<Self, redb::Error> {
        let before_s = index.view(|transaction| {
            Ok(transaction.open_table(META)?.get("age_s")?.map_or(0, |row| row.value()))
        })?;
        Ok(Self { opened: clock.now(), clock, before_s })
    }

    /// How long the store has been open in all, in seconds.
    pub(super) fn now_s(&self) -> u64 {
        self.before_s + self.clock.now().since(self.opened).as_secs()
    }
}

/// Makes the tables. A store of before gets a row for each result, used now.
pub(super) fn prepare(transaction: &WriteTransaction, now_s: u64) -> Result<(), redb::Error> {
    transaction.open_table(KEPT)?;
    let (mut used, results) = (transaction.open_table(USED)?, transaction.open_table(RESULTS)?);
    if used.first()?.is_some() {
        return Ok(());
    }
    for row in results.iter()? {
        let (key, stored) = row?;
        let stored: StoredResult = decode(stored.value())?;
        used.insert(key.value(), row_of(&stored, now_s))?;
    }
    Ok(())
}

fn row_of(stored: &StoredResult, now_s: u64) -> (u64, u64, u64) {
    let bytes = stored.result.outputs.iter().fold(0, |sum: u64, output| sum.saturating_add(output.size));
    (now_s, stored.result.cost.wall_ms, bytes)
}

/// The row of a result that was just created, which is a use of it.
pub(super) fn begin(
    transaction: &WriteTransaction,
    scope: &Scope,
    action: ActionKey,
    stored: &StoredResult,
    now_s: u64,
) -> Result<(), redb::Error> {
    let mut used = transaction.open_table(USED)?;
    used.insert((scope.as_str(), action.as_bytes()), row_of(stored, now_s))?;
    Ok(())
}

/// Notes uses, and what time it is.
pub(super) fn note(transaction: &WriteTransaction, uses: &[Use], now_s: u64) -> Result<(), redb::Error> {
    let mut used = transaction.open_table(USED)?;
    for Use { scope, action, ago } in uses {
        let key = (scope.as_str(), action.as_bytes());
        let at_s = now_s.saturating_sub(ago.as_secs());
        let row = used.get(key)?.map(|row| row.value());
        if let Some((_, cost_ms, bytes)) = row.filter(|(before_s, ..)| *before_s < at_s) {
            used.insert(key, (at_s, cost_ms, bytes))?;
        }
    }
    transaction.open_table(META)?.insert("age_s", now_s)?;
    Ok(())
}

/// Those of the results that nobody used for `idle`.
pub(super) fn idle(
    transaction: &WriteTransaction,
    results: &[(Scope, ActionKey)],
    idle: Duration,
    now_s: u64,
) -> Result<Vec<(Scope, ActionKey)>, redb::Error> {
    let used = transaction.open_table(USED)?;
    let mut cold = Vec::new();
    for (scope, action) in results {
        let row = used.get((scope.as_str(), action.as_bytes()))?.map(|row| row.value());
        if row.is_none_or(|(used_s, ..)| now_s.saturating_sub(used_s) >= idle.as_secs()) {
            cold.push((scope.clone(), *action));
        }
    }
    Ok(cold)
}

/// Which results to look at, and how.
pub(super) struct Search {
    pub(super) scope: Option<Scope>,
    pub(super) at_most: usize,
    pub(super) idle: Duration,
    pub(super) overdue: Overdue,
    pub(super) pinned: Pinned,
}

/// The results that are most overdue, the most overdue first.
pub(super) fn coldest(
    transaction: &ReadTransaction,
    search: &Search,
    now_s: u64,
) -> Result<Vec<Standing>, redb::Error> {
    let (used, kept) = (transaction.open_table(USED)?, transaction.open_table(KEPT)?);
    let rows = match &search.scope {
        Some(scope) => used.range(of_scope(scope))?,
        None => used.range::<(&str, &[u8; 32])>(..)?,
    };
    // The least overdue on top, to make way for what is more so.
    let mut coldest = BinaryHeap::new();
    for row in rows {
        let (key, row) = row?;
        let ((scope, action), (used_s, cost_ms, bytes)) = (key.value(), row.value());
        let idle = Duration::from_secs(now_s.saturating_sub(used_s));
        let action = ActionKey::from_bytes(*action);
        if idle < search.idle || search.pinned.has(scope, action) || kept.get(key.value())?.is_some() {
            continue;
        }
        let scope = scope.parse().map_err(|_| corrupted("a result of no scope"))?;
        let standing = Standing { scope, action, idle, cost_ms, bytes };
        coldest.push(Reverse(Ranked { overdue: (search.overdue)(&standing), standing }));
        if coldest.len() > search.at_most {
            coldest.pop();
        }
    }
    Ok(coldest.into_sorted_vec().into_iter().map(|Reverse(ranked)| ranked.standing).collect())
}

/// A result by how overdue it is.
struct Ranked {
    overdue: i64,
    standing: Standing,
}

impl Ranked {
    /// Of two that are as overdue as each other it does not matter which, but it should be the same each time.
    fn rank(&self) -> (i64, ActionKey) {
        (self.overdue, self.standing.action)
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}
