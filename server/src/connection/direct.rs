//! Bytes that go from a file to a socket without a copy in this process (`sendfile`), where the socket is plain and speaks
//! HTTP/1: under TLS they must be encrypted, and HTTP/2 cuts them into frames.
//!
//! hyper sends bytes that lie in memory and knows of no others. So it is given *stand-ins*: as many bytes, of one static
//! array that nothing else is sent from. [`Watched`](super::watched::Watched), which is hyper's socket, knows them by their
//! address, and has the kernel send the file's bytes in their place. hyper's arithmetic (lengths, what is still to be sent)
//! thereby is right.
//!
//! Invariant: stand-ins are sent in the order in which they were given out, which is that of an HTTP/1 connection; each is of
//! the segment that is first in line. hyper does not copy what it sends, as long as its socket takes several slices at
//! once; if it ever did, zeros would be sent, and every client would find them out by their digest.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::fs::sendfile;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio_util::either::Either;

use super::greet::Socket;
use crate::blobs::InFile;
use crate::cache::IN_FILE;

/// What stand-ins are made of.
static STAND_IN: [u8; IN_FILE] = [0; IN_FILE];

/// What is to be sent in the place of the stand-ins of one connection. A request's extension, where there are such.
#[derive(Debug, Clone, Default)]
pub struct Direct(Arc<Mutex<VecDeque<Segment>>>);

/// Some bytes of a file, of which some may be sent already.
#[derive(Debug)]
struct Segment {
    file: Arc<dyn InFile>,
    range: Range<u64>,
}

impl Direct {
    fn segments(&self) -> MutexGuard<'_, VecDeque<Segment>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be handed to hyper in the place of these bytes, next of all; `None` if there are none, or more than
    /// [`IN_FILE`].
    pub fn stand_in(&self, file: Arc<dyn InFile>, range: Range<u64>) -> Option<Bytes> {
        let length = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
        let bytes = STAND_IN.get(..length).filter(|bytes| !bytes.is_empty())?;
        self.segments().push_back(Segment { file, range });
        Some(Bytes::from_static(bytes))
    }

    /// Sends what the first `length` bytes of a stand-in stand for, or a part of that.
    pub(super) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        socket: &TcpStream,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(socket.poll_write_ready(cx))?;
            match socket.try_io(Interest::WRITABLE, || self.send(socket, length)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    fn send(&self, socket: &TcpStream, length: usize) -> io::Result<usize> {
        let mut segments = self.segments();
        let first = segments.front_mut().ok_or_else(|| io::Error::other("a stand-in for nothing"))?;
        let left = usize::try_from(first.range.end.saturating_sub(first.range.start)).unwrap_or(length);
        let sent = sendfile(socket, &first.file, Some(&mut first.range.start), length.min(left))?;
        if sent == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file was cut while it was sent"));
        }
        if first.range.is_empty() {
            segments.pop_front();
        }
        Ok(sent)
    }
}

/// Whether the bytes stand for others.
pub(super) fn is_stand_in(bytes: &[u8]) -> bool {
    !bytes.is_empty() && STAND_IN.as_ptr_range().contains(&bytes.as_ptr())
}

/// A socket that may be one which the kernel can send files over.
pub(super) trait MaybePlain {
    /// The socket, if bytes go over it as they are.
    fn plain(&self) -> Option<&TcpStream>;
}

impl MaybePlain for TcpStream {
    fn plain(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl MaybePlain for Socket {
    fn plain(&self) -> Option<&TcpStream> {
        match self {
            Either::Left(plain) => Some(plain),
            Either::Right(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::pin::Pin;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWrite as _};
    use tokio::net::TcpListener;

    use super::super::pulse::Pulse;
    use super::super::watched::Watched;
    use super::*;

    async fn pair() -> (Watched<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        (Watched::new(server, Pulse::new(), Duration::ZERO), client)
    }

    fn file(bytes: &[u8]) -> Arc<dyn InFile> {
        let path = std::env::temp_dir().join(format!(
            "pcmcache-direct-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let mut file =
            fs_err::OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        fs_err::remove_file(path).unwrap();
        file.write_all(bytes).unwrap();
        let mut all = Vec::new();
        assert_eq!(file.read_to_end(&mut all).unwrap(), 0);
        Arc::new(file)
    }

    #[tokio::test]
    async fn heads_and_files_arrive_in_their_order() {
        let (mut socket, mut client) = pair().await;
        let direct = socket.direct().unwrap();
        let file = file(b"0123456789");
        let sent = [
            Bytes::from_static(b"head "),
            direct.stand_in(Arc::clone(&file), 2..5).unwrap(),
            Bytes::from_static(b" then "),
            direct.stand_in(file, 7..8).unwrap(),
        ];
        for mut bytes in sent {
            while !bytes.is_empty() {
                let slices = [io::IoSlice::new(b""), io::IoSlice::new(&bytes)];
                let write = |cx: &mut Context<'_>| Pin::new(&mut socket).poll_write_vectored(cx, &slices);
                let count = std::future::poll_fn(write).await.unwrap();
                bytes = bytes.slice(count..);
            }
        }
        drop(socket);
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "head 234 then 7");
    }

    #[tokio::test]
    async fn a_file_that_was_cut_breaks_the_connection() {
        let (mut socket, _client) = pair().await;
        let bytes = socket.direct().unwrap().stand_in(file(b"0123"), 4..6).unwrap();
        let write = |cx: &mut Context<'_>| Pin::new(&mut socket).poll_write(cx, &bytes);
        let error = std::future::poll_fn(write).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn only_stand_ins_stand_for_others() {
        let direct = Direct::default();
        let bytes = direct.stand_in(file(b"0123"), 0..4).unwrap();
        assert!(is_stand_in(&bytes) && is_stand_in(&bytes[3..]) && !is_stand_in(&bytes[4..]));
        assert!(!is_stand_in(b"") && !is_stand_in(&[0; 4]) && !is_stand_in(b"0123"));
        assert!(direct.stand_in(file(b""), 3..3).is_none());
        assert!(direct.stand_in(file(b""), 0..IN_FILE as u64 + 1).is_none());
    }
}
