//! The network: pipes in memory between hosts and the server, which delay what they carry, cut it anywhere, hold it back while
//! a host is cut off, and bring requests twice. The bytes on them are real HTTP/1.1, written and read by hyper on both sides,
//! and each launch has a pool of connections as reqwest has one.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use pcmcache::remote::carrier::{Body, Carried, Carrier};
use pcmcache_shared::api::acquire::AcquireRequest;
use pcmcache_tests::Chance;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::judge::{Judge, short};
use crate::server::Server;

/// Tells the server's side of a world what an acquire is about; the server itself does not know the header.
pub(crate) const ABOUT: &str = "simulation-about";

/// What a socket keeps of what nobody took yet.
const BUFFER: usize = 64 * 1024;
/// How long a connection over which nothing gets through lives: the kernel's keep-alive and user timeout.
const UNHEARD: Duration = Duration::from_secs(30);
/// A request that comes a second time does so within this time.
const LATEST_TWICE: Duration = Duration::from_secs(12);

/// How bad the network of a world is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// The longest usual delay, in milliseconds.
    pub(crate) delay_ms: u64,
    /// Of a thousand pieces, so many take up to a hundred times as long.
    pub(crate) slow: u64,
    /// Of a thousand connections, so many are cut after some bytes.
    pub(crate) cut: u64,
    /// Of a thousand requests, so many come twice.
    pub(crate) twice: u64,
}

/// What gets through between a host and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Blocked {
    /// Nothing that the host sends.
    pub(crate) up: bool,
    /// Nothing that the server sends.
    pub(crate) down: bool,
}

/// The way between a host and the server. Who waits for it is woken in the order in which they came, so it is no `watch`, which
/// wakes them by chance.
#[derive(Default)]
struct Link {
    blocked: Mutex<Blocked>,
    changed: Notify,
}

impl Link {
    fn set(&self, blocked: Blocked) {
        *self.blocked.lock().expect("a link") = blocked;
        self.changed.notify_waiters();
    }

    /// Returns when something gets through this way.
    async fn opened(&self, is_up: bool) {
        loop {
            let changed = self.changed.notified();
            let blocked = *self.blocked.lock().expect("a link");
            if !(if is_up { blocked.up } else { blocked.down }) {
                return;
            }
            changed.await;
        }
    }
}

/// See the module.
pub(crate) struct Network {
    judge: Arc<Judge>,
    server: Arc<Server>,
    state: Mutex<State>,
}

struct State {
    chance: Chance,
    weather: Weather,
    links: BTreeMap<String, Arc<Link>>,
    connections: u64,
}

