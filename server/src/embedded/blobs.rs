//! Blobs as files, with a row for each scope that has all their bytes.

use std::io::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use fs_err::os::unix::fs::FileExt;
use pcmcache_shared::digest::CHUNK;
use pcmcache_shared::staged::{Durability, StagedFile, Whole};
use pcmcache_shared::{Digest, Scope, failpoint};
use redb::WriteTransaction;

use super::Embedded;
use super::files::{Files, none_if_missing, version};
use super::index::{Index, blocking, fault};
use super::tables::{VISIBLE, all_scopes};
use super::writer::Writer;
use crate::blobs::{Blobs, Opened, Put, Sealed, Stage, Stat, Version};
use crate::fault::Fault;

#[async_trait]
impl Blobs for Embedded {
    async fn stage(&self) -> Result<Box<dyn Stage>, Fault> {
        const OPERATION: &str = "stage a blob";
        let files = Arc::clone(&self.files);
        let file = blocking(OPERATION, move || files.stage().map_err(|e| Fault::io(OPERATION, e))).await?;
        let store = Store { files: Arc::clone(&self.files), writer: Arc::clone(&self.writer) };
        Ok(Box::new(FileStage { store, file: Some(file), waiting: Vec::new(), waiting_bytes: 0 }))
    }

    async fn stat(&self, scope: &Scope, digest: Digest) -> Result<Option<Stat>, Fault> {
        const OPERATION: &str = "look at a blob";
        let (index, files, scope) = (Arc::clone(&self.index), Arc::clone(&self.files), scope.clone());
        blocking(OPERATION, move || {
            let Some(promised) = promised(&index, &scope, digest, OPERATION)? else { return Ok(None) };
            let found = files.look(digest).map_err(|error| Fault::io(OPERATION, error))?;
            Ok(found.map(|(size, version)| Stat { size, promised, version }))
        })
        .await
    }

    async fn open(&self, scope: &Scope, digest: Digest) -> Result<Option<Box<dyn Opened>>, Fault> {
        const OPERATION: &str = "open a blob";
        let (index, files, scope) = (Arc::clone(&self.index), Arc::clone(&self.files), scope.clone());
        blocking(OPERATION, move || {
            let Some(promised) = promised(&index, &scope, digest, OPERATION)? else { return Ok(None) };
            let wrap = |error| Fault::io(OPERATION, error);
            let opened = none_if_missing(fs_err::File::open(files.place_of(digest))).map_err(wrap)?;
            let Some(file) = opened else { return Ok(None) };
            let metadata = file.metadata().map_err(wrap)?;
            let stat = Stat { size: metadata.len(), promised, version: version(&metadata) };
            Ok(Some(Box::new(OpenFile { file: Arc::new(file), stat }) as Box<dyn Opened>))
        })
        .await
    }

    async fn condemn(&self, digest: Digest, version: Version) -> Result<bool, Fault> {
        const OPERATION: &str = "move a damaged blob aside";
        let files = Arc::clone(&self.files);
        blocking(OPERATION, move || files.condemn(digest, version).map_err(|e| Fault::io(OPERATION, e))).await
    }

    async fn list(&self, shard: u8) -> Result<Vec<Digest>, Fault> {
        const OPERATION: &str = "list blobs";
        let files = Arc::clone(&self.files);
        blocking(OPERATION, move || files.list(shard).map_err(|e| Fault::io(OPERATION, e))).await
    }

    /// Rows first: a kill in between leaves files that nobody can see, and never a row without its bytes.
    async fn remove(&self, digests: &[Digest]) -> Result<(), Fault> {
        const OPERATION: &str = "remove blobs";
        let (rows, files, digests) = (digests.to_vec(), Arc::clone(&self.files), digests.to_vec());
        self.writer.write(OPERATION, move |transaction| hide(transaction, &rows)).await?;
        blocking(OPERATION, move || files.remove(&digests).map_err(|e| Fault::io(OPERATION, e))).await
    }
}

