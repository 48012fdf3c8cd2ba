//! The check: whether the index and the files say the same, both ways, and the tables among each other.
//!
//! A *finding* is what no kill and no bad disk may leave: somebody changed the store by hand, or the server has a bug. What
//! a kill does leave (blobs that nobody names yet) and what waits for its bytes to come again (results whose blob was found
//! damaged) is told as a note, for it mends itself. The rows are those of one moment; nothing may be removed meanwhile.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::sync::Arc;

use pcmcache_shared::{ActionKey, Digest, Scope};
use redb::{ReadTransaction, ReadableTable as _};

use super::Embedded;
use super::files::{Files, Found};
use super::index::blocking;
use super::journal::Journal;
use super::lost::LOST;
use super::tables::{
    LEASES, LeaseRow, REFERENCES, RESULTS, SET_RESULTS, SETS, UPLOADS, decode, encode, names, spell_writers,
};
use super::uses::USED;
use crate::fault::Fault;
use crate::results::StoredResult;

/// How many of each are told; the rest is counted.
const TOLD: usize = 1000;

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checked {
    /// How many results there are.
    pub results: u64,
    /// How many blobs.
    pub blobs: u64,
    /// What is wrong, and what to do about it; no more than some of it where it is much.
    pub findings: Vec<String>,
    /// How many findings there are in all.
    pub found: u64,
    /// What is as it may be and is worth knowing.
    pub notes: Vec<String>,
}

impl Embedded {
    /// Checks the store; with `full` all bytes too, which takes as long as reading them.
    pub async fn check(self: &Arc<Self>, full: bool) -> Result<Checked, Fault> {
        const OPERATION: &str = "check the store";
        let (index, files, journal) =
            (Arc::clone(&self.index), Arc::clone(&self.files), Arc::clone(&self.journal));
        blocking(OPERATION, move || {
            let io = |error| Fault::io(OPERATION, error);
            let mut check = Check::default();
            // The rows first: a file that comes after them is none the worse for having none yet.
            let rows = index.view(|transaction| check.look_at_rows(transaction));
            rows.map_err(|error| super::index::fault(OPERATION, &error))?;
            check.look_at_files(&files).map_err(io)?;
            check.look_at_journal(&journal).map_err(io)?;
            check.compare(&files);
            if full {
                check.read_all(&files).map_err(io)?;
            }
            Ok(check.checked)
        })
        .await
    }
}

#[derive(Default)]
struct Check {
    checked: Checked,
    /// The files of blobs, with their sizes.
    files: HashMap<Digest, u64>,
    damaged: HashSet<Digest>,
    /// What the index says of each blob: the size it was put with, and whether a result names it.
    rows: HashMap<Digest, Row>,
    lost: HashSet<Digest>,
    /// The results' keys, each with the digest of its row.
    results: HashMap<(String, ActionKey), Digest>,
}

#[derive(Default)]
struct Row {
    put: Option<u64>,
    named: Option<ActionKey>,
}

impl Check {
    fn find(&mut self, what: impl Display) {
        self.checked.found += 1;
        if self.checked.findings.len() < TOLD {
            self.checked.findings.push(what.to_string());
        }
    }

    fn look_at_files(&mut self, files: &Files) -> std::io::Result<()> {
        for found in files.walk()? {
            match found {
                Found::Blob(digest, size) => drop(self.files.insert(digest, size)),
                Found::Damaged(digest) => drop(self.damaged.insert(digest)),
                Found::Strange(path) => self.find(format_args!(
                    "{}: a file that the server did not make; look at it, then remove it",
                    path.display()
                )),
            }
        }
        self.checked.blobs = self.files.len() as u64;
        Ok(())
    }

    /// All results are in the journal too, so that they outlive the index.
    fn look_at_journal(&mut self, journal: &Journal) -> std::io::Result<()> {
        let mut missing = std::mem::take(&mut self.results);
        journal.results(|scope, action, stored| {
            let key = (scope.to_string(), action);
            if encode(stored).is_ok_and(|row| missing.get(&key) == Some(&Digest::of(row))) {
                missing.remove(&key);
            }
        })?;
        for (scope, action) in missing.into_keys() {
            self.find(format_args!(
                "result {action} in {scope}: would be lost with the index, for it is not in results/; make a backup"
            ));
        }
        Ok(())
    }

