//! The embedded back end, the default: redb and local files in one data directory.
//!
//! ```text
//! lock                    flocked by the one server that uses the directory
//! results/                the journal: what the index says of results, once more, as text
//! index.redb              results, include sets, references, who put which blob, leases, profiles
//! blobs/ab/<digest>       whole, durable, of the name's bytes when they were put there
//! stages/                 bytes on their way; swept at start
//! damaged/<digest>.N      what was found not to match its name, for a person to look at
//! ```
//!
//! Invariants: a file takes its name under `blobs/` by rename; it and its name are on the disk before any row speaks of it
//! (a large one before the rename, small ones of a batch together: `small`); a row is durable before anyone is told. Crash
//! story: a kill leaves at most stages, which the next start sweeps, and files that no row speaks of, which nobody can see
//! and the sweep removes.

mod backup;
mod blobs;
mod check;
mod counting;
mod files;
mod forget;
mod index;
mod journal;
mod large;
mod leases;
mod ledger;
mod lost;
mod migrate;
mod profiles;
mod readers;
mod rebuild;
mod results;
mod scopes;
mod small;
mod spent;
mod tables;
mod uploads;
mod uses;
mod writer;

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pcmcache_shared::{disk, mutant};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

pub use self::backup::{BackedUp, Backup, Restored, restore};
pub use self::check::Checked;
use self::counting::Counting;
use self::files::Files;
use self::index::{Index, blocking, fault};
use self::journal::Journal;
use self::ledger::Ledger;
pub use self::rebuild::{Rebuilt, rebuild_index};
use self::uses::Age;
use self::writer::Writer;
use crate::clock::Clock;
use crate::fault::Fault;
use crate::memory::MemoryLeases;
use crate::space::{Bounds, Disk, DiskOf};

/// The version of the layout and of the tables. An older one is brought up to it at the start; a newer one is refused.
pub const FORMAT: u64 = 2;

/// The embedded back end: [`Blobs`](crate::blobs::Blobs), [`Results`](crate::results::Results),
/// [`Profiles`](crate::profiles::Profiles) and [`Leases`](crate::leases::Leases) over one data directory.
#[derive(Debug)]
pub struct Embedded {
    // The order is that of dropping: the count ends, the writer ends its batch, the index closes, the lock opens.
    _counting: Counting,
    writer: Arc<Writer>,
    index: Arc<Index>,
    journal: Arc<Journal>,
    files: Arc<Files>,
    ledger: Arc<Ledger>,
    leases: MemoryLeases,
    clock: Arc<dyn Clock>,
    age: Age,
    _lock: disk::File,
}

/// Why a data directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another server has it: stop that one, or use another directory.
    #[error("another server uses the data directory {}", .0.display())]
    InUse(PathBuf),
    /// A newer server wrote it: use that one, or another directory.
    #[error("{} has the format {found}, this server knows up to {FORMAT}: use a newer one", path.display())]
    Format {
        /// The index.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// The directory cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What is there is a part of what will be.
    #[error("a restore into {} was not finished: run it again", .0.display())]
    HalfRestored(PathBuf),
    /// There are results, and no index of them.
    #[error("the index {} is gone: `pcmcache-server rebuild-index` makes it again from what is there", .0.display())]
    NoIndex(PathBuf),
    /// The index cannot be opened.
    #[error(
        "cannot open the index {}: {source}; if it is damaged, `pcmcache-server rebuild-index` makes it again",
        path.display()
    )]
    Index {
        /// The index.
        path: PathBuf,
        /// Why.
        source: redb::Error,
    },
}

impl Embedded {
    /// Opens the data directory, creating it where it is missing, bound by its disk alone. Blocks; call it before serving.
    /// Stages that a killed server left are swept.
    pub fn open(directory: &Path, clock: Arc<dyn Clock>) -> Result<Arc<Self>, OpenError> {
        Self::open_within(directory, clock, Bounds::default(), Arc::new(DiskOf(directory.to_owned())))
    }

