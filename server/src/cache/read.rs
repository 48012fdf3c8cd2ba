//! Reads: a blob whose bytes no longer match its name is never served whole.
//!
//! A whole blob is hashed on its way out, and its last bytes go out once the hash matched; where it did not, the answer is cut
//! and the copy moved aside. For a part of a blob that would come too late, so the blob is read and hashed first. A copy that
//! was found right lately ([`Verified`](super::verified::Verified)) is not hashed again: the last bytes go out once it is
//! known not to have changed meanwhile. So its bytes need not pass through this process at all, and may go from the
//! file to the socket ([`Piece::InFile`]). A small blob stays in memory once it was found right.
//! Who receives it verifies again: what the network does is not known here.

use std::io::{self, Write as _};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt as _;
use futures::stream::{self, BoxStream, StreamExt as _};
use pcmcache_shared::digest::{CHUNK, Hashing};
use pcmcache_shared::{Digest, Scope};

use super::near::{Epoch, MAX_KEPT};
use super::{Cache, CacheError, on_its_own};
use crate::blobs::{InFile, Opened, Stat, Version};
use crate::trust::View;

/// The bytes of a blob, or of a part of it; an error in it means that the answer must be cut.
pub type ByteStream = BoxStream<'static, Result<Bytes, CacheError>>;

/// The same, in pieces that may still lie in a file.
pub type PieceStream = BoxStream<'static, Result<Piece, CacheError>>;

/// Some of a blob's bytes.
#[derive(Debug)]
pub enum Piece {
    /// Here they are.
    Bytes(Bytes),
    /// They lie in a file, and in memory that the system has of it.
    InFile {
        /// The file, which is kept open.
        file: Arc<dyn InFile>,
        /// Which of its bytes.
        range: Range<u64>,
    },
}

impl Piece {
    /// How many bytes it has.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::InFile { range, .. } => range.end.saturating_sub(range.start),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How much of a file is brought into memory before its pieces go out: a piece that is not there would have the socket's
/// thread wait for the disk.
const WINDOW: u64 = 4 * IN_FILE as u64;
/// The most bytes of a piece in a file.
pub const IN_FILE: usize = 1024 * 1024;

/// A blob that is there and has its size, open for reading.
#[derive(Debug)]
pub struct BlobRead {
    cache: Arc<Cache>,
    /// The scope that is asked, where a client does.
    reader: Option<Scope>,
    digest: Digest,
    opened: Arc<dyn Opened>,
    /// Before it was opened.
    epoch: Epoch,
    /// Its bytes, where they are in memory, and right.
    near: Option<Bytes>,
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
        let epoch = self.near.epoch();
        let Some(kept) = self.near.get(digest) else { return self.open_stored(digest).await };
        self.pins.pin([digest]).await;
        let (cache, near, opened) = (Arc::clone(self), Some(kept.bytes()), kept.open());
        Ok(Some(BlobRead { cache, reader: None, digest, opened, epoch, near }))
    }

    /// The same, as the store has it now.
    async fn open_stored(self: &Arc<Self>, digest: Digest) -> Result<Option<BlobRead>, CacheError> {
        let epoch = self.near.epoch();
        self.pins.pin([digest]).await;
        let Some(opened) = self.rooms.blobs.open(digest).await? else { return Ok(None) };
        if !opened.stat().has_its_size() {
            self.condemn(digest, opened.stat().version).await?;
            return Ok(None);
        }
        let (cache, opened) = (Arc::clone(self), opened.into());
        Ok(Some(BlobRead { cache, reader: None, digest, opened, epoch, near: None }))
    }

