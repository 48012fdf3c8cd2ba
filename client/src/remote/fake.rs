//! A server for tests that does what a test says, however wrong: one request a connection, a thread each.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use pcmcache_shared::api::acquire::{AcquireLine, AcquireMode, AcquireRequest};
use pcmcache_shared::api::problem::Problem;
use pcmcache_shared::{Claim, Fence, Scope, Secret};
use serde::Serialize;

use super::pace::Pace;
use super::server::Deadlines;
use super::{Remote, RemoteError, Settings};
use crate::settings::Papers;

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// `METHOD /path`
    pub line: String,
    /// The header lines, names in lower case.
    pub head: String,
    pub body: Vec<u8>,
}

impl Request {
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// The other end of a connection.
pub(super) struct Peer(TcpStream);

/// Writing to a client that went away is no failure of a test.
impl Peer {
    pub(super) fn raw(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.0.write_all(bytes.as_ref()).and_then(|()| self.0.flush()).is_ok()
    }

    pub(super) fn head(&mut self, status: u16, headers: &str) {
        self.raw(format!("HTTP/1.1 {status} Status\r\nconnection: close\r\n{headers}\r\n"));
    }

    pub(super) fn body(&mut self, status: u16, body: impl AsRef<[u8]>) {
        self.head(status, &format!("content-length: {}\r\n", body.as_ref().len()));
        self.raw(body);
    }

    pub(super) fn json(&mut self, status: u16, body: &impl Serialize) {
        self.body(status, serde_json::to_vec(body).unwrap());
    }

    pub(super) fn problem(&mut self, problem: &Problem) {
        self.json(problem.status, problem);
    }

    /// Starts a body of unknown length.
    pub(super) fn chunked(&mut self, status: u16) {
        self.head(status, "transfer-encoding: chunked\r\n");
    }

    pub(super) fn chunk(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let bytes = bytes.as_ref();
        self.raw([format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat())
    }

    pub(super) fn line(&mut self, line: &AcquireLine) -> bool {
        self.chunk(serde_json::to_string(line).unwrap() + "\n")
    }

    /// Ends a chunked body.
    pub(super) fn end(&mut self) {
        self.raw("0\r\n\r\n");
    }

    /// Says nothing until the client goes away or the server is killed.
    pub(super) fn hang(&mut self) {
        while self.0.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
    }
}

/// A running server.
pub(super) struct Fake {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
    seen: Mutex<Vec<Request>>,
}

impl Fake {
    pub(super) fn start(handler: impl Fn(&Request, &mut Peer) + Send + Sync + 'static) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), handler)
    }

    /// Starts one where another was killed.
    pub(super) fn start_at(
        address: SocketAddr,
        handler: impl Fn(&Request, &mut Peer) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (shared, handler) = (Arc::new(Shared::default()), Arc::new(handler));
        let accepted = Arc::clone(&shared);
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if accepted.stop.load(Ordering::SeqCst) {
                    return;
                }
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                accepted.open.lock().unwrap().push(stream.try_clone().unwrap());
                let (shared, handler) = (Arc::clone(&accepted), Arc::clone(&handler));
                std::thread::spawn(move || {
                    let Some((request, mut peer)) = read_request(stream) else { return };
                    shared.seen.lock().unwrap().push(request.clone());
                    handler(&request, &mut peer);
                    let _ = peer.0.shutdown(Shutdown::Both);
                });
            }
        });
        Self { address, shared, accepting: Some(accepting) }
    }

    /// Ends the server and all its connections at once, as a SIGKILL does; where it listened.
    pub(super) fn kill(mut self) -> SocketAddr {
        self.shut();
        self.address
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    fn shut(&mut self) {
        let Some(accepting) = self.accepting.take() else { return };
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        accepting.join().unwrap();
        for stream in self.shared.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// The requests so far whose first line starts like this.
    pub(super) fn seen(&self, start: &str) -> Vec<Request> {
        let seen = self.shared.seen.lock().unwrap();
        seen.iter().filter(|request| request.line.starts_with(start)).cloned().collect()
    }

    /// A client of it, with short deadlines.
    pub(super) fn remote(&self) -> Remote {
        self.remote_with(short())
    }

    pub(super) fn remote_with(&self, deadlines: Deadlines) -> Remote {
        Remote::with_deadlines(settings(self.address), deadlines, None).unwrap()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.shut();
    }
}

fn read_request(mut stream: TcpStream) -> Option<(Request, Peer)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&chunk[..count]);
    };
    let mut body = bytes.split_off(end + 4);
    let text = String::from_utf8(bytes).unwrap();
    let (line, head) = text.split_once("\r\n").unwrap();
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    let left = length.unwrap_or(0_usize).saturating_sub(body.len());
    let mut rest = vec![0; left];
    stream.read_exact(&mut rest).ok()?;
    body.extend_from_slice(&rest);
    let line = line.trim_end_matches(" HTTP/1.1").to_owned();
    Some((Request { line, head, body }, Peer(stream)))
}

/// Deadlines that a test can wait for.
pub(super) fn short() -> Deadlines {
    Deadlines {
        first: Duration::from_millis(600),
        idle: Duration::from_millis(400),
        answer: Duration::from_millis(1500),
        bytes_per_second: 1024 * 1024,
        retry_every: Duration::from_millis(20),
        restart: Duration::from_secs(2),
        busy_every: Duration::from_millis(200),
        renew_every: Duration::from_millis(100),
        most: 1024 * 1024,
    }
}

pub(super) fn settings(address: SocketAddr) -> Settings {
    Settings {
        url: format!("http://{address}"),
        papers: Papers::default(),
        token: None,
        token_file: None,
        scope: Scope::default(),
        timeout: Duration::from_secs(1),
        pace: Pace::never(),
        holder: "test".to_owned(),
    }
}

pub(super) fn request(wait_ms: u64) -> AcquireRequest {
    AcquireRequest {
        claim: Claim::of("claim"),
        unit: None,
        known: Vec::new(),
        request_id: "request-1".to_owned(),
        holder: String::new(),
        subject: String::new(),
        mode: AcquireMode::Build,
        wait_ms,
        hold: true,
    }
}

pub(super) fn busy() -> AcquireLine {
    AcquireLine::Busy { expected_ms: None, holder: "someone".to_owned() }
}

pub(super) fn granted(ttl_ms: u64) -> AcquireLine {
    AcquireLine::Granted {
        claim: Claim::of("claim"),
        fence: Fence(7),
        secret: Secret::from_random([7; 16]),
        ttl_ms,
        expected_ms: None,
    }
}

pub(super) fn never() -> bool {
    false
}

/// Waits until it is so; 20 s are as good as never.
pub(super) fn eventually(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..2000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("never: {what}");
}

pub(super) fn is_silent(error: &RemoteError) -> bool {
    error.is_silence() && error.trips_breaker()
}