    /// The same, within these bounds.
    pub fn open_within(
        directory: &Path,
        clock: Arc<dyn Clock>,
        bounds: Bounds,
        disk: Arc<dyn Disk>,
    ) -> Result<Arc<Self>, OpenError> {
        disk::create_private_dir_all(directory)?;
        let lock = lock(directory)?;
        let ledger = Arc::new(Ledger::new(bounds, disk));
        let files = Arc::new(Files::open(directory, Arc::clone(&ledger))?);
        if backup::is_half_restored(directory)? {
            return Err(OpenError::HalfRestored(directory.to_owned()));
        }
        let path = directory.join(INDEX);
        if !path.try_exists()? && Journal::is_there(directory)? {
            return Err(OpenError::NoIndex(path));
        }
        let index = Arc::new(Index::open(path, clock.unix_s())?);
        let wrap = |source| OpenError::Index { path: index.path(), source };
        let age = Age::restore(&index, Arc::clone(&clock)).map_err(wrap)?;
        let damaged = files.damaged()?;
        let prepared = index.commit(|transaction| {
            uses::prepare(transaction, age.now_s())?;
            transaction.open_table(lost::LOST)?;
            scopes::restore(transaction, &ledger)?;
            // A kill between the moving aside and its note.
            damaged.iter().try_for_each(|digest| lost::note(transaction, *digest, &files, &ledger))?;
            scopes::note(transaction, &ledger)
        });
        prepared.map_err(wrap)?;
        let journal = Arc::new(Journal::open(directory)?);
        if !journal.has_base()? {
            rebase(&index, &journal, journal.roll()).map_err(wrap)??;
        }
        // The names of the index and of the journal: what is in them is synced by each commit, and would have none.
        if !mutant!("new-names-unsynced") {
            disk::sync_directory(directory)?;
        }
        let writer =
            Writer::start(Arc::clone(&index), Arc::clone(&files), Arc::clone(&ledger), Arc::clone(&journal))?;
        let writer = Arc::new(writer);
        let leases = MemoryLeases::new(Arc::clone(&clock));
        leases::restore(&index, &leases)?;
        let counting = Counting::start(Arc::clone(&files))?;
        Ok(Arc::new(Self {
            _counting: counting,
            writer,
            index,
            journal,
            files,
            ledger,
            leases,
            clock,
            age,
            _lock: lock,
        }))
    }
}

impl Embedded {
    /// Writes the journal anew, shorter: only what is there now.
    pub async fn rebase_journal(&self) -> Result<(), Fault> {
        const OPERATION: &str = "write the journal anew";
        let journal = Arc::clone(&self.journal);
        let number = self.writer.write(OPERATION, move |_| Ok(journal.roll())).await?;
        let (index, journal) = (Arc::clone(&self.index), Arc::clone(&self.journal));
        blocking(OPERATION, move || {
            let rebased = rebase(&index, &journal, number).map_err(|error| fault(OPERATION, &error))?;
            rebased.map_err(|error| Fault::io(OPERATION, error))
        })
        .await
    }
}

/// Puts all rows in the place of what the journal has from before the roll to `number`.
fn rebase(index: &Index, journal: &Journal, number: u64) -> Result<io::Result<()>, redb::Error> {
    index.view(|rows| {
        // Another error than one of the index does not make the index doubtful.
        Ok(journal.rebase(number, |to| journal::dump(rows, to).map_err(into_io)))
    })
}

fn into_io(error: redb::Error) -> io::Error {
    if let redb::Error::Io(error) = error { error } else { io::Error::other(error) }
}

/// The index's name in the data directory.
const INDEX: &str = "index.redb";

/// Holds the directory for this process; the kernel lets go when the process ends, however it ends.
fn lock(directory: &Path) -> Result<disk::File, OpenError> {
    let path = directory.join("lock");
    let file = disk::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if locked(&file)? { Ok(file) } else { Err(OpenError::InUse(directory.to_owned())) }
}

/// Whether the lock is ours. It waits a moment for one who is just ending, whose files the kernel has yet to close.
fn locked(file: impl AsFd) -> io::Result<bool> {
    const TRIES: u32 = 50;
    const PAUSE: Duration = Duration::from_millis(10);
    for _ in 0..TRIES {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK | Errno::INTR) => std::thread::sleep(PAUSE),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}
