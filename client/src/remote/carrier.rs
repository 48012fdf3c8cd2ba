//! What takes a request to the server when its caller brings the way along, and the runtime too: how a simulation has a
//! fleet of launchers on one thread, in a time that it moves itself. A launcher goes by sockets ([`super::road`]).
//!
//! Only the way is another: deadlines, waits, leases, uploads and what is believed of an answer are those of every launch.
//! Nothing here starts a thread, blocks one, or asks a clock but tokio's.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::{error, fmt};

use bytes::Bytes;
use futures::future::BoxFuture;
use pcmcache_shared::api::acquire::AcquireRequest;
use pcmcache_shared::api::actions::PublishRequest;
use pcmcache_shared::digest::CHUNK;
use pcmcache_shared::{ActionKey, Digest, ReleaseReason};
pub use reqwest::Body;
use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, Response};
use tokio::runtime::Handle;

use super::lease::Lease;
use super::server::{Deadlines, Server};
use super::transfer::{self, Counters};
use super::{Answer, Engine, Published, Remote, RemoteError, Settings, publish};

/// An answer whose body is still to come, or why there is none.
pub type Carried = Result<http::Response<Body>, Box<dyn error::Error + Send + Sync>>;

/// Takes requests to a server and brings its answers.
pub trait Carrier: Send + Sync + fmt::Debug {
    /// Returns once the answer's head is here. Dropped before that, the request is given up.
    fn carry(&self, request: http::Request<Body>) -> BoxFuture<'static, Carried>;
}

/// A carrier, and what every request says.
#[derive(Debug)]
pub(super) struct By {
    pub(super) carrier: Arc<dyn Carrier>,
    pub(super) headers: HeaderMap,
}

impl By {
    pub(super) async fn send(
        &self,
        during: &'static str,
        request: RequestBuilder,
    ) -> Result<Response, RemoteError> {
        let broken = |error: &dyn fmt::Display| RemoteError::broken(during, error.to_string());
        let request = request.build().and_then(http::Request::try_from);
        let mut request = request.map_err(|error| broken(&error))?;
        for (name, value) in &self.headers {
            request.headers_mut().entry(name).or_insert_with(|| value.clone());
        }
        self.carrier.carry(request).await.map(Response::from).map_err(|error| broken(&error))
    }
}

/// A file's first bytes, piece by piece.
pub(super) struct Pieces(pub(super) io::Take<File>);

impl Iterator for Pieces {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut piece = Vec::new();
        match self.0.by_ref().take(CHUNK as u64).read_to_end(&mut piece) {
            Ok(0) => None,
            Ok(_) => Some(Ok(piece.into())),
            Err(error) => Some(Err(error)),
        }
    }
}

impl Remote {
    /// A server that this carrier leads to, asked within this runtime by a host whose clock takes `pace` of everybody's
    /// seconds for one of its own.
    ///
    /// # Errors
    /// [`RemoteError::Misconfigured`] if nothing could ever be asked with these settings.
    pub fn carried(
        carrier: Arc<dyn Carrier>,
        runtime: Handle,
        settings: Settings,
        pace: f64,
    ) -> Result<Self, RemoteError> {
        let deadlines = Deadlines::new(settings.timeout).paced(pace);
        let server = Arc::new(Server::carried(&settings, deadlines, carrier)?);
        let engine = Arc::new(Engine::Lent(runtime, Mutex::default()));
        Ok(Self { engine, server, counters: Counters::default(), holder: settings.holder })
    }

    /// [`Remote::acquire`] within the caller's runtime.
    ///
    /// # Errors
    /// Those.
    pub async fn acquire_within(
        &self,
        request: &AcquireRequest,
        busy: &mut (dyn FnMut() + Send),
    ) -> Result<Answer, RemoteError> {
        self.ask(request, busy).await
    }

    /// [`Remote::fetch`] within the caller's runtime.
    ///
    /// # Errors
    /// Those.
    pub async fn fetch_within(
        &self,
        digest: Digest,
        size: u64,
        into: &mut dyn io::Write,
    ) -> Result<(), RemoteError> {
        transfer::fetch(&self.server, &self.counters, digest, size, into).await
    }

    /// [`Remote::publish`] within the caller's runtime.
    ///
    /// # Errors
    /// Those.
    pub async fn publish_within(
        &self,
        key: ActionKey,
        request: &PublishRequest,
        blob: &dyn Fn(Digest) -> Option<PathBuf>,
    ) -> Result<Published, RemoteError> {
        publish::publish(&self.server, &self.counters, key, request, blob).await
    }

    /// [`Remote::probe`] within the caller's runtime.
    pub async fn probe_within(&self) -> bool {
        self.server.is_well().await
    }
}

impl Lease {
    /// [`Lease::wait_until_known`] within the caller's runtime.
    pub async fn wait_until_known_within(&self) {
        self.hear().await;
    }

    /// [`Lease::release`] within the caller's runtime.
    pub async fn release_within(mut self, reason: ReleaseReason) {
        self.say_back(reason).await;
    }
}
