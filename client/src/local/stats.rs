//! Counters: what launches came to.
//!
//! One file to which every launch appends one line at its end, with one write: launchers do not wait for each other,
//! and nothing is renamed. A killed launch counts nothing; a line that does not match its mark is passed over.
//! Appending goes under a shared lock of the file. Once it is large, one launch sums it up under an exclusive lock into
//! a file of one line and renames that over it; who then holds the old file sees that it has no name, and opens anew.
//!
//! The same counts go, a line a launch, to a log where one is wanted: so are one build's numbers told from another's.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcmcache_shared::staged::Durability;
use pcmcache_shared::{Digest, disk};
use serde::{Deserialize, Serialize};

use super::{Store, sealed};
use crate::os;

/// What launches came to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Compilers actually run for cacheable compile commands.
    pub compiles: u64,
    /// Scanners actually run.
    pub scans: u64,
    /// Commands answered by the local store, scans among them.
    pub local_hits: u64,
    /// Commands answered by the server, scans among them.
    pub remote_hits: u64,
    /// How many of these were scans.
    pub scan_hits: u64,
    /// Commands that waited for someone else's build of the same thing.
    pub waits: u64,
    /// Compiles whose result lost to one published first, and which took that one's bytes.
    pub adopted: u64,
    /// Compiles whose result differs from the published one, and which could not take that one's bytes.
    pub diverged: u64,
    /// Commands that went to the compiler unchanged, by reason.
    pub bypassed: BTreeMap<String, u64>,
    /// Faults of the cache, by kind; none of them fails a build.
    pub errors: BTreeMap<String, u64>,
    /// Bytes of blobs sent to the server.
    pub uploaded_bytes: u64,
    /// Bytes of blobs fetched from the server.
    pub downloaded_bytes: u64,
}

impl Counts {
    /// Counts a fault of this kind.
    pub fn error(&mut self, kind: &str) {
        *self.errors.entry(kind.to_owned()).or_default() += 1;
    }

    /// Counts a command that was not cached for this reason.
    pub fn bypass(&mut self, reason: &str) {
        *self.bypassed.entry(reason.to_owned()).or_default() += 1;
    }

    /// Adds the others.
    pub fn add(&mut self, other: &Self) {
        let scalars = [
            (&mut self.compiles, other.compiles),
            (&mut self.scans, other.scans),
            (&mut self.local_hits, other.local_hits),
            (&mut self.remote_hits, other.remote_hits),
            (&mut self.scan_hits, other.scan_hits),
            (&mut self.waits, other.waits),
            (&mut self.adopted, other.adopted),
            (&mut self.diverged, other.diverged),
            (&mut self.uploaded_bytes, other.uploaded_bytes),
            (&mut self.downloaded_bytes, other.downloaded_bytes),
        ];
        for (mine, theirs) in scalars {
            *mine = mine.saturating_add(theirs);
        }
        for (mine, theirs) in [(&mut self.bypassed, &other.bypassed), (&mut self.errors, &other.errors)] {
            for (name, count) in theirs {
                let mine = mine.entry(name.clone()).or_default();
                *mine = mine.saturating_add(*count);
            }
        }
    }
}

impl Counts {
    /// Appends these counts to a log as one line: one write, so that launches side by side do not mix.
    pub fn append_to(&self, log: &Path) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        disk::OpenOptions::new().append(true).create(true).open(log)?.write_all(&line)
    }

    /// The sum of a log's lines, and how many of them were none.
    pub fn sum_of_log(log: &Path) -> io::Result<(Self, u64)> {
        let (mut sum, mut bad) = (Self::default(), 0);
        let mut lines = BufReader::new(disk::File::open(log)?);
        let mut line = Vec::new();
        while lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? > 0 {
            if line.len() as u64 == MAX_LINE && !line.ends_with(b"\n") {
                lines.skip_until(b'\n')?;
            }
            match serde_json::from_slice(&line) {
                Ok(counts) => sum.add(&counts),
                Err(_) => bad += 1,
            }
            line.clear();
        }
        Ok((sum, bad))
    }
}

/// A longer line of a log, in bytes, is cut off, and none.
const MAX_LINE: u64 = 64 * 1024;
/// The file is summed up when it is larger than this, in bytes; nobody reads a larger one than the second.
const MAX_LINES: u64 = 64 * 1024;
const MAX_READ: u64 = 64 * 1024 * 1024;
/// A holder needs microseconds; a stopped one costs a launch this long and its counts, nothing else.
const LONGEST_WAIT: Duration = Duration::from_millis(100);
/// The digits of a line's digest that stand before it.
const MARK_LEN: usize = 16;

impl Store {
    fn counts_file(&self) -> PathBuf {
        self.root().join("counts")
    }

    /// Adds what a launch counted.
    pub fn count(&self, counts: &Counts) -> io::Result<()> {
        let mut file = self.locked_counts(|file| os::try_lock_shared(file))?;
        file.write_all(line(counts)?.as_bytes())?;
        if file.metadata()?.len() > MAX_LINES && os::try_lock(file.file())? && is_named(&file)? {
            self.sum_up()?;
        }
        Ok(())
    }

