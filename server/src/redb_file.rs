//! A redb database in a file that is read and written through [`disk`](pcmcache_shared::disk), as all our files are.

use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pcmcache_shared::disk::{self, Lent};
use redb::backends::FileBackend;
use redb::{BackendError, Database, DatabaseError, StorageBackend};

/// Whether a sync of a file failed. What was written before may be on the disk or not, and the kernel, which shows it as
/// if it were, does not say so twice. So nobody relies on that file any more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doubt(Arc<AtomicBool>);

impl Doubt {
    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// The error that it is, once the file is closed that had to be whole.
    pub(crate) fn ok(&self) -> io::Result<()> {
        if self.is_raised() { Err(io::Error::other("it could not be synced")) } else { Ok(()) }
    }
}

/// Opens the database, or makes it; it keeps so many bytes in memory. Whether a sync failed can be asked also when it is
/// closed.
pub(crate) fn open(path: &Path, cache_bytes: usize, doubt: &Doubt) -> Result<Database, DatabaseError> {
    let mut options = disk::OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let (lent, file) = Lent::new(file)?;
    let told = Told { file: FileBackend::new(file)?, lent, doubt: doubt.clone() };
    Database::builder().set_cache_size(cache_bytes).create_with_backend(told)
}

/// Puts a copy in the place of a file in doubt, which nobody has open: what can be read of it, on the disk for certain. A
/// database knows if that is not what was written.
pub(crate) fn settle(path: &Path, doubt: &Doubt) -> io::Result<()> {
    let new = begin_new(path)?;
    let mut copy = disk::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    io::copy(&mut disk::File::open(path)?, &mut copy)?;
    copy.sync_all()?;
    end_new(&new, path)?;
    doubt.0.store(false, Ordering::Release);
    Ok(())
}

/// Where a file that is to have this name is made: of one that is not whole nobody could tell that it was new. What somebody
/// who was killed has left there is removed.
pub(crate) fn begin_new(path: &Path) -> io::Result<PathBuf> {
    let new = path.with_extension("redb.new");
    match disk::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(new),
    }
}

/// Gives it its name, durably; it is whole.
pub(crate) fn end_new(new: &Path, path: &Path) -> io::Result<()> {
    disk::rename(new, path)?;
    disk::sync_directory(path.parent().unwrap_or(Path::new(".")))
}

/// redb's own way with files; what it does is told.
#[derive(Debug)]
struct Told {
    file: FileBackend,
    lent: Lent,
    doubt: Doubt,
}

impl StorageBackend for Told {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.lent.read(|| self.file.read(offset, out))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.lent.set_length(length, || self.file.set_len(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.lent.sync(|| self.file.sync_data()).inspect_err(|_| self.doubt.0.store(true, Ordering::Release))
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
