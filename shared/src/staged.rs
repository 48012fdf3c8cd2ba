//! A file that nobody sees before it is whole: write + hash, (fsync), rename, (fsync of the directory).
//!
//! Invariant: the final name only ever changes by rename. Crash story: a process that dies leaves at most the
//! stage, under a name its owner recognises and sweeps; with [`Durability::Fsync`], a commit that returned
//! survives a power cut.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::Digest;
use crate::digest::Hashing;
use crate::disk::{self, File, OpenOptions};

/// Whether a commit must survive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// No fsync: every use verifies, so a torn file is a miss.
    None,
    /// fsync the file, rename, fsync the directory.
    Fsync,
}

/// A stage: bytes are written and hashed, and become visible with [`StagedFile::commit`]. Dropped without, it
/// is removed.
#[derive(Debug)]
pub struct StagedFile {
    file: Hashing<File>,
    stage: Stage,
}

/// Removes the path when dropped, unless it was renamed away.
#[derive(Debug)]
struct Stage {
    path: PathBuf,
    renamed: bool,
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = disk::remove_file(&self.path);
        }
    }
}

impl StagedFile {
    /// Creates the stage at `path`, which must not exist, with `mode` (less the umask).
    #[cfg_attr(feature = "failpoints", track_caller)]
    pub fn create(path: PathBuf, mode: u32) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        Ok(Self { file: Hashing::new(file), stage: Stage { path, renamed: false } })
    }

    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.file.size()
    }

    /// The same open file once more, for who holds a lock of it.
    pub fn handle(&self) -> io::Result<File> {
        self.file.inner().try_clone()
    }

    /// Takes the disk's space for `length` bytes now, and says whether it did: not every file system can. An error says that
    /// the space is not there.
    #[cfg_attr(feature = "failpoints", track_caller)]
    pub fn allocate(&self, length: u64) -> io::Result<bool> {
        self.file.inner().allocate(length)
    }

    /// Ends the writing: what can now be compared with what was promised, then committed.
    #[cfg_attr(feature = "failpoints", track_caller)]
    pub fn finish(mut self, durability: Durability) -> io::Result<Whole> {
        self.file.flush()?;
        let (file, digest, size) = self.file.finish();
        if durability == Durability::Fsync {
            file.sync_all()?;
        }
        Ok(Whole { stage: self.stage, digest, size, durability })
    }
}

impl StagedFile {
    /// Lets `copy` write the whole file in its own way. It tells whether what it wrote is what `digest` and `size` name; if it
    /// is not, the stage is removed. Nothing was written before.
    pub fn fill(
        self,
        digest: Digest,
        size: u64,
        copy: impl FnOnce(&mut File) -> io::Result<bool>,
    ) -> io::Result<Option<Whole>> {
        let (mut file, _, _) = self.file.finish();
        let is_right = copy(&mut file)?;
        let whole = Whole { stage: self.stage, digest, size, durability: Durability::None };
        Ok(is_right.then_some(whole))
    }
}

impl Write for StagedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A stage that was written to its end. Dropped without [`Whole::commit`], it is removed.
#[derive(Debug)]
#[must_use = "a whole stage that is not committed is removed"]
pub struct Whole {
    stage: Stage,
    digest: Digest,
    size: u64,
    durability: Durability,
}

impl Whole {
    /// The digest of its bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where it lies until it is committed.
    pub fn path(&self) -> &Path {
        &self.stage.path
    }

    /// Renames it to `to`, in place of what is there; both are on one file system.
    #[cfg_attr(feature = "failpoints", track_caller)]
    pub fn commit(mut self, to: &Path) -> io::Result<()> {
        disk::rename(&self.stage.path, to)?;
        self.stage.renamed = true;
        match self.durability {
            Durability::None => Ok(()),
            Durability::Fsync => disk::sync_directory(to.parent().unwrap_or(Path::new("."))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of this test's own, removed when dropped.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("pcmcache-staged-{name}-{}", std::process::id()));
            fs_err::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs_err::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn nothing_is_visible_before_the_commit_and_nothing_else_after() {
        let dir = Scratch::new("commit");
        let (stage, target) = (dir.0.join("stage"), dir.0.join("target"));
        let mut staged = StagedFile::create(stage.clone(), 0o666).unwrap();
        staged.write_all(b"hello").unwrap();
        let whole = staged.finish(Durability::Fsync).unwrap();
        assert_eq!((whole.digest(), whole.size()), (Digest::of("hello"), 5));
        assert!(!target.exists());
        whole.commit(&target).unwrap();
        assert_eq!(fs_err::read(&target).unwrap(), b"hello");
        assert!(!stage.exists());
    }

    #[test]
    fn a_dropped_stage_leaves_nothing() {
        let dir = Scratch::new("drop");
        let stage = dir.0.join("stage");
        drop(StagedFile::create(stage.clone(), 0o666).unwrap());
        assert!(!stage.exists());
        drop(StagedFile::create(stage.clone(), 0o666).unwrap().finish(Durability::None).unwrap());
        assert!(!stage.exists());
    }

    #[test]
    fn a_stage_never_takes_an_existing_file() {
        let dir = Scratch::new("exists");
        let stage = dir.0.join("stage");
        fs_err::write(&stage, "someone else's").unwrap();
        assert!(StagedFile::create(stage.clone(), 0o666).is_err());
        assert_eq!(fs_err::read(&stage).unwrap(), b"someone else's");
    }
}
