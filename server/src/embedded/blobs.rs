//! Blobs as files, with a row for each scope and writer that put all their bytes.

use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pcmcache_shared::{Digest, Scope, Writer as Uploader, failpoint};
use redb::{ReadableTable as _, WriteTransaction};
use rustix::buffer::spare_capacity;
use rustix::fs::{Advice, fadvise};
use rustix::io::pread;

use super::Embedded;
use super::files::{Files, Unsynced, version};
use super::index::{blocking, fault};
use super::large::FileStage;
use super::ledger::{Content, Ledger, Reservation};
use super::lost;
use super::readers::Reading;
use super::small::{SMALL, SmallStage};
use super::tables::{META, UPLOADS, uploads_in};
use super::uploads::{hide, promised};
use super::writer::Writer;
use crate::blobs::{Blobs, Freed, InFile, Opened, Placed, Put, Staging, Stat, Version};
use crate::fault::{Fault, is_full};
use crate::space::{Bound, Shortage, Usage};

/// How long an upload waits for the count that a start begins with.
const COUNT_PATIENCE: Duration = Duration::from_secs(5);

#[async_trait]
impl Blobs for Embedded {
    async fn stage(&self, scope: &Scope, length: u64) -> Result<Staging, Fault> {
        const OPERATION: &str = "stage a blob";
        self.wait_for_count(OPERATION).await?;
        if length <= SMALL {
            return Ok(match self.ledger.reserve(scope, length) {
                Ok(room) => Staging::Open(Box::new(SmallStage::new(self.store(), length, room))),
                Err(shortage) => Staging::Short(shortage),
            });
        }
        let (files, ledger, scope) = (Arc::clone(&self.files), Arc::clone(&self.ledger), scope.clone());
        let staged = blocking(OPERATION, move || {
            let room = match ledger.reserve(&scope, length) {
                Ok(room) => room,
                Err(shortage) => return Ok(Err(shortage)),
            };
            match files.stage(room) {
                Ok(staged) => Ok(Ok(staged)),
                Err(error) if is_full(&error) => Ok(Err(Shortage { bound: Bound::Disk, missing: length })),
                Err(error) => Err(Fault::io(OPERATION, error)),
            }
        });
        match staged.await? {
            Ok(staged) => Ok(Staging::Open(Box::new(FileStage::new(self.store(), length, staged)))),
            Err(shortage) => Ok(Staging::Short(shortage)),
        }
    }

    async fn stat(&self, digest: Digest) -> Result<Option<Stat>, Fault> {
        Ok(self.stat_all(vec![digest]).await?.into_iter().next().flatten())
    }

    async fn stat_all(&self, digests: Vec<Digest>) -> Result<Vec<Option<Stat>>, Fault> {
        const OPERATION: &str = "look at a blob";
        let (index, files) = (Arc::clone(&self.index), Arc::clone(&self.files));
        blocking(OPERATION, move || {
            let promised = index.view(|transaction| {
                let uploads = transaction.open_table(UPLOADS)?;
                digests.iter().map(|digest| promised(&uploads, *digest)).collect::<Result<Vec<_>, _>>()
            });
            let promised = promised.map_err(|error| fault(OPERATION, &error))?;
            let stat = |(digest, promised): (Digest, Option<u64>)| {
                let Some(promised) = promised else { return Ok(None) };
                let found = files.look(digest).map_err(|error| Fault::io(OPERATION, error))?;
                Ok(found.map(|(size, version)| Stat { size, promised, version }))
            };
            digests.into_iter().zip(promised).map(stat).collect()
        })
        .await
    }

    async fn open(&self, digest: Digest) -> Result<Option<Box<dyn Opened>>, Fault> {
        self.open_by(digest, Files::read).await
    }

    async fn was_put(&self, scope: &Scope, writer: &Uploader, digest: Digest) -> Result<bool, Fault> {
        let (scope, writer) = (scope.clone(), writer.clone());
        let read = self.index.read("look who put a blob", move |transaction| {
            let key = (digest.as_bytes(), scope.as_str(), writer.as_str());
            Ok(transaction.open_table(UPLOADS)?.get(key)?.is_some())
        });
        read.await
    }