    /// The sum over all launches since the last [`Store::zero_counts`].
    pub fn counts(&self) -> Counts {
        let mut bytes = Vec::new();
        let read =
            disk::File::open(self.counts_file()).and_then(|file| file.take(MAX_READ).read_to_end(&mut bytes));
        let mut sum = Counts::default();
        if read.is_ok() {
            // A damaged line may be no text, and is one line all the same.
            let lines = bytes.split(|byte| *byte == b'\n').filter_map(|line| str::from_utf8(line).ok());
            lines.filter_map(counts_in).for_each(|counts| sum.add(&counts));
        }
        sum
    }

    /// Starts again from zero.
    pub fn zero_counts(&self) -> io::Result<()> {
        let _lock = self.locked_counts(|file| os::try_lock(file))?;
        disk::remove_file(self.counts_file())
    }

    /// Makes one line of all. The caller holds the exclusive lock.
    fn sum_up(&self) -> io::Result<()> {
        let mut staged = sealed::create_beside(&self.counts_file())?;
        staged.write_all(line(&self.counts())?.as_bytes())?;
        staged.finish(Durability::None)?.commit(&self.counts_file())
    }

    /// The file, locked, and certainly the one that has the name.
    fn locked_counts(&self, lock: impl Fn(&std::fs::File) -> io::Result<bool>) -> io::Result<disk::File> {
        let path = self.counts_file();
        let pause = Duration::from_millis(1);
        let mut waited = Duration::ZERO;
        while waited < LONGEST_WAIT {
            let file = disk::OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
            if lock(file.file())? && is_named(&file)? {
                return Ok(file);
            }
            std::thread::sleep(pause);
            waited += pause;
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// Whether the open file was not removed or replaced since.
fn is_named(file: &disk::File) -> io::Result<bool> {
    Ok(file.metadata()?.nlink() > 0)
}

fn line(counts: &Counts) -> io::Result<String> {
    let body = serde_json::to_string(counts)?;
    Ok(format!("{} {body}\n", mark(&body)))
}

fn counts_in(line: &str) -> Option<Counts> {
    let (found, body) = line.split_once(' ')?;
    (found == mark(body)).then(|| serde_json::from_str(body).ok())?
}

fn mark(body: &str) -> String {
    let mut mark = Digest::of(body).to_string();
    mark.truncate(MARK_LEN);
    mark
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(name: &str) -> (Store, PathBuf) {
        let dir = std::env::temp_dir().join(format!("pcmcache-stats-{name}-{}", std::process::id()));
        (Store::open(&dir).unwrap(), dir)
    }

    fn one() -> Counts {
        Counts { compiles: 1, ..Counts::default() }
    }

    #[test]
    fn damaged_lines_are_passed_over() {
        let (store, dir) = store("damaged");
        for _ in 0..3 {
            store.count(&one()).unwrap();
        }
        let text = fs_err::read_to_string(store.counts_file()).unwrap();
        fs_err::write(store.counts_file(), text.replacen("compiles\":1", "compiles\":9", 1)).unwrap();
        assert_eq!(store.counts().compiles, 2);
        fs_err::write(store.counts_file(), &text[..text.len() - 7]).unwrap();
        assert_eq!(store.counts().compiles, 2);
        fs_err::write(store.counts_file(), [b"\xff", &text.as_bytes()[1..]].concat()).unwrap();
        assert_eq!(store.counts().compiles, 2, "a line that is no text takes no other with it");
        store.zero_counts().unwrap();
        assert_eq!(store.counts(), Counts::default());
        fs_err::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn no_count_of_a_log_is_too_large() {
        let (_, dir) = store("large");
        let log = dir.join("log");
        let line = format!(r#"{{"compiles":{most},"bypassed":{{"xclang":{most}}}}}"#, most = u64::MAX);
        fs_err::write(&log, format!("{line}\n{line}\n")).unwrap();
        let (sum, bad) = Counts::sum_of_log(&log).unwrap();
        assert_eq!((sum.compiles, sum.bypassed["xclang"], bad), (u64::MAX, u64::MAX, 0));
        fs_err::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_line_of_a_log_that_has_no_end_is_one_that_is_none() {
        let (_, dir) = store("endless");
        let log = dir.join("log");
        let endless = "[".repeat(3 * MAX_LINE as usize);
        fs_err::write(&log, format!("{endless}\n{{\"compiles\":1}}\n{endless}")).unwrap();
        let (sum, bad) = Counts::sum_of_log(&log).unwrap();
        assert_eq!((sum.compiles, bad), (1, 2));
        fs_err::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn nothing_is_lost_when_many_count_while_it_is_summed_up() {
        let (store, dir) = store("many");
        let each = 1000;
        // On a busy machine one may give up waiting: then it says so.
        let count = || while store.count(&one()).is_err() {};
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..each).for_each(|_| count()));
            }
        });
        count();
        assert_eq!(store.counts().compiles, 2 * each + 1);
        assert!(
            fs_err::metadata(store.counts_file()).unwrap().len() < 2 * MAX_LINES,
            "it was never summed up"
        );
        fs_err::remove_dir_all(dir).unwrap();
    }
}
