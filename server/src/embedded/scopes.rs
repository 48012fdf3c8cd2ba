//! What each scope has, in bytes, kept beside the rows that it follows from: counting ten million of them takes longer than a
//! start may.
//!
//! Invariant: the sums are written in the transaction that changes what they are sums of, with the number of rows they
//! were made of. Where that is another number, somebody else wrote there (an older server, a rebuild), and all is counted anew.

use std::collections::HashMap;

use pcmcache_shared::Scope;
use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};

use super::index::corrupted;
use super::ledger::Ledger;
use super::tables::{META, UPLOADS};
use super::uploads::count_scopes;

/// scope -> bytes of the blobs in it, each once.
const SCOPE_BYTES: TableDefinition<&str, u64> = TableDefinition::new("scope_bytes");
/// How many uploads the sums are made of.
const COUNTED: &str = "uploads_counted";

/// Tells the ledger what each scope has.
pub(super) fn restore(transaction: &WriteTransaction, ledger: &Ledger) -> Result<(), redb::Error> {
    let uploads = transaction.open_table(UPLOADS)?;
    let counted = transaction.open_table(META)?.get(COUNTED)?.map(|row| row.value());
    if counted == Some(uploads.len()?) {
        ledger.count_scopes(sums(transaction)?);
        return Ok(());
    }
    let sums = count_scopes(&uploads)?;
    let mut table = transaction.open_table(SCOPE_BYTES)?;
    table.retain(|_, _| false)?;
    for (scope, bytes) in &sums {
        table.insert(scope.as_str(), bytes)?;
    }
    transaction.open_table(META)?.insert(COUNTED, uploads.len()?)?;
    ledger.count_scopes(sums);
    Ok(())
}

fn sums(transaction: &WriteTransaction) -> Result<HashMap<Scope, u64>, redb::Error> {
    let mut sums = HashMap::new();
    for row in transaction.open_table(SCOPE_BYTES)?.iter()? {
        let (scope, bytes) = row?;
        let scope: Scope = scope.value().parse().map_err(|_| corrupted("bytes of no scope"))?;
        sums.insert(scope, bytes.value());
    }
    Ok(sums)
}

/// Writes what changed since this was last done.
pub(super) fn note(transaction: &WriteTransaction, ledger: &Ledger) -> Result<(), redb::Error> {
    let rows = transaction.open_table(UPLOADS)?.len()?;
    let mut meta = transaction.open_table(META)?;
    if meta.get(COUNTED)?.is_none_or(|counted| counted.value() != rows) {
        meta.insert(COUNTED, rows)?;
    }
    let changed = ledger.take_changed();
    if changed.is_empty() {
        return Ok(());
    }
    let mut table = transaction.open_table(SCOPE_BYTES)?;
    for (scope, bytes) in changed {
        match bytes {
            0 => drop(table.remove(scope.as_str())?),
            bytes => drop(table.insert(scope.as_str(), bytes)?),
        }
    }
    Ok(())
}
