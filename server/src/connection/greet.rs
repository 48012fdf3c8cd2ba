//! What comes before HTTP: the TLS handshake, where TLS is spoken.
//!
//! Its time counts as the first request's head. Who speaks plain HTTP to it by mistake is told so in plain HTTP.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::direct::MaybePlain;
use super::pulse::Pulse;
use super::watched::Watched;

/// A socket, plain or under TLS. The latter is a kilobyte larger, so it lies elsewhere.
pub(super) type Socket = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Which HTTP was agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    /// None: the first bytes tell.
    Unsaid,
    Http1,
    Http2,
}

/// What [`Problem::new`] would make of it.
///
/// [`Problem::new`]: pcmcache_shared::api::problem::Problem::new
const NOT_PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: application/problem+json\r\nContent-Length: 164\r\nConnection: close\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"the request cannot be understood\",\"status\":400,\
    \"code\":\"bad_request\",\"detail\":\"this port speaks TLS: ask with https://, not http://\"}\n";

/// The socket to speak HTTP over; or why there is none, and then the client was told as well as may be.
pub(super) async fn greet(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    pulse: &Arc<Pulse>,
    linger: Duration,
) -> Result<(Socket, Spoken), String> {
    let Some(acceptor) = tls else { return Ok((Either::Left(stream), Spoken::Unsaid)) };
    if is_plain(&stream).await.map_err(|error| error.to_string())? {
        end(stream, NOT_PLAIN, pulse, linger).await;
        return Err("plain HTTP where TLS is spoken".to_owned());
    }
    match acceptor.accept(stream).into_fallible().await {
        Ok(stream) => {
            let spoken = match stream.get_ref().1.alpn_protocol() {
                None => Spoken::Unsaid,
                Some(b"h2") => Spoken::Http2,
                Some(_) => Spoken::Http1,
            };
            Ok((Either::Right(Box::new(stream)), spoken))
        }
        Err((error, stream)) => {
            // The alert that says why is on its way: let the client read it.
            end(stream, b"", pulse, linger).await;
            Err(format!("handshake: {error}"))
        }
    }
}

/// Whether the first byte is a method's. A handshake starts with 0x16.
async fn is_plain(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    let count = stream.peek(&mut first).await?;
    Ok(count == 1 && first.iter().all(u8::is_ascii_alphabetic))
}

/// Says a last word, and ends so that it can be read.
async fn end<S>(stream: S, word: &[u8], pulse: &Arc<Pulse>, linger: Duration)
where
    S: AsyncRead + AsyncWrite + MaybePlain + Unpin,
{
    let mut stream = Watched::new(stream, Arc::clone(pulse), linger);
    if stream.write_all(word).await.is_ok() {
        let _ = stream.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use pcmcache_shared::api::problem::{Code, Problem};

    use super::*;

    #[test]
    fn the_answer_to_plain_http_is_a_problem_of_its_length() {
        let text = std::str::from_utf8(NOT_PLAIN).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
        let problem: Problem = serde_json::from_str(body).unwrap();
        assert_eq!(problem, Problem::new(Code::BadRequest, problem.detail.clone()));
    }
}
