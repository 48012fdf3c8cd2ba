//! Servers that are none: they take connections and then do not do what a server does.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pcmcache_shared::api::acquire::AcquireLine;
use pcmcache_shared::api::problem::Problem;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longer than any client may want something, in one go.
const PATIENCE: Duration = Duration::from_secs(300);

/// One that listens on a free port of the loopback interface until the test program ends.
#[derive(Debug)]
pub struct Liar {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    held: Arc<AtomicU64>,
}

impl Liar {
    /// Accepts, and says nothing.
    pub fn silent() -> Self {
        Self::start(|mut stream| {
            // Until the client gives up, or longer than any test takes.
            let _ = stream.set_read_timeout(Some(PATIENCE));
            while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
        })
    }

    /// Answers every request with this head and body, then closes.
    pub fn answering(head: &'static str, body: &'static str) -> Self {
        Self::start(move |mut stream| {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let _ = read_request(&mut stream);
            let length = body.len();
            let _ = write!(stream, "{head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        })
    }

    /// Answers 500 to everything.
    pub fn failing() -> Self {
        Self::answering("HTTP/1.1 500 Internal Server Error", "no")
    }

    /// Answers 200 to everything, with what no server of ours says.
    pub fn babbling() -> Self {
        Self::answering("HTTP/1.1 200 OK\r\nContent-Type: text/html", "<html>It works!</html>\n")
    }

    /// Reads each request to its end and answers as `tell` does, one request a connection.
    pub fn telling(tell: impl Fn(&Request, &mut Peer) + Clone + Send + 'static) -> Self {
        Self::start(move |mut stream| {
            let _ = stream.set_read_timeout(Some(PATIENCE));
            let Some(request) = read_request(&mut stream) else { return };
            let mut peer = Peer(stream);
            tell(&request, &mut peer);
            let _ = peer.0.shutdown(Shutdown::Both);
        })
    }

    fn start(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("the port");
        let (connections, held) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
        let (counted, summed) = (Arc::clone(&connections), Arc::clone(&held));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                let (serve, summed) = (serve.clone(), Arc::clone(&summed));
                thread::spawn(move || {
                    let start = Instant::now();
                    serve(stream);
                    summed.fetch_add(start.elapsed().as_millis() as u64, Ordering::SeqCst);
                });
            }
        });
        Self { address, connections, held }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections it has taken.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// For how long clients have kept connections open that are closed now, summed.
    pub fn held(&self) -> Duration {
        Duration::from_millis(self.held.load(Ordering::SeqCst))
    }
}

/// A URL where nobody listens.
pub fn nobody() -> String {
    // The port was free a moment ago, and the kernel gives it to no other `:0` soon.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    format!("http://{}", listener.local_addr().expect("the port"))
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `PUT`, ...
    pub method: String,
    /// The path.
    pub path: String,
    /// The whole head, as it came.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// Whether it asks for this method on a path that has this in it.
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.path.contains(part)
    }

    /// The body as JSON of this form.
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// Who asked. Nothing that is sent there fails: who went away is told no more.
#[derive(Debug)]
pub struct Peer(TcpStream);

impl Peer {
    /// Sends these bytes, and tells whether somebody still takes them.
    pub fn raw(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.0.write_all(bytes.as_ref()).and_then(|()| self.0.flush()).is_ok()
    }

    /// Sends these bytes one by one, with so long a pause before each.
    pub fn dribble(&mut self, bytes: impl AsRef<[u8]>, pause: Duration) {
        for byte in bytes.as_ref() {
            thread::sleep(pause);
            if !self.raw([*byte]) {
                return;
            }
        }
    }

    /// The head of an answer.
    pub fn head(&mut self, status: u16, fields: &str) {
        self.raw(format!("HTTP/1.1 {status} Status\r\nConnection: close\r\n{fields}\r\n"));
    }

    /// A whole answer.
    pub fn body(&mut self, status: u16, body: impl AsRef<[u8]>) {
        self.body_with(status, "", body);
    }

    /// A whole answer with more header fields.
    pub fn body_with(&mut self, status: u16, fields: &str, body: impl AsRef<[u8]>) {
        self.head(status, &format!("Content-Length: {}\r\n{fields}", body.as_ref().len()));
        self.raw(body);
    }

    /// A whole answer in JSON.
    pub fn json(&mut self, status: u16, body: &impl Serialize) {
        self.body(status, serde_json::to_vec(body).expect("JSON of a wire type"));
    }

    /// A no.
    pub fn problem(&mut self, problem: &Problem) {
        self.json(problem.status, problem);
    }

    /// Begins an answer of unknown length.
    pub fn chunked(&mut self, status: u16) {
        self.head(status, "Transfer-Encoding: chunked\r\n");
    }

    /// More of it.
    pub fn chunk(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let bytes = bytes.as_ref();
        self.raw([format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat())
    }

    /// A line of an acquire stream.
    pub fn line(&mut self, line: &AcquireLine) -> bool {
        self.chunk(serde_json::to_string(line).expect("JSON of a wire type") + "\n")
    }

    /// Its end.
    pub fn end(&mut self) {
        self.raw("0\r\n\r\n");
    }

    /// Says nothing until the client goes away.
    pub fn hang(&mut self) {
        while self.0.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
    }
}

/// Reads a request with its body, as far as it comes. `None`: not even a head came.
fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut some = vec![0; 64 * 1024];
    let head = loop {
        if let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break head;
        }
        let count = stream.read(&mut some).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&some[..count]);
    };
    let mut body = bytes.split_off(head + 4);
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let lower = head.to_ascii_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
    while body.len() < length {
        let Some(count) = stream.read(&mut some).ok().filter(|count| *count > 0) else { break };
        body.extend_from_slice(&some[..count]);
    }
    let mut words = head.splitn(3, ' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    Some(Request { method, path, head, body })
}
