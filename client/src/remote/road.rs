//! How requests get to the server: by way of an agent if there is one, else directly.
//!
//! What goes wrong by way of the agent says nothing of the server, so [`Roads::turn_back`] has it done again directly, and
//! the rest of the launch goes directly too. Every request may be sent twice: an acquire has its id, a blob and a result
//! are what they are.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, ClientBuilder, Url};

use super::agent::{Address, Agent, Knock};
use super::server::is_loopback;
use super::{RemoteError, tls};
use crate::settings::Papers;

/// What an agent's socket is called in requests; it passes them on to one server only.
const AGENT: &str = "http://agent";

/// One way to the server.
#[derive(Debug)]
pub(super) struct Road {
    pub(super) client: Client,
    /// What paths stand behind.
    pub(super) base: String,
}

/// The ways there are.
pub(super) struct Roads {
    start: Start,
    /// What the direct road is made by.
    url: String,
    papers: Papers,
    headers: HeaderMap,
    timeout: Duration,
    /// Whether the server asked who we are.
    pub(super) asked: Arc<AtomicBool>,
    direct: OnceLock<Road>,
    /// The agent that is to be there for the launchers after this one.
    missing: Option<Agent>,
    was_started: AtomicBool,
}

/// Where the first request goes.
enum Start {
    /// What the road leads through stays open.
    Agent {
        road: Road,
        _through: Address,
    },
    Direct(Road),
}

impl Roads {
    /// The roads to the server at `url`. One through the agent is taken if that answers.
    pub(super) fn new(
        url: &str,
        papers: &Papers,
        headers: HeaderMap,
        timeout: Duration,
        agent: Option<Agent>,
    ) -> Result<Self, RemoteError> {
        let url = url.trim_end_matches('/').to_owned();
        let (papers, asked) = (papers.clone(), Arc::new(AtomicBool::new(false)));
        let by_agent = agent.as_ref().filter(|agent| matches!(agent.knock(), Knock::Answered(_)));
        let (start, missing) = match by_agent.and_then(Agent::address) {
            Some(address) => {
                let builder = tls::none().map(plain)?.unix_socket(address.path());
                let client = built(builder.default_headers(headers.clone()))?;
                let road = Road { client, base: AGENT.to_owned() };
                (Start::Agent { road, _through: address }, None)
            }
            None => (Start::Direct(direct(&url, &papers, &headers, timeout, &asked)?), agent),
        };
        let (direct, was_started) = (OnceLock::new(), AtomicBool::new(false));
        Ok(Self { start, url, papers, headers, timeout, asked, direct, missing, was_started })
    }

    /// The road that requests take now.
    pub(super) fn current(&self) -> &Road {
        let (Start::Agent { road: first, .. } | Start::Direct(first)) = &self.start;
        self.direct.get().unwrap_or(first)
    }

    /// Whether requests go by way of the agent now.
    pub(super) fn are_by_agent(&self) -> bool {
        matches!(self.start, Start::Agent { .. }) && self.direct.get().is_none()
    }

    /// After an error on a way that was `by_agent`: goes directly from here on, and `Ok` means to ask again. Else the error
    /// stands.
    pub(super) fn turn_back(&self, by_agent: bool, error: RemoteError) -> Result<(), RemoteError> {
        if !by_agent || !error.trips_breaker() {
            return Err(error);
        }
        if self.direct.get().is_none() {
            let road = direct(&self.url, &self.papers, &self.headers, self.timeout, &self.asked)?;
            let _ = self.direct.set(road);
        }
        Ok(())
    }

    /// The server has answered: it pays to have an agent, and there is none.
    pub(super) fn arrived(&self) {
        let missing = self.missing.as_ref().filter(|_| !self.was_started.swap(true, Ordering::Relaxed));
        if let Some(agent) = missing {
            agent.start();
        }
    }
}

impl fmt::Debug for Roads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roads").field("url", &self.url).finish_non_exhaustive()
    }
}

fn direct(
    url: &str,
    papers: &Papers,
    headers: &HeaderMap,
    timeout: Duration,
    asked: &Arc<AtomicBool>,
) -> Result<Road, RemoteError> {
    let builder = builder(url, papers, Arc::clone(asked))?;
    let client = built(builder.default_headers(headers.clone()).connect_timeout(timeout))?;
    Ok(Road { client, base: url.to_owned() })
}

/// What connects to the server at `url` itself; `asked` becomes true once that asks who we are.
pub(super) fn builder(
    url: &str,
    papers: &Papers,
    asked: Arc<AtomicBool>,
) -> Result<ClientBuilder, RemoteError> {
    let url =
        Url::parse(url).map_err(|error| RemoteError::Misconfigured(format!("the server's URL: {error}")))?;
    let tls = match url.scheme() {
        _ if url.query().is_some() || url.fragment().is_some() => return Err(bad_url()),
        "https" => tls::config(papers, asked)?,
        "http" => tls::none()?,
        _ => return Err(bad_url()),
    };
    Ok(if is_loopback(&url) { plain(tls).no_proxy() } else { plain(tls) })
}

fn plain(tls: rustls::ClientConfig) -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("pcmcache/", env!("CARGO_PKG_VERSION")))
        .tls_backend_preconfigured(tls)
        // A redirect could lead a token and a build's bytes anywhere; none is part of the protocol.
        .redirect(reqwest::redirect::Policy::none())
}

fn built(builder: ClientBuilder) -> Result<Client, RemoteError> {
    builder.build().map_err(|error| RemoteError::Misconfigured(error.to_string()))
}

fn bad_url() -> RemoteError {
    RemoteError::Misconfigured("the server's URL must be https://HOST:PORT or http://HOST:PORT".to_owned())
}
