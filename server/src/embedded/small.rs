//! Small blobs on their way: texts, objects, diagnostics. They wait in memory and share what being durable costs.
//!
//! For a small file its own sync costs far more than its writing. So it takes its name at once, and the index's writer syncs all
//! files of a batch together ([`Files::sync`]), before it commits the rows that speak of them.
//!
//! Invariants: a file is durable under its name before any row speaks of it; what was in its place goes only for one that is
//! durable already, since somebody may count on it. Crash story: a power cut before the sync may leave a file cut short,
//! which is nobody's: no row speaks of it, the sweep takes it, and who stores those bytes again replaces it.

use std::io::Write as _;

use async_trait::async_trait;
use bytes::Bytes;
use pcmcache_shared::staged::Durability;
use pcmcache_shared::{Digest, failpoint};

use super::blobs::{PlacedFile, Store};
use super::files::Staged;
use super::index::blocking;
use super::ledger::Reservation;
use crate::blobs::{Placed, Sealed, Stage};
use crate::fault::Fault;

/// The largest blob that waits in memory, in bytes.
pub(super) const SMALL: u64 = 64 * 1024;

/// A stage without a file.
#[derive(Debug)]
pub(super) struct SmallStage {
    store: Store,
    length: usize,
    bytes: Vec<u8>,
    room: Reservation,
}

impl SmallStage {
    /// One of at most [`SMALL`] bytes.
    pub(super) fn new(store: Store, length: u64, room: Reservation) -> Self {
        let length = usize::try_from(length.min(SMALL)).unwrap_or_default();
        // Who only promises bytes takes no memory.
        Self { store, length, bytes: Vec::new(), room }
    }
}

#[async_trait]
impl Stage for SmallStage {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Fault> {
        if self.bytes.len() + bytes.len() > self.length {
            let source = "it is longer than was said".into();
            return Err(Fault::Broken { operation: "write a blob", source });
        }
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    async fn seal(self: Box<Self>) -> Result<Box<dyn Sealed>, Fault> {
        let Self { store, bytes, room, .. } = *self;
        Ok(Box::new(SmallSealed { store, digest: Digest::of(&bytes), bytes, room }))
    }
}

#[derive(Debug)]
struct SmallSealed {
    store: Store,
    digest: Digest,
    bytes: Vec<u8>,
    room: Reservation,
}

#[async_trait]
impl Sealed for SmallSealed {
    fn digest(&self) -> Digest {
        self.digest
    }

    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    async fn place(self: Box<Self>) -> Result<Box<dyn Placed>, Fault> {
        const OPERATION: &str = "place a blob";
        let Self { store: Store { files, ledger, writer }, digest, bytes, room } = *self;
        let size = bytes.len() as u64;
        let placed = blocking(OPERATION, move || {
            let place = || {
                let Staged { mut file, mut room } = files.stage(room)?;
                file.write_all(&bytes)?;
                room.allocated(size);
                let handle = file.handle()?;
                let whole = file.finish(Durability::None)?;
                failpoint!("upload.staged");
                let unsynced = files.place_unsynced(whole, digest, handle, &mut room)?;
                failpoint!("upload.renamed");
                Ok((unsynced, room))
            };
            place().map_err(|error| Fault::io(OPERATION, error))
        });
        let (unsynced, room) = placed.await?;
        Ok(Box::new(PlacedFile { ledger, writer, digest, size, room, unsynced }))
    }
}
