//! The hosts that build: each launch does what `pcmcache::launch` does with a server, by the client's own remote side and
//! breaker. Compilers are waits; outputs are real bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pcmcache::remote::breaker::{Breaker, State};
use pcmcache::remote::carrier::Carrier;
use pcmcache::remote::pace::Pace;
use pcmcache::remote::{Acquired, Lease, Published, Remote, RemoteError, Settings};
use pcmcache::settings::Papers;
use pcmcache_shared::api::KeyedResult;
use pcmcache_shared::api::acquire::{AcquireMode, AcquireRequest};
use pcmcache_shared::{ActionResult, Claim, Digest, ReleaseReason, Role};
use pcmcache_tests::Chance;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use crate::clocks::HostClock;
use crate::judge::{Judge, Named, short};
use crate::modules::{Module, Outputs};
use crate::network::{Launch, Network};
use crate::world::Team;

/// As many questions a launch asks (`launch::turn`).
const MAX_QUESTIONS: u32 = 4;
/// How long a connection and a first answer may take.
const TIMEOUT: Duration = Duration::from_secs(1);
/// An uploader takes over, and the launch before it is gone, within that time: the grace is a part of it.
const UPLOADER_STARTS: Duration = Duration::from_millis(1_500);
/// No launch that nobody killed takes longer, beside its wait and its compile: questions, transfers and their restarts.
const LONGEST_TALK: Duration = Duration::from_secs(120);

/// A host that builds.
pub(crate) struct Builder {
    /// What people call it.
    pub(crate) name: String,
    /// Whose it is.
    pub(crate) team: Team,
    /// Its clocks.
    pub(crate) clock: HostClock,
    /// Of a hundred compiles, so many make what no other makes.
    pub(crate) fickle: u64,
    /// Of a hundred results, so many are left to an uploader.
    pub(crate) in_background: u64,
    /// Whether it may not write.
    pub(crate) only_reads: bool,
    /// Of a hundred compiles, so many fail.
    pub(crate) fails: u64,
    /// How long it waits for others.
    pub(crate) wait: Duration,
    /// Where its breaker is.
    pub(crate) dir: PathBuf,
    /// Where the bytes of all outputs lie.
    pub(crate) outputs: Outputs,
    /// The network it is in.
    pub(crate) network: Arc<Network>,
    /// Who watches.
    pub(crate) judge: Arc<Judge>,
}

/// What a host remembers between its launches.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Include sets it knows: of these modules.
    known: BTreeSet<String>,
    /// What is yet to be uploaded.
    queue: BTreeMap<String, (Module, ActionResult)>,
}

/// What the server was asked for, and said.
enum Turn {
    Found,
    Lead(Lease),
    Alone,
}

impl Builder {
    fn say(&self, what: impl std::fmt::Display) {
        self.judge.say(&self.name, what);
    }

    /// A launch's way to the server.
    pub(crate) fn remote(&self) -> Remote {
        let settings = Settings {
            url: "http://127.0.0.1:7878".to_owned(),
            papers: Papers::default(),
            token: Some(self.team.token.clone()),
            token_file: None,
            scope: self.team.scope.clone(),
            timeout: TIMEOUT,
            pace: Pace::never(),
            holder: self.name.clone(),
        };
        let carrier = Launch::new(&self.network, &self.name, TIMEOUT.mul_f64(self.clock.pace()));
        let carrier: Arc<dyn Carrier> = carrier;
        Remote::carried(carrier, Handle::current(), settings, self.clock.pace()).expect("settings")
    }

    fn breaker(self: &Arc<Self>) -> Breaker {
        let host = Arc::clone(self);
        Breaker::new(&self.dir, "http://server", Arc::new(move || host.clock.calendar()))
    }

    /// The server, if it is to be asked.
    fn connect(self: &Arc<Self>) -> Option<Remote> {
        match self.breaker().state() {
            State::Open => {
                self.say("offline");
                None
            }
            State::HalfOpen(ticket) => {
                self.say("offline, and probes");
                let (remote, host) = (self.remote(), Arc::clone(self));
                tokio::task::spawn_local(async move {
                    let is_back = remote.probe_within().await;
                    host.say(if is_back { "the server is back" } else { "the server is still away" });
                    if is_back { ticket.succeeded() } else { ticket.failed() }
                });
                None
            }
            State::Closed => Some(self.remote()),
        }
    }

