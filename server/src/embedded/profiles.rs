//! Profiles as rows: one that holds a profile, a small one that says when it was used, so that looking for what goes reads
//! no profile.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pcmcache_shared::{ActionKey, ProfileName, Scope};
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use super::Embedded;
use super::index::corrupted;
use super::journal::Record;
use super::tables::{AFTER_SCOPES, decode, encode, names};
use crate::fault::Fault;
use crate::profiles::{FORGOTTEN_AFTER, MAX_KEYS, MAX_PROFILES, NOTED_AFTER, Profiles, StoredProfile};

/// (scope, name) -> a line of JSON, then the keys, 32 bytes each.
pub(super) const PROFILES: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("profiles");
/// (scope, name) -> (last use, in seconds of the store's own time; how many keys).
pub(super) const PROFILES_USED: TableDefinition<(&str, &str), (u64, u64)> =
    TableDefinition::new("profiles-used");

/// As many keys are in one line of the journal.
const KEYS_A_LINE: usize = 8192;

#[async_trait]
impl Profiles for Embedded {
    async fn put(&self, scope: &Scope, name: &ProfileName, profile: StoredProfile) -> Result<(), Fault> {
        let (scope, name, now_s) = (scope.clone(), name.clone(), self.age.now_s());
        let journal = Arc::clone(&self.journal);
        let put = move |transaction: &WriteTransaction| {
            store(transaction, &scope, &name, &profile, now_s)?;
            forget_unused(transaction, &scope, &name, now_s)?;
            lines(&scope, &name, &profile)
                .try_for_each(|record| journal.note_record(&record).map_err(redb::Error::Io))
        };
        self.writer.write("store a profile", put).await
    }

    async fn profile(&self, scope: &Scope, name: &ProfileName) -> Result<Option<StoredProfile>, Fault> {
        let (scope, name) = (scope.clone(), name.clone());
        let read = self.index.read("read a profile", move |transaction| {
            let row = transaction.open_table(PROFILES)?.get((scope.as_str(), name.as_str()))?;
            row.map(|row| read_row(row.value())).transpose()
        });
        read.await
    }

    async fn touch(&self, scope: &Scope, name: &ProfileName) -> Result<(), Fault> {
        let (scope, name, now_s) = (scope.clone(), name.clone(), self.age.now_s());
        let is_new = {
            let (scope, name) = (scope.clone(), name.clone());
            self.index.read("read a profile's use", move |transaction| {
                let used = transaction.open_table(PROFILES_USED)?;
                let row = used.get((scope.as_str(), name.as_str()))?.map(|row| row.value());
                Ok(row.is_some_and(|(used_s, _)| now_s.saturating_sub(used_s) >= NOTED_AFTER.as_secs()))
            })
        };
        if !is_new.await? {
            return Ok(());
        }
        let touch = move |transaction: &WriteTransaction| {
            let mut used = transaction.open_table(PROFILES_USED)?;
            let key = (scope.as_str(), name.as_str());
            let row = used.get(key)?.map(|row| row.value());
            if let Some((used_s, keys)) = row {
                used.insert(key, (now_s.max(used_s), keys))?;
            }
            Ok(())
        };
        self.writer.write("note a profile's use", touch).await
    }

    async fn recent(&self, within: Duration) -> Result<Vec<(Scope, ProfileName)>, Fault> {
        let now_s = self.age.now_s();
        let read = self.index.read("look which profiles are used", move |transaction| {
            let mut recent = Vec::new();
            for row in transaction.open_table(PROFILES_USED)?.iter()? {
                let (key, row) = row?;
                let ((scope, name), (used_s, _)) = (key.value(), row.value());
                if now_s.saturating_sub(used_s) <= within.as_secs() {
                    recent.push((Reverse(used_s), (parsed(scope)?, parsed(name)?)));
                }
            }
            recent.sort();
            Ok(recent.into_iter().map(|(_, key)| key).collect())
        });
        read.await
    }
}

fn parsed<T: std::str::FromStr>(name: &str) -> Result<T, redb::Error> {
    name.parse().map_err(|_| corrupted("a profile of no name"))
}

fn read_row(row: &[u8]) -> Result<StoredProfile, redb::Error> {
    let end = row.iter().position(|byte| *byte == b'\n').ok_or_else(|| corrupted("a profile of no form"))?;
    let (head, keys) = row.split_at_checked(end + 1).unwrap_or_default();
    let actions = names(keys).into_iter().map(ActionKey::from_bytes).collect();
    Ok(StoredProfile { actions, ..decode(head)? })
}

fn row_of(profile: &StoredProfile) -> Result<Vec<u8>, redb::Error> {
    let mut row = encode(profile)?;
    row.push(b'\n');
    row.extend(profile.actions.iter().flat_map(|action| action.as_bytes()));
    Ok(row)
}

