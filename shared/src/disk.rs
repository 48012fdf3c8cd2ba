//! All that changes a file system goes through here: the one door for writes, renames, removals and syncs; and for the reading
//! of what was written there.
//!
//! The functions are those of `fs_err`, by the same names, and in what users get they are nothing else. With the feature
//! `failpoints` each is a *step*: it has the name of the room that takes it and of what it does
//! (`embedded/files.remove`), and a [`Watcher`](watch::Watcher) may record it, fail it, cut it short, or kill the process before or
//! after it. So a step without a failpoint cannot be written, as long as nothing else changes files, and nothing else in the
//! rooms of the stores reads them; a test (`tests/points`) sees to that.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};

use fs_err::os::unix::fs::OpenOptionsExt as _;
use rustix::fs::{FallocateFlags, fallocate, syncfs};
use rustix::io::Errno;

use crate::mutant;

#[cfg(feature = "failpoints")]
pub mod image;
#[cfg(feature = "failpoints")]
pub mod record;
#[cfg(feature = "failpoints")]
pub mod watch;

/// What a step does.
#[derive(Debug, Clone, Copy)]
pub enum Op<'a> {
    /// Opens a file that may be written, and makes it if need be.
    Open {
        /// Which.
        path: &'a Path,
        /// Whether what was in it is dropped.
        truncate: bool,
    },
    /// Reads a file, or opens it for that.
    Read {
        /// By what name it was opened.
        path: &'a Path,
    },
    /// Writes these bytes.
    Write {
        /// To which file.
        file: BorrowedFd<'a>,
        /// By what name it was opened.
        path: &'a Path,
        /// Where to; `None`: where the file is read and written, which for one that is appended to is its end.
        at: Option<u64>,
        /// What.
        bytes: &'a [u8],
    },
    /// Takes the disk's space.
    Allocate {
        /// For which file.
        path: &'a Path,
    },
    /// Cuts the file, or adds zeros.
    SetLength {
        /// Which.
        file: BorrowedFd<'a>,
        /// By what name it was opened.
        path: &'a Path,
        /// What is left.
        length: u64,
    },
    /// Makes what is in the file durable.
    Sync {
        /// Which.
        file: BorrowedFd<'a>,
        /// By what name it was opened.
        path: &'a Path,
    },
    /// Makes durable what is directly in the directory.
    SyncDirectory {
        /// Which.
        path: &'a Path,
    },
    /// Makes durable all that is in its file system.
    SyncAll {
        /// A directory of it.
        path: &'a Path,
    },
    /// Gives a file another name.
    Rename {
        /// The name that goes.
        from: &'a Path,
        /// The name that is made, or that changes its file.
        to: &'a Path,
    },
    /// Gives a file one name more.
    Link {
        /// Its name.
        from: &'a Path,
        /// The name that is made.
        to: &'a Path,
    },
    /// Removes a name, or an empty directory.
    Remove {
        /// Which.
        path: &'a Path,
    },
    /// Removes a directory with all that is in it.
    RemoveTree {
        /// Which.
        path: &'a Path,
    },
    /// Makes a directory, and those above it if need be.
    MakeDirectory {
        /// Which.
        path: &'a Path,
    },
}

/// Takes a step that is no write.
#[cfg_attr(feature = "failpoints", track_caller)]
#[inline]
fn take<'a, T>(op: impl FnOnce() -> Op<'a>, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    #[cfg(not(feature = "failpoints"))]
    return {
        let _ = op;
        act()
    };
    #[cfg(feature = "failpoints")]
    {
        let (mut act, mut done) = (Some(act), None);
        watch::step(std::panic::Location::caller(), op(), &mut |_| {
            let act = act.take().ok_or_else(|| io::Error::other("a step is taken once"))?;
            done = Some(act()?);
            Ok(0)
        })?;
        done.ok_or_else(|| io::Error::other("a step was left out"))
    }
}

