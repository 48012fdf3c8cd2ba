//! Blobs that travel packed.

use http::Request;
use http_body_util::{BodyExt as _, Full};
use pcmcache_shared::Digest;
use pcmcache_shared::api::problem::Code;
use pcmcache_shared::packed::{LEAST, Packing, Unpacking};

use super::wire::{Reply, Served, h2, within};

fn path(digest: Digest) -> String {
    format!("/v1/scopes/main/blobs/{digest}")
}

/// Neither noise nor all the same, of several pieces.
fn some() -> Vec<u8> {
    (0..3_000_003_u32).map(|i| (i.wrapping_mul(i) >> 13) as u8).collect()
}

async fn put(served: &Served, bytes: &[u8]) {
    let reply = served.send(Request::put(path(Digest::of(bytes))).body(bytes.to_vec()).unwrap()).await;
    assert_eq!(reply.status.as_u16() / 100, 2, "{reply:?}");
}

async fn get(served: &Served, bytes: &[u8], headers: &[(&str, &str)]) -> Reply {
    let request = Request::get(path(Digest::of(bytes)));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    served.send(request.body("").unwrap()).await
}

/// What comes of a whole frame.
fn unpacked(mut frame: &[u8]) -> Vec<u8> {
    let (mut unpacking, mut all) = (Unpacking::new().unwrap(), Vec::new());
    while let bytes @ [_, ..] = unpacking.step(&mut frame).unwrap() {
        all.extend_from_slice(bytes);
    }
    assert!(unpacking.is_whole());
    all
}

const PACKED: (&str, &str) = ("accept-encoding", "gzip, zstd");

#[tokio::test]
async fn who_takes_it_gets_a_blob_packed() {
    let served = Served::start().await;
    let bytes = some();
    put(&served, &bytes).await;
    // The first is hashed on its way, the second is not.
    for _ in 0..2 {
        let reply = get(&served, &bytes, &[PACKED]).await;
        assert_eq!((reply.status.as_u16(), reply.header("content-encoding")), (200, "zstd"));
        assert!(reply.body.len() < bytes.len() * 9 / 10, "{}", reply.body.len());
        assert!(unpacked(&reply.body) == bytes);
        assert_eq!(reply.header("etag"), format!("W/\"{}\"", Digest::of(&bytes)));
        assert_eq!(
            (reply.header("vary"), reply.header("content-type")),
            ("accept-encoding", "application/octet-stream")
        );
        // These are of other bytes than the ones that are sent.
        for name in ["content-length", "repr-digest", "accept-ranges"] {
            assert_eq!(reply.header(name), "", "{name}");
        }
    }
    let mut http2 = h2(served.addr).await;
    let uri = format!("http://{}{}", served.addr, path(Digest::of(&bytes)));
    let request = Request::get(uri).header(PACKED.0, PACKED.1).body(Full::default()).unwrap();
    let answer = within(http2.sender.send_request(request)).await.unwrap();
    let frame = within(answer.into_body().collect()).await.unwrap().to_bytes();
    assert!(unpacked(&frame) == bytes);
}

#[tokio::test]
async fn everybody_else_gets_it_as_it_is() {
    let served = Served::start().await;
    let bytes = some();
    put(&served, &bytes).await;
    let etag = format!("\"{}\"", Digest::of(&bytes));
    for headers in [&[][..], &[("accept-encoding", "gzip, br")], &[("accept-encoding", "*")]] {
        let reply = get(&served, &bytes, headers).await;
        assert!(reply.status == 200 && reply.body == bytes, "{headers:?}");
        assert_eq!(reply.header("content-length"), bytes.len().to_string());
        assert_eq!((reply.header("content-encoding"), reply.header("etag")), ("", etag.as_str()));
        assert_eq!(reply.header("vary"), "accept-encoding");
    }
    let part = get(&served, &bytes, &[PACKED, ("range", "bytes=1000-1999999")]).await;
    assert!(part.status == 206 && part.body == bytes[1000..2_000_000]);
    assert_eq!(part.header("content-encoding"), "");
    for known in [&etag, &format!("W/{etag}")] {
        let reply = get(&served, &bytes, &[PACKED, ("if-none-match", known)]).await;
        assert_eq!((reply.status.as_u16(), reply.body.len()), (304, 0));
    }
    // A validator of the frame is none of a part of the bytes.
    let headers = [PACKED, ("range", "bytes=0-9"), ("if-range", &format!("W/{etag}"))];
    assert_eq!(get(&served, &bytes, &headers).await.header("content-encoding"), "zstd");
    let small = vec![0; LEAST as usize];
    put(&served, &small).await;
    assert_eq!(get(&served, &small, &[PACKED]).await.body, small);
}

