//! The journal: what the index says, once more, as text, so that losing the index loses no result.
//!
//! ```text
//! results/00000000000000000007.base     all rows at one moment, as the roll to segment 7 left them
//! results/00000000000000000007.log      results and profiles created since
//! results/00000000000000000008.log      and since the next start
//! ```
//!
//! Each line is a check sum and a [`Record`] as JSON. A result's line is durable before the transaction that creates
//! it is, so every result that was acknowledged is here; of two lines on one key the later holds. What a kill leaves is
//! a line cut off at a segment's end, which does not match its sum, or a result that the index never got, which was
//! not acknowledged and does no harm: its blobs are verified like any other's. Nobody appends to a segment of an earlier
//! process, or to one that an error may have left half a line in. Removals are not here: a result whose blobs are gone
//! is passed over. A base takes the place of all before it, by rename.

mod dump;
mod record;

use std::io::{self, BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pcmcache_shared::{ActionKey, Scope, disk};

pub(super) use self::dump::dump;
pub(super) use self::record::{MAX_LINE, Record};
use super::files::none_if_missing;
use crate::results::StoredResult;

/// The segments may grow to so many bytes, or to the size of the base, before a new base takes their place.
const ROLL_AT: u64 = 64 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Journal {
    directory: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Of the batch that is being written: whole lines.
    pending: Vec<u8>,
    segment: Option<disk::File>,
    next: u64,
    /// What the segments since the base hold, in bytes.
    since_base: u64,
    base: u64,
}

impl Journal {
    /// Opens the journal of a store, which may be empty.
    pub(super) fn open(store: &Path) -> io::Result<Self> {
        let directory = directory_of(store);
        disk::create_private_dir_all(&directory)?;
        let parts = Parts::of(&directory)?;
        let size = |path: &PathBuf| disk::metadata(path).map(|metadata| metadata.len());
        let since_base = parts.logs.iter().map(|(_, path)| size(path)).sum::<io::Result<u64>>()?;
        let base = parts.base.as_ref().map(|(_, path)| size(path)).transpose()?.unwrap_or_default();
        let state = State { pending: Vec::new(), segment: None, next: parts.next(), since_base, base };
        Ok(Self { directory, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a store without any row would be one that lost them.
    pub(super) fn is_there(store: &Path) -> io::Result<bool> {
        match none_if_missing(Parts::of(&directory_of(store)))? {
            Some(parts) => Ok(parts.base.is_some() || !parts.logs.is_empty()),
            None => Ok(false),
        }
    }

    /// Whether there is a base: without one, rows of before the journal are not in it.
    pub(super) fn has_base(&self) -> io::Result<bool> {
        Ok(Parts::of(&self.directory)?.base.is_some())
    }

    /// Takes a line into the batch that is being written.
    pub(super) fn note(&self, scope: &Scope, action: ActionKey, stored: &StoredResult) -> io::Result<()> {
        self.note_record(&Record::Result { scope: scope.clone(), action, stored: Box::new(stored.clone()) })
    }

    /// The same of a line of any kind.
    pub(super) fn note_record(&self, record: &Record) -> io::Result<()> {
        record.write(&mut self.state().pending)
    }

    /// Makes the lines of the batch durable; what they say may be done then.
    pub(super) fn flush(&self) -> io::Result<()> {
        let mut state = self.state();
        let pending = std::mem::take(&mut state.pending);
        if pending.is_empty() {
            return Ok(());
        }
        let segment = match state.segment.take() {
            Some(segment) => segment,
            None => self.begin(&mut state)?,
        };
        // Kept only if all went well: after an error nobody knows what the segment ends with.
        append(&segment, &pending)?;
        state.segment = Some(segment);
        state.since_base += pending.len() as u64;
        Ok(())
    }

    /// The batch was not written.
    pub(super) fn discard(&self) {
        self.state().pending.clear();
    }

    fn begin(&self, state: &mut State) -> io::Result<disk::File> {
        let path = self.directory.join(name(state.next, LOG));
        let segment = disk::OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        state.next += 1;
        disk::sync_directory(&self.directory)?;
        Ok(segment)
    }

    /// Tells of each result that is in the journal.
    pub(super) fn results(&self, mut take: impl FnMut(&Scope, ActionKey, &StoredResult)) -> io::Result<()> {
        let read = read_in(&self.directory, |record, _| {
            if let Record::Result { scope, action, stored } = &record {
                take(scope, *action, stored);
            }
            Ok(())
        });
        read.map(drop)
    }

    /// Whether a new base is worth its writing.
    pub(super) fn is_long(&self) -> bool {
        let state = self.state();
        state.since_base >= ROLL_AT.max(state.base)
    }

    /// What comes from now on goes to a new segment, whose number this is.
    pub(super) fn roll(&self) -> u64 {
        let mut state = self.state();
        state.segment = None;
        state.since_base = 0;
        state.next
    }

    /// Puts all rows in the place of everything before the roll to `number`. `write` writes them as they were at a moment
    /// after the roll.
    pub(super) fn rebase(
        &self,
        number: u64,
        write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let path = self.directory.join(name(number, BASE));
        let size = write_whole(&path, write)?;
        self.state().base = size;
        for old in Parts::before(&self.directory, number)? {
            disk::remove_file(old)?;
        }
        Ok(())
    }
}

/// Has a dump be all there is in the journal of a new store.
pub(super) fn restore(store: &Path, rows: &Path) -> io::Result<()> {
    let directory = directory_of(store);
    disk::create_private_dir_all(&directory)?;
    for old in Parts::before(&directory, u64::MAX)? {
        disk::remove_file(old)?;
    }
    let mut rows = disk::File::open(rows)?;
    write_whole(&directory.join(name(1, BASE)), |to| io::copy(&mut rows, to).map(drop))?;
    Ok(())
}

/// Writes a file that has its name only when it is whole and durable; says how long it is.
pub(super) fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
) -> io::Result<u64> {
    let unfinished = path.with_extension("unfinished");
    none_if_missing(disk::remove_file(&unfinished))?;
    let file = disk::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    let mut writer = io::BufWriter::with_capacity(256 * 1024, file);
    write(&mut writer)?;
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    let size = file.metadata()?.len();
    disk::rename(unfinished, path)?;
    disk::sync_directory(path.parent().unwrap_or(Path::new(".")))?;
    Ok(size)
}

fn append(mut segment: &disk::File, lines: &[u8]) -> io::Result<()> {
    segment.write_all(lines)?;
    segment.sync_data()
}

const BASE: &str = "base";
const LOG: &str = "log";

pub(super) fn directory_of(store: &Path) -> PathBuf {
    store.join("results")
}

fn name(number: u64, kind: &str) -> String {
    format!("{number:020}.{kind}")
}

/// The base with the greatest number and the segments from it on, in order.
#[derive(Debug, Default)]
struct Parts {
    base: Option<(u64, PathBuf)>,
    logs: Vec<(u64, PathBuf)>,
}

impl Parts {
    fn of(directory: &Path) -> io::Result<Self> {
        let mut parts = Self::default();
        for (number, kind, path) in numbered(directory)? {
            if kind == LOG {
                parts.logs.push((number, path));
            } else if parts.base.as_ref().is_none_or(|(base, _)| *base < number) {
                parts.base = Some((number, path));
            }
        }
        let first = parts.base.as_ref().map_or(0, |(number, _)| *number);
        parts.logs.retain(|(number, _)| *number >= first);
        parts.logs.sort();
        Ok(parts)
    }

    /// A number that none has, greater than all.
    fn next(&self) -> u64 {
        let last = self.logs.last().map(|(number, _)| number + 1);
        last.max(self.base.as_ref().map(|(number, _)| *number)).unwrap_or(1)
    }

    /// All that a base of this number takes the place of.
    fn before(directory: &Path, number: u64) -> io::Result<Vec<PathBuf>> {
        let old = numbered(directory)?.into_iter().filter(|(other, ..)| *other < number);
        Ok(old.map(|(_, _, path)| path).collect())
    }
}

/// The files that are numbered, with what they are. What was not finished has no number.
fn numbered(directory: &Path) -> io::Result<Vec<(u64, &'static str, PathBuf)>> {
    let mut numbered = Vec::new();
    for entry in disk::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let parsed = name.to_str().and_then(|name| {
            let (number, kind) = name.split_once('.')?;
            let kind = [BASE, LOG].into_iter().find(|known| *known == kind)?;
            Some((number.parse().ok()?, kind))
        });
        numbered.extend(parsed.map(|(number, kind)| (number, kind, entry.path())));
    }
    Ok(numbered)
}

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// In a base: it is part of a whole.
    Base,
    /// In a segment: it happened after all before it.
    Log,
}

/// Reads the journal of a store from its base to its end. Returns how many lines did not match their sums.
pub(super) fn read(store: &Path, take: impl FnMut(Record, Kind) -> io::Result<()>) -> io::Result<u64> {
    read_in(&directory_of(store), take)
}

fn read_in(directory: &Path, mut take: impl FnMut(Record, Kind) -> io::Result<()>) -> io::Result<u64> {
    let parts = Parts::of(directory)?;
    let mut broken = 0;
    if let Some((_, path)) = &parts.base {
        broken += read_file(path, &mut |record| take(record, Kind::Base))?;
    }
    for (_, path) in &parts.logs {
        broken += read_file(path, &mut |record| take(record, Kind::Log))?;
    }
    Ok(broken)
}

/// The same of one file.
fn read_file(path: &Path, take: &mut impl FnMut(Record) -> io::Result<()>) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(256 * 1024, disk::File::open(path)?);
    let (mut line, mut broken) = (Vec::new(), 0);
    loop {
        line.clear();
        let read = io::Read::take(&mut reader, MAX_LINE).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(broken);
        }
        match Record::parse(&line) {
            Some(record) => take(record)?,
            None => broken += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use pcmcache_shared::{ActionResult, Cost, Digest, Output, Role, UnitKey, Writer};

    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("pcmcache-journal-{name}-{}", std::process::id()));
            fs_err::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs_err::remove_dir_all(&self.0);
        }
    }

    fn stored(bytes: &str) -> StoredResult {
        let output = Output { role: Role::Bmi, digest: Digest::of(bytes), size: bytes.len() as u64 };
        let result = ActionResult {
            outputs: vec![output],
            cost: Cost { wall_ms: 1 },
            builder: bytes.to_owned(),
            signature: None,
        };
        StoredResult {
            result,
            unit: UnitKey::of("unit"),
            set: Digest::of("set"),
            writers: vec![Writer::before_tokens()],
            published_s: 7,
        }
    }

    fn write(journal: &Journal, names: &[&str]) {
        for name in names {
            journal.note(&Scope::default(), ActionKey::of(name), &stored(name)).unwrap();
        }
        journal.flush().unwrap();
    }

    fn builders(store: &Path) -> (Vec<String>, u64) {
        let mut builders = Vec::new();
        let broken = read(store, |record, _| {
            if let Record::Result { stored, .. } = record {
                builders.push(stored.result.builder);
            }
            Ok(())
        });
        (builders, broken.unwrap())
    }

    #[test]
    fn what_was_flushed_is_read_in_its_order_and_what_was_not_is_not() {
        let scratch = Scratch::new("order");
        assert!(!Journal::is_there(&scratch.0).unwrap());
        let journal = Journal::open(&scratch.0).unwrap();
        write(&journal, &["a", "b"]);
        journal.note(&Scope::default(), ActionKey::of("c"), &stored("c")).unwrap();
        journal.discard();
        drop(journal);
        let journal = Journal::open(&scratch.0).unwrap();
        write(&journal, &["d"]);
        assert!(Journal::is_there(&scratch.0).unwrap() && !journal.has_base().unwrap());
        assert_eq!(builders(&scratch.0), (vec!["a".into(), "b".into(), "d".into()], 0));
    }

    #[test]
    fn half_a_line_costs_itself_alone() {
        let scratch = Scratch::new("torn");
        write(&Journal::open(&scratch.0).unwrap(), &["a", "b"]);
        let path = directory_of(&scratch.0).join(name(1, LOG));
        let whole = fs_err::read(&path).unwrap();
        for cut in 1..whole.len() / 2 {
            fs_err::write(&path, &whole[..whole.len() - cut]).unwrap();
            assert_eq!(builders(&scratch.0), (vec!["a".into()], u64::from(cut < whole.len() / 2)), "{cut}");
        }
        for at in 0..whole.len() / 2 - 1 {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs_err::write(&path, &flipped).unwrap();
            let (builders, broken) = builders(&scratch.0);
            assert!(builders.last().unwrap() == "b" && broken >= 1, "{at}: {builders:?}");
        }
        // The next process begins a segment of its own.
        fs_err::write(&path, &whole[..whole.len() - 3]).unwrap();
        write(&Journal::open(&scratch.0).unwrap(), &["c"]);
        assert_eq!(builders(&scratch.0), (vec!["a".into(), "c".into()], 1));
    }

    #[test]
    fn a_base_takes_the_place_of_what_was_before_and_of_nothing_after() {
        let scratch = Scratch::new("base");
        let journal = Journal::open(&scratch.0).unwrap();
        write(&journal, &["a"]);
        let number = journal.roll();
        write(&journal, &["b"]);
        let base = Record::Result {
            scope: Scope::default(),
            action: ActionKey::of("base"),
            stored: Box::new(stored("base")),
        };
        journal.rebase(number, |writer| base.write(writer)).unwrap();
        write(&journal, &["c"]);
        assert_eq!(builders(&scratch.0), (vec!["base".into(), "b".into(), "c".into()], 0));
        assert_eq!(fs_err::read_dir(directory_of(&scratch.0)).unwrap().count(), 2);
        // One that was not finished is none.
        fs_err::write(directory_of(&scratch.0).join("00000000000000000009.unfinished"), "x").unwrap();
        let journal = Journal::open(&scratch.0).unwrap();
        write(&journal, &["d"]);
        assert_eq!(builders(&scratch.0).0, ["base", "b", "c", "d"]);
    }
}
