//! Thousands of slow, idle and stuck connections beside honest work, in a process of their own: its memory is looked at.
//!
//! What they cost in time is a figure and no assertion:
//! `cargo test --release -p pcmcache-server --test crowd -- --ignored --nocapture`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, also in its helpers, and measures real time"
)]

#[path = "http/authority.rs"]
#[expect(dead_code, reason = "the other tests use all of it")]
mod authority;
#[path = "http/wire.rs"]
#[expect(dead_code, reason = "the other tests use all of it")]
mod wire;

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use authority::Authority;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use pcmcache_server::connection::Floor;
use pcmcache_shared::Digest;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use wire::{Scratch, Served, acquire, h1, next_line, within};

/// Rude connections of all kinds together.
const CROWD: usize = 2000;
/// What they may cost the process, ours of the clients included.
const MOST_MEMORY: u64 = 144 << 20;
/// The length of a head that must not be kept.
const FAT: usize = 400 * 1024;

/// How a client can be rude.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rude {
    /// It says nothing.
    Silent,
    /// It says the half of a head.
    HalfHead,
    /// It says a lot of a head that has no end.
    FatHead,
    /// It says a head, a byte at a time.
    DribblesHead,
    /// It says a body, a byte at a time.
    DribblesBody,
    /// It asks for much, and reads nothing of it.
    NeverReads,
    /// It asked once, and stays.
    Idles,
    /// It begins a TLS handshake.
    HalfHandshake,
}

const KINDS: [Rude; 8] = [
    Rude::Silent,
    Rude::HalfHead,
    Rude::FatHead,
    Rude::DribblesHead,
    Rude::DribblesBody,
    Rude::NeverReads,
    Rude::Idles,
    Rude::HalfHandshake,
];

/// Two servers, since a plain one has no handshakes, with something to ask for.
struct Stage {
    plain: Served,
    tls: Served,
    large: Digest,
    _papers: Scratch,
}

impl Stage {
    async fn set(adjust: fn(&mut pcmcache_server::Config)) -> Self {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
        let papers = Scratch::new();
        let (cert, key) = Authority::new("the team's").sign(&["localhost"]).write_to(&papers.0);
        let plain = Served::with(adjust).await;
        let tls = Served::with(|config| {
            (config.tls_cert, config.tls_key) = (Some(cert), Some(key));
            adjust(config);
        })
        .await;
        let bytes = vec![1; 8 << 20];
        let large = Digest::of(&bytes);
        let put = Request::put(format!("/v1/scopes/main/blobs/{large}")).body(bytes).unwrap();
        assert_eq!(plain.send(put).await.status, 201);
        Self { plain, tls, large, _papers: papers }
    }

    /// Lets the crowd in, each kind as many.
    async fn crowd(&self) -> JoinSet<()> {
        let mut crowd = JoinSet::new();
        for number in 0..CROWD {
            let kind = KINDS[number % KINDS.len()];
            let addr = if kind == Rude::HalfHandshake { self.tls.addr } else { self.plain.addr };
            let stream = arrive(kind, addr, self.large).await;
            crowd.spawn(stay(kind, stream));
        }
        let plain = CROWD - CROWD / KINDS.len();
        within(async {
            while self.plain.metric("pcmcache_connections_accepted_total").await < plain as u64 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        crowd
    }
}

async fn arrive(kind: Rude, addr: SocketAddr, large: Digest) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    if kind == Rude::NeverReads {
        socket.set_recv_buffer_size(4096).unwrap();
    }
    let mut stream = socket.connect(addr).await.unwrap();
    let blobs = "/v1/scopes/main/blobs";
    let start = match kind {
        Rude::Silent => String::new(),
        Rude::HalfHead | Rude::DribblesHead => "GET / HTTP/1.1\r\nX: ".to_owned(),
        Rude::FatHead => format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(FAT)),
        Rude::DribblesBody => {
            format!(
                "PUT {blobs}/{} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n",
                Digest::of("x")
            )
        }
        Rude::NeverReads => format!("GET {blobs}/{large} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        Rude::Idles => "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        Rude::HalfHandshake => "\x16\x03\x01\x02\x00\x01\x00\x01".to_owned(),
    };
    // A fat head is refused before its end.
    let wrote = stream.write_all(start.as_bytes()).await;
    assert!(wrote.is_ok() || kind == Rude::FatHead, "{kind:?}: {wrote:?}");
    stream
}

/// Goes on like that until the server has enough.
async fn stay(kind: Rude, mut stream: TcpStream) {
    let dribbles = matches!(kind, Rude::DribblesHead | Rude::DribblesBody);
    let mut buffer = [0; 1024];
    loop {
        let heard = async {
            if kind == Rude::NeverReads {
                // The server's end cannot come through behind what is not read; its counts tell.
                return std::future::pending().await;
            }
            stream.read(&mut buffer).await.unwrap_or_default()
        };
        match tokio::time::timeout(Duration::from_millis(200), heard).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(_) if dribbles && stream.write_all(b"x").await.is_err() => return,
            Err(_) => {}
        }
    }
}

