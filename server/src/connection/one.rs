//! One connection, from its accept to its end.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::{Request, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use super::greet::{Spoken, greet};
use super::pace::Paced;
use super::pulse::{Answer, Overdue, Pulse};
use super::watched::Watched;
use super::{Limits, Peer, Stop};

/// What one connection, or one stream of HTTP/2, may have us keep in memory: a head that does not end, or an answer that
/// is not taken. hyper's own bounds are six times that; thousands of rude clients would have a gigabyte.
const MOST_BUFFERED: usize = 64 * 1024;

/// How a connection ended.
pub(super) enum End {
    /// As both sides wished.
    Closed,
    /// The client broke it or the protocol.
    Broken(String),
    /// We cut it.
    Cut(&'static str),
}

/// Serves requests until either side ends it.
pub(super) async fn serve(
    stream: TcpStream,
    peer: Peer,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Arc<Limits>,
    stop: Stop,
) -> End {
    let pulse = Pulse::new();
    let greeted = tokio::select! {
        greeted = greet(stream, tls, &pulse, limits.linger) => greeted,
        () = stop.drain.cancelled() => return End::Cut("the server stops"),
        overdue = pulse.overdue(&limits) => return End::Cut(overdue.reason()),
    };
    let (stream, spoken) = match greeted {
        Ok(greeted) => greeted,
        Err(why) => return End::Broken(why),
    };
    let socket = Watched::new(stream, Arc::clone(&pulse), limits.linger);
    let direct = socket.direct();
    let io = TokioIo::new(socket);
    let builder = builder(&limits, spoken);
    let floor = limits.upload;
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        if let Some(direct) = direct.as_ref().filter(|_| request.version() <= Version::HTTP_11) {
            request.extensions_mut().insert(direct.clone());
        }
        let flight = pulse.begin(request.version() == Version::HTTP_2);
        let answer = router.clone().oneshot(request.map(|body| Body::new(Paced::new(body, floor))));
        async move { answer.await.map(|response| response.map(|body| Answer::new(body, flight))) }
    });
    let mut connection = std::pin::pin!(builder.serve_connection(io, service));
    tokio::select! {
        ended = connection.as_mut() => return end(ended),
        () = stop.drain.cancelled() => {}
        overdue = pulse.overdue(&limits) => match overdue {
            Overdue::Idle => {}
            Overdue::Head | Overdue::Stall => return End::Cut(overdue.reason()),
        }
    };
    // Politely first: a request that is on its way is still answered, and HTTP/2 is told which was the last.
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = connection.as_mut() => end(ended),
        () = stop.cut.cancelled() => End::Cut("the server stops"),
        overdue = pulse.overdue_at_end(&limits) => End::Cut(overdue.reason()),
    }
}

fn end(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) -> End {
    ended.map_or_else(|error| End::Broken(error.to_string()), |()| End::Closed)
}

fn builder(limits: &Limits, spoken: Spoken) -> Builder<TokioExecutor> {
    let builder = Builder::new(TokioExecutor::new());
    let mut builder = match spoken {
        Spoken::Unsaid => builder,
        Spoken::Http1 => builder.http1_only(),
        Spoken::Http2 => builder.http2_only(),
    };
    builder
        .http1()
        .timer(TokioTimer::new())
        // The end of the client's side while an answer is on its way means that the client is gone: it is how a
        // killed holder is noticed at once.
        .half_close(false)
        // The watchdog counts it from the head's first byte; hyper would count from the end of the last answer.
        .header_read_timeout(None)
        .max_buf_size(MOST_BUFFERED)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_send_buf_size(MOST_BUFFERED)
        .keep_alive_interval(limits.ping)
        .keep_alive_timeout(limits.ping);
    builder
}
