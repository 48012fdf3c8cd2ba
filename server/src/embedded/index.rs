//! The index: one redb database, read from any thread, written by one.
//!
//! After an I/O error redb refuses to go on until the database is opened again, for it cannot know what reached
//! the disk. So an error here marks the index, and the next access opens it anew: a disk that was full for a while
//! costs the requests of that while and no restart. If it was a sync that failed, that is a copy.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use pcmcache_shared::mutant;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, WriteTransaction};
use tokio::task::JoinError;

use super::{FORMAT, OpenError, migrate, profiles, tables};
use crate::fault::{Fault, is_full};
use crate::redb_file::{self, Doubt};

/// What redb may keep of the index in memory; the rest is the kernel's to cache.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Index {
    path: PathBuf,
    /// `None` only while it cannot be opened again.
    database: RwLock<Option<Database>>,
    /// An access failed; open it anew before the next.
    failed: AtomicBool,
    doubt: Doubt,
}

impl Index {
    /// Opens the index, creating it where it is missing, and brings it up to this server's format.
    pub(super) fn open(path: PathBuf, now_s: u64) -> Result<Self, OpenError> {
        let wrap = |source| OpenError::Index { path: path.clone(), source };
        let new = redb_file::begin_new(&path)?;
        if !path.try_exists()? {
            make(&new, &path, now_s).map_err(wrap)?;
        }
        let doubt = Doubt::default();
        let database = open_database(&path, &doubt).map_err(wrap)?;
        let found = prepare(&database, now_s).map_err(wrap)?;
        if found != FORMAT {
            return Err(OpenError::Format { path, found });
        }
        Ok(Self { path, database: RwLock::new(Some(database)), failed: AtomicBool::new(false), doubt })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Reads one snapshot. Blocks.
    pub(super) fn view<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        self.with(|database| read(&database.begin_read()?))
    }

    /// Applies `write` in one transaction, and returns once that is durable. Blocks; only the writer calls it.
    pub(super) fn commit<T>(
        &self,
        write: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        self.with(|database| {
            let transaction = begin(database)?;
            let value = write(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
    }

    fn with<T>(&self, act: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
        if self.failed.load(Ordering::Acquire) {
            self.reopen()?;
        }
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let result = database.as_ref().ok_or(redb::Error::DatabaseClosed).and_then(act);
        if result.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        result
    }

    fn reopen(&self) -> Result<(), redb::Error> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if self.failed.load(Ordering::Acquire) {
            // The old one must be closed first: it holds a lock on the file.
            *database = None;
            if self.doubt.is_raised() && !mutant!("doubtful-index-reopened") {
                redb_file::settle(&self.path, &self.doubt)?;
            }
            *database = Some(open_database(&self.path, &self.doubt)?);
            self.failed.store(false, Ordering::Release);
            tracing::warn!(index = %self.path.display(), "the index was opened anew after an error");
        }
        Ok(())
    }

    /// Reads one snapshot on a thread that may block.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        operation: &'static str,
        read: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, Fault> {
        let index = Arc::clone(self);
        blocking(operation, move || index.view(read).map_err(|error| fault(operation, &error))).await
    }
}

pub(super) fn open_database(path: &Path, doubt: &Doubt) -> Result<Database, redb::Error> {
    Ok(redb_file::open(path, CACHE_BYTES, doubt)?)
}

/// Makes a new index, which has its name once it is whole.
fn make(new: &Path, path: &Path, now_s: u64) -> Result<(), redb::Error> {
    let (new, doubt) = (if mutant!("index-named-at-once") { path } else { new }, Doubt::default());
    prepare(&open_database(new, &doubt)?, now_s)?;
    doubt.ok()?;
    Ok(redb_file::end_new(new, path)?)
}

fn begin(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(redb::Durability::Immediate)?;
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    Ok(transaction)
}

/// Makes the tables of a new index, or those of this format out of an older one's; says which format it then has.
pub(super) fn prepare(database: &Database, now_s: u64) -> Result<u64, redb::Error> {
    let transaction = begin(database)?;
    let mut found = {
        let mut meta = transaction.open_table(tables::META)?;
        let found = meta.get("format")?.map(|row| row.value());
        match found {
            Some(found) => found,
            None => {
                meta.insert("format", FORMAT)?;
                FORMAT
            }
        }
    };
    if found == 1 {
        tracing::info!("the index has the format 1 and is brought up to {FORMAT}");
        migrate::from_1(&transaction, now_s)?;
        found = FORMAT;
    }
    if found == FORMAT {
        transaction.open_table(tables::RESULTS)?;
        transaction.open_table(tables::SETS)?;
        transaction.open_table(tables::SET_RESULTS)?;
        transaction.open_table(tables::REFERENCES)?;
        transaction.open_table(tables::UPLOADS)?;
        transaction.open_table(tables::LEASES)?;
        transaction.open_table(tables::SPENT)?;
        transaction.open_table(profiles::PROFILES)?;
        transaction.open_table(profiles::PROFILES_USED)?;
        transaction.commit()?;
    }
    Ok(found)
}

/// What only a row that we did not write can be.
pub(super) fn corrupted(what: &str) -> redb::Error {
    redb::Error::Corrupted(what.to_owned())
}

/// The fault that an error of redb is.
pub(super) fn fault(operation: &'static str, error: &redb::Error) -> Fault {
    if let redb::Error::Io(error) = error
        && is_full(error)
    {
        return Fault::Full { operation };
    }
    Fault::Broken { operation, source: error.to_string().into() }
}

/// Runs `act` on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    operation: &'static str,
    act: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    joined(operation, tokio::task::spawn_blocking(act).await)
}

/// What came of a thread that may block.
pub(super) fn joined<T>(
    operation: &'static str,
    joined: Result<Result<T, Fault>, JoinError>,
) -> Result<T, Fault> {
    match joined {
        Ok(result) => result,
        Err(error) if error.is_cancelled() => Err(Fault::Unavailable { operation }),
        Err(error) => Err(Fault::Broken { operation, source: Box::new(error) }),
    }
}