/// How many bytes the scope was promised, if it has the blob.
fn promised(
    index: &Index,
    scope: &Scope,
    digest: Digest,
    operation: &'static str,
) -> Result<Option<u64>, Fault> {
    let row = index.view(|transaction| {
        let visible = transaction.open_table(VISIBLE)?;
        Ok(visible.get((digest.as_bytes(), scope.as_str()))?.map(|row| row.value()))
    });
    row.map_err(|error| fault(operation, &error))
}

fn hide(transaction: &WriteTransaction, digests: &[Digest]) -> Result<(), redb::Error> {
    let mut visible = transaction.open_table(VISIBLE)?;
    for digest in digests {
        visible.retain_in(all_scopes(digest), |_, _| false)?;
    }
    Ok(())
}

/// What a stage needs of the store: it may outlive the request that made it.
#[derive(Debug)]
struct Store {
    files: Arc<Files>,
    writer: Arc<Writer>,
}

#[derive(Debug)]
struct FileStage {
    store: Store,
    /// `None` while a thread writes to it, and after it failed.
    file: Option<StagedFile>,
    waiting: Vec<Bytes>,
    waiting_bytes: usize,
}

impl FileStage {
    /// Writes and hashes what is waiting, on a thread that may block.
    async fn flush(&mut self) -> Result<(), Fault> {
        const OPERATION: &str = "write a blob";
        let mut file = self.file.take().ok_or(Fault::Unavailable { operation: OPERATION })?;
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let written = blocking(OPERATION, move || {
            for bytes in &waiting {
                file.write_all(bytes).map_err(|error| Fault::io(OPERATION, error))?;
            }
            Ok(file)
        });
        self.file = Some(written.await?);
        Ok(())
    }
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
        self.flush().await?;
        let file = self.file.take().ok_or(Fault::Unavailable { operation: OPERATION })?;
        let whole = blocking(OPERATION, move || {
            file.finish(Durability::Fsync).map_err(|error| Fault::io(OPERATION, error))
        });
        Ok(Box::new(SealedFile { store: self.store, whole: whole.await? }))
    }
}

#[derive(Debug)]
struct SealedFile {
    store: Store,
    whole: Whole,
}

#[async_trait]
impl Sealed for SealedFile {
    fn digest(&self) -> Digest {
        self.whole.digest()
    }

    fn size(&self) -> u64 {
        self.whole.size()
    }

    async fn commit(self: Box<Self>, scope: &Scope) -> Result<Put, Fault> {
        const OPERATION: &str = "store a blob";
        let Self { store: Store { files, writer }, whole } = *self;
        let (digest, size, scope) = (whole.digest(), whole.size(), scope.clone());
        blocking(OPERATION, move || {
            failpoint!("upload.staged");
            files.place(whole, digest).map_err(|error| Fault::io(OPERATION, error))?;
            failpoint!("upload.renamed");
            Ok(())
        })
        .await?;
        let row = move |transaction: &WriteTransaction| {
            let mut visible = transaction.open_table(VISIBLE)?;
            let before = visible.insert((digest.as_bytes(), scope.as_str()), size)?;
            Ok(if before.is_some() { Put::Existed } else { Put::Stored })
        };
        writer.write(OPERATION, row).await
    }
}

#[derive(Debug)]
struct OpenFile {
    file: Arc<fs_err::File>,
    stat: Stat,
}

#[async_trait]
impl Opened for OpenFile {
    fn stat(&self) -> Stat {
        self.stat
    }

    async fn read(&self, offset: u64, at_most: usize) -> Result<Bytes, Fault> {
        const OPERATION: &str = "read a blob";
        let file = Arc::clone(&self.file);
        blocking(OPERATION, move || {
            let mut bytes = vec![0; at_most];
            let mut filled = 0;
            while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                match file.read_at(rest, offset + filled as u64) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(Fault::io(OPERATION, error)),
                }
            }
            bytes.truncate(filled);
            Ok(bytes.into())
        })
        .await
    }

    async fn version(&self) -> Result<Version, Fault> {
        const OPERATION: &str = "look at an open blob";
        let file = Arc::clone(&self.file);
        blocking(OPERATION, move || {
            let metadata = file.metadata().map_err(|error| Fault::io(OPERATION, error))?;
            Ok(version(&metadata))
        })
        .await
    }
}
