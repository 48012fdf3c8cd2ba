//! Results as rows.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pcmcache_shared::api::limits::{MAX_RESULTS_PER_SET, MAX_SETS};
use pcmcache_shared::{ActionKey, Digest, Scope, UnitKey, mutant};
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::Embedded;
use super::forget::forget;
use super::index::corrupted;
use super::leases::remove_row;
use super::lost;
use super::tables::{
    AFTER_SCOPES, Name, REFERENCES, RESULTS, SET_RESULTS, SETS, decode, encode, names, naming, read_writers,
    spell_writers,
};
use super::uses::{self, KEPT, Search};
use crate::fault::Fault;
use crate::results::{
    Creation, MAX_NAMING, Overdue, Pinned, Publication, Removed, Results, SetRow, Standing, StoredResult, Use,
};
use crate::trust::WriterSet;

#[async_trait]
impl Results for Embedded {
    async fn get(&self, scope: &Scope, action: ActionKey) -> Result<Option<StoredResult>, Fault> {
        let scope = scope.clone();
        let read = self.index.read("read a result", move |transaction| {
            let results = transaction.open_table(RESULTS)?;
            let row = results.get((scope.as_str(), action.as_bytes()))?;
            row.map(|row| decode(row.value())).transpose()
        });
        read.await
    }

    async fn create(&self, scope: &Scope, publication: Publication) -> Result<Creation, Fault> {
        let (scope, now_s, journal) = (scope.clone(), self.age.now_s(), Arc::clone(&self.journal));
        let create = move |transaction: &WriteTransaction| {
            let creation = create(transaction, &scope, &publication, now_s)?;
            if creation == Creation::Created {
                journal.note(&scope, publication.action, &publication.stored).map_err(redb::Error::Io)?;
            }
            Ok(creation)
        };
        self.writer.write("store a result", create).await
    }

    async fn sets(&self, scope: &Scope, unit: UnitKey) -> Result<Vec<SetRow>, Fault> {
        let scope = scope.clone();
        let read = self.index.read("read include sets", move |transaction| {
            let (sets, results) = (transaction.open_table(SETS)?, transaction.open_table(SET_RESULTS)?);
            let Some(row) = sets.get((scope.as_str(), unit.as_bytes()))? else { return Ok(Vec::new()) };
            let mut rows = Vec::new();
            for set in names(row.value()) {
                let actions = results.get((scope.as_str(), unit.as_bytes(), &set))?;
                let actions = actions.map(|row| names(row.value())).unwrap_or_default();
                let actions = actions.into_iter().map(ActionKey::from_bytes).collect();
                rows.push(SetRow { set: Digest::from_bytes(set), actions });
            }
            Ok(rows)
        });
        read.await
    }

    async fn names(&self, scopes: &[Scope], digest: Digest, hidden: &WriterSet) -> Result<bool, Fault> {
        let (scopes, hidden) = (scopes.to_vec(), hidden.clone());
        let read = self.index.read("look what names a blob", move |transaction| {
            let references = transaction.open_table(REFERENCES)?;
            for scope in &scopes {
                for row in references.range(naming(&digest, scope.as_str()))?.take(MAX_NAMING) {
                    let (_, writers) = row?;
                    if !hidden.has_any(&read_writers(writers.value())) {
                        return Ok(true);
                    }
                }
            }
            Ok(false)
        });
        read.await
    }

    async fn named_in(&self, digests: Vec<Digest>) -> Result<Vec<(Digest, Vec<Scope>)>, Fault> {
        let read = self.index.read("read references", move |transaction| {
            let references = transaction.open_table(REFERENCES)?;
            digests.into_iter().map(|digest| Ok((digest, scopes_naming(&references, digest)?))).collect()
        });
        read.await
    }

    async fn count(&self) -> Result<u64, Fault> {
        let count = self.index.read("count the results", |transaction| {
            Ok(transaction.open_table(RESULTS)?.len()?.saturating_sub(lost::hidden_results(transaction)?))
        });
        count.await
    }

    async fn used(&self, uses: Vec<Use>) -> Result<(), Fault> {
        let now_s = self.age.now_s();
        self.writer.write("note uses", move |transaction| uses::note(transaction, &uses, now_s)).await
    }

    async fn coldest(
        &self,
        scope: Option<&Scope>,
        at_most: usize,
        idle: Duration,
        overdue: Overdue,
        pinned: &Pinned,
    ) -> Result<Vec<Standing>, Fault> {
        let search = Search { scope: scope.cloned(), at_most, idle, overdue, pinned: pinned.clone() };
        let now_s = self.age.now_s();
        let read = move |transaction: &ReadTransaction| uses::coldest(transaction, &search, now_s);
        self.index.read("look for what is used least", read).await
    }

    async fn remove(&self, results: Vec<(Scope, ActionKey)>, idle: Duration) -> Result<Removed, Fault> {
        let now_s = self.age.now_s();
        let remove = move |transaction: &WriteTransaction| {
            forget(transaction, &uses::idle(transaction, &results, idle, now_s)?)
        };
        self.writer.write("remove results", remove).await
    }