/// The memory that this process has, in bytes.
fn memory() -> u64 {
    let status = fs_err::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Asks for something small, and for the right to build something, over a connection of its own; how long each took.
async fn honest(addr: SocketAddr, who: usize, requests: usize) -> Vec<Duration> {
    let mut sender = h1(addr).await;
    let mut took = Vec::new();
    for number in 0..requests {
        let from = Instant::now();
        if number % 2 == 0 {
            let request = Request::get("/openapi.json")
                .header("host", "localhost")
                .body(Full::<Bytes>::default())
                .unwrap();
            let answer = within(sender.send_request(request)).await.unwrap();
            assert_eq!(answer.status(), 200);
            within(answer.into_body().collect()).await.unwrap();
        } else {
            let claim = Digest::of(format!("{who} {number} {from:?}")).to_string();
            let mut sender = h1(addr).await;
            let mut held = within(sender.send_request(acquire(&claim, &claim[..16]))).await.unwrap();
            assert_eq!(next_line(held.body_mut()).await.unwrap()["state"], "granted");
        }
        took.push(from.elapsed());
    }
    took
}

/// Four honest clients at once; all their times, the shortest first.
async fn honest_load(addr: SocketAddr, requests: usize) -> Vec<Duration> {
    let clients: Vec<_> = (0..4).map(|who| tokio::spawn(honest(addr, who, requests))).collect();
    let mut took = Vec::new();
    for client in clients {
        took.extend(client.await.unwrap());
    }
    took.sort_unstable();
    took
}

fn short(config: &mut pcmcache_server::Config) {
    config.limits.head = Duration::from_secs(3);
    config.limits.idle = Duration::from_secs(3);
    config.limits.upload = Floor { window: Duration::from_secs(2), least: 1000 };
    config.limits.stall = Duration::from_secs(3);
    config.limits.linger = Duration::from_millis(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_the_rude_costs_little_memory_and_is_gone_after_its_timeouts() {
    let stage = Stage::set(short).await;
    honest_load(stage.plain.addr, 20).await;
    let before = memory();
    let mut crowd = stage.crowd().await;
    let honest = tokio::spawn(honest_load(stage.plain.addr, 50));
    let mut most = 0;
    // Until nobody is there but who asks.
    within(async {
        while stage.plain.metric("pcmcache_connections").await > 5 || crowd.len() > CROWD / KINDS.len() {
            most = most.max(memory());
            while crowd.try_join_next().is_some() {}
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(honest.await.unwrap().len(), 200);
    let cost = most.saturating_sub(before);
    println!("{CROWD} rude connections: {} KiB, {} KiB each", cost >> 10, (cost >> 10) / CROWD as u64);
    assert!(cost < MOST_MEMORY, "{} MiB", cost >> 20);
    assert!(stage.plain.dir.files("stages").is_empty());
    crowd.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures and asserts none"]
async fn what_a_crowd_costs_the_honest() {
    let stage = Stage::set(|_| {}).await;
    honest_load(stage.plain.addr, 200).await;
    let p = |took: &[Duration], percent: usize| took[took.len() * percent / 100];
    let mut out = std::io::stdout();
    for round in 1..=3 {
        let alone = honest_load(stage.plain.addr, 500).await;
        let crowd = stage.crowd().await;
        let beside = honest_load(stage.plain.addr, 500).await;
        writeln!(
            out,
            "{round}: alone p50 {:?} p99 {:?}; beside {} rude p50 {:?} p99 {:?}: p99 x {:.2}; memory {} MiB",
            p(&alone, 50),
            p(&alone, 99),
            crowd.len(),
            p(&beside, 50),
            p(&beside, 99),
            p(&beside, 99).as_secs_f64() / p(&alone, 99).as_secs_f64(),
            memory() >> 20,
        )
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures and asserts none"]
async fn what_ten_thousand_waiters_cost() {
    let stage = Stage::set(|config| config.max_connections_per_address = 0).await;
    // Each has two descriptors here, its own and the server's.
    let most = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |most| most as usize);
    let waiters = 10_000.min(most.saturating_sub(500) / 2);
    let claim = Digest::of("claim").to_string();
    let mut holder = h1(stage.plain.addr).await;
    let mut held = within(holder.send_request(acquire(&claim, "holder"))).await.unwrap();
    assert_eq!(next_line(held.body_mut()).await.unwrap()["state"], "granted");
    let before = memory();
    let mut waiting = Vec::new();
    for number in 0..waiters {
        let body =
            serde_json::json!({ "claim": claim, "request_id": number.to_string(), "wait_ms": 600_000 });
        let body = body.to_string();
        let head =
            "POST /v1/scopes/main/acquire HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
        let mut stream = TcpStream::connect(stage.plain.addr).await.unwrap();
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await.unwrap();
        let count = within(stream.read(&mut [0; 1024])).await.unwrap();
        assert!(count > 0);
        waiting.push(stream);
    }
    let cost = memory().saturating_sub(before);
    let mut out = std::io::stdout();
    writeln!(out, "{waiters} waiters: {} MiB, {} KiB each", cost >> 20, (cost >> 10) / waiters as u64)
        .unwrap();
}
