//! Blobs as HTTP serves them.

use http::Request;
use http_body_util::{BodyExt as _, Full};
use pcmcache_shared::Digest;
use pcmcache_shared::api::problem::Code;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::wire::{Reply, Served, h1, h2, within};

fn path(digest: Digest) -> String {
    format!("/v1/scopes/main/blobs/{digest}")
}

async fn put(served: &Served, bytes: &[u8]) -> Reply {
    // Said, for hyper leaves it out where the body is empty.
    let request = Request::put(path(Digest::of(bytes))).header("content-length", bytes.len());
    served.send(request.body(bytes.to_vec()).unwrap()).await
}

async fn get_with(served: &Served, bytes: &[u8], headers: &[(&str, &str)]) -> Reply {
    let request = headers
        .iter()
        .fold(Request::get(path(Digest::of(bytes))), |request, (name, value)| request.header(*name, *value));
    served.send(request.body("").unwrap()).await
}

#[tokio::test]
async fn a_blob_comes_back_with_all_that_names_it() {
    let served = Served::start().await;
    assert_eq!(put(&served, b"hello").await.status, 201);
    assert_eq!(put(&served, b"hello").await.status, 200);
    let etag = format!("\"{}\"", Digest::of("hello"));
    let digest = "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:";
    let get = served.get(&path(Digest::of("hello"))).await;
    let head = served.send(Request::head(path(Digest::of("hello"))).body("").unwrap()).await;
    for (reply, body) in [(get, "hello"), (head, "")] {
        assert_eq!((reply.status.as_u16(), &reply.body[..]), (200, body.as_bytes()));
        assert_eq!(reply.header("etag"), etag);
        assert_eq!(reply.header("repr-digest"), digest);
        assert_eq!(reply.header("content-length"), "5");
        assert_eq!(reply.header("content-type"), "application/octet-stream");
        assert_eq!(reply.header("accept-ranges"), "bytes");
        assert!(reply.header("cache-control").contains("immutable"));
    }
    let known = get_with(&served, b"hello", &[("if-none-match", &etag)]).await;
    assert_eq!((known.status.as_u16(), known.header("etag"), known.body.len()), (304, etag.as_str(), 0));
}

#[tokio::test]
async fn a_large_and_an_empty_blob_come_back_whole() {
    let served = Served::start().await;
    let large: Vec<u8> = (0..3_000_000_u32).map(|i| (i / 7) as u8).collect();
    for bytes in [&large[..], b""] {
        assert_eq!(put(&served, bytes).await.status, 201);
        let reply = served.get(&path(Digest::of(bytes))).await;
        assert_eq!((reply.status.as_u16(), Digest::of(&reply.body)), (200, Digest::of(bytes)));
    }
    let part = get_with(&served, &large, &[("range", "bytes=999999-2000000")]).await;
    assert_eq!((part.status.as_u16(), &part.body[..]), (206, &large[999_999..=2_000_000]));
}

#[tokio::test]
async fn one_range_is_served_under_its_validator() {
    let served = Served::start().await;
    put(&served, b"hello").await;
    let etag = format!("\"{}\"", Digest::of("hello"));
    let part = get_with(&served, b"hello", &[("range", "bytes=1-3"), ("if-range", &etag)]).await;
    assert_eq!((part.status.as_u16(), &part.body[..]), (206, &b"ell"[..]));
    assert_eq!((part.header("content-range"), part.header("content-length")), ("bytes 1-3/5", "3"));
    assert_eq!(part.header("etag"), etag);
    for (range, validator) in [("bytes=1-3", "\"other\""), ("bytes=0-0,2-3", etag.as_str()), ("x=1-2", &etag)]
    {
        let whole = get_with(&served, b"hello", &[("range", range), ("if-range", validator)]).await;
        assert_eq!((whole.status.as_u16(), &whole.body[..]), (200, &b"hello"[..]), "{range}");
    }
    let none = get_with(&served, b"hello", &[("range", "bytes=5-")]).await;
    assert_eq!((none.code(), none.header("content-range")), (Code::BadRange, "bytes */5"));
    let request = Request::head(path(Digest::of("hello"))).header("range", "bytes=1-3");
    assert_eq!(served.send(request.body("").unwrap()).await.status, 200, "HEAD knows no range");
}

