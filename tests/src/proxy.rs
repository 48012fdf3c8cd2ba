//! A man in the middle: relays to a real server, and does mischief to what comes back.
//!
//! Each connection carries one request (it is sent on with `Connection: close`), so an answer ends where the
//! server closes, and mischief needs no framing of its own.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What is done to the blobs that go from the server to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mischief {
    /// Nothing.
    None,
    /// One bit of one byte is another.
    Flip,
    /// A well-formed answer with the first half of the blob.
    Short,
    /// The connection closes after the first half of the blob.
    CutOff,
    /// The blob has no end.
    Endless,
}

/// A request that was answered, in the order in which the answers began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// `GET`, `PUT`, ...
    pub method: String,
    /// The path.
    pub path: String,
    /// The answer's status.
    pub status: u16,
}

/// A running proxy.
#[derive(Debug, Clone)]
pub struct Proxy {
    address: SocketAddr,
    road: Arc<Road>,
}

#[derive(Debug)]
struct Road {
    server: SocketAddr,
    mischief: Mischief,
    closed: AtomicBool,
    harmed: AtomicUsize,
    exchanges: Mutex<Vec<Exchange>>,
}

impl Proxy {
    /// A proxy before `server`, on a free port of the loopback interface until the test program ends.
    pub fn start(server: SocketAddr, mischief: Mischief) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("the port");
        let road = Arc::new(Road {
            server,
            mischief,
            closed: AtomicBool::new(false),
            harmed: AtomicUsize::new(0),
            exchanges: Mutex::default(),
        });
        let relayed = Arc::clone(&road);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let road = Arc::clone(&relayed);
                thread::spawn(move || {
                    let _ = road.serve(client);
                });
            }
        });
        Self { address, road }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on no byte passes, in either direction, and nothing is closed: a cable was pulled.
    pub fn pull_the_cable(&self) {
        self.road.closed.store(true, Ordering::SeqCst);
    }

    /// How many answers were harmed.
    pub fn harmed(&self) -> usize {
        self.road.harmed.load(Ordering::SeqCst)
    }

    /// All requests that were answered so far.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.road.exchanges.lock().expect("the exchanges").clone()
    }
}

impl Road {
    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        self.toll();
        let (head, rest) = read_head(&mut client)?;
        let mut server = TcpStream::connect(self.server)?;
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut request = head.splitn(3, ' ').map(str::to_owned);
        let (method, path) = (request.next().unwrap_or_default(), request.next().unwrap_or_default());
        server.write_all(closing(&head).as_bytes())?;
        server.write_all(&rest)?;
        let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = self.relay(&mut from, &mut to, |_| ());
                // The client is gone, or has said all: in one request's life that is the same.
                let _ = to.shutdown(Shutdown::Both);
            });
            let relayed = self.answer(method, path, &mut server, &mut client);
            self.toll();
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
            relayed
        })
    }

    fn answer(
        &self,
        method: String,
        path: String,
        server: &mut TcpStream,
        client: &mut TcpStream,
    ) -> io::Result<()> {
        let (head, rest) = read_head(server)?;
        let head = String::from_utf8_lossy(&head).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let is_blob = method == "GET" && path.contains("/blobs/") && status < 300;
        self.exchanges.lock().expect("the exchanges").push(Exchange { method, path, status });
        if is_blob && self.mischief != Mischief::None {
            return self.harm(&head, rest, server, client);
        }
        self.toll();
        client.write_all(head.as_bytes())?;
        let mut first = rest;
        self.spoil_inline(&mut first);
        client.write_all(&first)?;
        self.relay(server, client, |bytes| self.spoil_inline(bytes))
    }

    /// Sends a blob on, but not as it was.
    fn harm(
        &self,
        head: &str,
        rest: Vec<u8>,
        server: &mut TcpStream,
        client: &mut TcpStream,
    ) -> io::Result<()> {
        self.harmed.fetch_add(1, Ordering::SeqCst);
        let mut blob = rest;
        server.read_to_end(&mut blob)?;
        let half = blob.len() / 2;
        match self.mischief {
            Mischief::None => unreachable!("mischief was asked for"),
            Mischief::Flip => {
                if let Some(byte) = blob.get_mut(half) {
                    *byte ^= 1;
                }
                client.write_all(&[head.as_bytes(), &blob].concat())
            }
            Mischief::Short => {
                let head = with_length(head, Some(half));
                client.write_all(&[head.as_bytes(), &blob[..half]].concat())
            }
            Mischief::CutOff => client.write_all(&[head.as_bytes(), &blob[..half]].concat()),
            Mischief::Endless => {
                client.write_all(&[with_length(head, None).as_bytes(), &blob].concat())?;
                loop {
                    client.write_all(&[0x55; 64 * 1024])?;
                }
            }
        }
    }

    /// Turns the first character of the first blob that rides inside JSON into another.
    fn spoil_inline(&self, bytes: &mut [u8]) {
        if self.mischief != Mischief::Flip {
            return;
        }
        let mark = b"\"blobs\":{\"";
        let Some(at) = bytes.windows(mark.len()).position(|window| window == mark) else { return };
        // Past the digest's 64 digits and `":"`.
        if let Some(first) = bytes.get_mut(at + mark.len() + 64 + 3) {
            *first = if *first == b'A' { b'B' } else { b'A' };
            self.harmed.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn relay(&self, from: &mut TcpStream, to: &mut TcpStream, change: impl Fn(&mut [u8])) -> io::Result<()> {
        let mut some = vec![0; 256 * 1024];
        loop {
            let count = from.read(&mut some)?;
            self.toll();
            if count == 0 {
                return Ok(());
            }
            let bytes = &mut some[..count];
            change(bytes);
            to.write_all(bytes)?;
        }
    }

    /// Where the cable is pulled, nothing goes on.
    fn toll(&self) {
        while self.closed.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_secs(1));
        }
    }
}

/// A head with its empty line, and what came after it.
fn read_head(stream: &mut TcpStream) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut head = Vec::new();
    let mut some = [0; 16 * 1024];
    loop {
        let count = stream.read(&mut some)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&some[..count]);
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = head.split_off(end + 4);
            return Ok((head, rest));
        }
    }
}

/// A request's head that asks for one answer and the connection's end.
fn closing(head: &str) -> String {
    let lines = head.trim_end().split("\r\n");
    let kept: Vec<_> = lines.filter(|line| !line.to_ascii_lowercase().starts_with("connection:")).collect();
    format!("{}\r\nConnection: close\r\n\r\n", kept.join("\r\n"))
}

/// An answer's head with this length, or with none.
fn with_length(head: &str, length: Option<usize>) -> String {
    let lines = head.trim_end().split("\r\n");
    let kept: Vec<_> =
        lines.filter(|line| !line.to_ascii_lowercase().starts_with("content-length:")).collect();
    let length = length.map(|length| format!("Content-Length: {length}\r\n")).unwrap_or_default();
    format!("{}\r\n{length}\r\n", kept.join("\r\n"))
}
