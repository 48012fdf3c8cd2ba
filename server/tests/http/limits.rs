//! Who is cut, and who is not.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use pcmcache_server::Config;
use pcmcache_server::config::ByteSize;
use pcmcache_server::connection::Floor;
use pcmcache_shared::Digest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::wire::{Served, acquire, h1, h2, next_line, within};

/// Limits short enough to wait for.
fn short(config: &mut Config) {
    config.limits.head = Duration::from_millis(400);
    config.limits.idle = Duration::from_millis(800);
    config.limits.upload = Floor { window: Duration::from_millis(400), least: 1000 };
    config.limits.stall = Duration::from_millis(800);
    config.limits.linger = Duration::from_millis(100);
}

/// How long until the server closes; what it says first is thrown away.
async fn until_closed(stream: &mut TcpStream) -> Duration {
    let from = Instant::now();
    let mut waste = Vec::new();
    let _ = within(stream.read_to_end(&mut waste)).await;
    from.elapsed()
}

async fn connect(served: &Served) -> TcpStream {
    TcpStream::connect(served.addr).await.unwrap()
}

#[tokio::test]
async fn who_says_nothing_is_cut() {
    let served = Served::with(short).await;
    let mut stream = connect(&served).await;
    let waited = until_closed(&mut stream).await;
    assert!(waited > Duration::from_millis(350) && waited < Duration::from_secs(5), "{waited:?}");
    assert!(served.metric("pcmcache_connections_cut_total").await >= 1);
}

/// Writes `start` and then a byte each 50 ms; how long until the server would have no more of it.
async fn dribble(served: &Served, start: &str) -> Duration {
    let mut stream = connect(served).await;
    stream.write_all(start.as_bytes()).await.unwrap();
    let from = Instant::now();
    let mut byte = [0];
    while from.elapsed() < Duration::from_secs(10) {
        let closed = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut byte)).await;
        if closed.is_ok() || stream.write_all(b"P").await.is_err() {
            return from.elapsed();
        }
    }
    panic!("never cut");
}

#[tokio::test]
async fn who_dribbles_a_head_is_cut_at_either_protocol() {
    let served = Served::with(short).await;
    for start in ["GET / HTTP/1.1\r\nX: ", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let waited = dribble(&served, start).await;
        assert!(waited < Duration::from_secs(3), "{start}: {waited:?}");
    }
}

