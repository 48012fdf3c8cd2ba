//! Blobs that travel packed: those behind a slow link send and get them sooner.
//!
//! An upload is staged and hashed as it is unpacked, a bounded step at a time: what comes out beyond the length that it
//! declared is refused before it is written anywhere.
//!
//! An answer is packed for who takes that (RFC 9110, 12.5.3). Nothing of it is kept: what is packed was read and verified
//! like any other answer, and its frame is not ended before its last bytes were found right. Packing takes no more than
//! half of the processors, and no more memory than its places: who comes when all hands are full gets the bytes as they
//! are, which costs next to nothing.

use std::sync::Arc;

use axum::body::Body;
use bytes::{Buf as _, Bytes};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use http::{HeaderMap, header};
use pcmcache_shared::api::problem::Code;
use pcmcache_shared::packed::{CODING, LEAST, Packing, Unpacking};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::body;
use super::problem::Refused;
use crate::cache::{BlobRead, CacheError};

/// As many bodies are packed or unpacked at a time; each has a megabyte or two in memory, and who sends what is packed hard 8.
const PLACES: usize = 64;

/// Who packs and unpacks.
#[derive(Debug, Clone)]
pub struct Packers {
    places: Arc<Semaphore>,
    /// Those that are free now, each a processor's.
    hands: Arc<Semaphore>,
}

impl Packers {
    /// Half of these processors, and one at least.
    pub fn of(processors: usize) -> Self {
        let semaphore = |count| Arc::new(Semaphore::new(count));
        Self { places: semaphore(PLACES), hands: semaphore((processors / 2).max(1)) }
    }

    /// Whether an answer of so many bytes is to be packed; then somebody will.
    pub(super) fn find(&self, headers: &HeaderMap, size: u64) -> Option<Packer> {
        if size <= LEAST || !is_taken(headers) || self.hands.available_permits() == 0 {
            return None;
        }
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let packing = Packing::new(size).ok()?;
        Some(Packer { packing, hands: Arc::clone(&self.hands), _place: place })
    }

    /// What takes this body apart.
    pub(super) fn unpack(&self, body: Body) -> Result<Unpacker, Refused> {
        let crowded = || Refused::new(Code::Unavailable, "too many blobs come packed now; send it as it is");
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| crowded())?;
        let unpacking = Unpacking::new().map_err(|_| crowded())?;
        Ok(Unpacker { body, work: Some((unpacking, Bytes::new())), _place: place })
    }
}

/// The bytes of an upload, however they come.
pub(super) enum Incoming {
    Plain(Body),
    Packed(Unpacker),
}

impl Incoming {
    /// Some more of them, or `None` at their end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Refused> {
        match self {
            Self::Plain(body) => body::next(body).await,
            Self::Packed(unpacker) => unpacker.next().await,
        }
    }
}

/// A body that is taken apart.
pub(super) struct Unpacker {
    body: Body,
    /// Not here only while somebody is at it; with what came and is not used up.
    work: Option<(Unpacking, Bytes)>,
    _place: OwnedSemaphorePermit,
}

impl Unpacker {
    async fn next(&mut self) -> Result<Option<Bytes>, Refused> {
        loop {
            let broken = || Refused::new(Code::Internal, "unpacking broke off");
            let (mut unpacking, mut came) = self.work.take().ok_or_else(broken)?;
            let step = move || {
                let mut left = &came[..];
                let made = unpacking.step(&mut left).map(Bytes::copy_from_slice);
                let used = came.len() - left.len();
                came.advance(used);
                (made, unpacking, came)
            };
            let (made, unpacking, came) = tokio::task::spawn_blocking(step).await.map_err(|_| broken())?;
            let is_whole = unpacking.is_whole();
            let (_, left) = self.work.insert((unpacking, came));
            let made = made.map_err(|error| {
                Refused::new(Code::BadRequest, format!("this is no {CODING} frame: {error}"))
            })?;
            if !made.is_empty() {
                return Ok(Some(made));
            }
            match body::next(&mut self.body).await? {
                Some(piece) => *left = piece,
                None if is_whole => return Ok(None),
                None => return Err(Refused::new(Code::ShortBody, "the frame was cut")),
            }
        }
    }
}

