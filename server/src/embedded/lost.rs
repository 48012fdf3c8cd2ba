//! Blobs that are named and whose bytes were lost: a copy that turned out to be damaged was moved aside, or somebody removed
//! it. The results that name one do not answer until somebody stores its bytes again.
//!
//! Invariant: a row is here from the transaction that finds the file missing to the one that says it is there again. Files
//! are placed before their rows are written, so what is missing when this is written was not stored again meanwhile.

use std::collections::HashSet;

use pcmcache_shared::Digest;
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use super::files::Files;
use super::ledger::Ledger;
use super::tables::{AFTER_SCOPES, Name, REFERENCES};
use super::uploads::hide;

/// (digest): results name it, and its bytes are gone.
pub(super) const LOST: TableDefinition<Name, ()> = TableDefinition::new("lost");

/// Notes that the blob is lost, unless it is there.
pub(super) fn note(
    transaction: &WriteTransaction,
    digest: Digest,
    files: &Files,
    ledger: &Ledger,
) -> Result<(), redb::Error> {
    if files.look(digest).map_err(redb::Error::Io)?.is_some() {
        return Ok(());
    }
    hide(transaction, &[(digest, Vec::new())], ledger)?;
    let references = transaction.open_table(REFERENCES)?;
    let is_named = references.range(all_references(&digest))?.next().is_some();
    if is_named {
        transaction.open_table(LOST)?.insert(digest.as_bytes(), ())?;
    }
    Ok(())
}

/// The blob is there again, or nobody names it any more.
pub(super) fn forget(transaction: &WriteTransaction, digest: Digest) -> Result<(), redb::Error> {
    transaction.open_table(LOST)?.remove(digest.as_bytes())?;
    Ok(())
}

/// How many results do not answer because of what was lost.
pub(super) fn hidden_results(transaction: &ReadTransaction) -> Result<u64, redb::Error> {
    let (lost, references) = (transaction.open_table(LOST)?, transaction.open_table(REFERENCES)?);
    let mut hidden = HashSet::new();
    for row in lost.iter()? {
        let digest = Digest::from_bytes(*row?.0.value());
        for row in references.range(all_references(&digest))? {
            let (key, _) = row?;
            let (_, scope, action) = key.value();
            hidden.insert((scope.to_owned(), *action));
        }
    }
    Ok(hidden.len() as u64)
}

/// The keys of a digest's references, over all scopes.
pub(super) fn all_references(
    digest: &Digest,
) -> std::ops::Range<(&[u8; 32], &'static str, &'static [u8; 32])> {
    (digest.as_bytes(), "", &[0; 32])..(digest.as_bytes(), AFTER_SCOPES, &[0; 32])
}
