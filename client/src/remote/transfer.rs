//! Blobs on their way: verified while they come, streamed from their files while they go.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Buf as _;
use futures::future::Either;
use futures::{TryStreamExt as _, stream};
use pcmcache_shared::api::{self, LENGTH_HEADER, OCTETS};
use pcmcache_shared::digest::{CHUNK, Hashing};
use pcmcache_shared::packed::{CODING, Packing, Unpacking};
use pcmcache_shared::{Digest, disk, mutant};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RANGE};
use reqwest::{Body, Method};
use rustix::fs::OFlags;
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, sleep};
use tokio_util::io::ReaderStream;

use super::RemoteError;
use super::carrier::Pieces;
use super::server::Server;

const FETCH: &str = "fetch";
const UPLOAD: &str = "upload";

/// Bytes of blobs that were moved.
#[derive(Debug, Default)]
pub(super) struct Counters {
    uploaded: AtomicU64,
    downloaded: AtomicU64,
}

impl Counters {
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.uploaded.load(Ordering::Relaxed), self.downloaded.load(Ordering::Relaxed))
    }
}

/// Streams a blob into `into`, never more than `size` bytes of it.
pub(super) async fn fetch(
    server: &Server,
    counters: &Counters,
    digest: Digest,
    size: u64,
    into: &mut dyn Write,
) -> Result<(), RemoteError> {
    take(server, counters, Wanted { digest, at_most: size, is_exact: true }, into).await
}

/// The same for a blob whose size nobody said, of at most so many bytes.
pub(super) async fn fetch_up_to(
    server: &Server,
    counters: &Counters,
    digest: Digest,
    at_most: u64,
    into: &mut dyn Write,
) -> Result<(), RemoteError> {
    take(server, counters, Wanted { digest, at_most, is_exact: false }, into).await
}

/// A blob, and what is known of its size.
#[derive(Clone, Copy)]
struct Wanted {
    digest: Digest,
    at_most: u64,
    is_exact: bool,
}

impl Wanted {
    fn damaged(self, what: &str) -> RemoteError {
        RemoteError::damaged(FETCH, format!("blob {} {what}", self.digest))
    }
}

/// Fetches a blob. Where the agent fails on the way, the rest comes directly.
async fn take(
    server: &Server,
    counters: &Counters,
    wanted: Wanted,
    into: &mut dyn Write,
) -> Result<(), RemoteError> {
    let mut hashing = Hashing::new(into);
    loop {
        let by_agent = server.is_by_agent();
        match take_rest(server, counters, wanted, &mut hashing).await {
            Ok(()) => break,
            Err(Fault::Cut(error)) => {
                // A cut in the middle is a blob that is not whole; only silence says something of the server.
                let cut = |error| wanted.damaged(&format!("was cut: {error}"));
                server.turn_back(by_agent, error).map_err(cut)?;
            }
            Err(Fault::Other(error)) => server.turn_back(by_agent, error)?,
        }
    }
    match hashing.finish() {
        (_, _, came) if wanted.is_exact && came != wanted.at_most => Err(wanted.damaged("is short")),
        (_, found, _) if found != wanted.digest && !mutant!("no-client-hash") => {
            Err(wanted.damaged(&format!("came with the bytes of {found}")))
        }
        _ => Ok(()),
    }
}

/// What ends a fetch early.
enum Fault {
    /// The answer had begun.
    Cut(RemoteError),
    Other(RemoteError),
}

impl From<RemoteError> for Fault {
    fn from(error: RemoteError) -> Self {
        Self::Other(error)
    }
}

