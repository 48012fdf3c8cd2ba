//! The program around the rooms: it opens the store, listens, and stops when it is told to.
//!
//! Order of going up: bind, open the store, say `listening`; so a line on stdout means that requests are answered.
//! Order of going down: no new connections, waiters and holds end, requests finish or are cut, the store closes.

use std::future::Future;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::task::AbortOnDropHandle;

use crate::cache::{Cache, Limits, Rooms};
use crate::clock::{Clock, SystemClock, SystemEntropy};
use crate::config::{Command, Config};
use crate::connection::{self, Stop};
use crate::embedded::Embedded;
use crate::history::History;
use crate::http::{self, App, Gate, Packers};
use crate::limits::Limiter;
use crate::log;
use crate::maintenance::{self, Control, Task};
use crate::metrics::Metrics;
use crate::scrub;
use crate::space::DiskOf;
use crate::tls::Tls;
use crate::traces::{self, Traces};
use crate::trust::{Jobs, Trust};
use crate::upkeep::{self, Plan};

/// How often the book of tokens is looked at when nobody asks for anything: who only waits must learn of a revocation too.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long threads that write to the disk may go on after all connections are gone.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// The whole program: flags and environment to exit status.
pub fn main() -> ExitCode {
    let config = Config::from_command_line();
    let (outcome, failure) = match &config.command {
        Some(command) => (act(&config, command), command.failure()),
        None => (run(&config).map(|()| ExitCode::SUCCESS), ExitCode::FAILURE),
    };
    outcome.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "pcmcache-server: {error:#}");
        failure
    })
}

/// Does something other than to serve.
fn act(config: &Config, command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Token(token) => {
            let (clock, entropy) = (SystemClock::new(), SystemEntropy);
            token.run(&config.book()?, &clock, &entropy, &mut io::stdout(), &mut io::stderr())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Scrub => maintenance::run(&config.data_dir()?, &Task::Scrub),
        Command::Backup(backup) => {
            // The server's own directory is another.
            let to = std::path::absolute(&backup.to)?;
            maintenance::run(&config.data_dir()?, &Task::Backup { to, copy: backup.copy })
        }
        Command::Restore(restore) => maintenance::restore(&restore.from, &config.data_dir()?),
        Command::RebuildIndex => maintenance::rebuild_index(&config.data_dir()?),
        Command::Check(check) => maintenance::run(&config.data_dir()?, &Task::Check { full: check.full }),
    }
}

fn run(config: &Config) -> anyhow::Result<()> {
    log::start(config).context("cannot start the log (--log, --audit-log)")?;
    if let Some(warning) = config.warning() {
        tracing::warn!("{warning}");
    }
    raise_file_limit(config.max_connections);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(run_until_signalled(config));
    runtime.shutdown_timeout(LAST_WRITES);
    outcome
}

async fn run_until_signalled(config: &Config) -> anyhow::Result<()> {
    // From here on a signal stops the server and does not kill it.
    let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let hangups = config.audit_log.is_some().then(|| signal(SignalKind::hangup())).transpose()?;
    let _hangups = hangups.map(|hangups| tokio::spawn(outlive(hangups)));
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {} (--listen)", config.listen))?;
    let address = listener.local_addr()?;
    let server = Server::open(config).await?;
    let tls = server.tls.clone();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let _hangups = tls.map(look_on_hangup).transpose()?;
    announce(scheme, address);
    server.run(listener, stopped_by(terminate, interrupt)).await;
    Ok(())
}

/// Whoever reads stdout may be gone; that is no reason not to serve.
fn announce(scheme: &str, address: std::net::SocketAddr) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "listening on {scheme}://{address}").and_then(|()| stdout.flush());
}

/// SIGHUP has the certificate read again. Without TLS it ends the server, as it does every program whose terminal goes
/// away.
fn look_on_hangup(tls: Arc<Tls>) -> io::Result<AbortOnDropHandle<()>> {
    let mut hangups = signal(SignalKind::hangup())?;
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            tls.look_now();
        }
    })))
}

/// Who rotates logs sends SIGHUP, which would end the server. There is nothing to do: each line of the audit goes to the
/// file that has its name then.
async fn outlive(mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        tracing::info!("SIGHUP");
    }
}

async fn stopped_by(mut terminate: Signal, mut interrupt: Signal) {
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM"),
        _ = interrupt.recv() => tracing::info!("SIGINT"),
    }
}

