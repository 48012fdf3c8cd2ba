//! The server as a launcher sees it: ask, wait, hold, fetch, publish.
//!
//! Invariants: every call ends within a deadline, whatever the server does; nothing it sends may panic, loop or
//! allocate without bound; what is handed on was verified, or is an error named by what the caller does next.
//! Nothing here decides whether a build passes.
//!
//! The caller is synchronous. Its calls run on the caller's thread; the one worker of a small runtime keeps a
//! [`Lease`] alive meanwhile. Launches that hit locally construct none of this.
//!
//! Crash story: a launcher that dies leaves nothing here but an open stream, which the kernel closes; the server
//! then gives the lease to the next within its grace.

mod acquire;
pub mod agent;
mod answer;
pub mod breaker;
pub mod carrier;
pub mod ci;
mod error;
#[cfg(test)]
mod fake;
mod lease;
mod lines;
pub mod pace;
mod profiles;
mod publish;
mod road;
mod server;
mod tls;
mod transfer;

use std::future::Future;
use std::io::Write;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pcmcache_shared::api::acquire::{AcquireMode, AcquireRequest, AloneReason};
use pcmcache_shared::api::actions::PublishRequest;
use pcmcache_shared::api::leases::Hold;
use pcmcache_shared::api::profiles::{Profile, PushRequest, Pushed};
use pcmcache_shared::api::revocations::Revocations;
use pcmcache_shared::api::token::WhoAmI;
use pcmcache_shared::api::{KeyedResult, OfferedSet};
use pcmcache_shared::{ActionKey, Claim, Digest, ProfileName, Scope};
use tokio::runtime::{Handle, Runtime};
use tokio::task::AbortHandle;

pub use error::{RemoteError, Unreached};
pub use lease::Lease;

use crate::settings::Papers;
use crate::{local, os};
use agent::Agent;
use breaker::ProbeTicket;
use pace::Pace;
use server::{Deadlines, Server};
use transfer::Counters;

/// How often a call looks whether its caller was interrupted.
const LOOK_UP_EVERY: Duration = Duration::from_millis(20);

/// Which server, and as whom.
#[derive(Clone)]
pub struct Settings {
    /// `https://HOST:PORT` or `http://HOST:PORT`, perhaps with a path before `/v1`.
    pub url: String,
    /// How it and this launcher know each other under TLS.
    pub papers: Papers,
    /// What is sent as the bearer token, if anything is; else what this file holds.
    pub token: Option<String>,
    /// The file with the token.
    pub token_file: Option<PathBuf>,
    /// The scope to read and write.
    pub scope: Scope,
    /// How long a connection and the first answer to a question may take.
    pub timeout: Duration,
    /// Whether blobs travel packed.
    pub pace: Pace,
    /// Who asks, for people only; goes into requests that do not say.
    pub holder: String,
}

impl Settings {
    /// The server at `url`, as these settings have it.
    pub fn of(settings: &crate::settings::Settings, url: String) -> Self {
        let pace = Pace::of(settings.compress, &local::root(&settings.dir), &url);
        Self {
            url,
            papers: settings.papers.clone(),
            token: settings.token.clone(),
            token_file: settings.token_file.clone(),
            scope: settings.scope.clone(),
            timeout: settings.timeout.max(Duration::from_millis(1)),
            pace,
            holder: format!("{}/{}", os::host_name(), std::process::id()),
        }
    }
}

/// A server to talk to. Making one connects to nothing yet.
#[derive(Debug)]
pub struct Remote {
    engine: Arc<Engine>,
    server: Arc<Server>,
    counters: Counters,
    holder: String,
}

/// What an acquire came to.
#[derive(Debug)]
pub struct Answer {
    /// What to do now.
    pub acquired: Acquired,
    /// Whether someone else was seen building it on the way.
    pub waited: bool,
}

/// What to do after an acquire.
#[derive(Debug)]
pub enum Acquired {
    /// Here is a result of one of the actions that were asked for. Inline blobs were verified.
    Hit(Box<KeyedResult>),
    /// Include sets that were not known; each text matches its digest, inline blobs were verified.
    Sets(Vec<OfferedSet>),
    /// Compile without a lease.
    Alone(AloneReason),
    /// Build it: nobody else does.
    Granted(Lease),
    /// Someone else still builds it, and that was long enough: compile without a lease.
    WaitOver,
}

