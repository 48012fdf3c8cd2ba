//! Reads: a blob whose bytes no longer match its name is never served whole.
//!
//! A whole blob is hashed on its way out, and its last bytes go out once the hash matched; where it did not, the answer is cut
//! and the copy moved aside. For a part of a blob that would come too late, so the blob is read and hashed first, once
//! for each stored copy; and the last bytes of the part go out once the copy is known not to have changed meanwhile.
//! Who receives it verifies again: what the network does is not known here.

use std::io::{self, Write as _};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use pcmcache_shared::digest::{CHUNK, Hashing};
use pcmcache_shared::{Digest, Scope};

use super::{Cache, CacheError};
use crate::blobs::{Opened, Version};
use crate::trust::View;

/// The bytes of a blob, or of a part of it; an error in it means that the answer must be cut.
pub type ByteStream = BoxStream<'static, Result<Bytes, CacheError>>;

/// A blob that is there and has its size, open for reading.
#[derive(Debug)]
pub struct BlobRead {
    cache: Arc<Cache>,
    /// The scope that is asked, where a client does.
    reader: Option<Scope>,
    digest: Digest,
    opened: Arc<dyn Opened>,
}

impl Cache {
    /// Opens a blob; `None` if it is not in the view. It will be there for ten minutes at least.
    pub async fn open_blob(
        self: &Arc<Self>,
        view: &View,
        digest: Digest,
    ) -> Result<Option<BlobRead>, CacheError> {
        // Looked for first: a name that is nobody's is not worth a pin.
        if !self.sees(view, digest).await? {
            return Ok(None);
        }
        let opened = self.open_seen(digest).await?;
        Ok(opened.map(|blob| BlobRead { reader: Some(view.scope().clone()), ..blob }))
    }

    /// Opens a blob that may be seen.
    pub(super) async fn open_seen(self: &Arc<Self>, digest: Digest) -> Result<Option<BlobRead>, CacheError> {
        self.pins.pin([digest]).await;
        let Some(opened) = self.rooms.blobs.open(digest).await? else { return Ok(None) };
        if !opened.stat().has_its_size() {
            self.condemn(digest, opened.stat().version).await?;
            return Ok(None);
        }
        Ok(Some(BlobRead { cache: Arc::clone(self), reader: None, digest, opened: opened.into() }))
    }

    /// The size of a blob that is in the view, and will be for ten minutes at least.
    pub async fn has_blob(&self, view: &View, digest: Digest) -> Result<Option<u64>, CacheError> {
        if self.sees(view, digest).await? { self.has_seen(digest).await } else { Ok(None) }
    }

