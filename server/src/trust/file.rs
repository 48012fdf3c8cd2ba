//! The book of tokens on disk: one file, replaced whole.
//!
//! Invariants: the file only ever changes by rename, after an fsync; whoever changes it holds the lock beside it from
//! before reading until after the rename, so that no change is lost. Crash story: a kill leaves the old book, and a
//! stage that the next change removes.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use pcmcache_shared::disk;
use pcmcache_shared::staged::{Durability, StagedFile};
use rustix::fs::{FlockOperation, flock};

use super::book::{BadBook, Book};

/// The largest book that is read.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Where a book of tokens is kept.
#[derive(Debug, Clone)]
pub struct BookFile {
    path: PathBuf,
}

/// Tells one state of the file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    place: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    mode: u32,
}

/// Why a book could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be used.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What it holds cannot.
    #[error("{}: {source}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: BadBook,
    },
    /// Others than its owner may write it, and give themselves tokens.
    #[error("{} may be written by others than its owner, who could add tokens: chmod go-w it", .0.display())]
    Exposed(PathBuf),
    /// It is larger than any book.
    #[error("{} is larger than {MAX_BYTES} bytes", .0.display())]
    TooLarge(PathBuf),
}

impl BookFile {
    /// The book at `path`, which need not be there.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file is now; `None` if there is none. One system call.
    pub(super) fn stamp(&self) -> io::Result<Option<Stamp>> {
        match fs_err::metadata(&self.path) {
            Ok(data) => Ok(Some(Stamp {
                place: (data.dev(), data.ino()),
                size: data.size(),
                modified: (data.mtime(), data.mtime_nsec()),
                changed: (data.ctime(), data.ctime_nsec()),
                mode: data.mode(),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The book, or `None` if there is no file.
    pub fn read(&self) -> Result<Option<Book>, FileError> {
        let file = match disk::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if file.metadata()?.mode() & 0o022 != 0 {
            return Err(FileError::Exposed(self.path.clone()));
        }
        let mut text = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut text)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(FileError::TooLarge(self.path.clone()));
        }
        Book::parse(&text).map(Some).map_err(|source| self.bad(source))
    }

    /// Changes the book, an empty one where there is none, and replaces the file.
    pub fn change<T>(&self, change: impl FnOnce(&mut Book) -> Result<T, BadBook>) -> Result<T, FileError> {
        if let Some(directory) = self.path.parent().filter(|path| !path.as_os_str().is_empty()) {
            disk::create_dir_all(directory)?;
        }
        let lock = beside(&self.path, "lock");
        let lock =
            disk::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(lock)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(io::Error::from)?;
        let mut book = self.read()?.unwrap_or_default();
        let value = change(&mut book).map_err(|source| self.bad(source))?;
        let stage = beside(&self.path, "stage");
        // A killed predecessor's, since the lock is ours.
        match disk::remove_file(&stage) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        let mut staged = StagedFile::create(stage, 0o600)?;
        staged.write_all(&book.text().map_err(|source| self.bad(source))?)?;
        staged.finish(Durability::Fsync)?.commit(&self.path)?;
        Ok(value)
    }

    fn bad(&self, source: BadBook) -> FileError {
        FileError::Bad { path: self.path.clone(), source }
    }
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(what);
    path.with_file_name(name)
}