#[tokio::test]
async fn an_upload_may_ask_before_it_sends() {
    let served = Served::start().await;
    let mut stream = TcpStream::connect(served.addr).await.unwrap();
    let head = format!(
        "PUT {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        path(Digest::of("hello"))
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    within(stream.read_exact(&mut go_on)).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let mut status = [0; 12];
    within(stream.read_exact(&mut status)).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 201");
}

/// Larger than what is sent from its file at once, and no multiple of it.
fn several_pieces() -> Vec<u8> {
    (0..5_000_003_u32).map(|i| (i ^ (i >> 9)) as u8).collect()
}

#[tokio::test]
async fn a_blob_that_goes_from_its_file_to_the_socket_is_the_same() {
    let served = Served::start().await;
    let bytes = several_pieces();
    put(&served, &bytes).await;
    let mut kept = h1(served.addr).await;
    let ranges =
        ["bytes=0-", "bytes=1-4999999", "bytes=4900000-5000002", "bytes=-1", "bytes=2000000-2000000"];
    // The first answer is hashed on its way, those after it are not.
    for turn in 0..3 {
        let request =
            Request::get(path(Digest::of(&bytes))).header("host", "localhost").body(Full::default()).unwrap();
        let answer = within(kept.send_request(request)).await.unwrap();
        let whole = within(answer.into_body().collect()).await.unwrap().to_bytes();
        assert!(whole == bytes, "{turn}");
        for range in ranges {
            let part = get_with(&served, &bytes, &[("range", range)]).await;
            let range = part.header("content-range").trim_start_matches("bytes ").split('/').next().unwrap();
            let (first, last) = range.split_once('-').unwrap();
            let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
            assert!(part.status == 206 && part.body == bytes[first..=last], "{turn} {range}");
        }
    }
    let mut http2 = h2(served.addr).await;
    let uri = format!("http://{}{}", served.addr, path(Digest::of(&bytes)));
    let answer = within(http2.sender.send_request(Request::get(uri).body(Full::default()).unwrap())).await;
    let whole = within(answer.unwrap().into_body().collect()).await.unwrap().to_bytes();
    assert!(whole == bytes, "HTTP/2 has no part in this");
}

#[tokio::test]
async fn a_blob_that_is_written_to_after_it_was_found_right_is_not_served_whole() {
    let served = Served::start().await;
    let bytes = several_pieces();
    put(&served, &bytes).await;
    assert!(served.get(&path(Digest::of(&bytes))).await.body == bytes);
    let file = served.dir.files("blobs").pop().unwrap();
    let mut damaged = bytes.clone();
    damaged[500_000] ^= 1;
    tokio::fs::write(&file, &damaged).await.unwrap();
    let request =
        format!("GET {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path(Digest::of(&bytes)));
    let answer = served.raw_bytes(request.as_bytes(), false).await;
    assert!(answer.len() < bytes.len(), "{} bytes", answer.len());
    assert_eq!(served.get(&path(Digest::of(&bytes))).await.code(), Code::NoBlob);
}

#[tokio::test]
async fn a_damaged_blob_is_never_served_whole_and_is_counted() {
    let served = Served::start().await;
    let bytes = vec![7; 1_000_000];
    put(&served, &bytes).await;
    let file = served.dir.files("blobs").pop().unwrap();
    let mut damaged = bytes.clone();
    damaged[500_000] ^= 1;
    // In place and at once, as a disk would.
    tokio::fs::write(&file, &damaged).await.unwrap();
    let answer = served
        .raw(
            format!(
                "GET {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                path(Digest::of(&bytes))
            )
            .as_bytes(),
            false,
        )
        .await;
    let whole = answer.starts_with("HTTP/1.1 200") && answer.len() > bytes.len();
    assert!(!whole, "{} bytes", answer.len());
    assert_eq!(served.get(&path(Digest::of(&bytes))).await.code(), Code::NoBlob);
    assert_eq!(served.metric("pcmcache_damaged_blobs_total").await, 1);
    assert_eq!(put(&served, &bytes).await.status.as_u16() / 100, 2);
    assert_eq!(served.get(&path(Digest::of(&bytes))).await.body, bytes);
}
