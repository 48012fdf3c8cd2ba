//! How full the store is, roughly, at the price of one append a miss.
//!
//! The file `fill` is as many bytes long as pages were stored: whoever stores appends a byte a page, and sees by the
//! length what all have stored. That needs no lock and no reading. Outputs are written down before they are stored, so
//! however many launchers store at once, they stay within the bound: where a trim does not keep up, one goes without
//! storing. A trim measures, and corrects the length; for what is written down and not stored yet it finds a stage of
//! that length without content. A lost append or a cut file makes the estimate low; the daily trim sets it right.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use pcmcache_shared::disk;

use super::inventory::STAGE;
use super::{Kind, Store};
use crate::os::{self, Moment};
use crate::size::ByteSize;

/// What a file takes on a disk is a multiple of this, in bytes.
pub(super) const PAGE: u64 = 4096;

/// Where a trim ends, where it begins, and where nothing more is stored until it has ended, in per cent of the bound.
/// What is not estimated fits between the last and the bound: include sets, memos, what is half written.
const END_AT: u64 = 75;
const BEGIN_AT: u64 = 88;
const STOP_AT: u64 = 92;

/// What a result takes besides its outputs and its recipe: itself, its include set, its command, what it is near to.
const SEALED_PAGES: u64 = 5;

/// Even what has no bound is tidied this often.
const TIDY_EVERY: Duration = Duration::from_secs(24 * 3600);

/// The right to trim: one at a time.
#[derive(Debug)]
pub struct TrimLock(pub(super) disk::File);

/// Where an automatic trim begins.
pub(super) fn high_water(bound: ByteSize) -> ByteSize {
    ByteSize(bound.0 / 100 * BEGIN_AT)
}

fn stop_mark(bound: ByteSize) -> ByteSize {
    ByteSize(bound.0 / 100 * STOP_AT)
}

/// Where an automatic trim ends.
pub(super) fn low_water(bound: ByteSize) -> ByteSize {
    ByteSize(bound.0 / 100 * END_AT)
}

/// What this process stored, in pages.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    stored: AtomicU64,
    written_down: AtomicU64,
    /// Whether there was no room for something.
    refused: AtomicBool,
}

/// Room for a result that is about to be stored, until dropped.
#[derive(Debug)]
pub struct Room(Option<PathBuf>);

impl Room {
    /// None in particular: what is stored now may exceed the bound.
    pub fn unbounded() -> Self {
        Self(None)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = disk::remove_file(path);
        }
    }
}

impl Store {
    /// Makes room for a result whose outputs and recipe have these sizes. `None`: with it the store would exceed its
    /// bound.
    pub fn room_for(&self, sizes: impl Iterator<Item = u64>, bound: Option<ByteSize>) -> Option<Room> {
        match bound {
            Some(bound) => self.room_below(sizes, stop_mark(bound)),
            None => Some(Room::unbounded()),
        }
    }

    /// The same for what nobody waits for: nothing is trimmed for its sake. `None`: with it a trim would begin.
    pub fn room_to_spare(&self, sizes: impl Iterator<Item = u64>, bound: Option<ByteSize>) -> Option<Room> {
        match bound {
            Some(bound) => self.room_below(sizes, high_water(bound)),
            None => Some(Room::unbounded()),
        }
    }

    fn room_below(&self, sizes: impl Iterator<Item = u64>, mark: ByteSize) -> Option<Room> {
        let pages = SEALED_PAGES + sizes.map(|size| size.div_ceil(PAGE)).sum::<u64>();
        let fits = |estimate: &u64| estimate * PAGE <= mark.0;
        // Looked at first: what is not stored must not fill the estimate. Added, then looked at again: many may have
        // looked at once. If it cannot be written down, nothing can be stored.
        if fits(&(self.pages() + pages)) {
            let room = self.stage_room(pages * PAGE).ok()?;
            self.ledger.written_down.fetch_add(pages, Ordering::Relaxed);
            return self.add_pages(pages).ok().filter(fits).map(|_| room);
        }
        self.ledger.refused.store(true, Ordering::Relaxed);
        None
    }

    fn stage_room(&self, bytes: u64) -> io::Result<Room> {
        let blobs = self.directory(Kind::Blobs);
        let path = blobs.join(format!("{STAGE}{:016x}", u64::from_ne_bytes(os::random())));
        let create = || {
            let mut options = disk::OpenOptions::new();
            options.write(true).create_new(true).mode(0o600).open(&path)
        };
        let file = create().or_else(|_| {
            disk::create_dir_all(&blobs)?;
            create()
        })?;
        let room = Room(Some(path));
        file.set_len(bytes)?;
        Ok(room)
    }

    /// Takes note that a file of this size was stored.
    pub(super) fn grew_by(&self, bytes: u64) {
        self.ledger.stored.fetch_add(bytes.div_ceil(PAGE).max(1), Ordering::Relaxed);
    }

    /// Writes down what this process stored, and gives the right to trim if it is time for it and nobody has it. Where
    /// nothing was stored, so on every local hit, nothing is looked at.
    pub fn is_full(&self, bound: Option<ByteSize>) -> Option<TrimLock> {
        let stored = self.ledger.stored.swap(0, Ordering::Relaxed);
        let written_down = self.ledger.written_down.swap(0, Ordering::Relaxed);
        let refused = self.ledger.refused.swap(false, Ordering::Relaxed);
        if stored == 0 && written_down == 0 && !refused {
            return None;
        }
        let estimate = self.add_pages(stored.saturating_sub(written_down)).ok()?;
        let full = refused || bound.is_some_and(|bound| estimate * PAGE > high_water(bound).0);
        if full || self.is_untidy() { self.lock_for_trim().ok().flatten() } else { None }
    }

    /// The right to trim, if nobody has it.
    pub fn lock_for_trim(&self) -> io::Result<Option<TrimLock>> {
        let path = self.root().join("trim.lock");
        let mut options = disk::OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(path)?;
        Ok(os::try_lock(file.file())?.then_some(TrimLock(file)))
    }

    /// What is stored, by the estimate.
    pub fn estimate(&self) -> ByteSize {
        ByteSize(self.pages() * PAGE)
    }

    /// What is stored by the estimate, in pages.
    pub(super) fn pages(&self) -> u64 {
        disk::metadata(self.root().join("fill")).map_or(0, |metadata| metadata.len())
    }

    /// Corrects the estimate after a measurement that began when it was `before`.
    pub(super) fn set_pages(&self, before: u64, measured: u64) -> io::Result<()> {
        let mut options = disk::OpenOptions::new();
        let file = options.append(true).create(true).mode(0o600).open(self.root().join("fill"))?;
        let meanwhile = file.metadata()?.len().saturating_sub(before);
        file.set_len(measured + meanwhile)
    }

    fn add_pages(&self, pages: u64) -> io::Result<u64> {
        let mut options = disk::OpenOptions::new();
        let mut file = options.append(true).create(true).mode(0o600).open(self.root().join("fill"))?;
        // A result is a few hundred pages, the largest that a server takes some hundred thousand.
        io::copy(&mut io::Read::take(io::repeat(b'.'), pages), &mut file)?;
        file.flush()?;
        Ok(file.metadata()?.len())
    }

    /// Whether the last trim is long ago. The first launch of all makes the lock that tells.
    fn is_untidy(&self) -> bool {
        match disk::metadata(self.root().join("trim.lock")) {
            Ok(metadata) => Moment::modified(&metadata).is_apart(Moment::now(), TIDY_EVERY),
            Err(_) => {
                let _ = self.lock_for_trim();
                false
            }
        }
    }
}