impl Network {
    /// All hosts reach the server.
    pub(crate) fn new(judge: Arc<Judge>, server: Arc<Server>, chance: Chance, weather: Weather) -> Arc<Self> {
        let state = State { chance, weather, links: BTreeMap::new(), connections: 0 };
        Arc::new(Self { judge, server, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the network")
    }

    /// Lets less through, or more, between a host and the server.
    pub(crate) fn block(&self, host: &str, blocked: Blocked) {
        self.judge.say("network", format!("{host} {blocked:?}"));
        self.link(host).set(blocked);
    }

    /// From now on everything gets through, soon and once.
    pub(crate) fn heal(&self) {
        self.judge.say("network", "healed");
        let mut state = self.state();
        state.weather = Weather { delay_ms: state.weather.delay_ms, ..Weather::default() };
        for link in state.links.values() {
            link.set(Blocked::default());
        }
    }

    fn link(&self, host: &str) -> Arc<Link> {
        self.state().links.entry(host.to_owned()).or_default().clone()
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut Chance, Weather) -> T) -> T {
        let mut state = self.state();
        let weather = state.weather;
        draw(&mut state.chance, weather)
    }

    /// Opens a connection, which takes a way there and back.
    async fn connect(self: Arc<Self>, host: String) -> Result<Socket, Box<dyn Error + Send + Sync>> {
        let (there, back, seed) = self
            .draw(|chance, weather| (delay(chance, weather), delay(chance, weather), chance.below(u64::MAX)));
        let link = self.link(&host);
        sleep(there).await;
        link.opened(true).await;
        let number = {
            let mut state = self.state();
            state.connections += 1;
            state.connections
        };
        let (near, near_end) = tokio::io::duplex(BUFFER);
        let (far_end, far) = tokio::io::duplex(BUFFER);
        let heard = self.server.accept(far);
        sleep(back).await;
        link.opened(false).await;
        if !heard {
            self.judge.say(&host, "refused");
            return Err("connection refused".into());
        }
        let mut chance = Chance::seeded(seed);
        let weather = self.state().weather;
        let budget = |chance: &mut Chance| match chance.below(1000) < weather.cut {
            true => chance.below(3_000) + 1,
            false => u64::MAX,
        };
        let cut = CancellationToken::new();
        let ((from_near, to_near), (from_far, to_far)) =
            (tokio::io::split(near_end), tokio::io::split(far_end));
        let ends: [(bool, Ends); 2] = [(true, (from_near, to_far)), (false, (from_far, to_near))];
        for (is_up, (from, to)) in ends {
            let pipe = Pipe {
                network: Arc::clone(&self),
                name: format!("{host} #{number} {}", if is_up { "up" } else { "down" }),
                is_up,
                link: Arc::clone(&link),
                budget: budget(&mut chance),
                chance: Chance::seeded(chance.below(u64::MAX)),
                cut: cut.clone(),
            };
            tokio::spawn(pipe.carry(from, to));
        }
        Ok(Socket(near))
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

fn delay(chance: &mut Chance, weather: Weather) -> Duration {
    let usual = chance.below(weather.delay_ms * 1000) + 100;
    let times = if chance.below(1000) < weather.slow { chance.below(100) + 1 } else { 1 };
    Duration::from_micros(usual * times)
}

type Ends = (tokio::io::ReadHalf<DuplexStream>, tokio::io::WriteHalf<DuplexStream>);

/// One direction of a connection.
struct Pipe {
    network: Arc<Network>,
    name: String,
    is_up: bool,
    link: Arc<Link>,
    /// So many bytes get through before the connection is cut.
    budget: u64,
    chance: Chance,
    cut: CancellationToken,
}

impl Pipe {
    async fn carry(
        mut self,
        from: tokio::io::ReadHalf<DuplexStream>,
        mut to: tokio::io::WriteHalf<DuplexStream>,
    ) {
        let cut = self.cut.clone();
        tokio::select! {
            biased;
            () = cut.cancelled() => {}
            () = self.carry_all(from, &mut to) => {}
        }
        // The end, whichever it is, is seen at the other side.
        let _ = to.shutdown().await;
    }

    async fn carry_all(
        &mut self,
        mut from: tokio::io::ReadHalf<DuplexStream>,
        to: &mut tokio::io::WriteHalf<DuplexStream>,
    ) {
        let mut piece = vec![0; 8 * 1024];
        loop {
            let came = from.read(&mut piece).await.unwrap_or(0);
            let weather = self.network.state().weather;
            sleep(delay(&mut self.chance, weather)).await;
            if !self.gets_through().await {
                self.network.judge.say(&self.name, "given up");
                return self.cut.cancel();
            }
            if came == 0 {
                return;
            }
            let through = self.budget.min(came as u64);
            self.budget -= through;
            let is_cut = self.budget == 0 && weather.cut > 0;
            if to.write_all(&piece[..through as usize]).await.is_err() {
                return self.cut.cancel();
            }
            if is_cut {
                self.network.judge.say(&self.name, format!("cut after {through} of {came} bytes"));
                return self.cut.cancel();
            }
        }
    }

    /// Waits until the link lets something through this way; not for ever.
    async fn gets_through(&self) -> bool {
        timeout_at(Instant::now() + UNHEARD, self.link.opened(self.is_up)).await.is_ok()
    }
}

/// A host's end of a connection.
struct Socket(DuplexStream);

impl Connection for Socket {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Opens connections for one launch.
#[derive(Clone)]
struct Connector {
    network: Arc<Network>,
    host: String,
    within: Duration,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Socket>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<TokioIo<Socket>, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connecting = Arc::clone(&self.network).connect(self.host.clone());
        let within = self.within;
        Box::pin(async move {
            match timeout(within, connecting).await {
                Ok(connected) => connected.map(TokioIo::new),
                Err(_) => Err("no connection in time".into()),
            }
        })
    }
}

/// The connections of one launch.
pub(crate) struct Launch {
    network: Arc<Network>,
    host: String,
    client: Client<Connector, Body>,
}

impl Launch {
    /// None yet. A connection that takes longer than `within` fails.
    pub(crate) fn new(network: &Arc<Network>, host: &str, within: Duration) -> Arc<Self> {
        let connector = Connector { network: Arc::clone(network), host: host.to_owned(), within };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(90))
            .build(connector);
        Arc::new(Self { network: Arc::clone(network), host: host.to_owned(), client })
    }
}

impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Launch")
    }
}

impl Carrier for Launch {
    fn carry(&self, mut request: http::Request<Body>) -> BoxFuture<'static, Carried> {
        if let Some(about) = request.body().as_bytes().and_then(about) {
            request.headers_mut().insert(ABOUT, about.parse().expect("a header"));
        }
        let twice = self.network.draw(|chance, weather| {
            (chance.below(1000) < weather.twice).then(|| chance.moment(LATEST_TWICE))
        });
        if let Some((late, again)) = twice.zip(again(&request)) {
            let what = format!("{} {} comes again after {late:?}", again.method(), path(again.uri().path()));
            self.network.judge.say(&self.host, what);
            let client = self.client.clone();
            tokio::spawn(async move {
                sleep(late).await;
                // Whoever sent it twice takes the first answer; of this one nobody reads more than a little.
                if let Ok(answer) = client.request(again).await {
                    let _ = timeout(late / 2, answer.into_body().collect()).await;
                }
            });
        }
        let asking = self.client.request(request);
        Box::pin(async move {
            match asking.await {
                Ok(response) => Ok(response.map(Body::wrap)),
                Err(error) => Err(error.into()),
            }
        })
    }
}

/// The same request once more, if its body can be had twice.
fn again(request: &http::Request<Body>) -> Option<http::Request<Body>> {
    let bytes = bytes::Bytes::copy_from_slice(request.body().as_bytes()?);
    let mut again = http::Request::new(Body::from(bytes));
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

/// What an acquire is about: all claims that its answer may depend on, and whether it would build.
fn about(body: &[u8]) -> Option<String> {
    let request: AcquireRequest = serde_json::from_slice(body).ok()?;
    let known = request.known.iter().filter_map(|known| known.action).map(|action| action.to_string());
    let unit = request.unit.map(|unit| unit.to_string());
    let claims: Vec<String> = [request.claim.to_string()].into_iter().chain(unit).chain(known).collect();
    Some(format!("{:?} {}", request.mode, claims.join(" ")))
}

/// A path whose long names are short.
pub(crate) fn path(path: &str) -> String {
    path.split('/')
        .map(|part| if part.len() == 64 { short(part) } else { part.to_owned() })
        .collect::<Vec<_>>()
        .join("/")
}
