//! Large blobs on their way: they are hashed and written to a stage of their own while more of them comes, and each is made
//! durable before it takes its name.

use std::io::Write as _;

use async_trait::async_trait;
use bytes::Bytes;
use pcmcache_shared::digest::CHUNK;
use pcmcache_shared::staged::{Durability, Whole};
use pcmcache_shared::{Digest, failpoint};
use tokio::task::JoinHandle;

use super::blobs::{PlacedFile, Store};
use super::files::Staged;
use super::index::{blocking, joined};
use super::ledger::Reservation;
use crate::blobs::{Placed, Sealed, Stage};
use crate::fault::Fault;

/// A stage that is a file.
#[derive(Debug)]
pub(super) struct FileStage {
    store: Store,
    length: u64,
    written: u64,
    staged: Writing,
    waiting: Vec<Bytes>,
    waiting_bytes: usize,
}

/// What becomes of the stage while more of it is on its way.
#[derive(Debug)]
enum Writing {
    /// Nothing: it is here.
    Rests(Box<Staged>),
    /// A thread hashes and writes.
    Runs(JoinHandle<Result<Box<Staged>, Fault>>),
    /// It failed, or whoever waited for it went away.
    Lost,
}

impl FileStage {
    const OPERATION: &'static str = "write a blob";

    /// One for so many bytes.
    pub(super) fn new(store: Store, length: u64, staged: Staged) -> Self {
        let staged = Writing::Rests(Box::new(staged));
        Self { store, length, written: 0, staged, waiting: Vec::new(), waiting_bytes: 0 }
    }

    /// Has what is waiting hashed and written, on a thread that may block, and goes on meanwhile.
    async fn flush(&mut self) -> Result<(), Fault> {
        let staged = self.rest().await?;
        let waiting = self.take_waiting()?;
        self.staged = Writing::Runs(tokio::task::spawn_blocking(move || append(staged, &waiting)));
        Ok(())
    }

    fn take_waiting(&mut self) -> Result<Vec<Bytes>, Fault> {
        self.written += std::mem::take(&mut self.waiting_bytes) as u64;
        if self.written > self.length {
            let source = "it is longer than was said".into();
            return Err(Fault::Broken { operation: Self::OPERATION, source });
        }
        Ok(std::mem::take(&mut self.waiting))
    }

    /// The stage, once nobody writes to it.
    async fn rest(&mut self) -> Result<Box<Staged>, Fault> {
        match std::mem::replace(&mut self.staged, Writing::Lost) {
            Writing::Rests(staged) => Ok(staged),
            Writing::Runs(writing) => joined(Self::OPERATION, writing.await),
            Writing::Lost => Err(Fault::Unavailable { operation: Self::OPERATION }),
        }
    }
}

fn append(mut staged: Box<Staged>, pieces: &[Bytes]) -> Result<Box<Staged>, Fault> {
    for bytes in pieces {
        staged.file.write_all(bytes).map_err(|error| Fault::io(FileStage::OPERATION, error))?;
        staged.room.allocated(bytes.len() as u64);
    }
    Ok(staged)
}

#[async_trait]
impl Stage for FileStage {
    /// Gathers what the network brings in small pieces: a trip to another thread is worth a [`CHUNK`].
    async fn write(&mut self, bytes: Bytes) -> Result<(), Fault> {
        self.waiting_bytes += bytes.len();
        self.waiting.push(bytes);
        if self.waiting_bytes >= CHUNK { self.flush().await } else { Ok(()) }
    }

    async fn seal(mut self: Box<Self>) -> Result<Box<dyn Sealed>, Fault> {
        const OPERATION: &str = "make a blob durable";
        let staged = self.rest().await?;
        let waiting = self.take_waiting()?;
        let sealed = blocking(OPERATION, move || {
            let Staged { file, room } = *append(staged, &waiting)?;
            let whole = file.finish(Durability::Fsync).map_err(|error| Fault::io(OPERATION, error))?;
            Ok((whole, room))
        });
        let (whole, room) = sealed.await?;
        Ok(Box::new(SealedFile { store: self.store, whole, room }))
    }
}

#[derive(Debug)]
struct SealedFile {
    store: Store,
    // The order is that of dropping: the room is given back after the file is gone.
    whole: Whole,
    room: Reservation,
}

#[async_trait]
impl Sealed for SealedFile {
    fn digest(&self) -> Digest {
        self.whole.digest()
    }

    fn size(&self) -> u64 {
        self.whole.size()
    }

    async fn place(self: Box<Self>) -> Result<Box<dyn Placed>, Fault> {
        const OPERATION: &str = "place a blob";
        let Self { store: Store { files, ledger, writer }, whole, mut room } = *self;
        let (digest, size) = (whole.digest(), whole.size());
        let room = blocking(OPERATION, move || {
            failpoint!("upload.staged");
            files.place(whole, digest, &mut room).map_err(|error| Fault::io(OPERATION, error))?;
            failpoint!("upload.renamed");
            Ok(room)
        })
        .await?;
        Ok(Box::new(PlacedFile { ledger, writer, digest, size, room, unsynced: None }))
    }
}