    /// Whether the store has the blob, and its copy is right: it is read, unless this very copy was lately. A damaged one is
    /// moved aside.
    pub(super) async fn is_sound(self: &Arc<Self>, digest: Digest) -> Result<bool, CacheError> {
        let Some(blob) = self.open_stored(digest).await? else { return Ok(false) };
        match blob.verify().await {
            Ok(()) => Ok(true),
            Err(CacheError::Damaged(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The size of a blob that is in the view, and will be for ten minutes at least.
    pub async fn has_blob(&self, view: &View, digest: Digest) -> Result<Option<u64>, CacheError> {
        if self.sees(view, digest).await? { self.has_seen(digest).await } else { Ok(None) }
    }

    /// The size of a blob that may be seen, if it is there.
    pub(super) async fn has_seen(&self, digest: Digest) -> Result<Option<u64>, CacheError> {
        Ok(self.have_seen(vec![digest]).await?.into_iter().next().flatten())
    }

    /// The same of each of these, in their order.
    pub(super) async fn have_seen(&self, digests: Vec<Digest>) -> Result<Vec<Option<u64>>, CacheError> {
        self.pins.pin(digests.iter().copied()).await;
        let stats = self.rooms.blobs.stat_all(digests.clone()).await?;
        let mut sizes = Vec::with_capacity(stats.len());
        for (digest, stat) in digests.into_iter().zip(stats) {
            let sound = stat.filter(Stat::has_its_size);
            if let (Some(damaged), None) = (stat, sound) {
                self.condemn(digest, damaged.version).await?;
            }
            sizes.push(sound.map(|stat| stat.size));
        }
        Ok(sizes)
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
        let mut walk = blob.walk(None, false);
        let mut all = Vec::new();
        loop {
            match walk.next_bytes().await {
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
        let (blobs, near) = (Arc::clone(&self.rooms.blobs), Arc::clone(&self.near));
        let condemned = on_its_own("move a damaged blob aside", async move {
            let condemned = blobs.condemn(digest, version).await;
            near.forget([digest]);
            Ok(condemned?)
        });
        let condemned = condemned.await?;
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

    /// All its bytes, to be served at once, where they are in memory.
    pub fn at_hand(&self) -> Option<Bytes> {
        let bytes = self.near.clone()?;
        self.cache.counters.served_bytes.add(bytes.len() as u64);
        if let Some(scope) = &self.reader {
            self.cache.seen.served(scope, bytes.len() as u64);
        }
        Some(bytes)
    }

    /// Streams the blob (`None`), or the bytes of a range that lies within it. [`CacheError::Damaged`] comes from here where
    /// that is known before the first byte, else from within the stream, instead of the last bytes.
    pub async fn stream(self, range: Option<Range<u64>>) -> Result<ByteStream, CacheError> {
        let bytes = |piece| match piece {
            Piece::Bytes(bytes) => Ok(bytes),
            Piece::InFile { .. } => Err(CacheError::Unavailable { operation: "read a blob" }),
        };
        let pieces = self.pieces(range, false).await?;
        Ok(pieces.map(move |piece| piece.and_then(bytes)).boxed())
    }

    /// The same, in pieces that may still lie in a file if whoever asks can do with that.
    pub async fn pieces(self, range: Option<Range<u64>>, in_file: bool) -> Result<PieceStream, CacheError> {
        if range.is_some() {
            self.verify().await?;
        }
        let (cache, reader) = (Arc::clone(&self.cache), self.reader.clone());
        let mut walk = self.walk(range, in_file);
        let Some(first) = walk.next().await? else { return Ok(stream::empty().boxed()) };
        let rest =
            stream::try_unfold(
                walk,
                |mut walk| async move { Ok(walk.next().await?.map(|piece| (piece, walk))) },
            );
        let counted = stream::once(async { Ok(first) }).chain(rest).inspect_ok(move |piece| {
            cache.counters.served_bytes.add(piece.len());
            if let Some(scope) = &reader {
                cache.seen.served(scope, piece.len());
            }
        });
        Ok(counted.boxed())
    }

    /// Reads and hashes all of it, unless this very copy was lately.
    pub(super) async fn verify(&self) -> Result<(), CacheError> {
        if self.is_believed() {
            return Ok(());
        }
        let mut walk = self.walk(None, false);
        while walk.next_bytes().await?.is_some() {}
        Ok(())
    }

    fn is_believed(&self) -> bool {
        self.near.is_some() || self.cache.verified.knows(self.digest, self.opened.stat().version)
    }

    fn walk(&self, range: Option<Range<u64>>, in_file: bool) -> Walk {
        let is_whole = range.is_none();
        // A small one that is not in memory is hashed, to be kept there.
        let is_hashed = is_whole && self.near.is_none() && (self.size() <= MAX_KEPT || !self.is_believed());
        Walk {
            cache: Arc::clone(&self.cache),
            digest: self.digest,
            opened: Arc::clone(&self.opened),
            epoch: self.epoch,
            range: range.unwrap_or(0..self.size()),
            hash: is_hashed.then(|| Hashing::new(io::sink())),
            in_file,
            window: None,
            checked: false,
        }
    }
}

/// A walk over a blob, or over a part of one that was verified.
struct Walk {
    cache: Arc<Cache>,
    digest: Digest,
    opened: Arc<dyn Opened>,
    epoch: Epoch,
    /// What is left of it.
    range: Range<u64>,
    /// What came so far of one that is not known to be right.
    hash: Option<Hashing<io::Sink>>,
    /// Whether pieces may lie in a file.
    in_file: bool,
    /// The file, in memory up to there.
    window: Option<(Arc<dyn InFile>, u64)>,
    checked: bool,
}

impl Walk {
    /// The next piece. The last one is never in a file: it is read, and comes after the check.
    async fn next(&mut self) -> Result<Option<Piece>, CacheError> {
        let start = self.range.start;
        let last = self.range.end.saturating_sub(CHUNK as u64);
        let after = start.saturating_add(IN_FILE as u64).min(last);
        if self.in_file
            && self.hash.is_none()
            && start < last
            && let Some(file) = self.file(after).await?
        {
            self.range.start = after;
            return Ok(Some(Piece::InFile { file, range: start..after }));
        }
        Ok(self.next_bytes().await?.map(Piece::Bytes))
    }

    /// The file, if the blob lies in one; its bytes up to there are in memory.
    async fn file(&mut self, upto: u64) -> Result<Option<Arc<dyn InFile>>, CacheError> {
        if self.window.as_ref().is_none_or(|(_, end)| *end < upto) {
            let end = self.range.end.min(self.range.start.saturating_add(WINDOW));
            let file = Arc::clone(&self.opened).in_file(self.range.start..end).await?;
            self.window = file.map(|file| (file, end));
        }
        Ok(self.window.as_ref().map(|(file, _)| Arc::clone(file)))
    }

    /// The next bytes. The last ones, or the end of a walk over nothing, come after the check.
    async fn next_bytes(&mut self) -> Result<Option<Bytes>, CacheError> {
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
        if self.range.is_empty() && self.check().await? && bytes.len() as u64 == self.opened.stat().size {
            self.cache.near.keep(self.epoch, self.digest, self.opened.stat(), &bytes);
        }
        Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    /// Whether all of it was hashed now, and this copy is what it was.
    async fn check(&mut self) -> Result<bool, CacheError> {
        self.checked = true;
        let version = self.opened.stat().version;
        let unchanged = self.opened.version().await? == version;
        match self.hash.take().map(Hashing::finish) {
            Some((_, actual, _)) if actual == self.digest => {
                if unchanged {
                    self.cache.verified.remember(self.digest, version);
                }
                Ok(unchanged)
            }
            None if unchanged => Ok(false),
            // It may only have lost its name, or got another: that leaves its bytes as they were.
            None if self.hash().await? == self.digest => Ok(false),
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