fn store(
    transaction: &WriteTransaction,
    scope: &Scope,
    name: &ProfileName,
    profile: &StoredProfile,
    used_s: u64,
) -> Result<(), redb::Error> {
    let key = (scope.as_str(), name.as_str());
    transaction.open_table(PROFILES)?.insert(key, row_of(profile)?.as_slice())?;
    transaction.open_table(PROFILES_USED)?.insert(key, (used_s, profile.actions.len() as u64))?;
    Ok(())
}

/// Removes what the scope has too many of, the new one last; and of all scopes what nobody used for long.
fn forget_unused(
    transaction: &WriteTransaction,
    scope: &Scope,
    new: &ProfileName,
    now_s: u64,
) -> Result<(), redb::Error> {
    let mut going = Vec::new();
    let mut used = transaction.open_table(PROFILES_USED)?;
    for row in used.iter()? {
        let (key, row) = row?;
        let (scope, name) = key.value();
        if now_s.saturating_sub(row.value().0) >= FORGOTTEN_AFTER.as_secs() {
            going.push((scope.to_owned(), name.to_owned()));
        }
    }
    let mut order = Vec::new();
    for row in used.range((scope.as_str(), "")..(scope.as_str(), AFTER_SCOPES))? {
        let (key, row) = row?;
        let (name, (used_s, keys)) = (key.value().1.to_owned(), row.value());
        order.push((name != new.as_str(), Reverse(used_s), name, keys));
    }
    order.sort();
    let (mut count, mut sum) = (0, 0);
    for (_, _, name, keys) in order {
        count += 1;
        sum += keys;
        if count > MAX_PROFILES || sum > MAX_KEYS {
            going.push((scope.to_string(), name));
        }
    }
    let mut profiles = transaction.open_table(PROFILES)?;
    for (scope, name) in &going {
        profiles.remove((scope.as_str(), name.as_str()))?;
        used.remove((scope.as_str(), name.as_str()))?;
    }
    Ok(())
}

/// A profile as lines of the journal. One that lacks its last lines is one that names less.
fn lines(scope: &Scope, name: &ProfileName, profile: &StoredProfile) -> impl Iterator<Item = Record> {
    let head = Record::Profile {
        scope: scope.clone(),
        name: name.clone(),
        profile: StoredProfile { actions: Vec::new(), ..profile.clone() },
    };
    let rest = profile.actions.chunks(KEYS_A_LINE).map(|actions| Record::InProfile {
        scope: scope.clone(),
        name: name.clone(),
        actions: actions.to_vec(),
    });
    std::iter::once(head).chain(rest)
}

/// Writes all profiles down, and when they were used.
pub(super) fn dump(
    rows: &ReadTransaction,
    mut write: impl FnMut(Record) -> Result<(), redb::Error>,
) -> Result<(), redb::Error> {
    for row in rows.open_table(PROFILES)?.iter()? {
        let (key, row) = row?;
        let (scope, name) = (parsed(key.value().0)?, parsed(key.value().1)?);
        lines(&scope, &name, &read_row(row.value())?).try_for_each(&mut write)?;
    }
    for row in rows.open_table(PROFILES_USED)?.iter()? {
        let (key, row) = row?;
        let (scope, name) = (parsed(key.value().0)?, parsed(key.value().1)?);
        write(Record::UsedProfile { scope, name, at_s: row.value().0 })?;
    }
    Ok(())
}

/// Takes a profile's first line in again: it takes the place of the one of that name.
pub(super) fn begin(
    transaction: &WriteTransaction,
    scope: &Scope,
    name: &ProfileName,
    profile: &StoredProfile,
    now_s: u64,
) -> Result<(), redb::Error> {
    store(transaction, scope, name, profile, now_s)
}

/// Takes a further line in.
pub(super) fn go_on(
    transaction: &WriteTransaction,
    scope: &Scope,
    name: &ProfileName,
    actions: &[ActionKey],
) -> Result<(), redb::Error> {
    let key = (scope.as_str(), name.as_str());
    let row = transaction.open_table(PROFILES)?.get(key)?.map(|row| read_row(row.value()));
    let used = transaction.open_table(PROFILES_USED)?.get(key)?.map(|row| row.value());
    let (Some(profile), Some((used_s, _))) = (row.transpose()?, used) else { return Ok(()) };
    let actions = [profile.actions.as_slice(), actions].concat();
    store(transaction, scope, name, &StoredProfile { actions, ..profile }, used_s)
}

/// Takes in when it was used.
pub(super) fn used(
    transaction: &WriteTransaction,
    scope: &Scope,
    name: &ProfileName,
    at_s: u64,
) -> Result<(), redb::Error> {
    let mut used = transaction.open_table(PROFILES_USED)?;
    let key = (scope.as_str(), name.as_str());
    let row = used.get(key)?.map(|row| row.value());
    if let Some((_, keys)) = row {
        used.insert(key, (at_s, keys))?;
    }
    Ok(())
}
