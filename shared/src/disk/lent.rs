//! Files that a library reads and writes.

use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use super::{File, Op, take, take_write};
use crate::mutant;

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
