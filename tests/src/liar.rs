//! Servers that are none: they take connections and then do not do what a server does.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

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
            let _ = stream.set_read_timeout(Some(Duration::from_secs(300)));
            while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
        })
    }

    /// Answers every request with this head and body, then closes.
    pub fn answering(head: &'static str, body: &'static str) -> Self {
        Self::start(move |mut stream| {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            read_request(&mut stream);
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

/// Reads a request with its body, as far as it comes.
fn read_request(stream: &mut TcpStream) {
    let mut request = Vec::new();
    let mut some = [0; 16 * 1024];
    while let Ok(count) = stream.read(&mut some) {
        request.extend_from_slice(&some[..count]);
        let head = request.windows(4).position(|four| four == b"\r\n\r\n");
        let whole = head.is_some_and(|head| {
            let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
            request.len() >= head + 4 + length
        });
        if whole || count == 0 {
            return;
        }
    }
}
