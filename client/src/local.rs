//! The store on disk.
//!
//! ```text
//! PCMCACHE_DIR/            0700 and the user's own
//!   v1/                    another version of the format neither reads nor harms it
//!     units/ab/KEY         sealed: the include sets known for a unit, newest first
//!     results/ab/KEY       sealed: what an action made
//!     blobs/ab/DIGEST      bytes by their digest; recipes are blobs as well
//!     embedded/ab/DIGEST   sealed: this BMI was made by us, with its sources embedded; what it imports
//!     memo/ab/NAME         sealed: what was hashed or asked of the compiler before, see `memo`
//!     locks/ab/CLAIM       flocked while a launcher works on the claim
//!     stats/N              sealed counters
//!     damaged/             what did not match its name or seal, moved aside for a person to look at
//! ```
//!
//! Invariant: an entry is used only after it was verified against its name or its seal, so a torn, cut or flipped
//! one is a miss with a reason. Crash story: everything is written to a `.stage-*` file beside its place and renamed
//! there; a killed launcher leaves at most a stage. Nothing is fsynced: a power cut costs entries, never correctness.

pub mod embedded;
pub mod lock;
pub mod memo;
pub mod sealed;
pub mod stats;

use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use pcmcache_shared::digest::copy_chunks;
use pcmcache_shared::staged::{Durability, StagedFile, Whole};
use pcmcache_shared::{ActionKey, ActionResult, Digest, IncludeSet, Output, UnitKey, api::limits};

use crate::os;
use sealed::Sealed;

/// The largest file of include sets, in bytes, and the largest result.
const MAX_UNIT: u64 = 64 * 1024 * 1024;
const MAX_RESULT: u64 = 1024 * 1024;
/// How many damaged entries are kept to look at.
const MAX_DAMAGED: usize = 100;

