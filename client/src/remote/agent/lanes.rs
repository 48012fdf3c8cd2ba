//! The connections that are kept: a few under HTTP/2, each for many requests, or a pool under HTTP/1.1.
//!
//! Small talk and blobs start at opposite ends of the lanes, so that an acquire's line does not queue behind megabytes. A
//! connection whose other end has vanished is found out by pings within seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Client, ClientBuilder, Version};

use crate::remote::RemoteError;
use crate::remote::road;
use crate::settings::Papers;

/// How many connections there are under HTTP/2.
const LANES: usize = 4;
/// As many requests go over one of them at a time; servers and proxies allow a hundred and more.
const FULL: usize = 90;
/// As many connections under HTTP/1.1 wait for their next request, and for how long. Servers wait longer.
const KEPT: usize = 32;
const KEPT_FOR: Duration = Duration::from_secs(30);
/// How long a connection, and the first answer over it, may take. Whoever waits for one goes their own way long before.
const CONNECT: Duration = Duration::from_secs(10);
/// How often the other end is asked whether it is there, and how soon it must answer.
const PING: Duration = Duration::from_secs(2);

/// The ways to one server.
#[derive(Debug)]
pub(super) struct Lanes(Vec<Lane>);

#[derive(Debug)]
struct Lane {
    client: Client,
    open: Arc<AtomicUsize>,
    full: usize,
}

/// A request's place in a lane, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) client: Client,
    open: Arc<AtomicUsize>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lanes {
    /// Connects, to see what the server at `url` speaks. An agent that cannot do that is of no use.
    pub(super) async fn open(url: &str, papers: &Papers) -> Result<Self, RemoteError> {
        let builder = || road::builder(url, papers, Arc::default()).map(kept);
        let built = |builder: ClientBuilder| {
            builder.build().map_err(|error| RemoteError::Misconfigured(error.to_string()))
        };
        let first = built(builder()?)?;
        let asking = first.get(format!("{url}/healthz")).send();
        let answer = match tokio::time::timeout(CONNECT, asking).await {
            Ok(answer) => answer.map_err(|error| RemoteError::cut("probe", error))?,
            Err(_) => return Err(RemoteError::silent("probe")),
        };
        if answer.version() != Version::HTTP_2 {
            return Ok(Self(vec![Lane::new(first, usize::MAX)]));
        }
        let mut lanes = vec![Lane::new(first, FULL)];
        while lanes.len() < LANES {
            // Where HTTP/2 is known to be spoken, all who come at once wait for one connection.
            lanes.push(Lane::new(built(builder()?.http2_prior_knowledge())?, FULL));
        }
        Ok(Self(lanes))
    }

    /// A place for one more request, if there is one.
    pub(super) fn place(&self, is_blob: bool) -> Option<Place> {
        let mut lanes: Vec<&Lane> = self.0.iter().collect();
        if is_blob {
            lanes.reverse();
        }
        lanes.into_iter().find_map(Lane::place)
    }
}

impl Lane {
    fn new(client: Client, full: usize) -> Self {
        Self { client, open: Arc::default(), full }
    }

    fn place(&self) -> Option<Place> {
        self.open.fetch_add(1, Ordering::Relaxed);
        // One too many is dropped, and counted no longer.
        let place = Place { client: self.client.clone(), open: Arc::clone(&self.open) };
        (self.open.load(Ordering::Relaxed) <= self.full).then_some(place)
    }
}

fn kept(builder: ClientBuilder) -> ClientBuilder {
    builder
        .connect_timeout(CONNECT)
        .pool_max_idle_per_host(KEPT)
        .pool_idle_timeout(KEPT_FOR)
        .tcp_keepalive(PING)
        .http2_keep_alive_interval(PING)
        .http2_keep_alive_timeout(PING)
        .http2_keep_alive_while_idle(true)
}
