//! TLS: who is let in, what is spoken inside, and that all which holds for a plain socket holds here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pcmcache_server::clock::{Clock as _, ManualClock};
use pcmcache_server::tls::{Files, Tls, TlsError};
use pcmcache_shared::Digest;
use pcmcache_shared::api::limits::GRACE;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::authority::{Authority, Signed};
use super::wire::{Scratch, Served, acquire, next_line, within};

const LOCALHOST: &[&str] = &["localhost", "127.0.0.1"];

/// A server under TLS, and who signed for it.
struct Secure {
    served: Served,
    authority: Authority,
}

impl Secure {
    async fn start() -> Self {
        Self::with(|_| {}, None).await
    }

    async fn with(adjust: impl FnOnce(&mut pcmcache_server::Config), clients: Option<&Authority>) -> Self {
        let authority = Authority::new("the team's");
        let signed = authority.sign(LOCALHOST);
        let papers = Scratch::new();
        let (cert, key) = signed.write_to(&papers.0);
        let client_ca = clients.map(|clients| {
            let path = papers.0.join("clients.pem");
            fs_err::write(&path, &clients.pem).unwrap();
            path
        });
        let served = Served::with(|config| {
            (config.tls_cert, config.tls_key, config.tls_client_ca) = (Some(cert), Some(key), client_ca);
            adjust(config);
        })
        .await;
        Self { served, authority }
    }

    async fn connect(&self, config: ClientConfig) -> TlsStream<TcpStream> {
        connect(self.served.addr, config).await.unwrap()
    }

