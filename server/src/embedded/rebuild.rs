//! A new index out of the journal and of the blobs that are there.
//!
//! Every result that was acknowledged is in the journal, with its scope and who published it; one whose blobs are gone is
//! passed over. What is not there again: leases (their holders build on and publish all the same), uses since the
//! journal's base, and that somebody put a blob which no result names yet (they are told that it is missing, and send it again).
//!
//! Crash story: the new index is filled under another name, and takes its place by rename when it is whole and durable. In
//! between there may be none, and then no server starts, and the rebuild is begun anew.

use std::path::Path;

use pcmcache_shared::{ActionKey, Digest, Scope, disk, failpoint};
use redb::{Database, Durability, ReadableTable as _, ReadableTableMetadata as _, WriteTransaction};

use super::files::{Files, none_if_missing};
use super::index::{open_database, prepare};
use super::journal::{self, Record};
use super::ledger::Ledger;
use super::lost::LOST;
use super::results::{dereference, learn, reference};
use super::tables::{META, RESULTS, SET_RESULTS, SETS, SPENT, UPLOADS, decode, encode, uploads_in};
use super::uses::{self, KEPT, USED};
use super::{INDEX, OpenError, into_io, lock, profiles};
use crate::clock::Clock;
use crate::redb_file::{self, Doubt};
use crate::results::StoredResult;
use crate::space::{Bounds, DiskOf};

/// How many records share a transaction.
const BATCH: usize = 10_000;
/// So many leases may have been granted since the base was written: none of their fences is given again.
const FENCES: u64 = 1 << 32;

/// What a rebuild came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rebuilt {
    /// How many results there are.
    pub results: u64,
    /// How many the journal has whose blobs are gone: evicted, or lost.
    pub left_out: u64,
    /// How many lines of the journal could not be read: one cut off is what a kill leaves.
    pub broken: u64,
}

/// Makes the index of the store in `directory` again. The old one stays beside it, as `index.redb.old`. Nobody else may have the
/// store.
pub fn rebuild_index(directory: &Path, clock: &dyn Clock) -> Result<Rebuilt, OpenError> {
    let _lock = lock(directory)?;
    rebuild(directory, clock)
}

/// The same; the lock is held.
pub(super) fn rebuild(directory: &Path, clock: &dyn Clock) -> Result<Rebuilt, OpenError> {
    let path = directory.join(INDEX);
    let new = redb_file::begin_new(&path)?;
    let rebuilt =
        fill(directory, &new, clock).map_err(|source| OpenError::Index { path: new.clone(), source })?;
    failpoint!("rebuild.filled");
    none_if_missing(disk::rename(&path, directory.join("index.redb.old")))?;
    failpoint!("rebuild.moved");
    redb_file::end_new(&new, &path)?;
    Ok(rebuilt)
}

fn fill(directory: &Path, new: &Path, clock: &dyn Clock) -> Result<Rebuilt, redb::Error> {
    let ledger = Ledger::new(Bounds::default(), std::sync::Arc::new(DiskOf(directory.to_owned())));
    let files = Files::open(directory, std::sync::Arc::new(ledger)).map_err(redb::Error::Io)?;
    let doubt = Doubt::default();
    let database = open_database(new, &doubt)?;
    prepare(&database, clock.unix_s())?;
    make_tables(&database)?;
    let mut filling = Filling { files: &files, database: &database, batch: Vec::new(), left_out: 0 };
    let broken = journal::read(directory, |record, kind| {
        filling.batch.push((record, kind));
        if filling.batch.len() >= BATCH { filling.write().map_err(into_io) } else { Ok(()) }
    });
    let broken = broken.map_err(redb::Error::Io)?;
    filling.write()?;
    let (results, left_out) = (filling.finish()?, filling.left_out);
    drop(database);
    doubt.ok()?;
    Ok(Rebuilt { results, left_out, broken })
}

fn make_tables(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(USED)?;
    transaction.open_table(KEPT)?;
    transaction.open_table(LOST)?;
    transaction.commit()?;
    Ok(())
}

struct Filling<'a> {
    files: &'a Files,
    database: &'a Database,
    batch: Vec<(Record, journal::Kind)>,
    left_out: u64,
}