    fn look_at_rows(&mut self, rows: &ReadTransaction) -> Result<(), redb::Error> {
        for row in rows.open_table(LOST)?.iter()? {
            self.lost.insert(Digest::from_bytes(*row?.0.value()));
        }
        for row in rows.open_table(UPLOADS)?.iter()? {
            let (key, size) = row?;
            let digest = Digest::from_bytes(*key.value().0);
            let size = size.value();
            match self.rows.entry(digest).or_default().put.replace(size) {
                Some(other) if other != size => {
                    self.find(format_args!("blob {digest}: was put with {other} bytes and with {size}"));
                }
                Some(_) | None => {}
            }
        }
        self.results(rows)?;
        self.references(rows)?;
        self.sets(rows)?;
        for row in rows.open_table(LEASES)?.iter()? {
            let (key, row) = row?;
            if decode::<LeaseRow>(row.value()).is_err() {
                self.find(format_args!("a lease in {}: cannot be read; {REBUILD}", key.value().0));
            }
        }
        Ok(())
    }

    fn results(&mut self, rows: &ReadTransaction) -> Result<(), redb::Error> {
        let (references, used) = (rows.open_table(REFERENCES)?, rows.open_table(USED)?);
        let results = rows.open_table(RESULTS)?;
        for row in results.iter()? {
            let (key, row) = row?;
            let (scope, action) = (key.value().0, ActionKey::from_bytes(*key.value().1));
            self.checked.results += 1;
            self.results.insert((scope.to_owned(), action), Digest::of(row.value()));
            let (Ok(_), Ok(stored)) = (scope.parse::<Scope>(), decode::<StoredResult>(row.value())) else {
                self.find(format_args!("result {action} in {scope}: cannot be read; {REBUILD}"));
                continue;
            };
            if used.get(key.value())?.is_none() {
                self.find(format_args!("result {action} in {scope}: is not known to eviction; {REBUILD}"));
            }
            let writers = spell_writers(&stored.writers);
            for digest in stored.references(action) {
                let reference = references.get((digest.as_bytes(), scope, action.as_bytes()))?;
                if reference.is_none_or(|reference| reference.value() != writers) {
                    self.find(format_args!(
                        "result {action} in {scope}: its reference to the blob {digest} is not right; {REBUILD}"
                    ));
                }
                self.rows.entry(digest).or_default().named = Some(action);
            }
            for output in &stored.result.outputs {
                let put = self.rows.get(&output.digest).and_then(|row| row.put);
                if put.is_some_and(|put| put != output.size) {
                    self.find(format_args!(
                        "result {action} in {scope}: says its {} has {} bytes, and the blob {} has another size; {REBUILD}",
                        output.role, output.size, output.digest
                    ));
                }
            }
        }
        for row in used.iter()? {
            let key = row?.0;
            if results.get(key.value())?.is_none() {
                let (scope, action) = (key.value().0, ActionKey::from_bytes(*key.value().1));
                self.find(format_args!("a use of {action} in {scope}: there is no such result; {REBUILD}"));
            }
        }
        Ok(())
    }

    fn references(&mut self, rows: &ReadTransaction) -> Result<(), redb::Error> {
        let results = rows.open_table(RESULTS)?;
        for row in rows.open_table(REFERENCES)?.iter()? {
            let key = row?.0;
            let (digest, scope, action) = key.value();
            let (blob, key) = (Digest::from_bytes(*digest), ActionKey::from_bytes(*action));
            let stored = results.get((scope, action))?.map(|row| decode::<StoredResult>(row.value()));
            let is_right = stored.is_some_and(|stored| {
                stored.is_ok_and(|stored| stored.references(key).any(|named| named == blob))
            });
            if !is_right {
                self.find(format_args!(
                    "the blob {blob}: is kept for a result {key} in {scope} that does not name it; {REBUILD}"
                ));
            }
        }
        Ok(())
    }

