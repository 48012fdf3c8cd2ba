//! A server in this process, and clients that can be as rude as a test needs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pcmcache_server::clock::SystemClock;
use pcmcache_server::embedded::Embedded;
use pcmcache_server::{Config, Server};
use pcmcache_shared::api::problem::{Code, Problem};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// No test waits longer than this for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A directory of one test's own, removed when dropped.
pub(crate) struct Scratch(pub PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pcmcache-http-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        // Left by a killed process that had this one's number.
        let _ = fs_err::remove_dir_all(&path);
        fs_err::create_dir(&path).unwrap();
        Self(path)
    }

    /// The files under `below`, however deep, but for the index and the lock.
    pub(crate) fn files(&self, below: &str) -> Vec<PathBuf> {
        let (mut files, mut open) = (Vec::new(), vec![self.0.join(below)]);
        while let Some(directory) = open.pop() {
            for entry in fs_err::read_dir(directory).into_iter().flatten() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => open.push(path),
                    false => files.push(path),
                }
            }
        }
        files
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs_err::remove_dir_all(&self.0);
    }
}

/// A running server.
pub(crate) struct Served {
    pub(crate) addr: SocketAddr,
    pub(crate) dir: Scratch,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Served {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(adjust: impl FnOnce(&mut Config)) -> Self {
        let dir = Scratch::new();
        let mut config = Config::for_dir(&dir.0);
        adjust(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = Server::open(&config).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(server.run(listener, async {
            let _ = stopped.await;
        }));
        Self { addr, dir, stop: Some(stop), task }
    }

    /// Tells it to stop.
    pub(crate) fn tell_to_stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    /// Waits for its end, and compares what it left behind with its index.
    pub(crate) async fn ended(&mut self) {
        tokio::time::timeout(PATIENCE, &mut self.task).await.unwrap().unwrap();
        let (directory, clock) = (self.dir.0.clone(), Arc::new(SystemClock::new()));
        let open = move || Embedded::open(&directory, clock).unwrap();
        let checked = tokio::task::spawn_blocking(open).await.unwrap().check(true).await.unwrap();
        assert_eq!(checked.found, 0, "{:#?}", checked.findings);
    }

    /// One request over HTTP/1.1 on its own connection.
    pub(crate) async fn send(&self, request: Request<impl Into<Bytes>>) -> Reply {
        send(self.addr, request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Request::get(path).body("").unwrap()).await
    }

    /// Writes these bytes, ends the sending side if told to, and reads until the server closes.
    pub(crate) async fn raw(&self, bytes: &[u8], end: bool) -> String {
        String::from_utf8_lossy(&self.raw_bytes(bytes, end).await).into_owned()
    }

    pub(crate) async fn raw_bytes(&self, bytes: &[u8], end: bool) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        if end {
            stream.shutdown().await.unwrap();
        }
        let mut answer = Vec::new();
        // A reset after the answer is no failure of the answer.
        let _ = within(stream.read_to_end(&mut answer)).await;
        answer
    }

    /// Nothing of any upload is left, or will be in a moment: a connection's end and its clean-up are two things.
    pub(crate) async fn stores_nothing(&self) {
        within(async {
            while !self.dir.files("blobs").is_empty() || !self.dir.files("stages").is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// One value of `/metrics`.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let text = String::from_utf8(self.get("/metrics").await.body.to_vec()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
        line.parse().unwrap()
    }
}

/// One request over HTTP/1.1 on its own connection.
pub(crate) async fn send(addr: SocketAddr, request: Request<impl Into<Bytes>>) -> Reply {
    let mut sender = h1(addr).await;
    let request = request.map(|body| Full::new(body.into()));
    let response = within(sender.send_request(request)).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = within(body.collect()).await.unwrap().to_bytes();
    Reply { status: parts.status, headers: parts.headers, body }
}

/// What `future` gives, if it does so in time.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

pub(crate) type Sender1 = http1::SendRequest<Full<Bytes>>;

/// An HTTP/1.1 connection; dropping the sender and the answers closes it.
pub(crate) async fn h1(addr: SocketAddr) -> Sender1 {
    let stream = TcpStream::connect(addr).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) type Sender2 = http2::SendRequest<Full<Bytes>>;

/// An HTTP/2 connection with prior knowledge.
pub(crate) struct H2 {
    /// Sends requests.
    pub(crate) sender: Sender2,
    /// Ends when the connection does.
    pub(crate) task: JoinHandle<()>,
    /// The same socket once more, to end it under hyper's feet.
    pub(crate) socket: std::net::TcpStream,
}

pub(crate) async fn h2(addr: SocketAddr) -> H2 {
    let stream = TcpStream::connect(addr).await.unwrap().into_std().unwrap();
    let socket = stream.try_clone().unwrap();
    let io = TokioIo::new(TcpStream::from_std(stream).unwrap());
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let task = tokio::spawn(async move {
        let _ = connection.await;
    });
    H2 { sender, task, socket }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The code of a problem, which must be one in every respect.
    #[track_caller]
    pub(crate) fn code(&self) -> Code {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.status, self.status.as_u16());
        assert_eq!(problem.code.status(), problem.status);
        problem.code
    }
}

/// The next line of an answer's stream, or `None` at its end.
pub(crate) async fn next_line(body: &mut Incoming) -> Option<Value> {
    loop {
        let line = within(body.frame()).await?.ok()?.into_data().unwrap();
        // HTTP/2 may end a stream with a frame that holds nothing.
        if !line.is_empty() {
            return Some(serde_json::from_slice(&line).unwrap());
        }
    }
}

/// An acquire of `claim` that waits, and holds what it gets.
pub(crate) fn acquire(claim: &str, request_id: &str) -> Request<Full<Bytes>> {
    let body = json!({ "claim": claim, "request_id": request_id, "wait_ms": 60_000, "hold": true });
    Request::post("http://localhost/v1/scopes/main/acquire")
        .header("content-type", "application/json")
        .body(Full::new(body.to_string().into()))
        .unwrap()
}