/// Each connection and each blob that is read takes a descriptor, and the usual soft limit is made for programs that
/// use `select`.
fn raise_file_limit(connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    if let Some(most) = limit.maximum.filter(|most| *most < connections as u64) {
        tracing::warn!(
            most,
            connections,
            "fewer files may be open than --max-connections; raise `ulimit -n`"
        );
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
}

/// Serves on `listener` until `shutdown`, and returns once all is drained and closed.
pub async fn serve(
    listener: TcpListener,
    config: &Config,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    Server::open(config).await?.run(listener, shutdown).await;
    Ok(())
}

/// A server whose store is open.
#[derive(Debug)]
pub struct Server {
    cache: Arc<Cache>,
    trust: Arc<Trust>,
    limits: connection::Limits,
    limiter: Arc<Limiter>,
    behind_proxy: bool,
    is_here_only: bool,
    tls: Option<Arc<Tls>>,
    plan: Plan,
    history: Arc<History>,
    traces: Option<Arc<Traces>>,
    /// Where a person asks for maintenance, if the directory lets us listen there.
    control: Option<Control>,
}

impl Server {
    /// Reads the certificate and opens the store that the flags name.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        Self::open_by(config, Arc::new(SystemClock::new())).await
    }

    /// The same, by another clock: leases, pins and ages follow it, connections the real one.
    pub async fn open_by(config: &Config, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        let directory = config.data_dir()?;
        let tls = config.tls_files().map(|files| Tls::open(files, Arc::clone(&clock))).transpose();
        let tls = tls.context("cannot speak TLS (--tls-cert, --tls-key, --tls-client-ca)")?;
        let opening = {
            let (clock, bounds, directory) = (Arc::clone(&clock), config.bounds(), directory.clone());
            let disk = Arc::new(DiskOf(directory.clone()));
            tokio::task::spawn_blocking(move || Embedded::open_within(&directory, clock, bounds, disk))
        };
        let store = opening.await?.context("cannot use the data directory (--data-dir)")?;
        let spent = Arc::clone(&store) as _;
        let rooms = Rooms {
            blobs: Arc::clone(&store) as _,
            results: Arc::clone(&store) as _,
            profiles: Arc::clone(&store) as _,
            leases: Arc::clone(&store) as _,
            clock: Arc::clone(&clock),
            entropy: Arc::new(SystemEntropy),
        };
        let limits = Limits { max_blob: config.max_blob.0, ..Limits::default() };
        let cache = Cache::new(rooms, limits);
        let jobs = match &config.oidc {
            Some(file) => {
                let (keys, public) = (config.data_dir()?.join("session-keys.json"), &config.public_read);
                let entropy = Arc::new(SystemEntropy);
                Some(Jobs::open(file, keys, public, spent, Arc::clone(&clock), entropy)?)
            }
            None => None,
        };
        let trust = Trust::with(config.trust()?, jobs, Arc::clone(&clock))?;
        trust.refresh(|revoked| cache.hide(revoked));
        let opening = {
            let (cache, directory) = (Arc::clone(&cache), directory.clone());
            tokio::task::spawn_blocking(move || Arc::new(History::open(&directory, &cache)))
        };
        let history = opening.await?;
        let collector = config.otlp_endpoint.as_ref().filter(|_| !traces::are_disabled());
        let traces = collector.map(|url| Traces::open(url).map(Arc::new)).transpose();
        let traces = traces.context("cannot export traces (--otlp-endpoint)")?;
        let store = maintenance::Store { cache: Arc::clone(&cache), embedded: store };
        let control = Control::listen(&directory, store).inspect_err(|error| {
            tracing::warn!(%error, "`scrub` and `check` cannot ask this server: no control socket");
        });
        Ok(Self {
            cache,
            trust,
            limits: config.connection_limits(),
            limiter: Limiter::new(config.client_bounds(), clock),
            behind_proxy: config.behind_proxy,
            is_here_only: config.listen.ip().is_loopback() && !config.behind_proxy,
            tls,
            plan: config.plan(),
            history,
            traces,
            control: control.ok(),
        })
    }

    /// Serves until `shutdown`, then drains.
    pub async fn run(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let stop = Stop::default();
        let metrics = Arc::new(Metrics::of(self.tls.clone()));
        let connections = Arc::clone(&metrics.connections);
        let app = App {
            cache: Arc::clone(&self.cache),
            trust: Arc::clone(&self.trust),
            stop: stop.drain.clone(),
            metrics,
            gate: Gate {
                limiter: self.limiter,
                connections: Arc::clone(&connections),
                behind_proxy: self.behind_proxy,
                is_here_only: self.is_here_only,
            },
            history: Arc::clone(&self.history),
            traces: self.traces.clone(),
            packers: Packers::of(std::thread::available_parallelism().map_or(1, usize::from)),
        };
        let upkeep = tokio::spawn(upkeep::run(Arc::clone(&self.cache), self.plan));
        let scrub = self.plan.scrub_rate.map(|rate| tokio::spawn(scrub::run(Arc::clone(&self.cache), rate)));
        let recording = tokio::spawn(Arc::clone(&self.history).run(Arc::clone(&self.cache)));
        let looking = AbortOnDropHandle::new(tokio::spawn(look_at_book(self.trust, Arc::clone(&self.cache))));
        let following = self.tls.clone().map(|tls| AbortOnDropHandle::new(tokio::spawn(tls.follow())));
        connection::run(listener, self.tls, http::router(app), self.limits, connections, stop, shutdown)
            .await;
        drop((following, looking, self.control));
        for task in [Some(upkeep), Some(recording), scrub].into_iter().flatten() {
            task.abort();
            // It holds the store open until it is gone.
            let _ = task.await;
        }
        self.history.finish(&self.cache).await;
        if let Err(error) = self.cache.flush_uses().await {
            tracing::warn!(%error, "the last uses of results could not be noted");
        }
        if let Some(traces) = self.traces {
            traces.finish().await;
        }
    }
}

async fn look_at_book(trust: Arc<Trust>, cache: Arc<Cache>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        trust.refresh(|revoked| cache.hide(revoked));
        trust.renew_keys();
    }
}
