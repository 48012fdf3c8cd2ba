//! The files of the blobs: stages, places, and what was moved aside. Whatever comes or goes here is in the ledger.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pcmcache_shared::digest::CHUNK;
use pcmcache_shared::staged::{StagedFile, Whole};
use pcmcache_shared::{Digest, disk};
use rustix::fs::{Advice, fadvise};

use super::ledger::{Content, DAMAGED, Ledger, PLACES, Reservation};
use super::readers::{Readers, Reading};
use crate::blobs::Version;

/// How many damaged copies of one blob are kept for a person to look at.
const KEPT_DAMAGED: u32 = 8;
/// So many small files are synced one by one. More are synced at once, with all else that their file system has to write.
const FEW: usize = 4;
/// As long as uploads on their way are no more than so many bytes, that is less than a sync for each.
const MUCH: u64 = 8 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Files {
    /// The directory of the blobs, which may lie on another file system than the index. Kept open: errors of writing that
    /// nobody waited for are told by its next sync.
    opened: disk::File,
    blobs: PathBuf,
    stages: PathBuf,
    damaged: PathBuf,
    next_stage: AtomicU64,
    /// One for each place: to put a file there and to account for it is one step, so is to compare what is there and to
    /// take it away. So the ledger is exact, and a copy that was just put in place of a damaged one is not the one
    /// that goes. Who needs two takes that of the damaged last.
    locks: Vec<Mutex<()>>,
    ledger: Arc<Ledger>,
    readers: Arc<Readers>,
}

impl Files {
    /// Makes the directories, durably, and sweeps the stages of whoever was killed here.
    pub(super) fn open(directory: &Path, ledger: Arc<Ledger>) -> io::Result<Self> {
        let [blobs, stages, damaged] = ["blobs", "stages", "damaged"].map(|name| directory.join(name));
        for made in [&blobs, &stages, &damaged] {
            disk::create_private_dir_all(made)?;
        }
        for shard in 0..=u8::MAX {
            disk::create_private_dir_all(blobs.join(format!("{shard:02x}")))?;
        }
        disk::sync_directory(&blobs)?;
        disk::sync_directory(directory)?;
        sweep_stages(&stages)?;
        let locks = (0..PLACES).map(|_| Mutex::new(())).collect();
        let (next_stage, readers) = (AtomicU64::new(0), Arc::default());
        let opened = disk::File::open(&blobs)?;
        Ok(Self { opened, blobs, stages, damaged, next_stage, locks, ledger, readers })
    }

    pub(super) fn place_of(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.blobs.join(name.get(..2).unwrap_or_default()).join(name)
    }