/// What a publish came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// The result is the one that everybody gets from now on.
    Stored,
    /// The very same was there.
    Same,
    /// Another was there: fetch and use that.
    Winner(Box<KeyedResult>),
}

impl Remote {
    /// Takes the settings in; the server may be anything or nothing.
    ///
    /// # Errors
    /// [`RemoteError::Misconfigured`] if nothing could ever be asked with these settings.
    pub fn new(settings: Settings) -> Result<Self, RemoteError> {
        Self::by(None, settings)
    }

    /// The same by way of the agent, if that is there; else one is started once the server has answered.
    ///
    /// # Errors
    /// [`RemoteError::Misconfigured`] if nothing could ever be asked with these settings.
    pub fn by(agent: Option<Agent>, settings: Settings) -> Result<Self, RemoteError> {
        let deadlines = Deadlines::new(settings.timeout);
        Self::with_deadlines(settings, deadlines, agent)
    }

    fn with_deadlines(
        settings: Settings,
        deadlines: Deadlines,
        agent: Option<Agent>,
    ) -> Result<Self, RemoteError> {
        let server = Arc::new(Server::new(&settings, deadlines, agent)?);
        let engine = Arc::new(Engine::start()?);
        Ok(Self { engine, server, counters: Counters::default(), holder: settings.holder })
    }

