//! Writes down each step that changed a file system, so that a test can tell what a power cut could have left.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, OFlags, fcntl_getfl, flock, fstat, tell};
use serde::{Deserialize, Serialize};

use super::Op;
use super::watch::{Act, Watcher};

/// A file by its inode. Who removes a file may have its inode taken by the next that is made; [`Change::Made`] tells.
pub type Inode = u64;

/// What a step changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// A new, empty file has the name.
    Made(PathBuf, Inode),
    /// From here on, these bytes.
    Written(Inode, u64, #[serde(with = "text")] Vec<u8>),
    /// The file has this length.
    Cut(Inode, u64),
    /// What is in the file is durable.
    Synced(Inode),
    /// What is directly in the directory is durable.
    SyncedDirectory(PathBuf),
    /// Everything is durable.
    SyncedAll,
    /// The first name is gone, the second is of its file.
    Renamed(PathBuf, PathBuf),
    /// The second name is of the first's file too.
    Linked(PathBuf, PathBuf),
    /// The name is gone, with all below it.
    Removed(PathBuf),
    /// The directory is there.
    MadeDirectory(PathBuf),
    /// No step: what somebody was told, or whatever else a test wants to find again in its place.
    Mark(String),
}

/// A change, and the step that made it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// The step's name.
    pub point: String,
    /// What it changed.
    pub change: Change,
}

/// Writes the steps of any number of processes to one file, in the order in which they happened: only one at a time is taken.
#[derive(Debug)]
pub struct Recorder {
    log: Mutex<File>,
}

impl Recorder {
    /// One that appends to this file.
    pub fn append_to(log: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(log)?;
        Ok(Self { log: Mutex::new(file) })
    }

    /// Notes what is no step.
    pub fn mark(&self, what: impl Into<String>) -> io::Result<()> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        flock(&*log, FlockOperation::LockExclusive)?;
        let noted = note(&mut log, "mark", Change::Mark(what.into()));
        flock(&*log, FlockOperation::Unlock)?;
        noted
    }

    pub(super) fn record(&self, point: &str, op: &Op<'_>, bytes: &[u8], act: Act<'_>) -> io::Result<usize> {
        if let Op::Read { .. } | Op::Look { .. } = op {
            return act(bytes);
        }
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        flock(&*log, FlockOperation::LockExclusive)?;
        let before = Before::of(op);
        let done = act(bytes);
        let noted = match &done {
            Ok(written) => before.change(op, bytes.get(..*written).unwrap_or_default()),
            // What an error left of it is not known: nothing counts on it.
            Err(_) => Ok(None),
        };
        let noted = noted.and_then(|change| change.map_or(Ok(()), |change| note(&mut log, point, change)));
        flock(&*log, FlockOperation::Unlock)?;
        noted.and(done)
    }
}

impl Watcher for Recorder {
    fn step(&self, point: &str, op: &Op<'_>, act: Act<'_>) -> io::Result<usize> {
        self.record(point, op, op.bytes(), act)
    }
}

/// Bytes, short enough in a line of text.
mod text {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// All that was written down, in its order.
pub fn read(log: &Path) -> io::Result<Vec<Entry>> {
    BufReader::new(fs_err::File::open(log)?).lines().map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}

fn note(log: &mut File, point: &str, change: Change) -> io::Result<()> {
    let mut line = serde_json::to_vec(&Entry { point: point.to_owned(), change })?;
    line.push(b'\n');
    log.write_all(&line)
}

/// Where the next write goes.
fn place(file: &impl AsFd) -> u64 {
    if fcntl_getfl(file).is_ok_and(|flags| flags.contains(OFlags::APPEND)) {
        return fstat(file).map_or(0, |stat| stat.st_size.cast_unsigned());
    }
    tell(file).unwrap_or_default()
}

/// What must be known of the time before a step.
struct Before {
    existed: bool,
    at: u64,
}

impl Before {
    fn of(op: &Op<'_>) -> Self {
        let existed = op.path().symlink_metadata().is_ok();
        let at = if let Op::Write { file, at, .. } = op { at.unwrap_or_else(|| place(file)) } else { 0 };
        Self { existed, at }
    }

    fn change(&self, op: &Op<'_>, written: &[u8]) -> io::Result<Option<Change>> {
        let inode = |file: &dyn AsFd| Ok::<_, io::Error>(fstat(file.as_fd())?.st_ino);
        let absolute = |path: &Path| std::path::absolute(path);
        Ok(Some(match op {
            Op::Open { path, .. } if !self.existed => Change::Made(absolute(path)?, path.metadata()?.ino()),
            Op::Open { path, truncate: true } => Change::Cut(path.metadata()?.ino(), 0),
            Op::Open { .. } | Op::Read { .. } | Op::Look { .. } | Op::Allocate { .. } => return Ok(None),
            Op::Write { file, .. } => Change::Written(inode(file)?, self.at, written.to_vec()),
            Op::SetLength { file, length, .. } => Change::Cut(inode(file)?, *length),
            Op::Sync { file, .. } => Change::Synced(inode(file)?),
            Op::SyncDirectory { path } => Change::SyncedDirectory(absolute(path)?),
            Op::SyncAll { .. } => Change::SyncedAll,
            Op::Rename { from, to } => Change::Renamed(absolute(from)?, absolute(to)?),
            Op::Link { from, to } => Change::Linked(absolute(from)?, absolute(to)?),
            Op::Remove { path } | Op::RemoveTree { path } => Change::Removed(absolute(path)?),
            Op::MakeDirectory { .. } if self.existed => return Ok(None),
            Op::MakeDirectory { path } => Change::MadeDirectory(absolute(path)?),
        }))
    }
}