    async fn condemn(&self, digest: Digest, version: Version) -> Result<bool, Fault> {
        const OPERATION: &str = "move a damaged blob aside";
        let (files, ledger) = (Arc::clone(&self.files), Arc::clone(&self.ledger));
        let writer = Arc::clone(&self.writer);
        // To its end, also where whoever found it goes away: what was moved aside must be known as lost.
        let condemning = tokio::spawn(async move {
            let moving = Arc::clone(&files);
            let moved = move || moving.condemn(digest, version).map_err(|error| Fault::io(OPERATION, error));
            let is_condemned = blocking(OPERATION, moved).await?;
            if is_condemned {
                failpoint!("condemn.moved");
                let note =
                    move |transaction: &WriteTransaction| lost::note(transaction, digest, &files, &ledger);
                writer.write(OPERATION, note).await?;
            }
            Ok(is_condemned)
        });
        condemning.await.unwrap_or(Err(Fault::Unavailable { operation: OPERATION }))
    }

    async fn open_on_disk(&self, digest: Digest) -> Result<Option<Box<dyn Opened>>, Fault> {
        self.open_by(digest, Files::read_from_disk).await
    }

    async fn scrub_at(&self) -> Result<u8, Fault> {
        let read = self.index.read("look how far the scrub is", |transaction| {
            let row = transaction.open_table(META)?.get("scrub_at")?;
            Ok(row.and_then(|row| u8::try_from(row.value()).ok()).unwrap_or_default())
        });
        read.await
    }

    async fn set_scrub_at(&self, shard: u8) -> Result<(), Fault> {
        let note = move |transaction: &WriteTransaction| {
            transaction.open_table(META)?.insert("scrub_at", u64::from(shard))?;
            Ok(())
        };
        self.writer.write("note how far the scrub is", note).await
    }

    async fn list(&self, shard: u8) -> Result<Vec<Digest>, Fault> {
        const OPERATION: &str = "list blobs";
        let files = Arc::clone(&self.files);
        blocking(OPERATION, move || files.list(shard).map_err(|e| Fault::io(OPERATION, e))).await
    }

    /// Rows first: a kill in between leaves files that nobody can see, and never a row without its bytes.
    async fn retain(&self, blobs: Vec<(Digest, Vec<Scope>)>) -> Result<Freed, Fault> {
        const OPERATION: &str = "remove blobs";
        let nowhere: Vec<Digest> =
            blobs.iter().filter(|(_, scopes)| scopes.is_empty()).map(|(digest, _)| *digest).collect();
        let ledger = Arc::clone(&self.ledger);
        self.writer.write(OPERATION, move |transaction| hide(transaction, &blobs, &ledger)).await?;
        failpoint!("remove.hidden");
        let files = Arc::clone(&self.files);
        let removed = move || files.remove(&nowhere).map_err(|e| Fault::io(OPERATION, e));
        let Content { files, bytes } = blocking(OPERATION, removed).await?;
        Ok(Freed { files, bytes })
    }

    fn usage(&self) -> Usage {
        self.ledger.usage(self.files.unlinked_open_bytes())
    }

    fn largest(&self, scope: &Scope) -> u64 {
        self.ledger.bounds().largest(scope)
    }

    async fn discard_damaged(&self) -> Result<Freed, Fault> {
        const OPERATION: &str = "remove damaged blobs";
        let files = Arc::clone(&self.files);
        let removed = move || files.discard_damaged().map_err(|e| Fault::io(OPERATION, e));
        let Content { files, bytes } = blocking(OPERATION, removed).await?;
        Ok(Freed { files, bytes })
    }
}

impl Embedded {
    fn store(&self) -> Store {
        let (files, ledger) = (Arc::clone(&self.files), Arc::clone(&self.ledger));
        Store { files, ledger, writer: Arc::clone(&self.writer) }
    }

    async fn open_by(
        &self,
        digest: Digest,
        read: fn(&Files, Digest) -> io::Result<Option<Reading>>,
    ) -> Result<Option<Box<dyn Opened>>, Fault> {
        const OPERATION: &str = "open a blob";
        let (index, files) = (Arc::clone(&self.index), Arc::clone(&self.files));
        blocking(OPERATION, move || {
            let promised = index.view(|transaction| promised(&transaction.open_table(UPLOADS)?, digest));
            let Some(promised) = promised.map_err(|error| fault(OPERATION, &error))? else { return Ok(None) };
            let opened = read(&files, digest).map_err(|error| Fault::io(OPERATION, error))?;
            let Some(reading) = opened else { return Ok(None) };
            let (size, version) = (reading.metadata.len(), version(&reading.metadata));
            let stat = Stat { size, promised, version };
            Ok(Some(Box::new(OpenFile { reading: Arc::new(reading), stat }) as Box<dyn Opened>))
        })
        .await
    }

