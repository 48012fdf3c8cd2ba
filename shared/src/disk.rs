//! All that changes a file system goes through here: the one door for writes, renames, removals and syncs; and for reading and
//! looking at what was written there, and at what a compile reads.
//!
//! The functions are those of `fs_err`, by the same names, and in what users get they are nothing else. With the feature
//! `failpoints` each is a *step*: it has the name of the room that takes it and of what it does
//! (`embedded/files.remove`), and a [`Watcher`](watch::Watcher) may record it, fail it, cut it short, or kill the process before or
//! after it. So a step without a failpoint cannot be written, as long as nothing else changes files, and nothing else in
//! those rooms reads them; a test (`tests/points/sources.rs`) sees to that.

mod file;
#[cfg(feature = "failpoints")]
pub mod image;
mod lent;
mod op;
#[cfg(feature = "failpoints")]
pub mod record;
#[cfg(feature = "failpoints")]
pub mod watch;

use std::fs::Metadata;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use rustix::fs::syncfs;

pub use self::file::{File, OpenOptions};
pub use self::lent::Lent;
pub use self::op::Op;
use crate::mutant;

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

/// What has the name; what it leads to, if it is a link.
#[cfg_attr(feature = "failpoints", track_caller)]
pub fn metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    let path = path.as_ref();
    take(|| Op::Look { path }, || fs_err::metadata(path))
}

/// What has the name, be it a link.
#[cfg_attr(feature = "failpoints", track_caller)]
pub fn symlink_metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    let path = path.as_ref();
    take(|| Op::Look { path }, || fs_err::symlink_metadata(path))
}

/// What is in the directory.
#[cfg_attr(feature = "failpoints", track_caller)]
pub fn read_dir(path: impl AsRef<Path>) -> io::Result<fs_err::ReadDir> {
    let path = path.as_ref();
    take(|| Op::Look { path }, || fs_err::read_dir(path))
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
