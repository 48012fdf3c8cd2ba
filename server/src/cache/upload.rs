//! Uploads: nothing is visible before the last byte arrived, the hash matched, and all of it is durable.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pcmcache_shared::{Digest, Scope, failpoint, mutant};

use super::{Cache, CacheError, Wanted, make_room};
use crate::blobs::{Put, Stage, Staging};
use crate::trust::Writing;

/// How long an upload waits for room.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long between its tries, once there was room and it did not get it: others took it, or the disk has bytes left and is
/// full all the same, as one without inodes is.
const PAUSE: Duration = Duration::from_millis(50);

/// An upload on its way. Dropped before its finish, nothing of it is left.
#[derive(Debug)]
#[must_use = "an upload that is not finished leaves nothing"]
pub struct Upload {
    cache: Arc<Cache>,
    writing: Writing,
    digest: Digest,
    length: u64,
    received: u64,
    stage: Box<dyn Stage>,
}

/// What an upload did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uploaded {
    /// The writer had not put it in this scope before.
    Stored,
    /// The writer had.
    Existed,
}

impl Cache {
    /// Begins an upload of `length` bytes.
    pub async fn begin_upload(
        self: &Arc<Self>,
        writing: &Writing,
        digest: Digest,
        length: u64,
    ) -> Result<Upload, CacheError> {
        let limit = self.limits.max_blob.min(self.rooms.blobs.largest(writing.scope()));
        if length > limit {
            return Err(CacheError::TooLarge { length, limit });
        }
        let stage = self.stage(writing.scope(), length).await?;
        Ok(Upload { cache: Arc::clone(self), writing: writing.clone(), digest, length, received: 0, stage })
    }
}

impl Cache {
    /// A place for `length` bytes, for which there is room; if there is none, eviction may make some within [`PATIENCE`].
    pub(super) async fn stage(
        self: &Arc<Self>,
        scope: &Scope,
        length: u64,
    ) -> Result<Box<dyn Stage>, CacheError> {
        let (deadline, mut pause) = (self.rooms.clock.now() + PATIENCE, Duration::ZERO);
        loop {
            let shortage = match self.rooms.blobs.stage(scope, length).await? {
                Staging::Open(stage) => return Ok(stage),
                Staging::Short(shortage) => shortage,
            };
            let wanted = Wanted { bound: shortage.bound.clone(), bytes: length };
            let make = async {
                self.rooms.clock.sleep(pause).await;
                make_room(self, wanted).await
            };
            let made = tokio::select! {
                biased;
                () = self.rooms.clock.sleep_until(deadline) => false,
                made = make => made?,
            };
            pause = PAUSE;
            if !made {
                self.counters.store_full.one();
                return Err(CacheError::NoRoom { length, shortage });
            }
        }
    }
}

impl Upload {
    /// Appends a piece of the body.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), CacheError> {
        self.received += bytes.len() as u64;
        if self.received > self.length {
            return Err(CacheError::TooLarge { length: self.received, limit: self.length });
        }
        Ok(self.stage.write(bytes).await?)
    }

    /// Ends the body. Returns once the blob is durable under its name.
    pub async fn finish(self) -> Result<Uploaded, CacheError> {
        let Self { cache, writing, digest, length, received, stage } = self;
        if received != length {
            return Err(CacheError::ShortBody { declared: length, received });
        }
        let sealed = stage.seal().await?;
        if sealed.digest() != digest && !mutant!("no-upload-hash") {
            cache.counters.digest_mismatches.one();
            return Err(CacheError::DigestMismatch { declared: digest, actual: sealed.digest() });
        }
        cache.pins.pin([digest]).await;
        let put = sealed.commit(writing.scope(), writing.uploader()).await?;
        failpoint!("upload.committed");
        cache.counters.uploads.one();
        cache.counters.uploaded_bytes.add(length);
        cache.seen.uploaded(writing.scope(), length);
        match put {
            Put::Stored => Ok(Uploaded::Stored),
            Put::Existed => Ok(Uploaded::Existed),
        }
    }
}
