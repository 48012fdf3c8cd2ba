//! The rows of who put which blob in which scope: who put all its bytes may read it by its digest, and publish with it.

use std::collections::HashMap;

use pcmcache_shared::{Digest, Scope};
use redb::{ReadableTable, WriteTransaction};

use super::index::corrupted;
use super::ledger::Ledger;
use super::lost;
use super::tables::{Name, UPLOADS, all_uploads};

/// What each scope has, in bytes: a blob counts once, however many put it there.
pub(super) fn count_scopes(
    uploads: &impl ReadableTable<(Name, &'static str, &'static str), u64>,
) -> Result<HashMap<Scope, u64>, redb::Error> {
    let mut counted = HashMap::new();
    let mut last = (Digest::of(""), Scopes::default());
    for row in uploads.iter()? {
        let (key, size) = row?;
        let (digest, scope, _) = key.value();
        if last.0.as_bytes() != digest {
            last = (Digest::from_bytes(*digest), Scopes::default());
        }
        if let Some(scope) = last.1.next(scope)? {
            *counted.entry(scope).or_default() += size.value();
        }
    }
    Ok(counted)
}

/// The scopes of one blob's rows, which come in order: each once.
#[derive(Default)]
struct Scopes {
    last: Option<Scope>,
}

impl Scopes {
    /// The row's scope, if it is another than the row's before.
    fn next(&mut self, scope: &str) -> Result<Option<Scope>, redb::Error> {
        if self.last.as_ref().is_some_and(|last| last.as_str() == scope) {
            return Ok(None);
        }
        let scope: Scope = scope.parse().map_err(|_| corrupted("a blob of no scope"))?;
        self.last = Some(scope.clone());
        Ok(Some(scope))
    }
}

/// How many bytes there were when the blob was put, if anybody did: equal digests, equal sizes.
pub(super) fn promised(
    uploads: &impl ReadableTable<(Name, &'static str, &'static str), u64>,
    digest: Digest,
) -> Result<Option<u64>, redb::Error> {
    let first = uploads.range(all_uploads(&digest))?.next().transpose()?;
    Ok(first.map(|(_, row)| row.value()))
}

/// Takes each blob out of all scopes but those, and forgets who put it there.
pub(super) fn hide(
    transaction: &WriteTransaction,
    blobs: &[(Digest, Vec<Scope>)],
    ledger: &Ledger,
) -> Result<(), redb::Error> {
    let mut uploads = transaction.open_table(UPLOADS)?;
    for (digest, kept) in blobs {
        let is_hidden = |scope: &str| !kept.iter().any(|kept| kept.as_str() == scope);
        let any_stays =
            uploads.range(all_uploads(digest))?.any(|row| row.is_ok_and(|row| !is_hidden(row.0.value().1)));
        if !any_stays && !kept.is_empty() {
            // A result may stand on a text that was put in another scope: without a row nobody could read it.
            continue;
        }
        if kept.is_empty() {
            lost::forget(transaction, *digest)?;
        }
        let mut scopes = Scopes::default();
        for row in uploads.extract_from_if(all_uploads(digest), |key, _| is_hidden(key.1))? {
            let (key, size) = row?;
            if let Some(scope) = scopes.next(key.value().1)? {
                ledger.hidden(&scope, size.value());
            }
        }
    }
    Ok(())
}
