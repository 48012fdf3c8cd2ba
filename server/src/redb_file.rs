//! A redb database in a file that is written through [`disk`](pcmcache_shared::disk), as all our files are.

use std::io;
use std::ops::Bound;
use std::path::Path;

use pcmcache_shared::disk::{self, Lent};
use redb::backends::FileBackend;
use redb::{BackendError, Database, DatabaseError, StorageBackend};

/// Opens the database, or makes it; it keeps so many bytes in memory.
pub(crate) fn open(path: &Path, cache_bytes: usize) -> Result<Database, DatabaseError> {
    let file = disk::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let (lent, file) = Lent::new(file)?;
    let told = Told { file: FileBackend::new(file)?, lent };
    Database::builder().set_cache_size(cache_bytes).create_with_backend(told)
}

/// redb's own way with files; whatever changes the file is told.
#[derive(Debug)]
struct Told {
    file: FileBackend,
    lent: Lent,
}

impl StorageBackend for Told {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.lent.set_length(length, || self.file.set_len(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.lent.sync(|| self.file.sync_data())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.lent.write(offset, bytes, |bytes| self.file.write(offset, bytes))
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
