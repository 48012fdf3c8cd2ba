//! The files of the blobs: stages, places, and what was moved aside.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use pcmcache_shared::Digest;
use pcmcache_shared::staged::{StagedFile, Whole, sync_directory};

use crate::blobs::Version;

/// How many damaged copies of one blob are kept for a person to look at.
const KEPT_DAMAGED: u32 = 8;

#[derive(Debug)]
pub(super) struct Files {
    blobs: PathBuf,
    stages: PathBuf,
    damaged: PathBuf,
    next_stage: AtomicU64,
    /// Read: to put a file in its place. Written: to compare what is there and then take it away, so that a copy
    /// that was just put there in place of a damaged one is not the one that goes.
    places: RwLock<()>,
}

impl Files {
    /// Makes the directories, durably, and sweeps the stages of whoever was killed here.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let [blobs, stages, damaged] = ["blobs", "stages", "damaged"].map(|name| directory.join(name));
        for made in [&blobs, &stages, &damaged] {
            make_directory(made)?;
        }
        for shard in 0..=u8::MAX {
            make_directory(&blobs.join(format!("{shard:02x}")))?;
        }
        sync_directory(&blobs)?;
        sync_directory(directory)?;
        sweep_stages(&stages)?;
        Ok(Self { blobs, stages, damaged, next_stage: AtomicU64::new(0), places: RwLock::new(()) })
    }

    pub(super) fn place_of(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.blobs.join(name.get(..2).unwrap_or_default()).join(name)
    }

    pub(super) fn stage(&self) -> io::Result<StagedFile> {
        let number = self.next_stage.fetch_add(1, Ordering::Relaxed);
        StagedFile::create(self.stages.join(number.to_string()), 0o600)
    }

    /// Puts a durable stage in its place, durably.
    pub(super) fn place(&self, whole: Whole, digest: Digest) -> io::Result<()> {
        let _placing = self.places.read().unwrap_or_else(PoisonError::into_inner);
        whole.commit(&self.place_of(digest))
    }

    /// The size and version of what is in the blob's place.
    pub(super) fn look(&self, digest: Digest) -> io::Result<Option<(u64, Version)>> {
        let metadata = none_if_missing(fs_err::symlink_metadata(self.place_of(digest)))?;
        Ok(metadata.map(|metadata| (metadata.len(), version(&metadata))))
    }

    /// Moves the copy aside if it still is `condemned`.
    pub(super) fn condemn(&self, digest: Digest, condemned: Version) -> io::Result<bool> {
        let _taking = self.places.write().unwrap_or_else(PoisonError::into_inner);
        if self.look(digest)?.is_none_or(|(_, version)| version != condemned) {
            return Ok(false);
        }
        let aside = |n: u32| self.damaged.join(format!("{digest}.{n}"));
        let free = (0..KEPT_DAMAGED).map(aside).find(|path| !path.exists());
        match free {
            Some(path) => fs_err::rename(self.place_of(digest), path)?,
            None => fs_err::remove_file(self.place_of(digest))?,
        }
        Ok(true)
    }

    pub(super) fn list(&self, shard: u8) -> io::Result<Vec<Digest>> {
        let mut digests = Vec::new();
        for entry in fs_err::read_dir(self.blobs.join(format!("{shard:02x}")))? {
            if let Some(digest) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
                digests.push(digest);
            }
        }
        Ok(digests)
    }

    pub(super) fn remove(&self, digests: &[Digest]) -> io::Result<()> {
        let _taking = self.places.write().unwrap_or_else(PoisonError::into_inner);
        for digest in digests {
            none_if_missing(fs_err::remove_file(self.place_of(*digest)))?;
        }
        Ok(())
    }
}

/// Changes whenever the file's bytes may have changed: a write moves its times, a replacement has another inode.
pub(super) fn version(metadata: &std::fs::Metadata) -> Version {
    let facts = [
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        metadata.mtime().cast_unsigned(),
        metadata.mtime_nsec().cast_unsigned(),
        metadata.ctime().cast_unsigned(),
        metadata.ctime_nsec().cast_unsigned(),
    ];
    Version(Digest::of(facts.map(u64::to_le_bytes).concat()))
}

pub(super) fn none_if_missing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes the directory, and those above it, for its owner only; it may be there.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| io::Error::new(error.kind(), format!("cannot make {}: {error}", path.display())))
}

fn sweep_stages(stages: &Path) -> io::Result<()> {
    let mut swept = 0;
    for entry in fs_err::read_dir(stages)? {
        fs_err::remove_file(entry?.path())?;
        swept += 1;
    }
    if swept > 0 {
        tracing::info!(swept, "removed what a killed server had staged");
    }
    Ok(())
}