    /// The size of a blob that may be seen, if it is there.
    pub(super) async fn has_seen(&self, digest: Digest) -> Result<Option<u64>, CacheError> {
        self.pins.pin([digest]).await;
        match self.rooms.blobs.stat(digest).await? {
            Some(stat) if stat.has_its_size() => Ok(Some(stat.size)),
            Some(stat) => {
                self.condemn(digest, stat.version).await?;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// All the bytes of a small blob that may be seen, verified; `None` if it is not there (any more).
    pub(super) async fn bytes(
        self: &Arc<Self>,
        digest: Digest,
        at_most: u64,
    ) -> Result<Option<Vec<u8>>, CacheError> {
        let Some(blob) = self.open_seen(digest).await? else { return Ok(None) };
        if blob.size() > at_most {
            return Ok(None);
        }
        let mut walk = blob.walk(None);
        let mut all = Vec::new();
        loop {
            match walk.next().await {
                Ok(Some(bytes)) => all.extend_from_slice(&bytes),
                Ok(None) => return Ok(Some(all)),
                Err(CacheError::Damaged(_)) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Moves a damaged copy aside, and says whether it did. The results that name it stop answering, since it is not there any
    /// more.
    pub(super) async fn condemn(&self, digest: Digest, version: Version) -> Result<bool, CacheError> {
        self.verified.forget(digest);
        let condemned = self.rooms.blobs.condemn(digest, version).await?;
        if condemned {
            self.counters.damaged_blobs.one();
            tracing::warn!(%digest, "the stored bytes of a blob do not match its name; they were moved aside");
        }
        Ok(condemned)
    }
}

impl BlobRead {
    /// Its digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.opened.stat().size
    }

    /// Streams the blob (`None`), or the bytes of a range that lies within it. [`CacheError::Damaged`] comes from here where
    /// that is known before the first byte, else from within the stream, instead of the last bytes.
    pub async fn stream(self, range: Option<Range<u64>>) -> Result<ByteStream, CacheError> {
        if range.is_some() {
            self.verify().await?;
        }
        let (cache, reader) = (Arc::clone(&self.cache), self.reader.clone());
        let mut walk = self.walk(range);
        let Some(first) = walk.next().await? else { return Ok(stream::empty().boxed()) };
        let rest =
            stream::try_unfold(
                walk,
                |mut walk| async move { Ok(walk.next().await?.map(|bytes| (bytes, walk))) },
            );
        let counted = stream::once(async { Ok(first) }).chain(rest).inspect(move |bytes| {
            if let Ok(bytes) = bytes {
                cache.counters.served_bytes.add(bytes.len() as u64);
                if let Some(scope) = &reader {
                    cache.seen.served(scope, bytes.len() as u64);
                }
            }
        });
        Ok(counted.boxed())
    }

    /// Reads and hashes all of it, unless this very copy was before.
    pub(super) async fn verify(&self) -> Result<(), CacheError> {
        if self.cache.verified.knows(self.digest, self.opened.stat().version) {
            return Ok(());
        }
        let mut walk = self.walk(None);
        while walk.next().await?.is_some() {}
        Ok(())
    }

    fn walk(&self, range: Option<Range<u64>>) -> Walk {
        let (range, hash) = match range {
            Some(range) => (range, None),
            None => (0..self.size(), Some(Hashing::new(io::sink()))),
        };
        let (cache, opened) = (Arc::clone(&self.cache), Arc::clone(&self.opened));
        Walk { cache, digest: self.digest, opened, range, hash, checked: false }
    }
}

/// A walk over a blob, or over a part of one that was verified.
struct Walk {
    cache: Arc<Cache>,
    digest: Digest,
    opened: Arc<dyn Opened>,
    /// What is left of it.
    range: Range<u64>,
    /// Of a whole walk: what came so far.
    hash: Option<Hashing<io::Sink>>,
    checked: bool,
}

impl Walk {
    /// The next bytes. The last ones, or the end of a walk over nothing, come after the check.
    async fn next(&mut self) -> Result<Option<Bytes>, CacheError> {
        let left = self.range.end.saturating_sub(self.range.start);
        if left == 0 && self.checked {
            return Ok(None);
        }
        let want = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let bytes = self.opened.read(self.range.start, want).await?;
        if bytes.len() != want {
            // It was cut while it was read. What lies there now is for the next reader to judge.
            return Err(CacheError::Damaged(self.digest));
        }
        if let Some(hash) = &mut self.hash {
            hash.write_all(&bytes).map_err(|error| CacheError::io("hash a blob", error))?;
        }
        self.range.start += want as u64;
        if self.range.is_empty() {
            self.check().await?;
        }
        Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    async fn check(&mut self) -> Result<(), CacheError> {
        self.checked = true;
        let version = self.opened.stat().version;
        let unchanged = self.opened.version().await? == version;
        match self.hash.take().map(Hashing::finish) {
            Some((_, actual, _)) if actual == self.digest => {
                if unchanged {
                    self.cache.verified.remember(self.digest, version);
                }
                Ok(())
            }
            None if unchanged => Ok(()),
            // It may only have lost its name, or got another: that leaves its bytes as they were.
            None if self.hash().await? == self.digest => Ok(()),
            Some(_) | None => {
                self.cache.condemn(self.digest, version).await?;
                Err(CacheError::Damaged(self.digest))
            }
        }
    }

    /// The digest of all the bytes of the open copy.
    async fn hash(&self) -> Result<Digest, CacheError> {
        let mut hash = Hashing::new(io::sink());
        loop {
            let bytes = self.opened.read(hash.size(), CHUNK).await?;
            if bytes.is_empty() {
                return Ok(hash.finish().1);
            }
            hash.write_all(&bytes).map_err(|error| CacheError::io("hash a blob", error))?;
        }
    }
}