/// The store, open for use.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// Why there is no store to use. The build goes on without.
#[derive(Debug, thiserror::Error)]
pub enum NoStore {
    /// A link, a special file, or someone else's.
    #[error("{path} is not a directory of this user's own; remove it or set PCMCACHE_DIR to another place")]
    NotOurs {
        /// What is there.
        path: PathBuf,
    },
    /// It cannot be made or looked at.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Store {
    /// Opens the store in `dir`, and makes it if it is missing.
    pub fn open(dir: &Path) -> Result<Self, NoStore> {
        let root = dir.join("v1");
        // The common case first: one look at each level, no attempt to make anything.
        for path in [dir, &root] {
            match fs_err::symlink_metadata(path) {
                Ok(metadata) if metadata.is_dir() && metadata.uid() == os::user() => {}
                Ok(_) => return Err(NoStore::NotOurs { path: path.to_owned() }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => make_directory(path)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self { root })
    }

    /// Where the store's files are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn entry(&self, kind: &str, name: &str) -> PathBuf {
        let shard = name.get(..2).unwrap_or(name);
        self.root.join(kind).join(shard).join(name)
    }

    /// The include sets known for the unit, newest first.
    pub fn include_sets(&self, unit: UnitKey) -> Vec<IncludeSet> {
        let path = self.entry("units", &unit.to_string());
        let Some(body) = self.read_sealed(&path, MAX_UNIT) else { return Vec::new() };
        let sets = std::str::from_utf8(&body).ok().and_then(|text| {
            text.split_terminator("end\n").map(|set| IncludeSet::parse(set).ok()).collect::<Option<Vec<_>>>()
        });
        sets.unwrap_or_else(|| {
            self.set_aside(&path);
            Vec::new()
        })
    }

    /// Adds an include set as the unit's newest.
    pub fn add_include_set(&self, unit: UnitKey, set: &IncludeSet) -> io::Result<()> {
        let mut sets = self.include_sets(unit);
        if sets.first() == Some(set) {
            return Ok(());
        }
        sets.retain(|known| known != set);
        sets.insert(0, set.clone());
        sets.truncate(limits::MAX_SETS);
        let body: String = sets.iter().map(|set| set.text() + "end\n").collect();
        sealed::write(&self.entry("units", &unit.to_string()), body.as_bytes())
    }

    /// What the action made, if it is known here.
    pub fn result(&self, action: ActionKey) -> Option<ActionResult> {
        let path = self.entry("results", &action.to_string());
        let body = self.read_sealed(&path, MAX_RESULT)?;
        let result =
            serde_json::from_slice::<ActionResult>(&body).ok().filter(|result| result.check().is_ok());
        if result.is_none() {
            self.set_aside(&path);
        }
        result
    }

    /// Remembers what the action made. Its blobs are here already.
    pub fn put_result(&self, action: ActionKey, result: &ActionResult) -> io::Result<()> {
        sealed::write(&self.entry("results", &action.to_string()), &serde_json::to_vec(result)?)
    }

    /// Forgets a result whose blobs turned out to be missing or damaged.
    pub fn forget_result(&self, action: ActionKey) {
        let _ = fs_err::remove_file(self.entry("results", &action.to_string()));
    }

    /// Whether there is a blob of this name and size; its bytes are verified when it is used.
    pub fn has_blob(&self, digest: Digest, size: u64) -> bool {
        fs_err::symlink_metadata(self.blob_path(digest)).is_ok_and(|m| m.is_file() && m.len() == size)
    }

    /// Where a blob of this name is, or would be.
    pub fn blob_path(&self, digest: Digest) -> PathBuf {
        self.entry("blobs", &digest.to_string())
    }

    /// A stage for a blob whose name will be known when it is whole.
    pub fn stage_blob(&self, digest: Digest) -> io::Result<StagedFile> {
        sealed::create_beside(&self.blob_path(digest))
    }

    /// Keeps a blob that was staged and is what it should be.
    pub fn keep_blob(&self, whole: Whole) -> io::Result<()> {
        let path = self.blob_path(whole.digest());
        whole.commit(&path)
    }

    /// Keeps these bytes as a blob.
    pub fn put_blob(&self, bytes: &[u8]) -> io::Result<Digest> {
        let digest = Digest::of(bytes);
        if !self.has_blob(digest, bytes.len() as u64) {
            let mut staged = self.stage_blob(digest)?;
            staged.write_all(bytes)?;
            self.keep_blob(staged.finish(Durability::None)?)?;
        }
        Ok(digest)
    }

    /// Keeps a copy of the file as a blob, and tells its digest and size.
    pub fn put_file(&self, path: &Path) -> io::Result<(Digest, u64)> {
        // Its name is known only when it was read, so it is staged on the level above.
        let mut staged = sealed::create_beside(&self.root.join("blobs/unnamed"))?;
        copy_chunks(&mut fs_err::File::open(path)?, &mut staged)?;
        let whole = staged.finish(Durability::None)?;
        let (digest, size) = (whole.digest(), whole.size());
        let target = self.blob_path(digest);
        if let Some(shard) = target.parent().filter(|shard| !shard.is_dir()) {
            fs_err::create_dir_all(shard)?;
        }
        whole.commit(&target)?;
        Ok((digest, size))
    }

    /// Copies a blob to `staged`, verified. `None`: it is not here, or it was damaged and is no longer here.
    pub fn copy_blob(&self, output: &Output, mut staged: StagedFile) -> io::Result<Option<Whole>> {
        let path = self.blob_path(output.digest);
        let mut file = match fs_err::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() == output.size {
            copy_chunks(&mut file, &mut staged)?;
            let whole = staged.finish(Durability::None)?;
            if whole.digest() == output.digest {
                return Ok(Some(whole));
            }
        }
        self.set_aside(&path);
        Ok(None)
    }

    /// A small blob's bytes, verified.
    pub fn read_blob(&self, output: &Output) -> Option<Vec<u8>> {
        let path = self.blob_path(output.digest);
        let bytes = fs_err::read(&path).ok()?;
        if Digest::of(&bytes) == output.digest {
            return Some(bytes);
        }
        self.set_aside(&path);
        None
    }

    fn read_sealed(&self, path: &Path, limit: u64) -> Option<Vec<u8>> {
        match sealed::read(path, limit) {
            Sealed::Whole(body) => Some(body),
            Sealed::Missing => None,
            Sealed::Damaged => {
                self.set_aside(path);
                None
            }
        }
    }

    /// Moves a damaged entry out of the way: it is a miss from here on, and a person can look at it.
    pub fn set_aside(&self, path: &Path) {
        let damaged = self.root.join("damaged");
        let name = path.file_name().unwrap_or_default();
        let _ = fs_err::create_dir_all(&damaged);
        let free = (0..MAX_DAMAGED)
            .map(|n| damaged.join(os::join_name(&[name, format!(".{n}").as_ref()])))
            .find(|target| !target.exists());
        let crowded = fs_err::read_dir(&damaged).map_or(0, Iterator::count) >= MAX_DAMAGED;
        let moved = free.filter(|_| !crowded).is_some_and(|target| fs_err::rename(path, target).is_ok());
        if !moved {
            let _ = fs_err::remove_file(path);
        }
    }

    /// Removes everything that is stored, but for the locks that someone may hold.
    pub fn clear(&self) -> io::Result<()> {
        for kind in ["results", "units", "blobs", "embedded", "memo", "damaged"] {
            match fs_err::remove_dir_all(self.root.join(kind)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs_err::create_dir_all(parent)?;
    }
    let made = std::fs::DirBuilder::new().mode(0o700).create(path);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}