/// Fetches what is not there yet.
async fn take_rest(
    server: &Server,
    counters: &Counters,
    wanted: Wanted,
    hashing: &mut Hashing<&mut dyn Write>,
) -> Result<(), Fault> {
    let begun = hashing.size();
    let by = Instant::now() + server.deadlines.transfer(wanted.at_most);
    let mut request = server.request(Method::GET, &api::blobs::path(&server.scope, wanted.digest));
    // The rest of one that was cut is a range, which comes as it is.
    let packs = begun == 0 && server.pace.packs(wanted.at_most);
    if packs {
        request = request.header(ACCEPT_ENCODING, CODING);
    }
    if begun > 0 {
        request = request.header(RANGE, format!("bytes={begun}-"));
    }
    let mut answer = server.send(FETCH, request, server.deadlines.idle).await?;
    // Who knows no ranges sends what is there already once more.
    let mut again = match answer.status() {
        200 => begun,
        206 if begun > 0 => 0,
        // All of it came before the cut.
        416 if begun > 0 => return Ok(()),
        404 => return Err(RemoteError::Gone.into()),
        _ => return Err(RemoteError::from(answer.refusal().await?).into()),
    };
    let due = wanted.at_most - begun + again;
    let mut unpacking = match packs && answer.is_packed() {
        true => Some(Unpacking::new().map_err(RemoteError::Local)?),
        false => None,
    };
    let is_as_said = || unpacking.is_some() || answer.declared().is_none_or(|declared| declared == due);
    if wanted.is_exact && !is_as_said() {
        return Err(wanted.damaged("has another size than its result says").into());
    }
    let mut take = |bytes: &[u8]| -> Result<(), Fault> {
        if bytes.len() as u64 > wanted.at_most.saturating_sub(hashing.size()) {
            return Err(wanted.damaged("goes on beyond its size").into());
        }
        hashing.write_all(bytes).map_err(RemoteError::Local)?;
        counters.downloaded.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    };
    let (start, mut came) = (Instant::now(), 0);
    loop {
        let mut piece = match answer.steady_piece(by).await {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(error) if error.is_silence() => return Err(error.into()),
            Err(error) => return Err(Fault::Cut(error)),
        };
        came += piece.len() as u64;
        let known = usize::try_from(again).unwrap_or(usize::MAX).min(piece.len());
        again -= known as u64;
        piece.advance(known);
        let Some(unpacking) = &mut unpacking else {
            take(&piece)?;
            continue;
        };
        let mut packed = &piece[..];
        loop {
            match unpacking.step(&mut packed) {
                Ok([]) => break,
                Ok(bytes) => take(bytes)?,
                Err(error) => {
                    return Err(wanted.damaged(&format!("is packed in no way we know: {error}")).into());
                }
            }
        }
    }
    server.pace.note(came, start.elapsed());
    Ok(())
}

/// Uploads the file at `path` under its name; packed, where that pays and the server takes it.
pub(super) async fn upload(
    server: &Server,
    counters: &Counters,
    digest: Digest,
    path: &Path,
) -> Result<(), RemoteError> {
    let file = disk::File::open(path).map_err(RemoteError::Local)?.into_file();
    let size = file.metadata().map_err(RemoteError::Local)?.len();
    if !packed_upload(server, digest, path, size).await? {
        send(server, digest, file, size, None).await?;
    }
    counters.uploaded.fetch_add(size, Ordering::Relaxed);
    Ok(())
}

/// Whether it could go packed. A server that does not want it so says no before it has heard all.
async fn packed_upload(server: &Server, digest: Digest, path: &Path, size: u64) -> Result<bool, RemoteError> {
    if !server.pace.packs(size) {
        return Ok(false);
    }
    let from = path.to_owned();
    let packed = tokio::task::spawn_blocking(move || pack(&from, size)).await;
    let Ok(Ok(Some((frame, length)))) = packed else { return Ok(false) };
    match send(server, digest, frame, length, Some(size)).await {
        Ok(()) => Ok(true),
        Err(error @ RemoteError::Refused { .. }) if !error.shuts_us_out() => Ok(false),
        Err(error) => Err(error),
    }
}