    /// One launch, to its end.
    pub(crate) async fn launch(self: &Arc<Self>, module: &Module, memory: &mut Memory, chance: &mut Chance) {
        let start = Instant::now();
        self.say(format!("compiles {}", module.name));
        let mut remote = self.connect();
        let turn = match &remote {
            Some(server) => match self.ask(server, module, memory, chance).await {
                Ok(turn) => turn,
                Err(error) => {
                    self.fault(&error, &mut remote);
                    Turn::Alone
                }
            },
            None => Turn::Alone,
        };
        let mut took = Duration::ZERO;
        let lease = match turn {
            Turn::Found => None,
            Turn::Lead(lease) => Some(Some(lease)),
            Turn::Alone => Some(None),
        };
        if let Some(lease) = lease {
            took = self.build(module, remote, lease, memory, chance).await;
        }
        let took = start.elapsed().saturating_sub(took);
        if took > self.wait.mul_f64(self.clock.pace()) * MAX_QUESTIONS + LONGEST_TALK {
            self.judge.blame(format!("a bounded wait: {} took {took:?} beside its compile", self.name));
        }
        self.sync(memory).await;
        self.say(format!("is done with {}", module.name));
    }

    fn fault(self: &Arc<Self>, error: &RemoteError, remote: &mut Option<Remote>) {
        self.say(format!("{}: {error}", error.name()));
        if error.trips_breaker() {
            self.breaker().trip();
        }
        if error.trips_breaker() || error.shuts_us_out() {
            *remote = None;
        }
    }

    /// The question of one who would build.
    pub(crate) fn question(&self, module: &Module, is_known: bool, id: u64) -> AcquireRequest {
        let claim = if is_known { Claim::from(module.action()) } else { Claim::from(module.unit()) };
        AcquireRequest {
            claim,
            unit: Some(module.unit()),
            known: if is_known { vec![module.known()] } else { Vec::new() },
            request_id: format!("{}-{id:016x}", self.name),
            holder: String::new(),
            subject: module.name.clone(),
            mode: if self.only_reads { AcquireMode::Watch } else { AcquireMode::Build },
            wait_ms: self.wait.as_millis() as u64,
            hold: true,
        }
    }

    async fn ask(
        &self,
        remote: &Remote,
        module: &Module,
        memory: &mut Memory,
        chance: &mut Chance,
    ) -> Result<Turn, RemoteError> {
        for _ in 0..MAX_QUESTIONS {
            let is_known = module.is_known || memory.known.contains(&module.name);
            let question = self.question(module, is_known, chance.below(u64::MAX));
            let answer = remote.acquire_within(&question, &mut || {}).await?;
            match answer.acquired {
                Acquired::Hit(keyed) => {
                    self.take(remote, module, &keyed).await?;
                    return Ok(Turn::Found);
                }
                Acquired::Sets(sets) => {
                    memory.known.insert(module.name.clone());
                    let mut offered = sets.iter().flat_map(|offered| &offered.results);
                    if let Some(keyed) = offered.find(|keyed| keyed.action == module.action()) {
                        self.take(remote, module, keyed).await?;
                        return Ok(Turn::Found);
                    }
                }
                Acquired::Granted(lease) => {
                    self.say(format!("leads {} under {}", module.name, lease.hold().fence.0));
                    return Ok(Turn::Lead(lease));
                }
                Acquired::Alone(reason) => {
                    self.say(format!("alone: {reason:?}"));
                    return Ok(Turn::Alone);
                }
                Acquired::WaitOver => {
                    self.say("waited long enough");
                    return Ok(Turn::Alone);
                }
            }
        }
        Ok(Turn::Alone)
    }

    /// Fetches a result, every byte of it.
    pub(crate) async fn take(
        &self,
        remote: &Remote,
        module: &Module,
        keyed: &KeyedResult,
    ) -> Result<(), RemoteError> {
        let named = (keyed.scope.clone(), keyed.action);
        if keyed.action != module.action() || !self.team.reads().contains(&keyed.scope) {
            self.judge.blame(format!(
                "{} got {} of {}, which it did not ask for",
                self.name, keyed.action, keyed.scope
            ));
        }
        self.judge.told(&self.name, &named, &keyed.result.outputs);
        for output in &keyed.result.outputs {
            let mut bytes = Vec::new();
            match keyed.blobs.get(&output.digest) {
                Some(inline) => bytes.clone_from(&inline.0),
                None => remote.fetch_within(output.digest, output.size, &mut bytes).await?,
            }
            if Digest::of(&bytes) != output.digest || bytes.len() as u64 != output.size {
                self.judge.blame(format!(
                    "bytes: {} got a {} that is not what its name says",
                    self.name, output.role
                ));
            }
        }
        self.judge.count(|counts| counts.hits += 1);
        self.say(format!("got {} {}", module.name, short(keyed.result.outputs[0].digest)));
        Ok(())
    }

