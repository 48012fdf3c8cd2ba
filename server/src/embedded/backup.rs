//! Backup and restore: all rows of one moment as text, and the blobs that they name.
//!
//! ```text
//! pcmcache-backup      what the directory is
//! rows                 the dump: what a restore makes an index of
//! unfinished           while one is made
//! blobs/ab/<digest>    linked where the backup lies on the store's file system, else copied and verified
//! ```
//!
//! Invariant: whatever `rows` names is in `blobs`. Blobs come first; `rows` takes its name when they are durable, and only
//! then do those go that an earlier `rows` named. So a kill at any moment leaves the earlier backup or the new one whole.
//! Blobs are immutable, which is why a link will do; it costs no space and does not help against the disk itself.
//!
//! A restore marks the directory first and takes the mark away last; no server starts on one that is marked.

use std::collections::HashSet;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pcmcache_shared::digest::{copy_chunks, hash_reader};
use pcmcache_shared::staged::{Durability, StagedFile};
use pcmcache_shared::{Digest, disk, failpoint};
use redb::{ReadTransaction, ReadableTable as _, ReadableTableMetadata as _};

use super::files::{Files, none_if_missing};
use super::index::{blocking, fault};
use super::journal;
use super::ledger::Ledger;
use super::lost::LOST;
use super::rebuild::{Rebuilt, rebuild};
use super::tables::{RESULTS, UPLOADS};
use super::{Embedded, OpenError, into_io, lock, locked};
use crate::clock::Clock;
use crate::fault::Fault;
use crate::space::{Bounds, DiskOf};

const MARK: &str = "pcmcache-backup";
const MARK_TEXT: &str = "pcmcache backup 1\n";
const ROWS: &str = "rows";
const UNFINISHED: &str = "unfinished";
/// In a data directory: a restore into it has begun.
pub(super) const RESTORING: &str = "restoring";

/// What a backup came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BackedUp {
    /// How many results are in it.
    pub results: u64,
    /// How many blobs.
    pub blobs: u64,
    /// How many of them an earlier backup had not.
    pub new_blobs: u64,
    /// Those that could not be taken: their bytes are not those of their names.
    pub damaged: Vec<Digest>,
}

/// A directory that a backup goes to, which nobody else writes to meanwhile.
#[derive(Debug, Clone)]
pub struct Backup {
    directory: PathBuf,
    taking: Taking,
    new_blobs: u64,
    _lock: Arc<disk::File>,
}

/// How blobs are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taking {
    /// Link them where that can be.
    links: bool,
    /// What is there already may not have reached the disk: who wrote it was killed, perhaps by a power cut.
    doubts: bool,
}

impl Backup {
    /// Takes a directory that is not there yet, is empty, or has an earlier backup. With `copies`, blobs are copied also where
    /// they could be linked. Blocks.
    pub fn begin(directory: &Path, copies: bool) -> io::Result<Self> {
        disk::create_private_dir_all(directory)?;
        let mark = directory.join(MARK);
        if is_begun(&mark)? {
            // Nothing else was made before it was whole.
            disk::remove_file(&mark)?;
        }
        if !mark.try_exists()? {
            if disk::read_dir(directory)?.next().is_some() {
                let text = format!("{} has files in it, and no backup", directory.display());
                return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, text));
            }
            write_small(&mark, MARK_TEXT)?;
        }
        check_mark(directory)?;
        let lock = disk::File::open(&mark)?;
        if !locked(&lock)? {
            let text = format!("another backup to {} is under way", directory.display());
            return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
        }
        for shard in 0..=u8::MAX {
            disk::create_private_dir_all(directory.join("blobs").join(format!("{shard:02x}")))?;
        }
        let unfinished = directory.join(UNFINISHED);
        let doubts = unfinished.try_exists()?;
        if !doubts {
            write_small(&unfinished, "a backup to this directory is under way, or was killed\n")?;
        }
        let taking = Taking { links: !copies, doubts };
        Ok(Self { directory: directory.to_owned(), taking, new_blobs: 0, _lock: Arc::new(lock) })
    }
}

/// Whether whoever wrote the mark was killed before it was whole.
fn is_begun(mark: &Path) -> io::Result<bool> {
    let text = none_if_missing(disk::read(mark))?;
    // After a power cut it may have its length, and zeros.
    let is_part = |text: &[u8]| text.len() < MARK_TEXT.len() && MARK_TEXT.as_bytes().starts_with(text);
    Ok(text.is_some_and(|text| is_part(&text) || text.iter().all(|byte| *byte == 0)))
}