#[tokio::test]
async fn who_idles_between_requests_is_let_go_and_who_dribbles_the_next_is_cut_sooner() {
    let served = Served::with(short).await;
    let mut idle = connect(&served).await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let waited = until_closed(&mut idle).await;
    assert!(waited > Duration::from_millis(700) && waited < Duration::from_secs(5), "{waited:?}");
    let waited = dribble(&served, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HT").await;
    assert!(waited < Duration::from_secs(5), "{waited:?}");
}

#[tokio::test]
async fn an_idle_http2_connection_is_let_go() {
    let served = Served::with(short).await;
    let mut client = h2(served.addr).await;
    let request = Request::get("http://localhost/healthz").body(Full::<Bytes>::default()).unwrap();
    assert_eq!(within(client.sender.send_request(request)).await.unwrap().status(), 200);
    within(client.task).await.unwrap();
}

#[tokio::test]
async fn who_dribbles_an_upload_gets_408_and_leaves_nothing() {
    let served = Served::with(short).await;
    let head = format!(
        "PUT /v1/scopes/main/blobs/{} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n",
        Digest::of("x")
    );
    let mut stream = connect(&served).await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let writing = tokio::spawn(async move {
        for _ in 0..200 {
            if writer.write_all(b"P").await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    });
    let mut answer = Vec::new();
    let _ = within(reader.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("request_timeout"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    writing.abort();
    served.stores_nothing().await;
}

#[tokio::test]
async fn an_upload_without_room_gets_507_before_it_sends_a_byte() {
    let served = Served::with(|config| {
        config.max_size = Some(ByteSize(1000));
        config.quota = vec!["main=500".parse().unwrap()];
    })
    .await;
    let body = vec![b'x'; 400];
    let request = Request::put(format!("/v1/scopes/main/blobs/{}", Digest::of(&body))).body(body).unwrap();
    assert_eq!(served.send(request).await.status, 201);
    let head = format!(
        "PUT /v1/scopes/main/blobs/{} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 101\r\nExpect: 100-continue\r\n\r\n",
        Digest::of("other")
    );
    let answer = served.raw(head.as_bytes(), false).await;
    assert!(answer.starts_with("HTTP/1.1 507 ") && answer.contains("store_full"), "{answer}");
    assert!(answer.contains("the scope 'main' is at its quota"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(served.metric("pcmcache_store_full_total").await, 1);
}

#[tokio::test]
async fn an_upload_at_its_pace_goes_through_however_long_it_takes() {
    let served = Served::with(short).await;
    let body = vec![b'x'; 6000];
    let head = format!(
        "PUT /v1/scopes/main/blobs/{} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 6000\r\n\r\n",
        Digest::of(&body)
    );
    let mut stream = connect(&served).await;
    stream.write_all(head.as_bytes()).await.unwrap();
    for piece in body.chunks(600) {
        tokio::time::sleep(Duration::from_millis(120)).await;
        stream.write_all(piece).await.unwrap();
    }
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
}

/// A blob that fits into no socket's buffers.
async fn put_large(served: &Served) -> Digest {
    let bytes = vec![1; 32 << 20];
    let digest = Digest::of(&bytes);
    let request = Request::put(format!("/v1/scopes/main/blobs/{digest}")).body(bytes).unwrap();
    assert_eq!(served.send(request).await.status, 201);
    digest
}

#[tokio::test]
async fn who_does_not_read_the_answer_is_cut() {
    let served = Served::with(short).await;
    let digest = put_large(&served).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(served.addr).await.unwrap();
    let request = format!("GET /v1/scopes/main/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let from = Instant::now();
    while served.metric("pcmcache_connections_cut_total").await == 0 {
        assert!(from.elapsed() < Duration::from_secs(10), "never cut");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut came = Vec::new();
    let _ = within(stream.read_to_end(&mut came)).await;
    assert!(came.len() < 32 << 20, "{} bytes", came.len());
}

#[tokio::test]
async fn who_opens_no_window_over_http2_is_cut() {
    let served = Served::with(short).await;
    let digest = put_large(&served).await;
    let mut client = h2(served.addr).await;
    let uri = format!("http://localhost/v1/scopes/main/blobs/{digest}");
    let request = Request::get(uri).body(Full::<Bytes>::default()).unwrap();
    let response = within(client.sender.send_request(request)).await.unwrap();
    // The body is not read, so its window stays shut, while pings are answered.
    within(client.task).await.unwrap();
    assert!(response.into_body().collect().await.is_err());
}

#[tokio::test]
async fn a_hold_and_a_waiter_outlive_every_limit() {
    let served = Served::with(short).await;
    let claim = Digest::of("claim").to_string();
    let (mut first, mut second) = (h1(served.addr).await, h2(served.addr).await.sender);
    let mut held = within(first.send_request(acquire(&claim, "first"))).await.unwrap().into_body();
    assert_eq!(next_line(&mut held).await.unwrap()["state"], "granted");
    let mut waiting = within(second.send_request(acquire(&claim, "second"))).await.unwrap().into_body();
    assert_eq!(next_line(&mut waiting).await.unwrap()["state"], "busy");
    // Twice as long as any limit: neither stream may end.
    let end = tokio::time::timeout(Duration::from_millis(1600), held.frame()).await;
    assert!(end.is_err(), "{end:?}");
    let line = tokio::time::timeout(Duration::from_millis(100), waiting.frame()).await;
    assert!(!matches!(line, Ok(None | Some(Err(_)))), "{line:?}");
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once_and_counted() {
    let served = Served::with(|config| config.max_connections = 2).await;
    let request =
        || Request::get("/healthz").header("host", "localhost").body(Full::<Bytes>::default()).unwrap();
    let (mut a, mut b) = (h1(served.addr).await, h1(served.addr).await);
    for sender in [&mut a, &mut b] {
        let response = within(sender.send_request(request())).await.unwrap();
        within(response.into_body().collect()).await.unwrap();
    }
    let mut third = connect(&served).await;
    assert!(until_closed(&mut third).await < Duration::from_secs(2));
    drop(a);
    let from = Instant::now();
    // The slot is free as soon as the server saw the end of the first.
    let text = loop {
        assert!(from.elapsed() < Duration::from_secs(10), "no slot became free");
        let mut sender = h1(served.addr).await;
        let request =
            Request::get("/metrics").header("host", "localhost").body(Full::<Bytes>::default()).unwrap();
        if let Ok(response) = within(sender.send_request(request)).await {
            break within(response.into_body().collect()).await.unwrap().to_bytes();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let text = String::from_utf8(text.to_vec()).unwrap();
    let refused = text.lines().find_map(|line| line.strip_prefix("pcmcache_connections_refused_total "));
    assert!(refused.unwrap().parse::<u64>().unwrap() >= 1, "{text}");
}

#[tokio::test]
async fn one_address_cannot_have_all_connections() {
    let served = Served::with(|config| config.max_connections_per_address = 2).await;
    let answered = async |from: &str| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        let mut stream = socket.connect(served.addr).await.unwrap();
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let answer = within(stream.read(&mut [0; 100])).await;
        answer.is_ok_and(|count| count > 0).then_some(stream)
    };
    let first = [answered("127.0.0.2").await, answered("127.0.0.2").await];
    assert!(first.iter().all(Option::is_some));
    assert!(answered("127.0.0.2").await.is_none());
    assert!(answered("127.0.0.3").await.is_some());
    drop(first);
    within(async {
        while answered("127.0.0.2").await.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
