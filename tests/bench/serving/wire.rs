//! As much of an HTTP/1.1 client as a load needs: it costs little, so that what is measured is the server.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How much is read at a time.
const PIECE: usize = 256 * 1024;

/// Runs a load on this one thread: the other processor is the server's.
pub(crate) fn run<T>(load: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(load)
}

/// The head and the body of a request.
pub(crate) fn request(method: &str, path: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n");
    if method != "GET" {
        request += &format!("Content-Type: {kind}\r\nContent-Length: {length}\r\n");
    }
    [request.as_bytes(), b"\r\n", body].concat()
}

/// A connection that is kept alive.
pub(crate) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Wire {
    pub(crate) async fn to(address: SocketAddr) -> Self {
        Self::with(address, 16 * 1024).await
    }

    /// One for large answers.
    pub(crate) async fn wide(address: SocketAddr) -> Self {
        Self::with(address, PIECE).await
    }

    async fn with(address: SocketAddr, buffer: usize) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Self { stream, buffer: vec![0; buffer], filled: 0 }
    }

    pub(crate) async fn send(&mut self, request: &[u8]) {
        self.stream.write_all(request).await.expect("a server that reads");
    }

    async fn fill(&mut self) {
        if self.filled == self.buffer.len() {
            self.buffer.resize(self.filled * 2, 0);
        }
        let count = self.stream.read(&mut self.buffer[self.filled..]).await.expect("a server that answers");
        assert!(count > 0, "the server hung up after {}", self.text());
        self.filled += count;
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.buffer[..self.filled]).into_owned()
    }

    /// Sends the request, and reads the answer to the end of its body, of which the length is told. Nothing of it is kept.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> (u16, usize) {
        self.send(request).await;
        self.filled = 0;
        let head = loop {
            self.fill().await;
            if let Some(at) = find(&self.buffer[..self.filled], b"\r\n\r\n") {
                break at + 4;
            }
        };
        let text = std::str::from_utf8(&self.buffer[..head]).expect("a head of text");
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().ok())?
        });
        let length = length.unwrap_or_default();
        let mut left = length - (self.filled - head);
        while left > 0 {
            let most = left.min(self.buffer.len());
            let count = self.stream.read(&mut self.buffer[..most]).await.expect("the rest of the body");
            assert!(count > 0, "the body was cut {left} bytes before its end");
            left -= count;
        }
        (status, length)
    }

    /// Reads on until this is in what came since the last time.
    pub(crate) async fn until(&mut self, word: &str) -> String {
        loop {
            if find(&self.buffer[..self.filled], word.as_bytes()).is_some() {
                let text = self.text();
                self.filled = 0;
                return text;
            }
            self.fill().await;
        }
    }
}

fn find(bytes: &[u8], word: &[u8]) -> Option<usize> {
    bytes.windows(word.len()).position(|window| window == word)
}
