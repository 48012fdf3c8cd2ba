//! The accept loop and what every connection must keep to.
//!
//! `axum::serve` installs no timer, so an idle or dribbling client would stay for ever. Here a client has
//! [`Limits::head`] to finish a request's head (the first one counts from the accept, so that it covers the handshake),
//! [`Limits::idle`] between requests, a floor under the pace of its uploads, and it must take an answer while it is
//! being sent. What is silent because *we* have nothing to say (a waiter's stream, a hold) is bounded by none of these:
//! there the kernel's keep-alive, HTTP/2 pings and the end of the socket tell that a client is gone.
//!
//! Crash story: a connection owns nothing but its request's future and the answer's body; dropping them is how a
//! client that vanished is told to the cache.

mod crowd;
mod direct;
mod greet;
mod one;
mod pace;
mod pulse;
mod watched;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use direct::Direct;
pub use pace::{Floor, TooSlow};

use crowd::{Crowd, Place};

use crate::metrics::Connections;
use crate::tls::Tls;

/// What connections may cost.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at the same time; one more is closed as soon as it is accepted.
    pub connections: usize,
    /// Those of them that come from one address; 0: no bound.
    pub connections_per_address: usize,
    /// Requests at the same time over one HTTP/2 connection.
    pub streams: u32,
    /// How long a client may take from the first byte of a request (or from its connecting) to the end of its head.
    pub head: Duration,
    /// How long a connection may be open between two requests.
    pub idle: Duration,
    /// How fast a request's body must come, at least.
    pub upload: Floor,
    /// How long an answer's next part may lie here because the client takes nothing.
    pub stall: Duration,
    /// How often an HTTP/2 client is pinged, and how soon it must answer.
    pub ping: Duration,
    /// How long is read on after the last answer, so that a client which is still sending gets to read it.
    pub linger: Duration,
    /// How long requests in flight may go on after the server was told to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            connections_per_address: 4096,
            streams: 128,
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            upload: Floor { window: Duration::from_secs(10), least: 160 * 1024 },
            stall: Duration::from_secs(30),
            ping: Duration::from_secs(10),
            linger: Duration::from_secs(1),
            // With what comes after it, the server is gone within ten seconds.
            drain: Duration::from_secs(9),
        }
    }
}

/// Where a request's connection comes from. A request's extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// The two stages of going down.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Take no more work, end what only waits, finish the rest.
    pub drain: CancellationToken,
    /// Drop what is left.
    pub cut: CancellationToken,
}

/// Accepts and serves until `shutdown`, then drains for at most [`Limits::drain`].
pub async fn run(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    router: Router,
    limits: Limits,
    counts: Arc<Connections>,
    stop: Stop,
    shutdown: impl Future<Output = ()>,
) {
    let room = Room {
        slots: Arc::new(Semaphore::new(limits.connections)),
        crowd: Crowd::new(limits.connections_per_address),
        tasks: TaskTracker::new(),
        counts,
    };
    let drain = limits.drain;
    let limits = Arc::new(limits);
    tokio::select! {
        () = accept_all(&listener, tls.as_deref(), &router, &limits, &room, &stop) => {}
        () = shutdown => {}
    }
    drop(listener);
    stop.drain.cancel();
    room.tasks.close();
    tracing::info!(connections = room.tasks.len(), "draining");
    if tokio::time::timeout(drain, room.tasks.wait()).await.is_err() {
        tracing::warn!(connections = room.tasks.len(), "cutting what did not end in time");
        stop.cut.cancel();
        room.tasks.wait().await;
    }
}

/// Where connections live: how many fit, and which are there.
struct Room {
    slots: Arc<Semaphore>,
    crowd: Arc<Crowd>,
    tasks: TaskTracker,
    counts: Arc<Connections>,
}

impl Room {
    /// A place for one more connection, or none, and then that is counted.
    fn place_for(&self, peer: SocketAddr) -> Option<(OwnedSemaphorePermit, Place)> {
        let slot = Arc::clone(&self.slots).try_acquire_owned().ok();
        let place = slot.and_then(|slot| Some((slot, self.crowd.enter(peer.ip())?)));
        if place.is_none() {
            self.counts.refused();
            tracing::debug!(%peer, "refused: too many connections");
        }
        place
    }
}

async fn accept_all(
    listener: &TcpListener,
    tls: Option<&Tls>,
    router: &Router,
    limits: &Arc<Limits>,
    room: &Room,
    stop: &Stop,
) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                after_accept_error(&error).await;
                continue;
            }
        };
        let Some(place) = room.place_for(peer) else { continue };
        if let Err(error) = tune(&stream) {
            tracing::debug!(%peer, %error, "cannot set socket options");
        }
        let open = room.counts.opened();
        let tls = tls.map(Tls::acceptor);
        let serving = one::serve(stream, Peer(peer), tls, router.clone(), Arc::clone(limits), stop.clone());
        room.tasks.spawn(async move {
            let cut = serving.await;
            tell(peer, cut, &open);
            drop((place, open));
        });
    }
}

fn tell(peer: SocketAddr, end: one::End, open: &crate::metrics::Open) {
    match end {
        one::End::Closed => {}
        one::End::Broken(error) => tracing::debug!(%peer, error, "connection broke"),
        one::End::Cut(reason) => {
            open.cut();
            tracing::debug!(%peer, reason, "connection cut");
        }
    }
}

/// A connection that went away before it was accepted says nothing about the next; running out of descriptors
/// does, and asking again at once would spin.
async fn after_accept_error(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    if matches!(error.kind(), ConnectionAborted | ConnectionReset | ConnectionRefused | Interrupted) {
        return;
    }
    tracing::error!(%error, "cannot accept connections");
    tokio::time::sleep(Duration::from_millis(200)).await;
}

/// Lines of a stream go out at once; a host that vanished without a word is found out within half a minute.
fn tune(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(10))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(5))?;
    sockopt::set_tcp_keepcnt(stream, 3)?;
    sockopt::set_tcp_user_timeout(stream, 30_000)?;
    Ok(())
}