#[tokio::test]
async fn a_damaged_blob_is_never_packed_whole() {
    let served = Served::start().await;
    let mut bytes = some();
    put(&served, &bytes).await;
    let name = path(Digest::of(&bytes));
    bytes[2_999_999] ^= 1;
    tokio::fs::write(served.dir.files("blobs").pop().unwrap(), &bytes).await.unwrap();
    let request = format!(
        "GET {name} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: zstd\r\nConnection: close\r\n\r\n"
    );
    let answer = served.raw_bytes(request.as_bytes(), false).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 ") && answer.len() > 500_000, "{} bytes", answer.len());
    assert!(!answer.ends_with(b"0\r\n\r\n"), "it came to its end");
    assert_eq!(served.get(&name).await.code(), Code::NoBlob);
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packing = Packing::new(bytes.len() as u64).unwrap();
    let mut frame = packing.pack(bytes).unwrap();
    frame.extend(packing.finish().unwrap());
    frame
}

/// Uploads what is said to be a blob of so many bytes.
async fn put_as(served: &Served, name: Digest, length: u64, codings: &[&str], body: Vec<u8>) -> Reply {
    // Said, for hyper leaves it out where the body is empty.
    let request =
        Request::put(path(name)).header("pcmcache-length", length).header("content-length", body.len());
    let request = codings.iter().fold(request, |request, coding| request.header("content-encoding", *coding));
    served.send(request.body(body).unwrap()).await
}

#[tokio::test]
async fn an_upload_may_come_packed() {
    let served = Served::start().await;
    for bytes in [some(), b"hello".to_vec()] {
        let (name, length) = (Digest::of(&bytes), bytes.len() as u64);
        assert_eq!(put_as(&served, name, length, &["zstd"], packed(&bytes)).await.status, 201);
        assert_eq!(put_as(&served, name, length, &["ZSTD"], packed(&bytes)).await.status, 200);
        assert!(get(&served, &bytes, &[]).await.body == bytes);
    }
}

#[tokio::test]
async fn an_upload_that_is_not_what_it_says_leaves_nothing() {
    let served = Served::start().await;
    let bytes = some();
    let (name, frame) = (Digest::of(&bytes), packed(&bytes));
    let length = bytes.len() as u64;
    // 30 GB of zeros: blocks of one byte that is repeated 128 Ki times.
    let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x58];
    bomb.extend([2, 0, 0x10, 0].repeat(30_000_000_000 >> 17));
    let behind = |more: &[u8]| [&frame[..], more].concat();
    let cases: [(&str, u64, Vec<u8>, Code); 12] = [
        ("a bomb", length, bomb.clone(), Code::TooLarge),
        ("a bomb that says how large it is", 30_000_000_000, bomb.clone(), Code::TooLarge),
        ("a bomb for a small blob", 1000, bomb, Code::BadRequest),
        ("a frame without its end", length, frame[..frame.len() - 1].to_vec(), Code::ShortBody),
        ("a byte more", length, behind(b"!"), Code::BadRequest),
        ("two frames", length, behind(&packed(b"")), Code::BadRequest),
        ("a byte more than said", length - 1, frame.clone(), Code::TooLarge),
        ("a byte less than said", length + 1, frame.clone(), Code::ShortBody),
        ("no frame", length, bytes.clone(), Code::BadRequest),
        ("much memory", length, vec![0x28, 0xb5, 0x2f, 0xfd, 0, 20 << 3, 1, 0, 0], Code::BadRequest),
        ("another blob's frame", 5, packed(b"hello"), Code::DigestMismatch),
        ("nothing", length, Vec::new(), Code::ShortBody),
    ];
    for (what, length, body, code) in cases {
        let reply = put_as(&served, name, length, &["zstd"], body).await;
        assert!(reply.status.as_u16() >= 400, "{what}: {reply:?}");
        assert_eq!(reply.code(), code, "{what}: {reply:?}");
    }
    for codings in [&["gzip"][..], &["zstd, gzip"], &["zstd", "zstd"], &[""]] {
        let reply = put_as(&served, name, length, codings, frame.clone()).await;
        assert_eq!(reply.code(), Code::BadContentType, "{codings:?}");
    }
    let undeclared = Request::put(path(name)).header("content-encoding", "zstd").body(frame).unwrap();
    assert_eq!(served.send(undeclared).await.code(), Code::LengthRequired);
    served.stores_nothing().await;
}