/// Takes a step that writes some of these bytes.
#[cfg_attr(feature = "failpoints", track_caller)]
#[inline]
fn take_write<'a>(
    op: impl FnOnce() -> Op<'a>,
    bytes: &[u8],
    mut act: impl FnMut(&[u8]) -> io::Result<usize>,
) -> io::Result<usize> {
    #[cfg(not(feature = "failpoints"))]
    return {
        let _ = op;
        act(bytes)
    };
    #[cfg(feature = "failpoints")]
    {
        let _ = bytes;
        watch::step(std::panic::Location::caller(), op(), &mut act)
    }
}

/// How to open a file that is written, as [`fs_err::OpenOptions`].
#[derive(Debug, Clone)]
pub struct OpenOptions {
    options: fs_err::OpenOptions,
    truncate: bool,
}

impl OpenOptions {
    /// Nothing is allowed yet.
    #[expect(clippy::new_without_default, reason = "as the standard library has it")]
    pub fn new() -> Self {
        Self { options: fs_err::OpenOptions::new(), truncate: false }
    }

    /// Whether it may be read.
    pub fn read(&mut self, read: bool) -> &mut Self {
        self.options.read(read);
        self
    }

    /// Whether it may be written.
    pub fn write(&mut self, write: bool) -> &mut Self {
        self.options.write(write);
        self
    }

    /// Whether each write goes to its end.
    pub fn append(&mut self, append: bool) -> &mut Self {
        self.options.append(append);
        self
    }

    /// Whether what is in it is dropped.
    pub fn truncate(&mut self, truncate: bool) -> &mut Self {
        self.truncate = truncate;
        self.options.truncate(truncate);
        self
    }

    /// Whether it is made where it is missing.
    pub fn create(&mut self, create: bool) -> &mut Self {
        self.options.create(create);
        self
    }

    /// Whether it must be made.
    pub fn create_new(&mut self, create_new: bool) -> &mut Self {
        self.options.create_new(create_new);
        self
    }

    /// What others may do with it if it is made, less the umask.
    pub fn mode(&mut self, mode: u32) -> &mut Self {
        self.options.mode(mode);
        self
    }

    /// Flags for `open(2)`.
    pub fn custom_flags(&mut self, flags: i32) -> &mut Self {
        self.options.custom_flags(flags);
        self
    }

    /// Opens it.
    #[cfg_attr(feature = "failpoints", track_caller)]
    pub fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let path = path.as_ref();
        let opened = take(|| Op::Open { path, truncate: self.truncate }, || self.options.open(path));
        Ok(File::new(opened?))
    }
}

/// A file, as [`fs_err::File`].
#[derive(Debug)]
pub struct File {
    file: fs_err::File,
    /// Where it was opened: its reads and writes have their name from there.
    #[cfg(feature = "failpoints")]
    opened: &'static std::panic::Location<'static>,
}

impl File {
    #[cfg_attr(feature = "failpoints", track_caller)]
    fn new(file: fs_err::File) -> Self {
        Self {
            file,
            #[cfg(feature = "failpoints")]
            opened: std::panic::Location::caller(),
        }
    }

