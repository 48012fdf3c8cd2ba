//! How it stops.

use std::time::{Duration, Instant};

use pcmcache_shared::Digest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::wire::{Served, acquire, h1, h2, next_line, within};

async fn begin_upload(served: &Served, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(served.addr).await.unwrap();
    let request = format!(
        "PUT /v1/scopes/main/blobs/{} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        Digest::of(bytes),
        bytes.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    within(stream.read_exact(&mut go_on)).await.unwrap();
    stream
}

#[tokio::test]
async fn holds_and_waiters_end_at_once_and_uploads_finish() {
    let mut served = Served::start().await;
    let claim = Digest::of("claim").to_string();
    let (mut first, mut second) = (h1(served.addr).await, h2(served.addr).await.sender);
    let mut held = within(first.send_request(acquire(&claim, "first"))).await.unwrap().into_body();
    assert_eq!(next_line(&mut held).await.unwrap()["state"], "granted");
    let mut waiting = within(second.send_request(acquire(&claim, "second"))).await.unwrap().into_body();
    assert_eq!(next_line(&mut waiting).await.unwrap()["state"], "busy");
    let mut upload = begin_upload(&served, "hello").await;

    served.tell_to_stop();
    let from = Instant::now();
    assert_eq!(next_line(&mut held).await, None);
    assert_eq!(next_line(&mut waiting).await, None);
    assert!(from.elapsed() < Duration::from_secs(1), "{:?}", from.elapsed());
    upload.write_all(b"hello").await.unwrap();
    let mut answer = String::new();
    within(upload.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    served.ended().await;
    assert!(from.elapsed() < Duration::from_secs(5), "{:?}", from.elapsed());
    assert!(TcpStream::connect(served.addr).await.is_err());
    assert_eq!(served.dir.files("blobs").len(), 1);
}

#[tokio::test]
async fn what_does_not_end_is_cut_when_its_time_is_over() {
    let mut served = Served::with(|config| config.limits.drain = Duration::from_millis(500)).await;
    let mut upload = begin_upload(&served, "hello").await;
    served.tell_to_stop();
    let from = Instant::now();
    served.ended().await;
    let took = from.elapsed();
    assert!(took > Duration::from_millis(450) && took < Duration::from_secs(5), "{took:?}");
    let mut answer = Vec::new();
    let _ = within(upload.read_to_end(&mut answer)).await;
    assert!(answer.is_empty());
    served.stores_nothing().await;
}

#[tokio::test]
async fn idle_connections_do_not_keep_it() {
    let mut served = Served::start().await;
    let (_silent, mut idle) =
        (TcpStream::connect(served.addr).await.unwrap(), TcpStream::connect(served.addr).await.unwrap());
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut status = [0; 12];
    within(idle.read_exact(&mut status)).await.unwrap();
    served.tell_to_stop();
    let from = Instant::now();
    served.ended().await;
    assert!(from.elapsed() < Duration::from_secs(4), "{:?}", from.elapsed());
}
