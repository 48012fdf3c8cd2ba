//! The server's host: a disk, and the processes that one after another serve from it. Each is the real router over the real
//! cache; what stands below is [`crate::store`], what stands above is hyper with the settings of the real accept loop, over a
//! pipe. What leaves it is looked at on its way out: an acknowledgement must be true by then, and a waiter answered in time.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use pcmcache_server::cache::{Cache, Limits, Rooms};
use pcmcache_server::clock::Entropy;
use pcmcache_server::connection::Peer;
use pcmcache_server::history::History;
use pcmcache_server::http::{App, Gate, Packers, Routes};
use pcmcache_server::limits::{Bounds, Limiter};
use pcmcache_server::metrics::Metrics;
use pcmcache_server::trust::{BookFile, Settings, Trust, WithoutBook};
use pcmcache_server::upkeep::{self, Plan};
use pcmcache_shared::{ActionKey, Claim, Digest, Scope};
use pcmcache_tests::Chance;
use tokio::io::DuplexStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::clocks::HostClock;
use crate::judge::Judge;
use crate::network::{ABOUT, path};
use crate::store::{Disk, Store, StoredBlobs};
use crate::world::{Ground, Team};

/// How long a server that was told to stop still serves what is under way.
const DRAIN: Duration = Duration::from_secs(9);

/// Making them takes longer than half a world.
static ROUTES: LazyLock<Routes> = LazyLock::new(Routes::default);

/// See the module.
pub(crate) struct Server {
    judge: Arc<Judge>,
    /// What is on its disk.
    pub(crate) disk: Arc<Disk>,
    fast_ppm: i64,
    book: BookFile,
    scopes: Vec<Team>,
    state: Mutex<State>,
}

struct State {
    process: Option<Process>,
    chance: Chance,
    /// By how much its calendar is off.
    off_ms: i64,
}

/// One life of the server.
#[derive(Clone)]
struct Process {
    router: Router,
    clock: Arc<HostClock>,
    /// Told to stop.
    stop: CancellationToken,
    dead: CancellationToken,
}

/// Randomness that can be had again.
struct Dice(Mutex<Chance>);

impl fmt::Debug for Dice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dice")
    }
}

impl Entropy for Dice {
    fn bytes(&self) -> std::io::Result<[u8; 16]> {
        let mut chance = self.0.lock().expect("the dice");
        let both = [chance.below(u64::MAX), chance.below(u64::MAX)];
        Ok((u128::from(both[0]) << 64 | u128::from(both[1])).to_le_bytes())
    }
}