    /// Opens a file to be read.
    #[cfg_attr(feature = "failpoints", track_caller)]
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        Ok(Self::new(take(|| Op::Read { path }, || fs_err::File::open(path))?))
    }

    /// Reads of it in a way of the caller's own.
    #[cfg_attr(feature = "failpoints", track_caller)]
    pub fn read_by<T>(&self, read: impl FnOnce(&std::fs::File) -> io::Result<T>) -> io::Result<T> {
        take(|| Op::Read { path: self.file.path() }, || read(self.file.file()))
    }

    /// The file itself, to lock it or to ask about it.
    pub fn file(&self) -> &std::fs::File {
        self.file.file()
    }

    /// By what name it was opened.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// What it is.
    pub fn metadata(&self) -> io::Result<std::fs::Metadata> {
        self.file.metadata()
    }

    /// The same open file once more.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
            #[cfg(feature = "failpoints")]
            opened: self.opened,
        })
    }

    /// The file itself, to be read from here on.
    pub fn into_file(self) -> std::fs::File {
        self.file.into_file()
    }

    /// Writes all bytes from there on, wherever the file is read and written otherwise.
    #[cfg_attr(feature = "failpoints", track_caller)]
    pub fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let op = || Op::Write { file: self.file.as_fd(), path: self.file.path(), at: Some(at), bytes };
        let write = |bytes: &[u8]| self.file.file().write_all_at(bytes, at).map(|()| bytes.len());
        take_write(op, bytes, write).map(drop)
    }

    /// The file itself, and by what name it was opened.
    pub fn into_parts(self) -> (std::fs::File, PathBuf) {
        self.file.into_parts()
    }

    /// Makes its bytes and what it is durable. Its name is the directory's.
    ///
    /// After an error nothing is known of what was written to it: the kernel may have dropped it, and would not say so a
    /// second time. So nobody tries again with the same file.
    #[cfg_attr(feature = "failpoints", track_caller)]
    pub fn sync_all(&self) -> io::Result<()> {
        if mutant!("no-file-sync") {
            return Ok(());
        }
        take(|| self.sync(), || self.file.sync_all())
    }

    /// Makes its bytes durable, and as much of what it is as their reading needs.
    #[cfg_attr(feature = "failpoints", track_caller)]
    pub fn sync_data(&self) -> io::Result<()> {
        take(|| self.sync(), || self.file.sync_data())
    }

    fn sync(&self) -> Op<'_> {
        Op::Sync { file: self.file.as_fd(), path: self.file.path() }
    }

    /// Cuts it, or adds zeros.
    #[cfg_attr(feature = "failpoints", track_caller)]
    pub fn set_len(&self, length: u64) -> io::Result<()> {
        let op = || Op::SetLength { file: self.file.as_fd(), path: self.file.path(), length };
        take(op, || self.file.set_len(length))
    }

    /// Takes the disk's space for `length` bytes now, and says whether it did: not every file system can. An error says
    /// that the space is not there.
    #[cfg_attr(feature = "failpoints", track_caller)]
    pub fn allocate(&self, length: u64) -> io::Result<bool> {
        let allocate = || match fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, length) {
            Ok(()) => Ok(true),
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::IO)) => Err(error.into()),
            Err(_) => Ok(false),
        };
        take(|| Op::Allocate { path: self.file.path() }, allocate)
    }

    #[cfg(feature = "failpoints")]
    fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        let op = Op::Write { file: self.file.as_fd(), path: self.file.path(), at: None, bytes };
        watch::step(self.opened, op, &mut |bytes| (&self.file).write(bytes))
    }

    #[cfg(feature = "failpoints")]
    fn read_some(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let op = Op::Read { path: self.file.path() };
        watch::step(self.opened, op, &mut |_| (&self.file).read(bytes))
    }

    #[cfg(not(feature = "failpoints"))]
    #[inline]
    fn read_some(&self, bytes: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(bytes)
    }

    #[cfg(not(feature = "failpoints"))]
    #[inline]
    fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.file).write(bytes)
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_some(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for &File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_some(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for File {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.read_some(bytes)
    }
}

impl Read for &File {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.read_some(bytes)
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The steps of a file that a library reads and writes: what it does itself is told by its owner.
#[derive(Debug)]
pub struct Lent {
    file: std::fs::File,
    path: PathBuf,
}

impl Lent {
    /// The file that is lent, and the library's handle of it.
    pub fn new(file: File) -> io::Result<(Self, std::fs::File)> {
        let (file, path) = file.into_parts();
        Ok((Self { file: file.try_clone()?, path }, file))
    }

    /// It reads.
    #[cfg_attr(feature = "failpoints", track_caller)]
    pub fn read(&self, read: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        take(|| Op::Read { path: &self.path }, read)
    }

    /// It writes these bytes at `offset`, all of them.
    #[cfg_attr(feature = "failpoints", track_caller)]
    pub fn write(
        &self,
        offset: u64,
        bytes: &[u8],
        write: impl Fn(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let op = || Op::Write { file: self.file.as_fd(), path: &self.path, at: Some(offset), bytes };
        take_write(op, bytes, |bytes| write(bytes).map(|()| bytes.len())).map(drop)
    }

    /// It syncs the file.
    #[cfg_attr(feature = "failpoints", track_caller)]
    pub fn sync(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if mutant!("no-index-sync") {
            return Ok(());
        }
        take(|| Op::Sync { file: self.file.as_fd(), path: &self.path }, sync)
    }

    /// It cuts the file, or adds zeros.
    #[cfg_attr(feature = "failpoints", track_caller)]
    pub fn set_length(&self, length: u64, set: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        take(|| Op::SetLength { file: self.file.as_fd(), path: &self.path, length }, set)
    }
}

/// All that is in the file.
#[cfg_attr(feature = "failpoints", track_caller)]
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let path = path.as_ref();
    take(|| Op::Read { path }, || fs_err::read(path))
}

/// The same, if it is text.
#[cfg_attr(feature = "failpoints", track_caller)]
pub fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    let path = path.as_ref();
    take(|| Op::Read { path }, || fs_err::read_to_string(path))
}

/// Gives the file another name, in place of what has it.
#[cfg_attr(feature = "failpoints", track_caller)]
pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    take(|| Op::Rename { from, to }, || fs_err::rename(from, to))
}

