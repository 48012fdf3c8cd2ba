//! The kinds of steps.

use std::os::fd::BorrowedFd;
use std::path::Path;

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
    /// Asks what a file is, or lists a directory.
    Look {
        /// Which.
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