    fn lock(&self, place: usize) -> Option<MutexGuard<'_, ()>> {
        self.locks.get(place).map(|lock| lock.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A stage, with the disk's space for all that was reserved, where the file system gives that. What is written at once
    /// asks for it by being written.
    pub(super) fn stage(&self, mut room: Reservation) -> io::Result<Staged> {
        let number = self.next_stage.fetch_add(1, Ordering::Relaxed);
        let file = StagedFile::create(self.stages.join(number.to_string()), 0o600)?;
        let length = room.length();
        if length > CHUNK as u64 && file.allocate(length)? {
            room.allocated(length);
        }
        Ok(Staged { file, room })
    }

    /// Puts a durable stage in its place, durably.
    pub(super) fn place(&self, whole: Whole, digest: Digest, room: &mut Reservation) -> io::Result<()> {
        let (path, place, size) = (self.place_of(digest), shard_of(digest), whole.size());
        let _placing = self.lock(place);
        let replaced = none_if_missing(disk::symlink_metadata(&path))?;
        if let Err(error) = whole.commit(&path) {
            // It may be there all the same, and only the directory could not be synced.
            self.count_locked(place)?;
            return Err(error);
        }
        self.ledger.placed(place, size, replaced.as_ref().map(MetadataExt::size), room);
        if let Some(replaced) = replaced {
            self.readers.unlinked(replaced.ino());
        }
        Ok(())
    }

    /// Puts a stage that is not durable in its place, as which `file` is open. What this returns is to be synced before anybody
    /// is told of it; where the place was taken, it is durable already, for so may be what it replaces.
    pub(super) fn place_unsynced(
        &self,
        whole: Whole,
        digest: Digest,
        file: disk::File,
        room: &mut Reservation,
    ) -> io::Result<Option<Unsynced>> {
        let (path, place, size) = (self.place_of(digest), shard_of(digest), whole.size());
        let directory = path.parent().unwrap_or(&self.blobs).to_owned();
        let unsynced = Unsynced { file, directory };
        let _placing = self.lock(place);
        let replaced = none_if_missing(disk::symlink_metadata(&path))?;
        if replaced.is_some() {
            unsynced.file.sync_all()?;
        }
        whole.commit(&path)?;
        self.ledger.placed(place, size, replaced.as_ref().map(MetadataExt::size), room);
        let Some(replaced) = replaced else { return Ok(Some(unsynced)) };
        self.readers.unlinked(replaced.ino());
        disk::sync_directory(&unsynced.directory)?;
        Ok(None)
    }

    /// Makes them durable, under their names.
    pub(super) fn sync(&self, placed: &[Unsynced]) -> io::Result<()> {
        if placed.len() > FEW && self.ledger.reserved() <= MUCH {
            return disk::sync_file_system(&self.opened);
        }
        for Unsynced { file, directory } in placed {
            file.sync_all()?;
            disk::sync_directory(directory)?;
        }
        Ok(())
    }

    /// The size and version of what is in the blob's place.
    pub(super) fn look(&self, digest: Digest) -> io::Result<Option<(u64, Version)>> {
        let metadata = none_if_missing(disk::symlink_metadata(self.place_of(digest)))?;
        Ok(metadata.map(|metadata| (metadata.len(), version(&metadata))))
    }

    /// The blobs of which copies were moved aside.
    pub(super) fn damaged(&self) -> io::Result<Vec<Digest>> {
        let mut digests = Vec::new();
        for entry in disk::read_dir(&self.damaged)? {
            let name = entry?.file_name();
            let digest = name.to_str().and_then(|name| name.split_once('.')).map(|(digest, _)| digest);
            digests.extend(digest.and_then(|digest| digest.parse::<Digest>().ok()));
        }
        Ok(digests)
    }

    /// Opens what is in the blob's place, to be read from the disk itself: what the system still has in memory says nothing
    /// about the disk. Where it does not let go, it is read from memory.
    pub(super) fn read_from_disk(&self, digest: Digest) -> io::Result<Option<Reading>> {
        let reading = self.read(digest)?;
        if let Some(reading) = &reading {
            let _ = fadvise(&reading.file, 0, None, Advice::DontNeed);
        }
        Ok(reading)
    }

    /// Opens what is in the blob's place.
    pub(super) fn read(&self, digest: Digest) -> io::Result<Option<Reading>> {
        let opened = none_if_missing(disk::File::open(self.place_of(digest)))?;
        opened.map(|file| self.readers.opened(file)).transpose()
    }

    /// Moves the copy aside if it still is `condemned`.
    pub(super) fn condemn(&self, digest: Digest, condemned: Version) -> io::Result<bool> {
        let (path, place) = (self.place_of(digest), shard_of(digest));
        let _taking = self.lock(place);
        let Some(metadata) = none_if_missing(disk::symlink_metadata(&path))? else { return Ok(false) };
        if version(&metadata) != condemned {
            return Ok(false);
        }
        let _moving = self.lock(DAMAGED);
        let aside = |n: u32| self.damaged.join(format!("{digest}.{n}"));
        match (0..KEPT_DAMAGED)
            .map(aside)
            .find(|path| matches!(none_if_missing(disk::symlink_metadata(path)), Ok(None)))
        {
            Some(aside) => {
                disk::rename(&path, aside)?;
                self.ledger.added(DAMAGED, metadata.len());
            }
            None => {
                disk::remove_file(&path)?;
                self.readers.unlinked(metadata.ino());
            }
        }
        self.ledger.removed(place, metadata.len());
        Ok(true)
    }

    /// The blobs of a shard, which is counted anew: what was changed by hand is seen then.
    pub(super) fn list(&self, shard: u8) -> io::Result<Vec<Digest>> {
        let _counting = self.lock(shard.into());
        let names = self.count_locked(shard.into())?;
        Ok(names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
    }

    /// All that lies where blobs do.
    pub(super) fn walk(&self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for entry in disk::read_dir(&self.blobs)? {
            let entry = entry?;
            let name = entry.file_name();
            let shard = name.to_str().filter(|name| name.len() == 2 && u8::from_str_radix(name, 16).is_ok());
            match shard {
                Some(shard) if entry.file_type()?.is_dir() => {
                    for entry in disk::read_dir(entry.path())? {
                        found.extend(found_in_shard(&entry?, shard)?);
                    }
                }
                Some(_) | None => found.push(Found::Strange(entry.path())),
            }
        }
        for entry in disk::read_dir(&self.damaged)? {
            let entry = entry?;
            let name = entry.file_name();
            let digest = name.to_str().and_then(|name| name.split_once('.')?.0.parse().ok());
            found.push(digest.map_or_else(|| Found::Strange(entry.path()), Found::Damaged));
        }
        for entry in disk::read_dir(&self.stages)? {
            let entry = entry?;
            if entry.file_name().to_str().is_none_or(|name| name.parse::<u64>().is_err()) {
                found.push(Found::Strange(entry.path()));
            }
        }
        Ok(found)
    }

    /// Removes the copies that are there, and says what they took.
    pub(super) fn remove(&self, digests: &[Digest]) -> io::Result<Content> {
        let mut removed = Content::default();
        for digest in digests {
            let (path, place) = (self.place_of(*digest), shard_of(*digest));
            let _taking = self.lock(place);
            removed.add(self.unlink(&path, place)?);
        }
        Ok(removed)
    }

    /// Removes all that was moved aside, and says what it took.
    pub(super) fn discard_damaged(&self) -> io::Result<Content> {
        let _taking = self.lock(DAMAGED);
        let mut removed = Content::default();
        for entry in disk::read_dir(&self.damaged)? {
            removed.add(self.unlink(&entry?.path(), DAMAGED)?);
        }
        Ok(removed)
    }

    /// Unlinks a file, if it is there. The place's lock is held.
    fn unlink(&self, path: &Path, place: usize) -> io::Result<Content> {
        let Some(metadata) = none_if_missing(disk::symlink_metadata(path))? else {
            return Ok(Content::default());
        };
        disk::remove_file(path)?;
        self.readers.unlinked(metadata.ino());
        self.ledger.removed(place, metadata.len());
        Ok(Content { files: 1, bytes: metadata.len() })
    }

    /// Counts what a place holds.
    pub(super) fn count(&self, place: usize) -> io::Result<()> {
        let _counting = self.lock(place);
        self.count_locked(place).map(drop)
    }

    /// The names of what a place holds. Its lock is held.
    fn count_locked(&self, place: usize) -> io::Result<Vec<OsString>> {
        let directory = match place {
            DAMAGED => self.damaged.clone(),
            shard => self.blobs.join(format!("{shard:02x}")),
        };
        let (mut names, mut content) = (Vec::new(), Content::default());
        for entry in disk::read_dir(directory)? {
            let entry = entry?;
            // What was removed by hand meanwhile is not there.
            if let Some(metadata) = none_if_missing(entry.metadata())? {
                content.add(Content { files: 1, bytes: metadata.len() });
                names.push(entry.file_name());
            }
        }
        self.ledger.count(place, content);
        Ok(names)
    }

    /// The bytes of what is unlinked and still open.
    pub(super) fn unlinked_open_bytes(&self) -> u64 {
        self.readers.unlinked_bytes()
    }
}

/// A stage and the room it has; the room is given back after the file is gone.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) file: StagedFile,
    pub(super) room: Reservation,
}

/// A file that has its name, and that a power cut may take.
#[derive(Debug)]
pub(super) struct Unsynced {
    file: disk::File,
    directory: PathBuf,
}

/// What lies where blobs do.
#[derive(Debug)]
pub(super) enum Found {
    /// A blob's file, and its size.
    Blob(Digest, u64),
    /// A copy of the blob that was moved aside.
    Damaged(Digest),
    /// None of ours.
    Strange(PathBuf),
}

/// What an entry of a shard is; `None` if it went meanwhile.
fn found_in_shard(entry: &fs_err::DirEntry, shard: &str) -> io::Result<Option<Found>> {
    let Some(metadata) = none_if_missing(entry.metadata())? else { return Ok(None) };
    let name = entry.file_name();
    let digest = name.to_str().filter(|name| name.starts_with(shard)).and_then(|name| name.parse().ok());
    Ok(Some(match digest {
        Some(digest) if metadata.is_file() => Found::Blob(digest, metadata.len()),
        Some(_) | None => Found::Strange(entry.path()),
    }))
}

/// The place of a blob: its shard.
fn shard_of(digest: Digest) -> usize {
    digest.as_bytes().first().copied().unwrap_or_default().into()
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

fn sweep_stages(stages: &Path) -> io::Result<()> {
    let mut swept = 0;
    for entry in disk::read_dir(stages)? {
        disk::remove_file(entry?.path())?;
        swept += 1;
    }
    if swept > 0 {
        tracing::info!(swept, "removed what a killed server had staged");
    }
    Ok(())
}
