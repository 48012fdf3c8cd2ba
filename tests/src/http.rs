//! As much of HTTP/1.1 as it takes to ask a server something, wrong things included.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The header fields; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, out of its chunks if it came in chunks.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in an answer {}: {}", self.status, self.text()))
    }

    fn parse(raw: &[u8]) -> Option<Self> {
        let split = raw.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(raw.get(..split)?).ok()?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let field = |line: &str| {
            line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let answer = Self { status, headers: lines.filter_map(field).collect(), body: Vec::new() };
        let rest = raw.get(split + 4..)?;
        if (100..200).contains(&status) {
            return Self::parse(rest);
        }
        let chunked = answer.header("transfer-encoding").is_some_and(|coding| coding.contains("chunked"));
        let body = if chunked { unchunked(rest)? } else { rest.to_vec() };
        Some(Self { body, ..answer })
    }
}

fn unchunked(mut raw: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = raw.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(raw.get(..end)?).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(raw.get(end + 2..end + 2 + size)?);
        raw = raw.get(end + 2 + size + 2..)?;
    }
}

/// GET, with an answer.
pub fn get(server: SocketAddr, path: &str) -> Answer {
    ask(server, "GET", path, &[], b"").unwrap_or_else(|error| panic!("GET {path}: {error}"))
}

/// A request with a whole body, and its whole answer.
pub fn ask(
    server: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() || matches!(method, "PUT" | "POST") {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    send(server, &[head.as_bytes(), b"\r\n", body].concat())
}

/// A request with a JSON body.
pub fn ask_json(
    server: SocketAddr,
    method: &str,
    path: &str,
    body: &impl serde::Serialize,
) -> io::Result<Answer> {
    let body = serde_json::to_vec(body).expect("JSON of a wire type");
    ask(server, method, path, &[("Content-Type", "application/json")], &body)
}

/// Sends these bytes, whatever they are, and reads the answer to its end.
pub fn send(server: SocketAddr, bytes: &[u8]) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // A server that refuses early may close before all is written: its answer counts all the same.
    let written = stream.write_all(bytes);
    let mut raw = Vec::new();
    let read = stream.read_to_end(&mut raw);
    let whole = Answer::parse(&raw);
    whole.ok_or_else(|| {
        let cause = written.err().or(read.err());
        cause.unwrap_or_else(|| io::Error::other(format!("no answer in {:?}", String::from_utf8_lossy(&raw))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_in_chunks_is_put_together() {
        let raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let answer = Answer::parse(raw).expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "abcde"));
        assert!(Answer::parse(&raw[..raw.len() - 7]).is_none(), "the end is missing");
    }

    #[test]
    fn an_interim_answer_is_not_the_answer() {
        let raw = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 411 Length Required\r\n\r\n";
        assert_eq!(Answer::parse(raw).expect("an answer").status, 411);
    }
}
