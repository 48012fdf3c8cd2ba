//! One server: its address, who asks, the client, and how long anything may take.

use std::io::Read as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pcmcache_shared::api::leases::{Hold, ReleaseRequest, RenewRequest, Renewed};
use pcmcache_shared::api::revocations::Revocations;
use pcmcache_shared::api::token::WhoAmI;
use pcmcache_shared::api::{self, EPOCH_HEADER, WIRE, WIRE_HEADER, limits};
use pcmcache_shared::{Claim, ReleaseReason, Scope};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Url};
use serde::de::DeserializeOwned;

use super::agent::Agent;
use super::answer::Answer;
use super::carrier::{By, Carrier};
use super::pace::Pace;
use super::road::Roads;
use super::{RemoteError, Settings, tls};

/// The longest that one blob may take, whatever its size.
const LONGEST_TRANSFER: Duration = Duration::from_secs(300);

/// As much of a token file is read, in bytes.
const LONGEST_TOKEN: u64 = limits::MAX_TOKEN as u64;

/// How long anything may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines {
    /// A connection; the first answer to an acquire, a renewal, a probe.
    pub first: Duration,
    /// The pause between two pieces of a body, and before the first one of a blob.
    pub idle: Duration,
    /// A whole JSON answer, and what a blob gets beside the time that its size gives it.
    pub answer: Duration,
    /// The slowest that a blob may come or go.
    pub bytes_per_second: u64,
    /// The pause between two tries to get back to a server that was there a moment ago.
    pub retry_every: Duration,
    /// How long such a server is waited for.
    pub restart: Duration,
    /// How often a server says that it is still busy.
    pub busy_every: Duration,
    /// How often a lease is renewed.
    pub renew_every: Duration,
    /// The most that is read of one JSON answer or stream, in bytes.
    pub most: usize,
}

impl Deadlines {
    pub(super) fn new(first: Duration) -> Self {
        Self {
            first,
            idle: Duration::from_secs(5),
            answer: Duration::from_secs(10),
            bytes_per_second: 1024 * 1024,
            retry_every: Duration::from_millis(200),
            restart: Duration::from_secs(5),
            busy_every: limits::BUSY_EVERY,
            renew_every: limits::RENEW_EVERY,
            most: limits::MAX_ANSWER,
        }
    }

    /// The same by a clock that takes `pace` seconds for one.
    pub(super) fn paced(self, pace: f64) -> Self {
        let paced = |time: Duration| time.mul_f64(pace);
        Self {
            first: paced(self.first),
            idle: paced(self.idle),
            answer: paced(self.answer),
            bytes_per_second: self.bytes_per_second,
            retry_every: paced(self.retry_every),
            restart: paced(self.restart),
            busy_every: paced(self.busy_every),
            renew_every: paced(self.renew_every),
            most: self.most,
        }
    }

    /// How long moving this many bytes may take. The size may be a lie: nobody waits for hours.
    pub(super) fn transfer(&self, size: u64) -> Duration {
        let moving = Duration::from_secs(size / self.bytes_per_second.max(1));
        self.answer + moving.min(LONGEST_TRANSFER)
    }
}

/// One server.
#[derive(Debug)]
pub(super) struct Server {
    roads: Roads,
    /// What requests go by in place of the roads, if anything.
    by: Option<By>,
    /// By what it is believed, for people.
    believed: String,
    /// Whether it ever answered.
    answered: AtomicBool,
    /// The epoch that the last answer under the scope named.
    epoch: Mutex<Option<u64>>,
    pub(super) scope: Scope,
    pub(super) deadlines: Deadlines,
    pub(super) pace: Pace,
}

impl Server {
    pub(super) fn new(
        settings: &Settings,
        deadlines: Deadlines,
        agent: Option<Agent>,
    ) -> Result<Self, RemoteError> {
        let headers = headers(token(settings)?.as_deref())?;
        let roads = Roads::new(&settings.url, &settings.papers, headers, deadlines.first, agent)?;
        let believed = tls::believed(&settings.papers);
        let (scope, answered) = (settings.scope.clone(), AtomicBool::new(false));
        let (epoch, pace) = (Mutex::default(), settings.pace.clone());
        Ok(Self { roads, by: None, believed, answered, epoch, scope, deadlines, pace })
    }