/// Gives the file one name more. A compiler that writes in place writes to all names of a file: nothing that a compiler may
/// open is linked.
#[cfg_attr(feature = "failpoints", track_caller)]
pub fn hard_link(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    take(|| Op::Link { from, to }, || fs_err::hard_link(from, to))
}

/// Removes a file.
#[cfg_attr(feature = "failpoints", track_caller)]
pub fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    take(|| Op::Remove { path }, || fs_err::remove_file(path))
}

/// Removes an empty directory.
#[cfg_attr(feature = "failpoints", track_caller)]
pub fn remove_dir(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    take(|| Op::Remove { path }, || fs_err::remove_dir(path))
}

/// Removes a directory with all that is in it.
#[cfg_attr(feature = "failpoints", track_caller)]
pub fn remove_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    take(|| Op::RemoveTree { path }, || fs_err::remove_dir_all(path))
}

/// Makes the directory and those above it, for whom the umask lets.
#[cfg_attr(feature = "failpoints", track_caller)]
pub fn create_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    take(|| Op::MakeDirectory { path }, || fs_err::create_dir_all(path))
}

/// Makes the directory for its owner only.
#[cfg_attr(feature = "failpoints", track_caller)]
pub fn create_private_dir(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    let make = || std::fs::DirBuilder::new().mode(0o700).create(path).map_err(|error| name_in(error, path));
    take(|| Op::MakeDirectory { path }, make)
}

/// Makes the directory and those above it for their owner only; it may be there.
#[cfg_attr(feature = "failpoints", track_caller)]
pub fn create_private_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    take(|| Op::MakeDirectory { path }, || builder.create(path).map_err(|error| name_in(error, path)))
}

fn name_in(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("cannot make {}: {error}", path.display()))
}

/// Makes the directory's entries survive a power cut.
#[cfg_attr(feature = "failpoints", track_caller)]
pub fn sync_directory(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    if mutant!("no-directory-sync") {
        return Ok(());
    }
    take(|| Op::SyncDirectory { path }, || fs_err::File::open(path)?.sync_all())
}

/// Makes all that was written to the file system of this directory survive a power cut. Errors of writing that came
/// since the directory was opened, or last synced, are told.
#[cfg_attr(feature = "failpoints", track_caller)]
pub fn sync_file_system(directory: &File) -> io::Result<()> {
    let path = directory.path();
    take(|| Op::SyncAll { path }, || Ok(syncfs(directory.file())?))
}

/// Writes a file that nobody else has yet: it is truncated in place.
#[cfg_attr(feature = "failpoints", track_caller)]
pub fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(true).open(path)?.write_all(bytes.as_ref())
}