    /// Until all that is there is counted nobody knows whether more fits.
    async fn wait_for_count(&self, operation: &'static str) -> Result<(), Fault> {
        let mut counted = self.ledger.counted();
        tokio::select! {
            // Where both are so, as after a host that slept, it is counted.
            biased;
            is_counted = counted.wait_for(|counted| *counted) => match is_counted {
                Ok(_) => Ok(()),
                Err(_) => Err(Fault::Unavailable { operation }),
            },
            () = self.clock.sleep(COUNT_PATIENCE) => Err(Fault::Unavailable { operation }),
        }
    }
}

/// What a stage needs of the store: it may outlive the request that made it.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) files: Arc<Files>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) writer: Arc<Writer>,
}

#[derive(Debug)]
pub(super) struct PlacedFile {
    pub(super) ledger: Arc<Ledger>,
    pub(super) writer: Arc<Writer>,
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// Of it the scope's part is left, until the row is there.
    pub(super) room: Reservation,
    /// The file, where it is yet to be made durable.
    pub(super) unsynced: Option<Unsynced>,
}

#[async_trait]
impl Placed for PlacedFile {
    async fn show(self: Box<Self>, scope: &Scope, uploader: &Uploader) -> Result<Put, Fault> {
        let Self { ledger, writer, digest, size, room, unsynced } = *self;
        let (scope, uploader) = (scope.clone(), uploader.clone());
        let row = move |transaction: &WriteTransaction| {
            let mut uploads = transaction.open_table(UPLOADS)?;
            let is_new = uploads.range(uploads_in(&digest, scope.as_str()))?.next().is_none();
            let before = uploads.insert((digest.as_bytes(), scope.as_str(), uploader.as_str()), size)?;
            lost::forget(transaction, digest)?;
            if is_new {
                ledger.shown(&scope, size);
            }
            drop(room);
            Ok(if before.is_some() { Put::Existed } else { Put::Stored })
        };
        writer.write_after("store a blob", unsynced, row).await
    }
}

#[derive(Debug)]
struct OpenFile {
    reading: Arc<Reading>,
    stat: Stat,
}

#[async_trait]
impl Opened for OpenFile {
    fn stat(&self) -> Stat {
        self.stat
    }

    async fn read(&self, offset: u64, at_most: usize) -> Result<Bytes, Fault> {
        const OPERATION: &str = "read a blob";
        let reading = Arc::clone(&self.reading);
        blocking(OPERATION, move || {
            let mut bytes = Vec::with_capacity(at_most);
            while bytes.len() < at_most {
                let at = offset + bytes.len() as u64;
                let read = reading.file.read_by(|file| Ok(pread(file, spare_capacity(&mut bytes), at)?));
                match read {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(Fault::io(OPERATION, error)),
                }
            }
            bytes.truncate(at_most);
            Ok(bytes.into())
        })
        .await
    }

    async fn in_file(self: Arc<Self>, range: Range<u64>) -> Result<Option<Arc<dyn InFile>>, Fault> {
        const OPERATION: &str = "read a blob ahead";
        let reading = Arc::clone(&self.reading);
        blocking(OPERATION, move || {
            let length = NonZeroU64::new(range.end.saturating_sub(range.start));
            // Where the system does not read ahead it reads when it must.
            let _ = fadvise(&reading.file, range.start, length, Advice::WillNeed);
            // The last of what was asked for: when it is there, so is the rest, mostly.
            let _ = pread(&reading.file, &mut [0], range.end.saturating_sub(1));
            Ok(Some(reading as Arc<dyn InFile>))
        })
        .await
    }

    async fn version(&self) -> Result<Version, Fault> {
        const OPERATION: &str = "look at an open blob";
        let reading = Arc::clone(&self.reading);
        blocking(OPERATION, move || {
            let metadata = reading.file.metadata().map_err(|error| Fault::io(OPERATION, error))?;
            Ok(version(&metadata))
        })
        .await
    }
}