    async fn tidy(&self) -> Result<(), Fault> {
        if self.journal.is_long() { self.rebase_journal().await } else { Ok(()) }
    }

    async fn keep(&self, scope: &Scope, action: ActionKey, kept: bool) -> Result<(), Fault> {
        let scope = scope.clone();
        let mark = move |transaction: &WriteTransaction| {
            let mut marks = transaction.open_table(KEPT)?;
            let key = (scope.as_str(), action.as_bytes());
            match kept {
                true => drop(marks.insert(key, ())?),
                false => drop(marks.remove(key)?),
            }
            Ok(())
        };
        self.writer.write("mark a result", mark).await
    }
}

/// The scopes with a result that names the blob: one step into the table for each.
fn scopes_naming(
    references: &impl ReadableTable<(Name, &'static str, Name), &'static str>,
    digest: Digest,
) -> Result<Vec<Scope>, redb::Error> {
    let (mut scopes, mut after) = (Vec::<Scope>::new(), String::new());
    loop {
        let from = (digest.as_bytes(), after.as_str(), &[0; 32]);
        let end = (digest.as_bytes(), AFTER_SCOPES, &[0; 32]);
        let Some(row) = references.range(from..end)?.next().transpose()? else { return Ok(scopes) };
        let scope = row.0.value().1;
        // The least text that is more than it.
        after = format!("{scope}\0");
        scopes.push(scope.parse().map_err(|_| corrupted("a reference of no scope"))?);
    }
}

/// The whole of a publication, as part of one transaction.
fn create(
    transaction: &WriteTransaction,
    scope: &Scope,
    publication: &Publication,
    now_s: u64,
) -> Result<Creation, redb::Error> {
    let Publication { action, stored, instead_of, ends } = publication;
    let before: Option<StoredResult> = {
        let results = transaction.open_table(RESULTS)?;
        let row = results.get((scope.as_str(), action.as_bytes()))?;
        row.map(|row| decode(row.value())).transpose()?
    };
    match before {
        Some(there) if instead_of.as_ref() != Some(&there) && !mutant!("overwrite-on-conflict") => {
            return Ok(Creation::Exists(Box::new(there)));
        }
        Some(lost) => dereference(transaction, scope, *action, &lost)?,
        None => {}
    }
    transaction
        .open_table(RESULTS)?
        .insert((scope.as_str(), action.as_bytes()), encode(stored)?.as_slice())?;
    reference(transaction, scope, *action, stored)?;
    learn(transaction, scope, *action, stored)?;
    uses::begin(transaction, scope, *action, stored, now_s)?;
    if let Some((claim, fence)) = ends {
        remove_row(transaction, scope, *claim, *fence)?;
    }
    Ok(Creation::Created)
}

pub(super) fn reference(
    transaction: &WriteTransaction,
    scope: &Scope,
    action: ActionKey,
    stored: &StoredResult,
) -> Result<(), redb::Error> {
    let mut references = transaction.open_table(REFERENCES)?;
    let writers = spell_writers(&stored.writers);
    for digest in stored.references(action) {
        references.insert((digest.as_bytes(), scope.as_str(), action.as_bytes()), writers.as_str())?;
    }
    Ok(())
}

pub(super) fn dereference(
    transaction: &WriteTransaction,
    scope: &Scope,
    action: ActionKey,
    lost: &StoredResult,
) -> Result<(), redb::Error> {
    let mut references = transaction.open_table(REFERENCES)?;
    for digest in lost.references(action) {
        references.remove((digest.as_bytes(), scope.as_str(), action.as_bytes()))?;
    }
    Ok(())
}

/// Puts the result first under its set, and a set that is new to the unit before the others.
pub(super) fn learn(
    transaction: &WriteTransaction,
    scope: &Scope,
    action: ActionKey,
    stored: &StoredResult,
) -> Result<(), redb::Error> {
    let (unit, set) = (stored.unit.as_bytes(), stored.set.as_bytes());
    let mut sets = transaction.open_table(SETS)?;
    let mut set_results = transaction.open_table(SET_RESULTS)?;
    let mut known = sets.get((scope.as_str(), unit))?.map(|row| names(row.value())).unwrap_or_default();
    if !known.contains(set) {
        known.insert(0, *set);
        for oldest in known.split_off(MAX_SETS.min(known.len())) {
            set_results.remove((scope.as_str(), unit, &oldest))?;
        }
        sets.insert((scope.as_str(), unit), known.concat().as_slice())?;
    }
    let key = (scope.as_str(), unit, set);
    let mut actions = set_results.get(key)?.map(|row| names(row.value())).unwrap_or_default();
    actions.retain(|known| known != action.as_bytes());
    actions.insert(0, *action.as_bytes());
    actions.truncate(MAX_RESULTS_PER_SET);
    set_results.insert(key, actions.concat().as_slice())?;
    Ok(())
}