    fn sets(&mut self, rows: &ReadTransaction) -> Result<(), redb::Error> {
        let (sets, under) = (rows.open_table(SETS)?, rows.open_table(SET_RESULTS)?);
        let results = rows.open_table(RESULTS)?;
        for row in sets.iter()? {
            let (key, row) = row?;
            let (scope, unit) = key.value();
            let known = names(row.value());
            let distinct: HashSet<_> = known.iter().collect();
            if known.is_empty() || distinct.len() != known.len() || row.value().len() % 32 != 0 {
                self.find(format_args!("the sets of a unit in {scope}: are not a list of sets; {REBUILD}"));
            }
            for set in &known {
                if under.get((scope, unit, set))?.is_none() {
                    let set = Digest::from_bytes(*set);
                    self.find(format_args!("the set {set} in {scope}: no result is under it; {REBUILD}"));
                }
            }
        }
        for row in under.iter()? {
            let (key, row) = row?;
            let (scope, unit, set) = key.value();
            let name = Digest::from_bytes(*set);
            let of_unit = sets.get((scope, unit))?.map(|row| names(row.value())).unwrap_or_default();
            if !of_unit.contains(set) {
                self.find(format_args!("the set {name} in {scope}: its unit does not know it; {REBUILD}"));
            }
            for action in names(row.value()) {
                let stored = results.get((scope, &action))?.map(|row| decode::<StoredResult>(row.value()));
                let is_under = stored.is_some_and(|stored| {
                    stored.is_ok_and(|stored| stored.set == name && stored.unit.as_bytes() == unit)
                });
                if !is_under {
                    let action = ActionKey::from_bytes(action);
                    self.find(format_args!(
                        "the set {name} in {scope}: {action} is no result under it; {REBUILD}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// The rows of blobs with their files.
    fn compare(&mut self, files: &Files) {
        let mut waiting = 0;
        for (digest, Row { put, named }) in std::mem::take(&mut self.rows) {
            let is_known_lost = self.lost.contains(&digest) || self.damaged.contains(&digest);
            let names_it =
                named.map_or("no result names it".to_owned(), |action| format!("{action} names it"));
            match (put, self.files.remove(&digest)) {
                (Some(put), Some(size)) if put == size => {}
                (Some(put), Some(size)) => self.find(format_args!(
                    "{}: has {size} bytes and should have {put}; `scrub` moves it aside",
                    files.place_of(digest).display()
                )),
                // Who stored it again was killed before that was written down.
                (None, Some(_)) if is_known_lost => waiting += u64::from(named.is_some()),
                (None, Some(_)) if named.is_some() => {
                    self.find(format_args!(
                        "blob {digest}: is there, and nobody put it; {names_it}; {REBUILD}"
                    ));
                }
                (None, Some(size)) => drop(self.files.insert(digest, size)),
                (_, None) if is_known_lost => waiting += u64::from(named.is_some()),
                (_, None) => self.find(format_args!("blob {digest}: is gone; {names_it}; {REBUILD}")),
            }
        }
        if waiting > 0 {
            self.note(format_args!(
                "{waiting} blobs that results name are lost; those results answer once they are stored again"
            ));
        }
        if !self.files.is_empty() {
            let count = self.files.len();
            self.note(format_args!(
                "{count} blobs are nobody's, as a kill leaves them; the sweep removes them"
            ));
        }
        if !self.damaged.is_empty() {
            let count = self.damaged.len();
            self.note(format_args!(
                "copies of {count} blobs were moved aside, into damaged/, for you to look at"
            ));
        }
    }

    fn note(&mut self, note: impl Display) {
        self.checked.notes.push(note.to_string());
    }

    /// All bytes with their names.
    fn read_all(&mut self, files: &Files) -> std::io::Result<()> {
        for found in files.walk()? {
            let Found::Blob(digest, _) = found else { continue };
            let Some(reading) = files.read_from_disk(digest)? else { continue };
            match pcmcache_shared::digest::hash_reader(&reading.file) {
                Ok((actual, _)) if actual == digest => {}
                // Nobody's: a power cut may leave it cut short.
                Ok(_) if self.files.contains_key(&digest) => {}
                Ok(_) => self.find(format_args!(
                    "{}: its bytes are not those of its name; `scrub` moves it aside",
                    files.place_of(digest).display()
                )),
                Err(error) => self.find(format_args!("{error}; look after the disk, then `scrub`")),
            }
        }
        Ok(())
    }
}

/// What to do about an index that contradicts itself.
const REBUILD: &str = "stop the server and run `pcmcache-server rebuild-index`";