/// The blob's frame and its length, if it is enough shorter. It lies in a file without a name, which no kill leaves behind:
/// the length must be known before the first byte goes.
fn pack(path: &Path, size: u64) -> io::Result<Option<(File, u64)>> {
    let mut blob = disk::File::open(path)?;
    let mut frame = disk::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(i32::try_from(OFlags::TMPFILE.bits()).unwrap_or_default())
        .mode(0o600)
        .open(path.parent().unwrap_or(path))?;
    let (mut packing, mut piece) = (Packing::new(size)?, vec![0; CHUNK]);
    loop {
        match blob.read(&mut piece)? {
            0 => break,
            count => frame.write_all(&packing.pack(piece.get(..count).unwrap_or_default())?)?,
        }
    }
    frame.write_all(&packing.finish()?)?;
    let length = frame.stream_position()?;
    frame.rewind()?;
    Ok((length < size / 10 * 9).then(|| (frame.into_file(), length)))
}

/// Sends so many bytes of a file as the blob's; `of`: they are a frame of so many.
async fn send(
    server: &Server,
    digest: Digest,
    file: File,
    length: u64,
    of: Option<u64>,
) -> Result<(), RemoteError> {
    let (body, moved) = body_of(file, length, server.is_carried());
    let start = Instant::now();
    let mut request = server
        .request(Method::PUT, &api::blobs::path(&server.scope, digest))
        .header(CONTENT_TYPE, OCTETS)
        .header(CONTENT_LENGTH, length)
        .body(body);
    if let Some(size) = of {
        request = request.header(CONTENT_ENCODING, CODING).header(LENGTH_HEADER, size);
    }
    let sending = server.send(UPLOAD, request, server.deadlines.transfer(of.unwrap_or(length)));
    let answer = tokio::select! {
        // An answer that is there counts.
        biased;
        answer = sending => answer?,
        () = stalled(server, length, &moved) => return Err(RemoteError::silent(UPLOAD)),
    };
    match answer.status() {
        200..=299 => {
            server.pace.note_upload(length, start.elapsed());
            Ok(())
        }
        _ => Err(answer.refusal().await?.into()),
    }
}

/// So much of a file as a request's body, and how much of it was taken so far. `here`: no other thread reads it.
fn body_of(file: File, length: u64, here: bool) -> (Body, Arc<AtomicU64>) {
    let moved = Arc::new(AtomicU64::new(0));
    let taken = Arc::clone(&moved);
    let pieces = match here {
        true => Either::Left(stream::iter(Pieces(file.take(length)))),
        false => {
            let file = tokio::fs::File::from_std(file).take(length);
            Either::Right(ReaderStream::with_capacity(file, CHUNK))
        }
    };
    let stream = pieces.inspect_ok(move |piece| {
        taken.fetch_add(piece.len() as u64, Ordering::Relaxed);
    });
    (Body::wrap_stream(stream), moved)
}