    /// One that this carrier leads to.
    pub(super) fn carried(
        settings: &Settings,
        deadlines: Deadlines,
        carrier: Arc<dyn Carrier>,
    ) -> Result<Self, RemoteError> {
        let by = By { carrier, headers: headers(token(settings)?.as_deref())? };
        Ok(Self { by: Some(by), ..Self::new(settings, deadlines, None)? })
    }

    /// Whether all is done on the caller's thread.
    pub(super) fn is_carried(&self) -> bool {
        self.by.is_some()
    }

    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let road = self.roads.current();
        road.client.request(method, format!("{}{path}", road.base))
    }

    /// Sends the request, and waits at most `within` for the head of its answer.
    pub(super) async fn send(
        &self,
        during: &'static str,
        request: RequestBuilder,
        within: Duration,
    ) -> Result<Answer, RemoteError> {
        #[cfg(feature = "failpoints")]
        pass(during, "")?;
        let sending = async {
            match &self.by {
                None => request.send().await.map_err(|error| self.cut_by(during, error)),
                Some(by) => by.send(during, request).await,
            }
        };
        match tokio::time::timeout(within, sending).await {
            Ok(Ok(response)) => {
                #[cfg(feature = "failpoints")]
                pass(during, ".done")?;
                self.answered.store(true, Ordering::Relaxed);
                self.roads.arrived();
                self.note_epoch(response.headers());
                Ok(Answer::new(during, response, self.deadlines))
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(RemoteError::silent(during)),
        }
    }

    fn cut_by(&self, during: &'static str, error: reqwest::Error) -> RemoteError {
        let asked = self.roads.asked.load(Ordering::Relaxed);
        let unknown = asked && !self.answered.load(Ordering::Relaxed);
        RemoteError::cut_by(during, error, unknown, &self.believed)
    }

    /// Whether what is asked now goes by way of the agent.
    pub(super) fn is_by_agent(&self) -> bool {
        self.roads.are_by_agent()
    }

    /// After an error on a way that was `by_agent`: `Ok` means to ask again, directly.
    pub(super) fn turn_back(&self, by_agent: bool, error: RemoteError) -> Result<(), RemoteError> {
        self.roads.turn_back(by_agent, error)
    }

    /// Does it once, or a second time directly if the agent failed us.
    pub(super) async fn reach<T>(
        &self,
        work: impl AsyncFn() -> Result<T, RemoteError>,
    ) -> Result<T, RemoteError> {
        let by_agent = self.is_by_agent();
        match work().await {
            Err(error) => self.turn_back(by_agent, error)?,
            done => return done,
        }
        work().await
    }

    /// Tells the server that the holder is alive; how long the lease now lives.
    pub(super) async fn renew(&self, claim: Claim, hold: &Hold) -> Result<Duration, RemoteError> {
        loop {
            let by_agent = self.is_by_agent();
            match self.renew_once(claim, hold).await {
                Err(error) => self.turn_back(by_agent, error)?,
                done => return done,
            }
        }
    }

    async fn renew_once(&self, claim: Claim, hold: &Hold) -> Result<Duration, RemoteError> {
        let body: &RenewRequest = hold;
        let request = self.request(Method::POST, &api::leases::path(&self.scope, claim)).json(body);
        let answer = self.send("renew", request, self.deadlines.first).await?;
        match answer.status() {
            200 => Ok(Duration::from_millis(answer.json::<Renewed>().await?.ttl_ms)),
            _ => Err(answer.refusal().await?.into()),
        }
    }

    /// Gives a lease back.
    pub(super) async fn release(
        &self,
        claim: Claim,
        hold: &Hold,
        reason: ReleaseReason,
    ) -> Result<(), RemoteError> {
        let body = ReleaseRequest { fence: hold.fence, secret: hold.secret.clone(), reason };
        let release = async || {
            let request = self.request(Method::DELETE, &api::leases::path(&self.scope, claim)).json(&body);
            let answer = self.send("release", request, self.deadlines.first).await?;
            match answer.status() {
                200..=299 => Ok(()),
                _ => Err(answer.refusal().await?.into()),
            }
        };
        self.reach(release).await
    }

    /// The epoch that the last answer named, if it named one.
    pub(super) fn epoch(&self) -> Option<u64> {
        *self.epoch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers about anything but a scope name none, and do not count.
    fn note_epoch(&self, headers: &HeaderMap) {
        let named = headers.get(EPOCH_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        if named.is_some() {
            *self.epoch.lock().unwrap_or_else(PoisonError::into_inner) = named;
        }
    }

    /// Whose results it has taken back in this scope.
    pub(super) async fn revocations(&self, scope: &Scope) -> Result<Revocations, RemoteError> {
        self.get("revocations", &api::revocations::path(scope)).await
    }

    /// Who it takes us for.
    pub(super) async fn who_am_i(&self) -> Result<WhoAmI, RemoteError> {
        self.get("who am I", api::token::PATH).await
    }

    /// A small answer in JSON.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        during: &'static str,
        path: &str,
    ) -> Result<T, RemoteError> {
        let get = async || {
            let answer = self.send(during, self.request(Method::GET, path), self.deadlines.first).await?;
            match answer.status() {
                200 => answer.small_json().await,
                _ => Err(answer.refusal().await?.into()),
            }
        };
        self.reach(get).await
    }

    /// Whether it is there and says it is well.
    pub(super) async fn is_well(&self) -> bool {
        self.date().await.is_ok()
    }

    /// The server's date, if it is well.
    pub(super) async fn date(&self) -> Result<String, RemoteError> {
        let request = self.request(Method::GET, "/healthz");
        let answer = self.send("probe", request, self.deadlines.first).await?;
        match answer.status() {
            200 => Ok(answer.date().unwrap_or_default().to_owned()),
            _ => Err(answer.refusal().await?.into()),
        }
    }
}

/// A request, or its answer, as a failpoint: what fails is lost on the way.
#[cfg(feature = "failpoints")]
fn pass(during: &'static str, side: &str) -> Result<(), RemoteError> {
    let point = format!("remote.{}{side}", during.replace(' ', "-"));
    let passed = pcmcache_shared::failpoint::passed(&point).error();
    passed.map_err(|error| RemoteError::broken(during, error.to_string()))
}

/// The token that is said, or the one in the file: that is read each time, since whoever renews it writes it anew.
fn token(settings: &Settings) -> Result<Option<String>, RemoteError> {
    let (None, Some(path)) = (&settings.token, &settings.token_file) else {
        return Ok(settings.token.clone());
    };
    let mut text = String::new();
    let read = fs_err::File::open(path).and_then(|file| file.take(LONGEST_TOKEN).read_to_string(&mut text));
    read.map_err(|error| RemoteError::Misconfigured(format!("the token: {error}")))?;
    match text.trim() {
        "" => Err(RemoteError::Misconfigured(format!("the token file {} is empty", path.display()))),
        token => Ok(Some(token.to_owned())),
    }
}

fn headers(token: Option<&str>) -> Result<HeaderMap, RemoteError> {
    let mut headers = HeaderMap::new();
    headers.insert(WIRE_HEADER, HeaderValue::from(WIRE));
    if let Some(token) = token {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| RemoteError::Misconfigured("the token has characters that none has".to_owned()))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

/// Whether the URL names this very host, for which no proxy is ever meant.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use pcmcache_shared::Digest;

    use super::super::Remote;
    use super::super::fake::{Fake, never, request, settings};
    use super::*;

    fn with(url: &str, token: Option<&str>) -> Result<Remote, RemoteError> {
        let address = ([127, 0, 0, 1], 1).into();
        Remote::new(Settings { url: url.to_owned(), token: token.map(str::to_owned), ..settings(address) })
    }

    #[test]
    fn settings_that_can_never_work_are_told() {
        for url in
            ["", "nonsense", "https://", "ftp://cache", "http://", "http://cache/?q", "http://cache/#f"]
        {
            assert!(matches!(with(url, None), Err(RemoteError::Misconfigured(_))), "{url}");
        }
        assert!(matches!(with("http://cache", Some("a\nb")), Err(RemoteError::Misconfigured(_))));
        assert!(with("http://cache", Some("secret")).is_ok());
        assert!(!format!("{:?}", with("http://cache", Some("secret")).unwrap()).contains("secret"));
    }

    #[test]
    fn a_token_may_lie_in_a_file() {
        let fake = Fake::start(|_, peer| peer.body(200, "ok"));
        let path = std::env::temp_dir().join(format!("pcmcache-token-file-{}", std::process::id()));
        let with = || Remote::new(Settings { token_file: Some(path.clone()), ..settings(fake.address()) });
        assert!(matches!(with(), Err(RemoteError::Misconfigured(_))), "it is not there");
        fs_err::write(&path, "\n").unwrap();
        assert!(matches!(with(), Err(RemoteError::Misconfigured(_))), "it is empty");
        fs_err::write(&path, "from-a-file\n").unwrap();
        assert!(with().unwrap().probe());
        fs_err::remove_file(&path).unwrap();
        assert!(fake.seen("")[0].head.contains("authorization: bearer from-a-file\r\n"));
    }

    #[test]
    fn a_probe_goes_below_the_url_with_the_token() {
        let fake = Fake::start(|_, peer| peer.body(200, "ok"));
        let url = format!("{}/below/", settings(fake.address()).url);
        assert!(with(&url, Some("secret")).unwrap().probe());
        let seen = &fake.seen("")[0];
        assert_eq!(seen.line, "GET /below/healthz");
        assert!(seen.head.contains("authorization: bearer secret\r\n"), "{}", seen.head);
        let fake = Fake::start(|_, peer| peer.body(503, "draining"));
        assert!(!fake.remote().probe());
        let fake = Fake::start(|_, peer| peer.hang());
        assert!(!fake.remote().probe());
    }

    #[test]
    fn a_redirect_carries_nothing_anywhere() {
        let elsewhere = Fake::start(|_, peer| peer.body(200, "ok"));
        let to = elsewhere.address();
        for status in [300, 301, 302, 303, 307, 308] {
            let fake = Fake::start(move |_, peer| {
                peer.head(status, &format!("location: http://{to}/healthz\r\ncontent-length: 0\r\n"));
            });
            let remote = with(&settings(fake.address()).url, Some("secret")).unwrap();
            assert!(!remote.probe());
            let refused = |error: RemoteError| {
                assert!(matches!(error, RemoteError::Refused { status: by, .. } if by == status), "{error}");
            };
            refused(remote.date().unwrap_err());
            refused(remote.acquire(&request(0), &mut || {}, &never).unwrap_err());
            refused(remote.fetch(Digest::of("x"), 1, &mut std::io::sink(), &never).unwrap_err());
            assert!(fake.seen("").iter().all(|seen| seen.head.contains("authorization: bearer secret")));
            assert_eq!(fake.seen("").len(), 4);
        }
        assert!(elsewhere.seen("").is_empty());
    }

    #[test]
    fn loopback_never_goes_through_a_proxy() {
        for (url, loopback) in [
            ("http://localhost:1", true),
            ("http://127.0.0.1:1", true),
            ("http://127.9.9.9", true),
            ("http://[::1]:1", true),
            ("http://10.0.0.1", false),
            ("http://localhost.example", false),
        ] {
            assert_eq!(is_loopback(&url.parse().unwrap()), loopback, "{url}");
        }
    }
}
