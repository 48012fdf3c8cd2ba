//! (being written)
use std::ops::Range;

use bytes::Bytes;
use futures::stream::BoxStream;
use pcmcache_shared::Digest;

use super::CacheError;

/// The bytes of a blob, or of a part of it; an error in it means that the answer must be cut.
pub type ByteStream = BoxStream<'static, Result<Bytes, CacheError>>;

/// A blob that is there, open for reading.
#[derive(Debug)]
pub struct BlobRead {}

impl BlobRead {
    /// Its digest.
    pub fn digest(&self) -> Digest {
        Digest::of("")
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        0
    }

    /// Streams the blob (`None`), or the bytes of a range that lies within it. `Damaged` comes from here where
    /// that is known before the first byte, else from within the stream, instead of the last bytes.
    pub async fn stream(self, range: Option<Range<u64>>) -> Result<ByteStream, CacheError> {
        drop(range);
        Err(CacheError::NoLease)
    }
}
