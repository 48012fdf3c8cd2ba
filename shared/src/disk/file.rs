//! Files whose opening, reading and writing are steps.

use std::fs::Metadata;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use fs_err::os::unix::fs::OpenOptionsExt as _;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

#[cfg(feature = "failpoints")]
use super::watch;
use super::{Op, take, take_write};
use crate::mutant;

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
    #[cfg_attr(feature = "failpoints", track_caller)]
    pub fn metadata(&self) -> io::Result<Metadata> {
        take(|| Op::Look { path: self.file.path() }, || self.file.metadata())
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