fn check_mark(directory: &Path) -> io::Result<()> {
    let mark = directory.join(MARK);
    match disk::read_to_string(&mark) {
        Ok(text) if text == MARK_TEXT => Ok(()),
        Ok(_) => Err(io::Error::other(format!("{}: a newer server made this backup", mark.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(io::Error::new(error.kind(), format!("there is no backup in {}", directory.display())))
        }
        Err(error) => Err(error),
    }
}

impl Embedded {
    /// Takes most of the blobs, while whatever else goes on: those that go meanwhile are no loss.
    pub async fn begin_backup(&self, mut backup: Backup) -> Result<Backup, Fault> {
        let (index, files) = (Arc::clone(&self.index), Arc::clone(&self.files));
        blocking(OPERATION, move || {
            // An error of the backup's disk is none of the index's.
            let taken = index.view(|rows| Ok(take_blobs(rows, &files, &backup)));
            let taken: io::Result<Taken> = taken.map_err(|error| fault(OPERATION, &error))?;
            backup.new_blobs += taken.map_err(|error| Fault::io(OPERATION, error))?.new_blobs;
            Ok(backup)
        })
        .await
    }

    /// Takes the rest, and all rows. Nothing may be removed meanwhile.
    pub async fn finish_backup(&self, backup: Backup) -> Result<BackedUp, Fault> {
        let (index, files) = (Arc::clone(&self.index), Arc::clone(&self.files));
        blocking(OPERATION, move || {
            let finished = index.view(|rows| Ok(finish(rows, &files, &backup)));
            let finished: io::Result<BackedUp> = finished.map_err(|error| fault(OPERATION, &error))?;
            finished.map_err(|error| Fault::io(OPERATION, error))
        })
        .await
    }
}

const OPERATION: &str = "back the store up";

fn finish(rows: &ReadTransaction, files: &Files, backup: &Backup) -> io::Result<BackedUp> {
    let taken = take_blobs(rows, files, backup)?;
    disk::sync_file_system(&disk::File::open(&backup.directory)?)?;
    journal::write_whole(&backup.directory.join(ROWS), |to| {
        journal::dump(rows, to).map_err(into_io)?;
        failpoint!("backup.dumped");
        Ok(())
    })?;
    failpoint!("backup.written");
    prune(&backup.directory, &taken.all)?;
    disk::remove_file(backup.directory.join(UNFINISHED))?;
    disk::sync_directory(&backup.directory)?;
    let results = rows.open_table(RESULTS).and_then(|table| Ok(table.len()?)).map_err(io::Error::other)?;
    let Taken { all, new_blobs, damaged } = taken;
    let new_blobs = backup.new_blobs + new_blobs;
    Ok(BackedUp { results, blobs: all.len() as u64, new_blobs, damaged })
}

#[derive(Default)]
struct Taken {
    all: HashSet<Digest>,
    new_blobs: u64,
    damaged: Vec<Digest>,
}

/// Every blob that somebody put and that is there.
fn take_blobs(rows: &ReadTransaction, files: &Files, backup: &Backup) -> io::Result<Taken> {
    let mut taken = Taken::default();
    let stage = backup.directory.join("stage");
    none_if_missing(disk::remove_file(&stage))?;
    let uploads = rows.open_table(UPLOADS).map_err(io::Error::other)?;
    for row in uploads.iter().map_err(io::Error::other)? {
        let (key, _) = row.map_err(io::Error::other)?;
        let digest = Digest::from_bytes(*key.value().0);
        if taken.all.contains(&digest) {
            continue;
        }
        let to = place_in(&backup.directory, digest);
        match take(&files.place_of(digest), &to, digest, &stage, backup.taking)? {
            Take::New => taken.new_blobs += 1,
            Take::There => {}
            Take::Gone => continue,
            Take::Damaged => {
                taken.damaged.push(digest);
                continue;
            }
        }
        taken.all.insert(digest);
    }
    // What the store lost since an earlier backup: results still name it.
    for row in rows.open_table(LOST).map_err(io::Error::other)?.iter().map_err(io::Error::other)? {
        let digest = Digest::from_bytes(*row.map_err(io::Error::other)?.0.value());
        if place_in(&backup.directory, digest).try_exists()? {
            taken.all.insert(digest);
        }
    }
    Ok(taken)
}

enum Take {
    New,
    There,
    Gone,
    Damaged,
}

/// Links a blob, or copies and verifies it where that cannot be.
fn take(from: &Path, to: &Path, digest: Digest, stage: &Path, taking: Taking) -> io::Result<Take> {
    let Some(metadata) = none_if_missing(disk::symlink_metadata(from))? else { return Ok(Take::Gone) };
    if let Some(there) = none_if_missing(disk::symlink_metadata(to))? {
        let is_same_file = (there.dev(), there.ino()) == (metadata.dev(), metadata.ino());
        let is_whole = there.len() == metadata.len()
            && (!taking.doubts || hash_reader(disk::File::open(to)?)?.0 == digest);
        if is_same_file || is_whole {
            return Ok(Take::There);
        }
        disk::remove_file(to)?;
    }
    if taking.links {
        match disk::hard_link(from, to) {
            Ok(()) => return Ok(Take::New),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Take::Gone),
            // Another file system, or one that has no links or no more of them.
            Err(_) => {}
        }
    }
    let Some(mut source) = none_if_missing(disk::File::open(from))? else { return Ok(Take::Gone) };
    let mut copy = StagedFile::create(stage.to_owned(), 0o600)?;
    copy_chunks(&mut source, &mut copy)?;
    // All of them are made durable at once, in the end.
    let whole = copy.finish(Durability::None)?;
    if whole.digest() != digest {
        return Ok(Take::Damaged);
    }
    whole.commit(to)?;
    Ok(Take::New)
}

fn place_in(directory: &Path, digest: Digest) -> PathBuf {
    let name = digest.to_string();
    directory.join("blobs").join(name.get(..2).unwrap_or_default()).join(name)
}

/// Removes what the rows do not name.
fn prune(directory: &Path, keep: &HashSet<Digest>) -> io::Result<()> {
    for shard in disk::read_dir(directory.join("blobs"))? {
        for entry in disk::read_dir(shard?.path())? {
            let entry = entry?;
            let digest = entry.file_name().to_str().and_then(|name| name.parse::<Digest>().ok());
            if digest.is_none_or(|digest| !keep.contains(&digest)) {
                disk::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

/// What a restore came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The index that was made.
    pub rebuilt: Rebuilt,
    /// How many blobs there are.
    pub blobs: u64,
    /// Those that could not be taken: their bytes are not those of their names.
    pub damaged: Vec<Digest>,
}

/// Makes a store in `directory`, which is not there, is empty, or has a restore that was not finished, out of the backup in
/// `from`. Blocks.
pub fn restore(from: &Path, directory: &Path, clock: &dyn Clock) -> Result<Restored, OpenError> {
    check_mark(from)?;
    let rows = from.join(ROWS);
    if !rows.try_exists()? {
        let text = format!("the backup in {} was not finished", from.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, text).into());
    }
    disk::create_private_dir_all(directory)?;
    let mark = directory.join(RESTORING);
    let doubts = mark.try_exists()?;
    if !doubts {
        if disk::read_dir(directory)?.next().is_some() {
            let text = format!("{} has files in it: a restore makes a new store", directory.display());
            return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, text).into());
        }
        write_small(&mark, "a restore into this directory was not finished\n")?;
    }
    let _lock = lock(directory)?;
    let (blobs, damaged) = restore_blobs(from, directory, Taking { links: true, doubts })?;
    failpoint!("restore.linked");
    journal::restore(directory, &rows)?;
    let rebuilt = rebuild(directory, clock)?;
    failpoint!("restore.rebuilt");
    disk::remove_file(&mark)?;
    disk::sync_directory(directory)?;
    Ok(Restored { rebuilt, blobs, damaged })
}

fn restore_blobs(from: &Path, directory: &Path, taking: Taking) -> io::Result<(u64, Vec<Digest>)> {
    let ledger = Ledger::new(Bounds::default(), Arc::new(DiskOf(directory.to_owned())));
    let files = Files::open(directory, Arc::new(ledger))?;
    let stage = directory.join("stages/0");
    let (mut blobs, mut damaged) = (0, Vec::new());
    for shard in disk::read_dir(from.join("blobs"))? {
        for entry in disk::read_dir(shard?.path())? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(digest) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            match take(&entry.path(), &files.place_of(digest), digest, &stage, taking)? {
                Take::New | Take::There => blobs += 1,
                Take::Gone => {}
                Take::Damaged => damaged.push(digest),
            }
        }
    }
    disk::sync_file_system(&disk::File::open(directory)?)?;
    Ok((blobs, damaged))
}

/// Writes a small file, durably.
fn write_small(path: &Path, text: &str) -> io::Result<()> {
    let mut file = disk::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    disk::sync_directory(path.parent().unwrap_or(Path::new(".")))
}

/// Whether a restore into the directory was not finished.
pub(super) fn is_half_restored(directory: &Path) -> io::Result<bool> {
    directory.join(RESTORING).try_exists()
}