    async fn h1(&self) -> http1::SendRequest<Full<Bytes>> {
        let stream = self.connect(self.authority.client(&["http/1.1"])).await;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    async fn h2(&self) -> http2::SendRequest<Full<Bytes>> {
        let stream = self.connect(self.authority.client(&["h2"])).await;
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// Waits for the claim over TLS, calls `vanish` on its holder, and tells how long the takeover took.
    async fn takeover(&self, claim: &str, vanish: impl FnOnce()) -> Duration {
        let mut sender = self.h1().await;
        let mut lines = within(sender.send_request(acquire(claim, "waiter"))).await.unwrap().into_body();
        assert_eq!(next_line(&mut lines).await.unwrap()["state"], "busy");
        let from = Instant::now();
        vanish();
        while next_line(&mut lines).await.unwrap()["state"] != "granted" {
            assert!(from.elapsed() < Duration::from_secs(10), "never taken over");
        }
        from.elapsed()
    }
}

pub(crate) async fn connect(addr: SocketAddr, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(addr).await?;
    let name = ServerName::try_from("localhost").unwrap();
    within(TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

fn healthz() -> Request<Full<Bytes>> {
    Request::get("https://localhost/healthz").header("host", "localhost").body(Full::default()).unwrap()
}

#[tokio::test]
async fn it_speaks_what_was_agreed_on_at_either_version() {
    let secure = Secure::start().await;
    for versions in [&[&TLS12][..], &[&TLS13]] {
        for (offered, agreed) in
            [(&["h2", "http/1.1"][..], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)]
        {
            let stream = secure.connect(secure.authority.client_with(offered, versions, None)).await;
            assert_eq!(stream.get_ref().1.alpn_protocol(), agreed.map(str::as_bytes));
            let io = TokioIo::new(stream);
            let answer = if agreed == Some("h2") {
                let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
                tokio::spawn(connection);
                within(sender.send_request(healthz())).await
            } else {
                let (mut sender, connection) = http1::handshake(io).await.unwrap();
                tokio::spawn(connection);
                within(sender.send_request(healthz())).await
            };
            assert_eq!(answer.unwrap().status(), StatusCode::OK, "{offered:?}");
        }
    }
    let other = secure.authority.client(&["imap"]);
    assert!(connect(secure.served.addr, other).await.is_err());
}

#[tokio::test]
async fn what_was_agreed_on_is_what_is_read() {
    let secure = Secure::start().await;
    for (agreed, said) in [
        ("h2", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("http/1.1", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ] {
        let mut stream = secure.connect(secure.authority.client(&[agreed])).await;
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = within(stream.read_to_end(&mut answer)).await;
        assert!(!String::from_utf8_lossy(&answer).contains(" 200 "), "{agreed}");
    }
}

#[tokio::test]
async fn the_end_is_told_so_that_nobody_can_cut_an_answer_short() {
    let secure = Secure::start().await;
    let mut stream = secure.connect(secure.authority.client(&["http/1.1"])).await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    // rustls fails this at an end of the socket without close_notify.
    within(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"), "{answer}");
}

#[tokio::test]
async fn an_answer_can_be_read_by_who_still_sends() {
    let secure = Secure::with(|config| config.max_blob = pcmcache_server::config::ByteSize(10), None).await;
    let mut stream = secure.connect(secure.authority.client(&["http/1.1"])).await;
    let path = format!("/v1/scopes/main/blobs/{}", Digest::of("x"));
    let head = format!("PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let _ = stream.write_all(&vec![b'x'; 1_000_000]).await;
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn plain_http_is_told_in_plain_http() {
    let secure = Secure::start().await;
    for request in ["GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "post"] {
        let answer = secure.served.raw(request.as_bytes(), false).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"), "{answer}");
    }
}

#[tokio::test]
async fn who_never_finishes_the_handshake_is_cut() {
    let secure = Secure::with(|config| config.limits.head = Duration::from_millis(400), None).await;
    // Nothing; the start of a handshake that never goes on.
    for start in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let mut stream = TcpStream::connect(secure.served.addr).await.unwrap();
        stream.write_all(start).await.unwrap();
        let from = Instant::now();
        let mut waste = Vec::new();
        let _ = within(stream.read_to_end(&mut waste)).await;
        let waited = from.elapsed();
        assert!(waited > Duration::from_millis(350) && waited < Duration::from_secs(5), "{waited:?}");
    }
    let mut sender = secure.h1().await;
    let metrics = Request::get("/metrics").header("host", "localhost").body(Full::default()).unwrap();
    let answer = within(sender.send_request(metrics)).await.unwrap();
    let text = within(answer.into_body().collect()).await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&text).contains("pcmcache_connections_cut_total 3\n"), "{text:?}");
}

#[tokio::test]
async fn what_is_no_handshake_is_cut_without_an_answer() {
    let secure = Secure::start().await;
    let answer = secure.served.raw(b"\x16\x03\x01\x00\x05hello", false).await;
    assert!(!answer.contains("HTTP"), "{answer:?}");
}

#[tokio::test]
async fn a_holder_that_vanishes_is_noticed_at_once() {
    let soon = GRACE + Duration::from_millis(700);
    let secure = Secure::start().await;

    let claim = Digest::of("1").to_string();
    let mut holder = secure.connect(secure.authority.client(&["http/1.1"])).await;
    let body = serde_json::json!({ "claim": claim, "request_id": "holder", "hold": true }).to_string();
    let head =
        "POST /v1/scopes/main/acquire HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    holder.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    while !text.contains("granted") {
        let mut buffer = [0; 4096];
        let count = within(holder.read(&mut buffer)).await.unwrap();
        text += &String::from_utf8_lossy(&buffer[..count]);
    }
    // No close_notify: the process is gone, and its kernel ends the socket.
    let took = secure.takeover(&claim, || drop(holder)).await;
    assert!(took < soon, "{took:?}");

    let claim = Digest::of("2").to_string();
    let mut sender = secure.h2().await;
    let mut lines = within(sender.send_request(acquire(&claim, "holder"))).await.unwrap().into_body();
    assert_eq!(next_line(&mut lines).await.unwrap()["state"], "granted");
    let took = secure.takeover(&claim, || drop((sender, lines))).await;
    assert!(took < soon, "{took:?}");
}

#[tokio::test]
async fn only_clients_of_the_authority_are_let_in() {
    let (ours, theirs) = (Authority::new("clients"), Authority::new("others"));
    let secure = Secure::with(|_| {}, Some(&ours)).await;
    let names = &["runner-7"];
    for (shows, versions, let_in) in [
        (Some(ours.sign(names)), &[&TLS13][..], true),
        (Some(ours.sign(names)), &[&TLS12], true),
        (Some(theirs.sign(names)), &[&TLS13], false),
        (Some(theirs.sign(names)), &[&TLS12], false),
        (None, &[&TLS13], false),
        (None, &[&TLS12], false),
    ] {
        let config = secure.authority.client_with(&["http/1.1"], versions, shows.as_ref());
        let told = async {
            // At TLS 1.3 a client is done before the server looked at its certificate.
            let mut stream = connect(secure.served.addr, config).await?;
            stream
                .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                .await?;
            let mut answer = String::new();
            within(stream.read_to_string(&mut answer)).await.map(|_| answer)
        };
        match told.await {
            Ok(answer) => assert!(let_in && answer.starts_with("HTTP/1.1 200 "), "{answer}"),
            // The reason comes through, and no mere reset.
            Err(error) => assert!(!let_in && error.to_string().contains("alert"), "{error}"),
        }
    }
}

/// Seconds from 1970 to the beginning of 2031.
const YEAR_2031: u64 = 1_924_992_000;

#[tokio::test]
async fn when_the_certificate_ends_is_known_of_the_one_that_is_shown() {
    let (dir, authority) = (Scratch::new(), Authority::new("authority"));
    let (cert, key) = authority.sign_until(LOCALHOST, 2031).write_to(&dir.0);
    let tls = Tls::open(Files { cert, key, client_ca: None }, Arc::new(ManualClock::default())).unwrap();
    assert_eq!(tls.expires_s(), Some(YEAR_2031));
    authority.sign_until(LOCALHOST, 2032).write_to(&dir.0);
    let following = tokio::spawn(Arc::clone(&tls).follow());
    tls.look_now();
    within(async {
        while tls.expires_s() != Some(YEAR_2031 + 365 * 86_400) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    following.abort();
}

/// What the present certificate is, as a client sees it.
async fn shown(tls: &Tls, authority: &Authority) -> CertificateDer<'static> {
    let (ours, theirs): (DuplexStream, DuplexStream) = tokio::io::duplex(64 * 1024);
    let connector = TlsConnector::from(Arc::new(authority.client(&["h2"])));
    let name = ServerName::try_from("localhost").unwrap();
    let (accepted, connected) = tokio::join!(tls.acceptor().accept(ours), connector.connect(name, theirs));
    accepted.unwrap();
    connected.unwrap().get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

/// Moves the clock by one look, and waits until it was had.
async fn look(clock: &ManualClock) {
    clock.advance(Duration::from_secs(5));
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn a_new_certificate_is_taken_up_and_a_bad_one_is_not() {
    let authority = Authority::new("the team's");
    let (first, second) = (authority.sign(LOCALHOST), authority.sign(LOCALHOST));
    let dir = Scratch::new();
    let (cert, key) = first.write_to(&dir.0);
    let clock = Arc::new(ManualClock::default());
    let files = Files { cert: cert.clone(), key: key.clone(), client_ca: None };
    let tls = Tls::open(files, Arc::clone(&clock) as _).unwrap();
    let following = tokio::spawn(Arc::clone(&tls).follow());
    tokio::task::yield_now().await;
    assert_eq!(shown(&tls, &authority).await, first.der());

    // The certificate is there and its key is not yet: nothing happens, however often it is looked at.
    fs_err::write(&cert, &second.cert).unwrap();
    for _ in 0..3 {
        look(&clock).await;
    }
    assert_eq!(shown(&tls, &authority).await, first.der());

    fs_err::write(&key, &second.key).unwrap();
    look(&clock).await;
    assert_eq!(shown(&tls, &authority).await, first.der(), "it might still be written");
    look(&clock).await;
    assert_eq!(shown(&tls, &authority).await, second.der());

    fs_err::remove_file(&cert).unwrap();
    look(&clock).await;
    look(&clock).await;
    assert_eq!(shown(&tls, &authority).await, second.der());

    let third = authority.sign(LOCALHOST);
    third.write_to(&dir.0);
    tls.look_now();
    within(async {
        while shown(&tls, &authority).await != third.der() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    following.abort();
    assert_eq!(clock.now().since(pcmcache_server::clock::Moment::default()), Duration::from_secs(35));
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let authority = Authority::new("the team's");
    let (one, other) = (authority.sign(LOCALHOST), authority.sign(LOCALHOST));
    let dir = Scratch::new();
    let file = |name: &str, text: &str| {
        fs_err::write(dir.0.join(name), text).unwrap();
        dir.0.join(name)
    };
    let cert = file("cert", &one.cert);
    let key = file("key", &one.key);
    let encrypted = one.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    for (cert, key, client_ca, says) in [
        (dir.0.join("gone"), key.clone(), None, "gone"),
        (cert.clone(), dir.0.join("gone"), None, "gone"),
        (key.clone(), key.clone(), None, "key: holds no certificate"),
        (cert.clone(), cert.clone(), None, "cert: holds no key"),
        (
            cert.clone(),
            file("locked", &encrypted),
            None,
            "locked: holds no key in PEM form, or only an encrypted",
        ),
        (file("half", one.cert.split_at(200).0), key.clone(), None, "half: a PEM section has no end"),
        (file("long", &"x".repeat(2 << 20)), key.clone(), None, "long: is larger than 1048576 bytes"),
        (cert.clone(), file("other", &other.key), None, "do not go together"),
        (cert.clone(), key.clone(), Some(key.clone()), "key: holds no certificate"),
    ] {
        let error = Files { cert, key, client_ca }.load().unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        let named =
            matches!(&error, TlsError::Unreadable(_)) || error.to_string().contains(dir.0.to_str().unwrap());
        assert!(named, "{error}");
        assert!(!error.to_string().contains("MII"), "{error}");
    }
}

#[test]
fn a_pair_of_two_servers_is_told_with_both_names() {
    let authority = Authority::new("the team's");
    let Signed { cert, .. } = authority.sign(LOCALHOST);
    let Signed { key, .. } = authority.sign(LOCALHOST);
    let dir = Scratch::new();
    let (cert, key) = Signed { cert, key }.write_to(&dir.0);
    let error =
        Files { cert: cert.clone(), key: key.clone(), client_ca: None }.load().unwrap_err().to_string();
    assert!(error.contains(cert.to_str().unwrap()) && error.contains(key.to_str().unwrap()), "{error}");
}
