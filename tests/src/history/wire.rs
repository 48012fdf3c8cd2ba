//! HTTP/1.1 as a launcher speaks it: connections are kept, an answer can be a stream, every wait has an end; and who asks learns
//! whether what was cut off can have happened.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::http::Answer;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Nothing was sent.
    NotSent,
    /// The connection broke.
    Cut,
    /// It is past the deadline.
    Late,
}

/// A client's way to the server.
#[derive(Debug)]
pub struct Wire {
    to: SocketAddr,
    token: String,
    kept: Option<Connection>,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// The path.
    pub path: &'a str,
    /// The content type or a range, each with its line's end.
    pub fields: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// How much of it is sent before the client dies; all of it if it does not.
    pub sent: usize,
}

impl Wire {
    /// By this road, with this token.
    pub fn new(to: SocketAddr, token: &str) -> Self {
        Self { to, token: token.to_owned(), kept: None }
    }

    /// A whole answer. The connection is kept if the server keeps it.
    pub fn ask(&mut self, request: Request<'_>, deadline: Instant) -> Result<Answer, Broken> {
        let mut connection = match self.kept.take() {
            Some(kept) => kept,
            None => Connection::open(self.to)?,
        };
        connection.send(&self.token, self.to, request, deadline)?;
        let mut answer = connection.head(deadline)?;
        answer.body = connection.body(&answer, deadline)?;
        if answer.header("connection") != Some("close") {
            self.kept = Some(connection);
        }
        Ok(answer)
    }

    /// An answer whose body comes in lines, over a connection of its own. What is not 200 is whole.
    pub fn stream(&self, request: Request<'_>, deadline: Instant) -> Result<(Answer, Stream), Broken> {
        let mut connection = Connection::open(self.to)?;
        connection.send(&self.token, self.to, request, deadline)?;
        let mut answer = connection.head(deadline)?;
        if answer.status != 200 {
            answer.body = connection.body(&answer, deadline)?;
        }
        Ok((answer, Stream { connection, text: Vec::new() }))
    }
}

#[derive(Debug)]
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(to: SocketAddr) -> Result<Self, Broken> {
        let stream = TcpStream::connect(to).map_err(|_| Broken::NotSent)?;
        stream.set_nodelay(true).map_err(|_| Broken::NotSent)?;
        Ok(Self(BufReader::new(stream)))
    }

    fn wait_until(&self, deadline: Instant) -> Result<(), Broken> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Broken::Late);
        }
        let stream = self.0.get_ref();
        let set = stream.set_read_timeout(Some(left)).and_then(|()| stream.set_write_timeout(Some(left)));
        set.map_err(|_| Broken::Cut)
    }

    fn send(
        &mut self,
        token: &str,
        to: SocketAddr,
        request: Request<'_>,
        deadline: Instant,
    ) -> Result<(), Broken> {
        let Request { method, path, fields, body, sent } = request;
        let length =
            if method == "GET" { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {to}\r\nAuthorization: Bearer {token}\r\npcmcache-wire: 2\r\n{fields}{length}\r\n"
        );
        self.wait_until(deadline)?;
        let mut stream = self.0.get_ref();
        let sent = body.get(..sent).unwrap_or(body);
        // Who is refused early can still read why.
        let _ = stream.write_all(&[head.as_bytes(), sent].concat());
        if sent.len() < body.len() {
            let _ = stream.shutdown(Shutdown::Both);
            return Err(Broken::Cut);
        }
        Ok(())
    }

    fn line(&mut self, deadline: Instant) -> Result<String, Broken> {
        self.wait_until(deadline)?;
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).map_err(|error| broken(&error))?;
        match line.pop() {
            Some(b'\n') => Ok(String::from_utf8_lossy(&line).trim_end().to_owned()),
            Some(_) | None => Err(Broken::Cut),
        }
    }

    fn exactly(&mut self, count: usize, deadline: Instant) -> Result<Vec<u8>, Broken> {
        self.wait_until(deadline)?;
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).map_err(|error| broken(&error))?;
        Ok(bytes)
    }

    fn head(&mut self, deadline: Instant) -> Result<Answer, Broken> {
        let status = self.line(deadline)?;
        let status = status.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(Broken::Cut)?;
        let mut headers = Vec::new();
        loop {
            let line = self.line(deadline)?;
            match line.split_once(':') {
                Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
                None => return Ok(Answer { status, headers, body: Vec::new() }),
            }
        }
    }

    fn body(&mut self, answer: &Answer, deadline: Instant) -> Result<Vec<u8>, Broken> {
        if answer.status == 204 {
            return Ok(Vec::new());
        }
        if let Some(length) = answer.header("content-length") {
            return self.exactly(length.parse().map_err(|_| Broken::Cut)?, deadline);
        }
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk(deadline)? {
            body.extend(chunk);
        }
        Ok(body)
    }

    fn chunk(&mut self, deadline: Instant) -> Result<Option<Vec<u8>>, Broken> {
        let size = self.line(deadline)?;
        let size = usize::from_str_radix(&size, 16).map_err(|_| Broken::Cut)?;
        let chunk = self.exactly(size, deadline)?;
        self.line(deadline)?;
        Ok(Some(chunk).filter(|chunk| !chunk.is_empty()))
    }
}

fn broken(error: &io::Error) -> Broken {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Broken::Late,
        _ => Broken::Cut,
    }
}

/// An open answer.
#[derive(Debug)]
pub struct Stream {
    connection: Connection,
    text: Vec<u8>,
}

impl Stream {
    /// The next line; none at the end.
    pub fn line(&mut self, deadline: Instant) -> Result<Option<String>, Broken> {
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line = self.text.drain(..=end).collect::<Vec<_>>();
                return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()));
            }
            match self.connection.chunk(deadline)? {
                Some(chunk) => self.text.extend(chunk),
                None => return Ok(None),
            }
        }
    }

    /// Whether it is still open, as far as one can tell.
    pub fn is_open(&mut self) -> bool {
        let soon = Instant::now() + Duration::from_millis(1);
        matches!(self.line(soon), Err(Broken::Late))
    }
}
