//! The socket as hyper sees it, plain or under TLS: it tells the watchdog when bytes come, and it does not close on a client that is
//! still sending before that client could read its answer. What it is given in the place of a file's bytes it sends from the file.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::direct::{Direct, MaybePlain, is_stand_in};
use super::pulse::Pulse;

/// A socket and what watches over it.
pub(super) struct Watched<S> {
    stream: S,
    pulse: Arc<Pulse>,
    linger: Duration,
    direct: Direct,
    closing: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + AsyncWrite + MaybePlain + Unpin> Watched<S> {
    pub(super) fn new(stream: S, pulse: Arc<Pulse>, linger: Duration) -> Self {
        Self { stream, pulse, linger, direct: Direct::default(), closing: None }
    }

    /// What stands in for files here, if files can be sent.
    pub(super) fn direct(&self) -> Option<Direct> {
        self.stream.plain().map(|_| self.direct.clone())
    }

    /// Sends what the stand-in stands for.
    fn poll_send(&self, cx: &mut Context<'_>, stand_in: &[u8]) -> Poll<io::Result<usize>> {
        match self.stream.plain() {
            Some(socket) => {
                let sent = ready!(self.direct.poll_send(cx, socket, stand_in.len()));
                // It may stand for more than a slow client takes in the time it has for one part of its answer.
                self.pulse.wrote();
                Poll::Ready(sent)
            }
            None => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }

    /// Reads on until the client ends too. Closing a socket with unread bytes resets it, and a reset throws away
    /// the answer that says why (413, 408) before the client could read it. Under TLS that may be an alert.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let linger = self.linger;
        let closing = self.closing.get_or_insert_with(|| Box::pin(tokio::time::sleep(linger)));
        let mut waste = [0; 8 * 1024];
        while closing.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut waste);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.pulse.read();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + MaybePlain + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if is_stand_in(bytes) {
            return self.poll_send(cx, bytes);
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut full = slices.iter().filter(|slice| !slice.is_empty());
        if let Some(first) = full.next().filter(|first| is_stand_in(first)) {
            return self.poll_send(cx, first);
        }
        let before = slices.iter().position(|slice| is_stand_in(slice)).unwrap_or(slices.len());
        let slices = slices.get(..before).unwrap_or_default();
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        ready!(self.poll_linger(cx));
        Poll::Ready(Ok(()))
    }
}
