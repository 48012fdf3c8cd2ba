//! Which files are open for reading: one that is removed meanwhile takes its space until its last reader is done.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pcmcache_shared::disk;

#[derive(Debug, Default)]
pub(super) struct Readers {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By inode, which no other file has while this one is open.
    open: HashMap<u64, Open>,
    unlinked_bytes: u64,
}

#[derive(Debug, Default)]
struct Open {
    readers: usize,
    bytes: u64,
    unlinked: bool,
}

impl Readers {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the file as open until what this returns is dropped.
    pub(super) fn opened(self: &Arc<Self>, file: disk::File) -> io::Result<Reading> {
        let mut state = self.state();
        // Asked under the lock: who unlinks does so first and looks here then, so one of us sees the other.
        let metadata = file.metadata()?;
        let open = state.open.entry(metadata.ino()).or_default();
        open.readers += 1;
        open.bytes = metadata.len();
        if metadata.nlink() == 0 {
            state.unlink(metadata.ino());
        }
        drop(state);
        Ok(Reading { file, metadata, readers: Arc::clone(self) })
    }

    /// The file of this inode was unlinked.
    pub(super) fn unlinked(&self, inode: u64) {
        self.state().unlink(inode);
    }

    /// The bytes of what is unlinked and still open.
    pub(super) fn unlinked_bytes(&self) -> u64 {
        self.state().unlinked_bytes
    }
}

impl State {
    fn unlink(&mut self, inode: u64) {
        if let Some(open) = self.open.get_mut(&inode).filter(|open| !open.unlinked) {
            open.unlinked = true;
            self.unlinked_bytes += open.bytes;
        }
    }
}

/// A file that is open for reading.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) file: disk::File,
    /// As it was when it was opened.
    pub(super) metadata: std::fs::Metadata,
    readers: Arc<Readers>,
}

impl AsFd for Reading {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut state = self.readers.state();
        let inode = self.metadata.ino();
        let Some(open) = state.open.get_mut(&inode) else { return };
        open.readers = open.readers.saturating_sub(1);
        if open.readers == 0
            && let Some(open) = state.open.remove(&inode)
            && open.unlinked
        {
            state.unlinked_bytes = state.unlinked_bytes.saturating_sub(open.bytes);
        }
    }
}
