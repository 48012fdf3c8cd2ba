//! Who watches the steps of [`disk`](super): tests that record them, or have them fail.

use std::io;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use super::Op;
use super::record::Recorder;
use crate::failpoint;

/// Does the step, with these bytes of a write and with none otherwise; says how many were written.
pub type Act<'a> = &'a mut dyn FnMut(&[u8]) -> io::Result<usize>;

/// Stands between each step and its being taken.
pub trait Watcher: Send + Sync {
    /// The step is to be taken. `act` takes it; what this returns is what the step's owner is told.
    fn step(&self, point: &str, op: &Op<'_>, act: Act<'_>) -> io::Result<usize>;
}

/// The watchers of this process, each with the directory below which it watches.
static WATCHERS: RwLock<Vec<(PathBuf, Arc<dyn Watcher>)>> = RwLock::new(Vec::new());

/// Ends the watch when dropped.
#[derive(Debug)]
#[must_use = "the watch ends when this is dropped"]
pub struct Watching(PathBuf);

/// Has all steps below the directory pass by the watcher.
pub fn below(root: &Path, watcher: Arc<dyn Watcher>) -> Watching {
    let mut watchers = WATCHERS.write().unwrap_or_else(PoisonError::into_inner);
    watchers.push((root.to_owned(), watcher));
    Watching(root.to_owned())
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut watchers = WATCHERS.write().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|(root, _)| *root != self.0);
    }
}

/// The recorder that `PCMCACHE_TEST_DISK_LOG` asks for.
static RECORDER: LazyLock<Option<Recorder>> =
    LazyLock::new(|| Recorder::append_to(Path::new(&std::env::var_os("PCMCACHE_TEST_DISK_LOG")?)).ok());

/// Takes the step that the code at `location` takes, past all who watch.
pub(super) fn step(location: &Location<'_>, op: Op<'_>, act: Act<'_>) -> io::Result<usize> {
    let point = name(location, &op);
    let mut take = |bytes: &[u8]| failpoint::step(&point, &op, bytes, act);
    let mut recorded = |bytes: &[u8]| match &*RECORDER {
        Some(recorder) => recorder.record(&point, &op, bytes, &mut take),
        None => take(bytes),
    };
    match watcher_of(&op) {
        Some(watcher) => watcher.step(&point, &op, &mut recorded),
        None => recorded(op.bytes()),
    }
}

fn watcher_of(op: &Op<'_>) -> Option<Arc<dyn Watcher>> {
    let watchers = WATCHERS.read().unwrap_or_else(PoisonError::into_inner);
    let path = op.path();
    watchers.iter().find(|(root, _)| path.starts_with(root)).map(|(_, watcher)| Arc::clone(watcher))
}

/// The room of the step, and what it does there: `embedded/files.remove`.
fn name(location: &Location<'_>, op: &Op<'_>) -> String {
    let file = location.file();
    let room = file.split_once("src/").map_or(file, |(_, room)| room);
    format!("{}.{}", room.trim_end_matches(".rs"), op.verb())
}

impl Op<'_> {
    /// What it does, in a word.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::Read { .. } => "read",
            Self::Look { .. } => "look",
            Self::Write { .. } => "write",
            Self::Allocate { .. } => "allocate",
            Self::SetLength { .. } => "cut",
            Self::Sync { .. } => "sync",
            Self::SyncDirectory { .. } => "sync-directory",
            Self::SyncAll { .. } => "sync-all",
            Self::Rename { .. } => "rename",
            Self::Link { .. } => "link",
            Self::Remove { .. } => "remove",
            Self::RemoveTree { .. } => "remove-tree",
            Self::MakeDirectory { .. } => "make-directory",
        }
    }

    /// What it writes; nothing unless it is a write.
    pub fn bytes(&self) -> &[u8] {
        if let Self::Write { bytes, .. } = self { bytes } else { &[] }
    }

    /// What it is done to.
    pub fn path(&self) -> &Path {
        match self {
            Self::Open { path, .. }
            | Self::Read { path }
            | Self::Look { path }
            | Self::Write { path, .. }
            | Self::Allocate { path }
            | Self::SetLength { path, .. }
            | Self::Sync { path, .. }
            | Self::SyncDirectory { path }
            | Self::SyncAll { path }
            | Self::Remove { path }
            | Self::RemoveTree { path }
            | Self::MakeDirectory { path } => path,
            Self::Rename { to, .. } | Self::Link { to, .. } => to,
        }
    }
}