    /// Looks, and if nothing is there, gets the right to build it or waits for who has: as long as the request
    /// says, or less where the build's cost is known. A server that restarts meanwhile is waited for. `busy` is told as
    /// often as someone else is seen building it.
    ///
    /// # Errors
    /// Any but [`RemoteError::Gone`] and [`RemoteError::Local`].
    pub fn acquire(
        &self,
        request: &AcquireRequest,
        busy: &mut (dyn FnMut() + Send),
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Answer, RemoteError> {
        self.engine.run(interrupted, self.ask(request, busy))
    }

    async fn ask(
        &self,
        request: &AcquireRequest,
        busy: &mut (dyn FnMut() + Send),
    ) -> Result<Answer, RemoteError> {
        let mut request = request.clone();
        if request.holder.is_empty() {
            request.holder.clone_from(&self.holder);
        }
        let heard = acquire::acquire(&self.server, &request, busy).await?;
        let acquired = match heard.verdict {
            acquire::Verdict::Hit(hit) => Acquired::Hit(hit),
            acquire::Verdict::Sets(sets) => Acquired::Sets(sets),
            acquire::Verdict::Alone(reason) => Acquired::Alone(reason),
            acquire::Verdict::WaitOver => Acquired::WaitOver,
            acquire::Verdict::Granted(grant) => {
                Acquired::Granted(Lease::keep(&self.engine, &self.server, &request, *grant))
            }
        };
        Ok(Answer { acquired, waited: heard.waited })
    }

    /// Goes on keeping the lease on `claim` that another process of this host was granted for the request of this id, about
    /// what people call `subject`. Returns at once; whether it still lived is known a moment later.
    pub fn adopt(&self, claim: Claim, hold: Hold, request_id: &str, subject: &str) -> Lease {
        let again = AcquireRequest {
            claim,
            unit: None,
            known: Vec::new(),
            request_id: request_id.to_owned(),
            holder: self.holder.clone(),
            subject: subject.to_owned(),
            mode: AcquireMode::Build,
            wait_ms: 0,
            hold: true,
        };
        Lease::adopt(&self.engine, &self.server, hold, again)
    }

    /// Streams a blob into `into`, which never sees more than `size` bytes. Only after `Ok` is what it got the
    /// blob, whole and verified.
    ///
    /// # Errors
    /// [`RemoteError::Gone`] if there is no such blob, [`RemoteError::Damaged`] if what came is not it,
    /// [`RemoteError::Local`] if `into` failed.
    pub fn fetch(
        &self,
        digest: Digest,
        size: u64,
        into: &mut dyn Write,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<(), RemoteError> {
        self.engine.run(interrupted, transfer::fetch(&self.server, &self.counters, digest, size, into))
    }

    /// The text of this digest, verified, of at most `at_most` bytes.
    ///
    /// # Errors
    /// [`RemoteError::Gone`] if there is none, [`RemoteError::Damaged`] if what came is not it.
    pub fn fetch_text(
        &self,
        digest: Digest,
        at_most: u64,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>, RemoteError> {
        let mut text = Vec::new();
        let fetch = transfer::fetch_up_to(&self.server, &self.counters, digest, at_most, &mut text);
        self.engine.run(interrupted, fetch).map(|()| text)
    }

    /// The profile of that name, if there is one.
    ///
    /// # Errors
    /// Any but [`RemoteError::Gone`] and [`RemoteError::Local`].
    pub fn profile(
        &self,
        name: &ProfileName,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<Profile>, RemoteError> {
        self.engine.run(interrupted, profiles::read(&self.server, name))
    }

    /// Puts a profile in the place of the one of that name, durably.
    ///
    /// # Errors
    /// Any but [`RemoteError::Gone`].
    pub fn push_profile(
        &self,
        name: &ProfileName,
        request: &PushRequest,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Pushed, RemoteError> {
        self.engine.run(interrupted, profiles::push(&self.server, name, request))
    }

    /// The results of these actions that the server has, with the small blobs they name; those were verified.
    ///
    /// # Errors
    /// Any but [`RemoteError::Gone`] and [`RemoteError::Local`].
    pub fn look_up(
        &self,
        actions: &[ActionKey],
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Vec<KeyedResult>, RemoteError> {
        self.engine.run(interrupted, profiles::look_up(&self.server, actions))
    }

    /// Publishes a result, and uploads those of its blobs that the server asks for; `blob` says where they are.
    /// Returns once all of it is durable there. A server that restarts meanwhile is waited for a few seconds.
    ///
    /// # Errors
    /// [`RemoteError::Local`] if a blob that is asked for cannot be read; a claim that someone else holds is
    /// [`RemoteError::Refused`].
    pub fn publish(
        &self,
        key: ActionKey,
        request: &PublishRequest,
        blob: &dyn Fn(Digest) -> Option<PathBuf>,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Published, RemoteError> {
        self.engine.run(interrupted, publish::publish(&self.server, &self.counters, key, request, blob))
    }

    /// The epoch that the last answer under the scope named, if it named one.
    pub fn epoch(&self) -> Option<u64> {
        self.server.epoch()
    }

    /// Whose results the server has taken back in this scope.
    ///
    /// # Errors
    /// Any but [`RemoteError::Gone`] and [`RemoteError::Local`].
    pub fn revocations(
        &self,
        scope: &Scope,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Revocations, RemoteError> {
        self.engine.run(interrupted, self.server.revocations(scope))
    }

    /// Who the server takes us for.
    ///
    /// # Errors
    /// Any but [`RemoteError::Gone`] and [`RemoteError::Local`].
    pub fn who_am_i(&self) -> Result<WhoAmI, RemoteError> {
        self.engine.run(&|| false, self.server.who_am_i())
    }

    /// Whether the server is there and well, within the timeout.
    pub fn probe(&self) -> bool {
        self.engine.run(&|| false, async { Ok(self.server.is_well().await) }).unwrap_or(false)
    }

    /// The time that the server shows, as HTTP spells it; empty if it does not tell.
    ///
    /// # Errors
    /// Why it is not there, or not well.
    pub fn date(&self) -> Result<String, RemoteError> {
        self.engine.run(&|| false, self.server.date())
    }

    /// Bytes of blobs (uploaded, downloaded) so far; headers and JSON do not count.
    pub fn bytes(&self) -> (u64, u64) {
        self.counters.bytes()
    }
}

/// Whether the URL names this very host.
pub fn is_this_host(url: &str) -> bool {
    url.parse().is_ok_and(|url| server::is_loopback(&url))
}

/// Finds out on a thread of its own, beside the compile, whether the server is back, and says so to the breaker.
/// Nobody waits for it: a launcher that ends before it leaves the probe to the next.
pub fn probe_beside(settings: Settings, ticket: ProbeTicket) {
    let probe = move || match Remote::new(settings).is_ok_and(|remote| remote.probe()) {
        true => ticket.succeeded(),
        false => ticket.failed(),
    };
    // No thread, no probe: the ticket went with it, the next launcher tries.
    let _ = std::thread::Builder::new().name("pcmcache-probe".to_owned()).spawn(probe);
}

/// The runtime. It ends without waiting: a name that is still being resolved must not hold up an exit.
#[derive(Debug)]
enum Engine {
    /// Its own.
    Own(Option<Runtime>),
    /// The caller's, who is never blocked and awaits what it asks. What was started in it ends with the engine.
    Lent(Handle, Mutex<Vec<AbortHandle>>),
}

impl Engine {
    fn start() -> Result<Self, RemoteError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            // The one worker looks at the clock after each step: what a server floods it with must not outrun a deadline.
            .event_interval(1)
            .thread_name("pcmcache-remote")
            .enable_io()
            .enable_time()
            .build();
        runtime.map(|runtime| Self::Own(Some(runtime))).map_err(RemoteError::Local)
    }

    /// Runs `work` on this thread, and leaves it where it stands as soon as `interrupted` says so.
    fn run<T>(
        &self,
        interrupted: &dyn Fn() -> bool,
        work: impl Future<Output = Result<T, RemoteError>>,
    ) -> Result<T, RemoteError> {
        let Self::Own(Some(runtime)) = self else { return Err(RemoteError::Interrupted) };
        runtime.block_on(async {
            let mut work = pin!(work);
            loop {
                match tokio::time::timeout(LOOK_UP_EVERY, &mut work).await {
                    Ok(done) => return done,
                    Err(_) if interrupted() => return Err(RemoteError::Interrupted),
                    Err(_) => {}
                }
            }
        })
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Option<tokio::task::JoinHandle<()>> {
        match self {
            Self::Own(runtime) => runtime.as_ref().map(|runtime| runtime.spawn(task)),
            Self::Lent(runtime, started) => {
                let task = runtime.spawn(task);
                started.lock().unwrap_or_else(PoisonError::into_inner).push(task.abort_handle());
                Some(task)
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        match self {
            Self::Own(runtime) => {
                if let Some(runtime) = runtime.take() {
                    runtime.shutdown_background();
                }
            }
            Self::Lent(_, started) => {
                let started = started.get_mut().unwrap_or_else(PoisonError::into_inner);
                started.iter().for_each(AbortHandle::abort);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::breaker::{Breaker, State};
    use super::fake::{Fake, eventually, settings};
    use super::*;

    #[test]
    fn a_probe_beside_the_compile_tells_the_breaker() {
        let dir = std::env::temp_dir().join(format!("pcmcache-probe-{}", std::process::id()));
        fs_err::create_dir_all(&dir).unwrap();
        let fake = Fake::start(|_, peer| peer.body(200, "ok"));
        let settings = settings(fake.address());
        let at = |seconds| {
            Breaker::new(&dir, &settings.url, Arc::new(move || UNIX_EPOCH + Duration::from_secs(seconds)))
        };
        at(1000).trip();
        let State::HalfOpen(ticket) = at(1010).state() else { panic!("not half-open") };
        probe_beside(settings.clone(), ticket);
        eventually("closed", || matches!(at(1010).state(), State::Closed));

        fake.kill();
        at(2000).trip();
        let State::HalfOpen(ticket) = at(2010).state() else { panic!("not half-open") };
        probe_beside(settings.clone(), ticket);
        eventually("open again", || fs_err::read_to_string(file_in(&dir)).is_ok_and(|t| t.contains(" 020 ")));
        assert!(matches!(at(2029).state(), State::Open));
        let _ = fs_err::remove_dir_all(&dir);
    }

    fn file_in(dir: &std::path::Path) -> PathBuf {
        fs_err::read_dir(dir.join("breaker")).unwrap().next().unwrap().unwrap().path()
    }
}