/// Someone who packs one answer.
pub(super) struct Packer {
    packing: Packing,
    hands: Arc<Semaphore>,
    _place: OwnedSemaphorePermit,
}

impl Packer {
    /// The blob's frame. Where a blob is cut since it is damaged, so is its frame.
    pub(super) async fn pack(self, blob: BlobRead) -> Result<Body, CacheError> {
        let bytes = blob.stream(None).await?;
        let frame = stream::try_unfold(Some((self, bytes)), |state| async move {
            let Some((packer, bytes)) = state else { return Ok(None) };
            packer.next(bytes).await.map(Some)
        });
        Ok(Body::from_stream(frame))
    }

    /// The next bytes of the frame, and what is left to do.
    async fn next(mut self, mut bytes: Source) -> Result<(Bytes, Option<(Self, Source)>), CacheError> {
        loop {
            let Some(piece) = bytes.next().await.transpose()? else {
                let rest = self.packing.finish().map_err(|error| CacheError::io(PACK, error))?;
                return Ok((rest.into(), None));
            };
            let hand = Arc::clone(&self.hands).acquire_owned().await;
            let work = move || {
                let packed = self.packing.pack(&piece);
                drop(hand);
                (self, packed)
            };
            let (packer, packed) = tokio::task::spawn_blocking(work)
                .await
                .map_err(|_| CacheError::Unavailable { operation: PACK })?;
            self = packer;
            let packed = packed.map_err(|error| CacheError::io(PACK, error))?;
            if !packed.is_empty() {
                return Ok((packed.into(), Some((self, bytes))));
            }
        }
    }
}

type Source = BoxStream<'static, Result<Bytes, CacheError>>;

const PACK: &str = "pack a blob";

/// Whether the client says by name that it takes what is packed; who takes anything (`*`) may have said so for want of words.
fn is_taken(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|entry| {
        let (coding, weight) = entry.split_once(';').unwrap_or((entry, ""));
        let weight =
            weight.trim().strip_prefix(['q', 'Q']).and_then(|weight| weight.trim().strip_prefix('='));
        let is_refused =
            weight.is_some_and(|weight| weight.trim().parse().is_ok_and(|weight: f32| weight <= 0.0));
        coding.trim().eq_ignore_ascii_case(CODING) && !is_refused
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn asking(accept: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_str(accept).unwrap())])
    }

    #[test]
    fn it_is_packed_for_who_says_so() {
        for accept in ["zstd", "gzip, ZSTD", "br;q=1.0, zstd;q=0.1", "zstd ; q=0.001", "gzip,zstd"] {
            assert!(is_taken(&asking(accept)), "{accept}");
        }
        for accept in ["", "gzip", "*", "zstd;q=0", "zstd; q=0.000", "zstdx", "x-zstd", "identity;q=0"] {
            assert!(!is_taken(&asking(accept)), "{accept}");
        }
        assert!(!is_taken(&HeaderMap::new()));
    }

    #[test]
    fn whoever_comes_when_all_hands_are_full_gets_it_as_it_is() {
        let (packers, taken) = (Packers::of(4), asking("zstd"));
        assert!(packers.find(&taken, LEAST).is_none(), "it is too small");
        let packer = packers.find(&taken, LEAST + 1);
        assert!(packer.is_some());
        let both = Arc::clone(&packers.hands).try_acquire_many_owned(2).unwrap();
        assert!(packers.find(&taken, LEAST + 1).is_none());
        drop(both);
        let all: Vec<_> = (1..PLACES).map(|_| packers.find(&taken, LEAST + 1).unwrap()).collect();
        assert!(packers.find(&taken, LEAST + 1).is_none());
        drop((packer, all));
        assert!(packers.find(&taken, LEAST + 1).is_some());
    }
}