impl Filling<'_> {
    fn write(&mut self) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::None)?;
        for (record, kind) in std::mem::take(&mut self.batch) {
            self.take(&transaction, record, kind)?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn take(
        &mut self,
        transaction: &WriteTransaction,
        record: Record,
        kind: journal::Kind,
    ) -> Result<(), redb::Error> {
        match record {
            Record::Number { name, value } => number(transaction, &name, value),
            Record::Result { scope, action, stored } => {
                if !self.is_whole(action, &stored)? {
                    self.left_out += 1;
                    return Ok(());
                }
                result(transaction, &scope, action, &stored)?;
                // A base says itself what is learnt, in the order in which it was.
                if kind == journal::Kind::Log { learn(transaction, &scope, action, &stored) } else { Ok(()) }
            }
            Record::Under { scope, unit, set, actions } => {
                let results = transaction.open_table(RESULTS)?;
                let mut there = Vec::new();
                for action in actions {
                    if results.get((scope.as_str(), action.as_bytes()))?.is_some() {
                        there.push(*action.as_bytes());
                    }
                }
                if !there.is_empty() {
                    let key = (scope.as_str(), unit.as_bytes(), set.as_bytes());
                    transaction.open_table(SET_RESULTS)?.insert(key, there.concat().as_slice())?;
                }
                Ok(())
            }
            Record::Sets { scope, unit, sets } => {
                let under = transaction.open_table(SET_RESULTS)?;
                let mut there = Vec::new();
                for set in sets {
                    if under.get((scope.as_str(), unit.as_bytes(), set.as_bytes()))?.is_some() {
                        there.push(*set.as_bytes());
                    }
                }
                if !there.is_empty() {
                    let key = (scope.as_str(), unit.as_bytes());
                    transaction.open_table(SETS)?.insert(key, there.concat().as_slice())?;
                }
                Ok(())
            }
            Record::Upload { digest, scope, writer, size } => {
                if self.size_of(digest)? == Some(size) {
                    let key = (digest.as_bytes(), scope.as_str(), writer.as_str());
                    transaction.open_table(UPLOADS)?.insert(key, size)?;
                }
                Ok(())
            }
            Record::Used { scope, action, at_s } => {
                let mut used = transaction.open_table(USED)?;
                let key = (scope.as_str(), action.as_bytes());
                let row = used.get(key)?.map(|row| row.value());
                if let Some((_, cost_ms, bytes)) = row {
                    used.insert(key, (at_s, cost_ms, bytes))?;
                }
                Ok(())
            }
            Record::Kept { scope, action } => {
                transaction.open_table(KEPT)?.insert((scope.as_str(), action.as_bytes()), ())?;
                Ok(())
            }
            Record::Profile { scope, name, profile } => {
                let age_s = transaction.open_table(META)?.get("age_s")?.map_or(0, |row| row.value());
                profiles::begin(transaction, &scope, &name, &profile, age_s)
            }
            Record::InProfile { scope, name, actions } => {
                profiles::go_on(transaction, &scope, &name, &actions)
            }
            Record::UsedProfile { scope, name, at_s } => profiles::used(transaction, &scope, &name, at_s),
            Record::Spent { name, until_s } => {
                transaction.open_table(SPENT)?.insert((until_s, name.as_bytes()), ())?;
                Ok(())
            }
        }
    }

    /// Whether all that the result stands on is there.
    fn is_whole(&self, action: ActionKey, stored: &StoredResult) -> Result<bool, redb::Error> {
        for output in &stored.result.outputs {
            if self.size_of(output.digest)? != Some(output.size) {
                return Ok(false);
            }
        }
        Ok(self.size_of(action.recipe())?.is_some() && self.size_of(stored.set)?.is_some())
    }

    fn size_of(&self, digest: Digest) -> Result<Option<u64>, redb::Error> {
        Ok(self.files.look(digest).map_err(redb::Error::Io)?.map(|(size, _)| size))
    }

    /// Every blob that a result names was put by somebody; makes all durable, and says how many results there are.
    fn finish(&self) -> Result<u64, redb::Error> {
        let transaction = self.database.begin_write()?;
        let count = {
            let (results, mut uploads) = (transaction.open_table(RESULTS)?, transaction.open_table(UPLOADS)?);
            for row in results.iter()? {
                let (key, row) = row?;
                let (scope, action) = (key.value().0, ActionKey::from_bytes(*key.value().1));
                let stored: StoredResult = decode(row.value())?;
                let Some(writer) = stored.writers.first() else { continue };
                for digest in stored.references(action) {
                    let is_put = uploads.range(uploads_in(&digest, scope))?.next().is_some();
                    if !is_put && let Some(size) = self.size_of(digest)? {
                        uploads.insert((digest.as_bytes(), scope, writer.as_str()), size)?;
                    }
                }
            }
            let mut meta = transaction.open_table(META)?;
            let fence = meta.get("fence")?.map_or(0, |row| row.value());
            meta.insert("fence", fence.saturating_add(FENCES))?;
            results.len()?
        };
        transaction.commit()?;
        Ok(count)
    }
}

/// Numbers only rise, and the format is this one.
fn number(transaction: &WriteTransaction, name: &str, value: u64) -> Result<(), redb::Error> {
    let mut meta = transaction.open_table(META)?;
    let before = meta.get(name)?.map_or(0, |row| row.value());
    if name != "format" && value > before {
        meta.insert(name, value)?;
    }
    Ok(())
}

fn result(
    transaction: &WriteTransaction,
    scope: &Scope,
    action: ActionKey,
    stored: &StoredResult,
) -> Result<(), redb::Error> {
    let before: Option<StoredResult> = {
        let mut results = transaction.open_table(RESULTS)?;
        let key = (scope.as_str(), action.as_bytes());
        let before = results.insert(key, encode(stored)?.as_slice())?;
        before.map(|row| decode(row.value())).transpose()?
    };
    if let Some(before) = before {
        dereference(transaction, scope, action, &before)?;
        super::forget::unlearn(transaction, scope, action, &before)?;
    }
    reference(transaction, scope, action, stored)?;
    let age_s = transaction.open_table(META)?.get("age_s")?.map_or(0, |row| row.value());
    uses::begin(transaction, scope, action, stored, age_s)
}