impl Server {
    /// One that is down. Who may do what stands in the book.
    pub(crate) fn new(
        judge: Arc<Judge>,
        disk: Arc<Disk>,
        fast_ppm: i64,
        ground: &Ground,
        chance: Chance,
    ) -> Arc<Self> {
        let state = State { process: None, chance, off_ms: 0 };
        let (book, scopes) = (ground.book.clone(), ground.teams.clone());
        Arc::new(Self { judge, disk, fast_ppm, book, scopes, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the server")
    }

    /// Starts it, if it is down.
    pub(crate) fn start(&self) {
        let mut state = self.state();
        if state.process.is_some() {
            return;
        }
        self.judge.say("server", "starts");
        let clock = Arc::new(HostClock::new(self.fast_ppm));
        clock.jump(state.off_ms);
        let (stop, dead) = (CancellationToken::new(), CancellationToken::new());
        let store = Store::open(&self.disk, &clock, &self.judge, dead.clone());
        let rooms = Rooms {
            blobs: Arc::new(StoredBlobs(Arc::clone(&store))),
            results: Arc::clone(&store) as _,
            profiles: Arc::clone(&self.disk.profiles) as _,
            leases: store,
            clock: Arc::clone(&clock) as _,
            entropy: Arc::new(Dice(Mutex::new(Chance::seeded(state.chance.below(u64::MAX))))),
        };
        let cache = Cache::new(rooms, Limits::default());
        let settings =
            Settings { book: self.book.clone(), without_book: WithoutBook::Mistake, public: Vec::new() };
        let trust = Trust::with(settings, None, Arc::clone(&clock) as _).expect("the book of tokens");
        let metrics = Arc::new(Metrics::default());
        let bounds = Bounds { rate: 0, concurrency: 0, waits: 0 };
        let gate = Gate {
            limiter: Limiter::new(bounds, Arc::clone(&clock) as _),
            connections: Arc::clone(&metrics.connections),
            behind_proxy: false,
            is_here_only: false,
        };
        let app = App {
            cache: Arc::clone(&cache),
            trust,
            stop: stop.clone(),
            metrics,
            gate,
            history: Arc::new(History::default()),
            traces: None,
            packers: Packers::of(1),
        };
        let upkeep = upkeep::run(cache, Plan::default());
        let ends = dead.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = ends.cancelled() => {}
                () = upkeep => {}
            }
        });
        state.process = Some(Process { router: ROUTES.over(app), clock, stop, dead });
    }

    /// Ends it in the middle of whatever it does.
    pub(crate) fn crash(&self) {
        if let Some(process) = self.state().process.take() {
            self.judge.say("server", "crashes");
            process.dead.cancel();
            self.judge.crashed();
        }
    }

    /// Has it end in good order.
    pub(crate) async fn stop(&self) {
        let Some(process) = self.state().process.clone() else { return };
        self.judge.say("server", "stops");
        process.stop.cancel();
        tokio::select! {
            biased;
            () = process.dead.cancelled() => {}
            () = tokio::time::sleep(DRAIN) => self.crash(),
        }
    }

    /// Sets its calendar.
    pub(crate) fn jump(&self, by_ms: i64) {
        self.judge.say("server", format!("its calendar jumps by {by_ms} ms"));
        let mut state = self.state();
        state.off_ms += by_ms;
        if let Some(process) = &state.process {
            process.clock.jump(by_ms);
        }
    }

    /// Takes a connection, unless it is down.
    pub(crate) fn accept(self: &Arc<Self>, stream: DuplexStream) -> bool {
        let Some(process) = self.state().process.clone().filter(|process| !process.stop.is_cancelled())
        else {
            return false;
        };
        let dead = process.dead.clone();
        let serving = Arc::clone(self).serve(stream, process);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = dead.cancelled() => {}
                () = serving => {}
            }
        });
        true
    }

    /// As `pcmcache_server::connection` serves one.
    async fn serve(self: Arc<Self>, stream: DuplexStream, process: Process) {
        let mut builder = Builder::new(TokioExecutor::new()).http1_only();
        builder.http1().timer(TokioTimer::new()).half_close(false).header_read_timeout(None).keep_alive(true);
        let service = service_fn(|request: Request<Incoming>| {
            let (server, router) = (Arc::clone(&self), process.router.clone());
            async move { Ok::<_, Infallible>(server.answer(router, request).await) }
        });
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            () = process.stop.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }

    async fn answer(self: Arc<Self>, router: Router, mut request: Request<Incoming>) -> Response<Body> {
        request.extensions_mut().insert(Peer(SocketAddr::from(([10, 0, 0, 1], 1))));
        let (method, uri) = (request.method().clone(), request.uri().path().to_owned());
        let about = request.headers().get(ABOUT).and_then(|about| about.to_str().ok()).map(str::to_owned);
        let response = router.oneshot(request.map(Body::new)).await.unwrap_or_else(|never| match never {});
        self.judge.say("server", format!("{method} {} -> {}", path(&uri), response.status().as_u16()));
        self.judge.count(|counts| counts.requests += 1);
        if method == http::Method::PUT && response.status().is_success() {
            self.check_acknowledged(&uri);
        }
        let Some((scope, about)) = scope_of(&uri).zip(about).filter(|_| uri.ends_with("/acquire")) else {
            return response;
        };
        let mut about = about.split(' ');
        // What is given back in its own scope is not for one whose base builds it; the judge does not go into that.
        let team = self.scopes.iter().find(|team| team.scope == scope).expect("a scope");
        let takes = about.next() == Some("Build") && team.base.is_none();
        let claims = about.filter_map(|claim| claim.parse::<Digest>().ok());
        let claims = claims.map(|claim| Claim::from_bytes(*claim.as_bytes())).collect();
        let watched = Watched { judge: Arc::clone(&self.judge), scope, claims, takes, wait: None };
        response.map(|body| Body::new(WatchedBody { body, watched }))
    }

    /// What is acknowledged is durable.
    fn check_acknowledged(&self, uri: &str) {
        let Some((scope, name)) = scope_of(uri).zip(uri.rsplit('/').next()) else { return };
        let Ok(digest) = name.parse::<Digest>() else { return };
        let is_durable = match uri.contains("/actions/") {
            true => {
                let team = self.scopes.iter().find(|team| team.scope == scope).expect("a scope");
                let action = ActionKey::from_bytes(*digest.as_bytes());
                team.reads().iter().any(|scope| self.disk.durable(scope, action).is_some())
            }
            false => self.disk.has(digest),
        };
        if !is_durable {
            self.judge
                .blame(format!("durable: {} was acknowledged and would not survive a crash", path(uri)));
        }
    }
}

fn scope_of(uri: &str) -> Option<Scope> {
    uri.strip_prefix("/v1/scopes/")?.split('/').next()?.parse().ok()
}

/// Looks at an acquire's lines.
struct Watched {
    judge: Arc<Judge>,
    scope: Scope,
    claims: Vec<Claim>,
    takes: bool,
    /// The number of its wait.
    wait: Option<u64>,
}

impl Watched {
    fn line(&mut self, line: &[u8]) {
        match line.starts_with(br#"{"state":"busy""#) {
            true if self.wait.is_none() => {
                self.wait = Some(self.judge.waits(&self.scope, self.claims.clone(), self.takes));
            }
            true => self.judge.look(),
            false => self.ended(true),
        }
    }

    fn ended(&mut self, is_answer: bool) {
        if let Some(wait) = self.wait.take() {
            self.judge.waited(wait, is_answer);
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.ended(false);
    }
}

/// A body whose lines are looked at when they leave.
struct WatchedBody {
    body: Body,
    watched: Watched,
}

impl hyper::body::Body for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(line) = frame.data_ref() {
                    self.watched.line(line);
                }
            }
            Some(Err(_)) | None => self.watched.ended(false),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