    /// Compiles, and publishes. Says how long the compiler took.
    async fn build(
        self: &Arc<Self>,
        module: &Module,
        mut remote: Option<Remote>,
        lease: Option<Lease>,
        memory: &mut Memory,
        chance: &mut Chance,
    ) -> Duration {
        let named = (self.team.scope.clone(), module.action());
        self.judge.builds(
            &self.name,
            &named,
            &self.team.reads(),
            lease.as_ref().map(|lease| lease.hold().fence),
        );
        let cost = Duration::from_millis(module.cost_ms / 2 + chance.below(module.cost_ms + 1));
        sleep(cost).await;
        if chance.below(100) < self.fails {
            self.say(format!("{} does not compile", module.name));
            if let Some(lease) = lease {
                lease.release_within(ReleaseReason::Failed).await;
            }
            return cost;
        }
        let variant = if chance.below(100) < self.fickle { chance.below(u64::MAX) } else { 0 };
        let outputs: Vec<(Role, Vec<u8>)> = module.build(&self.team.scope, variant);
        self.outputs.put(&outputs);
        let result = module.result(&outputs, &self.name);
        memory.known.insert(module.name.clone());
        if self.only_reads {
            return cost;
        }
        let lease = match lease {
            Some(lease) if chance.below(100) < self.in_background && !lease.lost() => {
                self.hand_over(module, result, remote, lease, chance);
                return cost;
            }
            lease => lease,
        };
        let is_later = match &remote {
            Some(server) => match self.publish(server, module, &result, lease).await {
                Ok(()) => false,
                Err(error) => {
                    self.fault(&error, &mut remote);
                    error.may_pass()
                }
            },
            None => true,
        };
        if is_later {
            self.say(format!("queues {}", module.name));
            memory.queue.insert(module.name.clone(), (module.clone(), result));
        }
        cost
    }

    /// Leaves the upload to another process, which takes the lease over a moment later; the launch ends.
    fn hand_over(
        self: &Arc<Self>,
        module: &Module,
        result: ActionResult,
        remote: Option<Remote>,
        lease: Lease,
        chance: &mut Chance,
    ) {
        let (claim, hold) = (lease.claim(), lease.hold());
        let request = lease.request().map(|(id, subject)| (id.to_owned(), subject.to_owned()));
        let (id, subject) = request.expect("a stream holds it");
        self.say(format!("leaves {} under {} to an uploader", module.name, hold.fence.0));
        lease.hand_over();
        let (host, module) = (Arc::clone(self), module.clone());
        let (exits, starts) = (chance.moment(UPLOADER_STARTS), chance.moment(UPLOADER_STARTS));
        tokio::task::spawn_local(async move {
            sleep(exits).await;
            drop(remote);
        });
        tokio::task::spawn_local(async move {
            sleep(starts).await;
            let remote = host.remote();
            let lease = remote.adopt(claim, hold, &id, &subject);
            lease.wait_until_known_within().await;
            let is_lost = if lease.lost() { ", which is lost" } else { "" };
            host.say(format!("uploads {} under {}{is_lost}", module.name, lease.hold().fence.0));
            if let Err(error) = host.publish(&remote, &module, &result, Some(lease)).await {
                host.say(format!("could not upload {}: {}: {error}", module.name, error.name()));
            }
        });
    }

    async fn publish(
        &self,
        remote: &Remote,
        module: &Module,
        result: &ActionResult,
        lease: Option<Lease>,
    ) -> Result<(), RemoteError> {
        let claim = lease.as_ref().map_or_else(|| Claim::from(module.action()), Lease::claim);
        let request = module.publication(result.clone(), claim, lease.as_ref().map(Lease::hold));
        let blob = |digest: Digest| Some(self.outputs.path(digest));
        let published = remote.publish_within(module.action(), &request, &blob).await;
        let named: Named = (self.team.scope.clone(), module.action());
        match published {
            Ok(Published::Winner(winner)) => {
                self.say(format!("{} was published by another", module.name));
                self.judge.count(|counts| counts.winners += 1);
                if let Some(lease) = lease {
                    lease.discharge();
                }
                self.take(remote, module, &winner).await
            }
            Ok(published) => {
                self.say(format!("published {}: {published:?}", module.name));
                self.judge.told(&self.name, &named, &result.outputs);
                self.judge.acknowledged(&self.team.reads(), named.1);
                if let Some(lease) = lease {
                    lease.discharge();
                }
                Ok(())
            }
            Err(error) => {
                if let RemoteError::Refused { status: 409 | 422, code: None, .. } = error {
                    self.judge.blame(format!(
                        "one answer: {} goes on with its own {}: {error}",
                        self.name, module.name
                    ));
                }
                if let Some(lease) = lease {
                    lease.release_within(ReleaseReason::Abandoned).await;
                }
                Err(error)
            }
        }
    }

    /// Uploads what is queued, as `pcmcache sync` does; what the server cannot be had for stays.
    pub(crate) async fn sync(self: &Arc<Self>, memory: &mut Memory) {
        while let Some((name, (module, result))) = memory.queue.pop_first() {
            let Some(remote) = self.connect() else {
                memory.queue.insert(name, (module, result));
                return;
            };
            self.say(format!("uploads {name}"));
            if let Err(error) = self.publish(&remote, &module, &result, None).await {
                self.fault(&error, &mut Some(remote));
                if error.may_pass() {
                    memory.queue.insert(name, (module, result));
                    return;
                }
            }
        }
    }
}
