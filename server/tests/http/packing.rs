//! Blobs that travel packed.

use http::Request;
use http_body_util::{BodyExt as _, Full};
use pcmcache_shared::Digest;
use pcmcache_shared::api::problem::Code;
use pcmcache_shared::packed::{LEAST, Unpacking};

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
