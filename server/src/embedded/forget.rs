//! A result leaves the index: its row, its references, its place under its set, its use times, in one transaction. The
//! blobs it named are then for whoever asked to look after.

use pcmcache_shared::{ActionKey, Scope};
use redb::{ReadableTable, WriteTransaction};

use super::results::dereference;
use super::tables::{RESULTS, SET_RESULTS, SETS, decode, names};
use super::uses::USED;
use crate::results::{Removed, StoredResult};

/// Removes these results.
pub(super) fn forget(
    transaction: &WriteTransaction,
    results: &[(Scope, ActionKey)],
) -> Result<Removed, redb::Error> {
    let mut removed = Removed::default();
    for (scope, action) in results {
        let key = (scope.as_str(), action.as_bytes());
        let row: Option<StoredResult> = {
            let mut results = transaction.open_table(RESULTS)?;
            let row = results.remove(key)?;
            row.map(|row| decode(row.value())).transpose()?
        };
        transaction.open_table(USED)?.remove(key)?;
        let Some(stored) = row else { continue };
        dereference(transaction, scope, *action, &stored)?;
        unlearn(transaction, scope, *action, &stored)?;
        removed.results += 1;
        removed.named.extend(stored.references(*action));
    }
    Ok(removed)
}

/// Takes the result from under its set, and a set that none is left under from the unit.
pub(super) fn unlearn(
    transaction: &WriteTransaction,
    scope: &Scope,
    action: ActionKey,
    stored: &StoredResult,
) -> Result<(), redb::Error> {
    let (unit, set) = (stored.unit.as_bytes(), stored.set.as_bytes());
    let mut set_results = transaction.open_table(SET_RESULTS)?;
    let under = (scope.as_str(), unit, set);
    let Some(mut actions) = set_results.get(under)?.map(|row| names(row.value())) else { return Ok(()) };
    actions.retain(|known| known != action.as_bytes());
    if !actions.is_empty() {
        set_results.insert(under, actions.concat().as_slice())?;
        return Ok(());
    }
    set_results.remove(under)?;
    let mut sets = transaction.open_table(SETS)?;
    let of = (scope.as_str(), unit);
    let mut known = sets.get(of)?.map(|row| names(row.value())).unwrap_or_default();
    known.retain(|known| known != set);
    match known.is_empty() {
        true => drop(sets.remove(of)?),
        false => drop(sets.insert(of, known.concat().as_slice())?),
    }
    Ok(())
}