/// Ends when the server has taken nothing for too long. Once it has taken all, it may think about it until the
/// deadline of the whole.
async fn stalled(server: &Server, size: u64, moved: &AtomicU64) {
    let mut before = None;
    loop {
        let now = moved.load(Ordering::Relaxed);
        if now >= size {
            return std::future::pending().await;
        }
        if before == Some(now) {
            return;
        }
        before = Some(now);
        sleep(server.deadlines.idle).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::fake::{Fake, Peer, Request, is_silent, never, settings, short};
    use super::super::pace::Pace;
    use super::super::server::Deadlines;
    use super::super::{Remote, Settings};
    use super::*;
    use crate::settings::When;

    const BLOB: &[u8] = b"the bytes of a module";

    /// What a fetch of [`BLOB`] comes to where the server answers like this, and what was written by then.
    fn fetched(answer: impl Fn(&mut Peer) + Send + Sync + 'static) -> (Result<(), RemoteError>, Vec<u8>) {
        let fake = Fake::start(move |_, peer| answer(peer));
        let mut bytes = Vec::new();
        let result = fake.remote().fetch(Digest::of(BLOB), BLOB.len() as u64, &mut bytes, &never);
        assert_eq!(fake.seen("")[0].line, format!("GET /v1/scopes/main/blobs/{}", Digest::of(BLOB)));
        assert!(bytes.len() <= BLOB.len());
        (result, bytes)
    }

    fn is_damaged((result, _): (Result<(), RemoteError>, Vec<u8>)) -> bool {
        matches!(result, Err(RemoteError::Damaged { .. }))
    }

    #[test]
    fn a_blob_comes_whole() {
        let (result, bytes) = fetched(|peer| peer.body(200, BLOB));
        assert!(result.is_ok());
        assert_eq!(bytes, BLOB);
        let (result, bytes) = fetched(|peer| {
            peer.chunked(200);
            BLOB.chunks(5).for_each(|piece| assert!(peer.chunk(piece)));
            peer.end();
        });
        assert!(result.is_ok());
        assert_eq!(bytes, BLOB);
    }

    #[test]
    fn a_wrong_byte_is_damage() {
        let mut wrong = BLOB.to_vec();
        wrong[7] ^= 1;
        assert!(is_damaged(fetched(move |peer| peer.body(200, &wrong))));
    }

    #[test]
    fn a_short_blob_is_damage_however_it_is_short() {
        let declared = fetched(|peer| peer.body(200, &BLOB[1..]));
        assert!(declared.1.is_empty(), "what declares another size is not even begun");
        assert!(is_damaged(declared));
        assert!(is_damaged(fetched(|peer| {
            peer.head(200, &format!("content-length: {}\r\n", BLOB.len()));
            peer.raw(&BLOB[1..]);
        })));
        assert!(is_damaged(fetched(|peer| {
            peer.chunked(200);
            peer.chunk(&BLOB[1..]);
            peer.end();
        })));
        assert!(is_damaged(fetched(|peer| {
            peer.chunked(200);
            peer.chunk(&BLOB[1..]);
        })));
    }

    #[test]
    fn an_endless_blob_is_damage_and_is_cut() {
        assert!(is_damaged(fetched(|peer| {
            peer.chunked(200);
            while peer.chunk(BLOB) {}
        })));
        assert!(is_damaged(fetched(|peer| peer.body(200, [BLOB, b"!"].concat()))));
    }

    #[test]
    fn a_blob_that_stops_or_dribbles_makes_the_server_unreachable() {
        let (result, _) = fetched(|peer| {
            peer.chunked(200);
            peer.chunk(&BLOB[..5]);
            peer.hang();
        });
        assert!(is_silent(&result.unwrap_err()));
        let (result, bytes) = fetched(|peer| {
            peer.chunked(200);
            while peer.chunk("x") {
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        assert!(is_silent(&result.unwrap_err()));
        assert!(!bytes.is_empty());
        assert!(is_silent(&fetched(Peer::hang).0.unwrap_err()));
    }

    #[test]
    fn a_pause_is_cut_long_before_the_whole_is_due() {
        let fake = Fake::start(|_, peer| {
            peer.head(200, &format!("content-length: {}\r\n", BLOB.len()));
            peer.raw(&BLOB[..5]);
            peer.hang();
        });
        let patient = Deadlines { answer: Duration::from_secs(60), ..short() };
        let started = Instant::now();
        let result =
            fake.remote_with(patient).fetch(Digest::of(BLOB), BLOB.len() as u64, &mut io::sink(), &never);
        assert!(is_silent(&result.unwrap_err()));
        assert!(started.elapsed() < Duration::from_secs(15));
    }

    #[test]
    fn an_upload_that_nobody_takes_is_cut_long_before_the_whole_is_due() {
        // Accepts by its backlog and reads nothing: what fits into the socket's buffers goes, the rest stays.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let patient = Deadlines { answer: Duration::from_secs(60), ..short() };
        let remote = Remote::with_deadlines(settings(listener.local_addr().unwrap()), patient, None).unwrap();
        let path = std::env::temp_dir().join(format!("pcmcache-upload-{}", std::process::id()));
        fs_err::File::create(&path).unwrap().set_len(64 * 1024 * 1024).unwrap();
        let started = Instant::now();
        let upload = upload(&remote.server, &remote.counters, Digest::of("any"), &path);
        let error = remote.engine.run(&never, upload).unwrap_err();
        let _ = fs_err::remove_file(&path);
        assert!(is_silent(&error), "{error}");
        assert!(started.elapsed() < Duration::from_secs(15));
        assert_eq!(remote.bytes(), (0, 0));
    }

    /// A blob that is worth packing, and its frame.
    fn worth() -> (Vec<u8>, Vec<u8>) {
        let blob: Vec<u8> = (0..1_000_000_u32).map(|i| (i.wrapping_mul(i) >> 13) as u8).collect();
        let mut packing = Packing::new(blob.len() as u64).unwrap();
        let mut frame = packing.pack(&blob).unwrap();
        frame.extend(packing.finish().unwrap());
        assert!(frame.len() < blob.len());
        (blob, frame)
    }

    /// What a fetch of that blob comes to where blobs may come packed and one comes like this; nothing beyond its size is
    /// ever written.
    fn fetched_packed(coding: &'static str, body: Vec<u8>) -> (Result<(), RemoteError>, Vec<u8>) {
        let fake = Fake::start(move |request, peer| {
            assert!(request.head.contains("accept-encoding: zstd\r\n"), "{}", request.head);
            peer.head(200, &format!("content-encoding: {coding}\r\ntransfer-encoding: chunked\r\n"));
            body.chunks(100_000).all(|piece| peer.chunk(piece));
            peer.end();
        });
        let pace = Pace::of(When::On, Path::new("/nowhere"), "");
        let settings = Settings { pace, ..settings(fake.address()) };
        let remote = Remote::with_deadlines(settings, short(), None).unwrap();
        let (blob, mut bytes) = (worth().0, Vec::new());
        let result = remote.fetch(Digest::of(&blob), blob.len() as u64, &mut bytes, &never);
        assert!(bytes.len() <= blob.len());
        (result, bytes)
    }

    #[test]
    fn a_blob_that_comes_packed_is_unpacked() {
        let (blob, frame) = worth();
        let (result, bytes) = fetched_packed("zstd", frame);
        assert!(result.is_ok() && bytes == blob, "{result:?}");
        let (result, bytes) = fetched_packed("identity", blob.clone());
        assert!(result.is_ok() && bytes == blob, "a server may send it as it is: {result:?}");
    }

    #[test]
    fn a_frame_that_is_not_the_blobs_is_damage_and_a_bomb_bursts_at_once() {
        let (blob, frame) = worth();
        // 30 GB of zeros.
        let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x58];
        bomb.extend([2, 0, 0x10, 0].repeat(30_000_000_000 >> 17));
        let mut other = Packing::new(3).unwrap();
        let other = [other.pack(b"abc").unwrap(), other.finish().unwrap()].concat();
        for (what, body) in [
            ("half a frame", frame[..frame.len() / 2].to_vec()),
            ("a frame without its last byte", frame[..frame.len() - 1].to_vec()),
            ("a byte more", [&frame[..], b"!"].concat()),
            ("two frames", [&frame[..], &frame[..]].concat()),
            ("no frame", blob),
            ("nothing", Vec::new()),
            ("the frame of another blob", other),
            ("a bomb", bomb),
        ] {
            assert!(is_damaged(fetched_packed("zstd", body)), "{what}");
        }
        assert!(is_damaged(fetched_packed("gzip", frame.clone())), "a coding that nobody asked for");
        // Nor is a frame one where none was asked for.
        assert!(is_damaged(fetched(move |peer| {
            peer.head(200, &format!("content-encoding: zstd\r\ncontent-length: {}\r\n", BLOB.len()));
            peer.raw(&frame[..BLOB.len()]);
        })));
    }

    #[test]
    fn what_is_left_of_one_that_was_packed_comes_as_it_is() {
        let blob = worth().0;
        let fake = Fake::start(|_, peer| peer.body(206, ""));
        let settings =
            Settings { pace: Pace::of(When::On, Path::new("/nowhere"), ""), ..settings(fake.address()) };
        let remote = Remote::with_deadlines(settings, short(), None).unwrap();
        let wanted = Wanted { digest: Digest::of(&blob), at_most: blob.len() as u64, is_exact: false };
        let (mut sink, counters) = (io::sink(), Counters::default());
        let mut hashing = Hashing::new(&mut sink as &mut dyn Write);
        hashing.write_all(&blob[..100]).unwrap();
        let rest = take_rest(&remote.server, &counters, wanted, &mut hashing);
        assert!(remote.engine.run(&never, async { Ok(rest.await.is_ok()) }).unwrap());
        let head = &fake.seen("")[0].head;
        assert!(head.contains("range: bytes=100-\r\n") && !head.contains("accept-encoding"), "{head}");
    }

    /// What a server that answers like this sees of an upload of these bytes where blobs may go packed.
    fn uploaded(bytes: &[u8], answer: impl Fn(&Request, &mut Peer) + Send + Sync + 'static) -> Vec<Request> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("pcmcache-packed-{}-{count}", std::process::id()));
        fs_err::write(&path, bytes).unwrap();
        let fake = Fake::start(answer);
        let pace = Pace::of(When::On, Path::new("/nowhere"), "");
        let settings = Settings { pace, ..settings(fake.address()) };
        let remote = Remote::with_deadlines(settings, short(), None).unwrap();
        let upload = upload(&remote.server, &remote.counters, Digest::of(bytes), &path);
        remote.engine.run(&never, upload).unwrap();
        fs_err::remove_file(path).unwrap();
        assert_eq!(remote.bytes(), (bytes.len() as u64, 0));
        fake.seen("")
    }

    #[test]
    fn a_blob_goes_packed_to_who_takes_it() {
        let (blob, _) = worth();
        let seen = uploaded(&blob, |_, peer| peer.body(201, ""));
        assert_eq!(seen.len(), 1);
        let head = &seen[0].head;
        assert!(head.contains("content-encoding: zstd\r\n"), "{head}");
        assert!(head.contains(&format!("pcmcache-length: {}\r\n", blob.len())), "{head}");
        let (mut frame, mut unpacking, mut all) = (&seen[0].body[..], Unpacking::new().unwrap(), Vec::new());
        while let bytes @ [_, ..] = unpacking.step(&mut frame).unwrap() {
            all.extend_from_slice(bytes);
        }
        assert!(unpacking.is_whole() && all == blob);
    }

    #[test]
    fn a_blob_goes_as_it_is_where_that_does_not_pay_or_is_not_taken() {
        let (blob, _) = worth();
        let older = |request: &Request, peer: &mut Peer| match request.head.contains("content-encoding") {
            true => peer.body(415, ""),
            false => peer.body(201, ""),
        };
        let seen = uploaded(&blob, older);
        assert_eq!(seen.len(), 2);
        assert!(seen[1].body == blob);
        let noise = (0_u64..).flat_map(|i| *Digest::of(i.to_le_bytes()).as_bytes());
        let noise: Vec<u8> = noise.take(100_000).collect();
        for bytes in [&noise[..], &blob[..1000]] {
            let seen = uploaded(bytes, |_, peer| peer.body(201, ""));
            assert_eq!(seen.len(), 1);
            assert!(seen[0].body == bytes && !seen[0].head.contains("content-encoding"));
        }
    }

    #[test]
    fn what_is_not_there_is_gone_and_a_no_is_a_no() {
        assert!(matches!(fetched(|peer| peer.body(404, "")).0, Err(RemoteError::Gone)));
        assert!(matches!(
            fetched(|peer| peer.body(500, "")).0,
            Err(RemoteError::Refused { status: 500, code: None, .. })
        ));
    }

    #[test]
    fn a_full_disk_is_our_own_fault() {
        let fake = Fake::start(|_, peer| peer.body(200, BLOB));
        let error = fake.remote().fetch(Digest::of(BLOB), BLOB.len() as u64, &mut &mut [0; 4][..], &never);
        assert!(matches!(error, Err(RemoteError::Local(_))), "{error:?}");
    }

    #[test]
    fn what_was_moved_is_counted() {
        let fake = Fake::start(|_, peer| peer.body(200, BLOB));
        let remote = fake.remote();
        remote.fetch(Digest::of(BLOB), BLOB.len() as u64, &mut io::sink(), &never).unwrap();
        assert_eq!(remote.bytes(), (0, BLOB.len() as u64));
    }
}
