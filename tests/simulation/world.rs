//! One world: a server, a few hosts, what goes wrong, and an end at which all is well again and everything is looked at. All of
//! it follows from a seed, on one thread, in a time that jumps to whatever comes next.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pcmcache::remote::{Acquired, RemoteError};
use pcmcache_server::trust::BookFile;
use pcmcache_shared::api::acquire::{AcquireMode, AcquireRequest};
use pcmcache_shared::{Digest, Scope};
use pcmcache_tests::Chance;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{sleep, sleep_until, timeout};

use crate::clocks::HostClock;
use crate::judge::{Counts, Judge, short};
use crate::launcher::{Builder, Memory};
use crate::modules::{Module, Outputs};
use crate::network::{Blocked, Network, Weather};
use crate::server::Server;
use crate::store::{Disk, Wear};

/// Until then things go wrong.
const TROUBLE: Duration = Duration::from_secs(90);
/// How long a host that lost its power is gone.
const POWER_IS_BACK: Duration = Duration::from_secs(40);
/// Once they no longer do, all hosts are done within that time.
const RECOVERY: Duration = Duration::from_secs(300);

/// What all worlds of a process share: files that hold the same in each of them.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    /// The book of tokens.
    pub(crate) book: BookFile,
    /// Who builds.
    pub(crate) teams: Vec<Team>,
    /// Where outputs lie.
    pub(crate) outputs: Outputs,
}

/// Those who share a scope.
#[derive(Debug, Clone)]
pub(crate) struct Team {
    /// Where their results go.
    pub(crate) scope: Scope,
    /// A scope that they read beside it.
    pub(crate) base: Option<Scope>,
    /// What they show.
    pub(crate) token: String,
}

impl Team {
    /// What they read, in the order in which it is looked at.
    pub(crate) fn reads(&self) -> Vec<Scope> {
        [self.scope.clone()].into_iter().chain(self.base.clone()).collect()
    }
}

/// What came of a world.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// All that happened, a line each.
    pub(crate) trace: Vec<String>,
    /// What must not have happened.
    pub(crate) violations: Vec<String>,
    /// In numbers.
    pub(crate) counts: Counts,
    /// How much time passed in it.
    pub(crate) lasted: Duration,
}

impl Outcome {
    /// What is the same if the same happened.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(self.trace.join("\n"))
    }
}

/// Lets the world of this seed run to its end; `dir` is its own.
pub(crate) fn run(seed: u64, ground: &Ground, dir: &Path) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let start = tokio::time::Instant::now();
        let world = World::new(seed, ground, dir);
        world.live().await;
        let (trace, violations, counts) = world.judge.verdict();
        Outcome { trace, violations, counts, lasted: start.elapsed() }
    })
}

struct World {
    judge: Arc<Judge>,
    server: Arc<Server>,
    network: Arc<Network>,
    hosts: Vec<Arc<Builder>>,
    modules: Vec<Module>,
    chance: std::cell::RefCell<Chance>,
}

impl World {
    fn new(seed: u64, ground: &Ground, dir: &Path) -> Self {
        let mut chance = Chance::seeded(seed);
        // Not every world has every trouble: some faults hide others.
        let mut often = |one_in: u64, most: u64| {
            let is_so = chance.below(one_in) == 0;
            let many = chance.below(most) + 1;
            if is_so { many } else { 0 }
        };
        let weather = Weather { delay_ms: 20, slow: often(2, 20), cut: often(2, 80), twice: often(2, 100) };
        let wear = Wear { batch_ms: 8, slow: often(3, 100), fails: often(6, 60) };
        let (fickle, fails, in_background) = (often(2, 60), often(4, 30), often(2, 100));
        let mut split = || Chance::seeded(chance.below(u64::MAX));
        let (for_disk, for_server, for_network, mut chance) = (split(), split(), split(), split());
        let judge = Arc::new(Judge::new());
        let ppm = |chance: &mut Chance| chance.below(20_000) as i64 - 10_000;
        let disk = Disk::new(Arc::new(HostClock::new(0)), for_disk, wear);
        let server = Server::new(Arc::clone(&judge), disk, ppm(&mut chance), ground, for_server);
        let network = Network::new(Arc::clone(&judge), Arc::clone(&server), for_network, weather);
        let costs = [300, 2_000, 8_000, 30_000];
        let module = |number| {
            let (is_known, cost) = (chance.below(2) == 0, costs[chance.below(4) as usize]);
            Module::new(number, is_known, cost, chance.below(4))
        };
        let modules: Vec<Module> = (0..3).map(module).collect();
        let host = |number| {
            // Two of five in the first.
            let team = ground.teams[chance.below(5) as usize % ground.teams.len()].clone();
            let name = format!("host{number}");
            let dir = dir.join(&name);
            fs_err::create_dir_all(&dir).expect("a host's directory");
            Arc::new(Builder {
                name,
                team,
                clock: HostClock::new(ppm(&mut chance)),
                fickle,
                fails,
                in_background,
                only_reads: chance.below(8) == 0,
                wait: Duration::from_millis(1_000 + chance.below(90_000)),
                dir,
                outputs: ground.outputs.clone(),
                network: Arc::clone(&network),
                judge: Arc::clone(&judge),
            })
        };
        let hosts = (0..4).map(host).collect();
        Self { judge, server, network, hosts, modules, chance: chance.into() }
    }

    fn below(&self, end: u64) -> u64 {
        self.chance.borrow_mut().below(end)
    }

    async fn live(&self) {
        self.server.start();
        let working: Vec<JoinHandle<()>> = self.hosts.iter().map(|host| self.work(host)).collect();
        self.trouble().await;
        self.judge.say("world", "from here on all is well");
        self.server.disk.mend();
        self.server.start();
        self.network.heal();
        let healed = tokio::time::Instant::now();
        let done = async {
            for work in working {
                if let Err(error) = work.await {
                    self.judge.blame(format!("a host ended: {error}"));
                }
            }
        };
        if timeout(RECOVERY, done).await.is_err() {
            self.judge.blame(format!("a bounded wait: {RECOVERY:?} after all was well hosts still wait"));
        }
        let longest_s = healed.elapsed().as_secs();
        self.judge.count(|counts| counts.longest_s = longest_s);
        // What came late, or comes twice.
        sleep(Duration::from_secs(40)).await;
        self.judge.look();
        self.audit().await;
    }

    /// A host's day: it builds all modules in some order, is killed and started again, and uploads what it could not.
    fn work(&self, host: &Arc<Builder>) -> JoinHandle<()> {
        let (host, modules) = (Arc::clone(host), self.modules.clone());
        let mut chance = Chance::seeded(self.below(u64::MAX));
        let (kills, loses_power) = (self.below(3) == 0, self.below(3) == 0);
        spawn_local(async move {
            let mut memory = Memory::default();
            sleep(chance.moment(Duration::from_secs(30))).await;
            let first = chance.below(modules.len() as u64) as usize;
            for step in 0..modules.len() + 1 {
                let module = &modules[(first + step) % modules.len()];
                let mut own = Chance::seeded(chance.below(u64::MAX));
                let dies = (kills && chance.below(2) == 0).then(|| chance.moment(Duration::from_secs(20)));
                let launch = host.launch(module, &mut memory, &mut own);
                match dies {
                    None => launch.await,
                    // All it has is dropped, as the kernel does it; what it held is for others to find out.
                    Some(dies) => {
                        if timeout(dies, launch).await.is_err() {
                            host.judge.say(&host.name, "was killed");
                        }
                        if loses_power {
                            // Its kernel said nothing, and the server's learns of it by hearing nothing.
                            host.network.block(&host.name, Blocked { up: true, down: true });
                            sleep(POWER_IS_BACK).await;
                            host.network.block(&host.name, Blocked::default());
                        }
                    }
                }
                sleep(chance.moment(Duration::from_secs(15))).await;
            }
            host.sync(&mut memory).await;
        })
    }

    /// What goes wrong.
    async fn trouble(&self) {
        let start = tokio::time::Instant::now();
        let (crashes, partitions, jumps) = (self.below(4), self.below(6), self.below(3));
        let mut plan: Vec<(Duration, u64)> = Vec::new();
        for (many, what) in [(crashes, 0), (partitions, 1), (jumps, 2)] {
            for _ in 0..many {
                plan.push((self.chance.borrow_mut().moment(TROUBLE), what));
            }
        }
        plan.sort();
        for (at, what) in plan {
            sleep_until(start + at).await;
            match what {
                0 => self.restart().await,
                1 => self.cut_off(),
                _ => self.jump(),
            }
        }
        sleep_until(start + TROUBLE).await;
    }

    async fn restart(&self) {
        if self.below(3) == 0 {
            self.server.stop().await;
        } else {
            self.server.crash();
        }
        let down = [300, 3_000, 20_000][self.below(3) as usize];
        sleep(Duration::from_millis(self.below(down))).await;
        self.check_durable();
        self.judge.count(|counts| counts.restarts += 1);
        self.server.start();
    }

    fn check_durable(&self) {
        for (scopes, action) in self.judge.all_acknowledged() {
            let durable = scopes.iter().find_map(|scope| self.server.disk.durable(scope, action));
            if durable.is_none_or(|stored| {
                !stored.result.outputs.iter().all(|output| self.server.disk.has(output.digest))
            }) {
                self.judge.blame(format!(
                    "durable: {} {} did not survive the crash",
                    scopes[0],
                    short(action)
                ));
            }
        }
    }

    fn cut_off(&self) {
        let host = &self.hosts[self.below(self.hosts.len() as u64) as usize].name;
        let blocked = [(true, true), (true, false), (false, true)][self.below(3) as usize];
        self.network.block(host, Blocked { up: blocked.0, down: blocked.1 });
        let (network, host) = (Arc::clone(&self.network), host.clone());
        let lasts = Duration::from_millis(self.below([2_000, 20_000, 60_000][self.below(3) as usize]));
        spawn_local(async move {
            sleep(lasts).await;
            network.block(&host, Blocked::default());
        });
    }

    fn jump(&self) {
        let by_ms = [3_000, 600_000, 90_000_000][self.below(3) as usize];
        let by_ms = self.below(2 * by_ms) as i64 - by_ms as i64;
        match self.below(self.hosts.len() as u64 + 1) as usize {
            0 => self.server.jump(by_ms),
            host => {
                self.judge.say(&self.hosts[host - 1].name, format!("its calendar jumps by {by_ms} ms"));
                self.hosts[host - 1].clock.jump(by_ms);
            }
        }
    }

    /// What is there at the end, as a host sees it that never asked before.
    async fn audit(&self) {
        self.check_durable();
        let mut scopes = BTreeSet::new();
        for host in self.hosts.iter().filter(|host| scopes.insert(host.team.scope.clone())) {
            for module in &self.modules {
                let claims = module.claims();
                self.judge.count_builds(&(host.team.scope.clone(), module.action()), &claims);
                if let Err(error) = self.audit_module(host, module).await {
                    self.judge.blame(format!("the audit of {} {}: {error}", host.team.scope, module.name));
                }
            }
            if let Err(error) = self.audit_strangers(host).await {
                self.judge.blame(format!("the audit of what is not for {}: {error}", host.team.scope));
            }
        }
    }

    /// What somebody was told is there is there, whole; what is not is nobody's.
    async fn audit_module(&self, host: &Arc<Builder>, module: &Module) -> Result<(), RemoteError> {
        let (named, remote) = ((host.team.scope.clone(), module.action()), host.remote());
        let question = host.question(module, true, self.below(u64::MAX));
        let glance = AcquireRequest { mode: AcquireMode::Watch, wait_ms: 0, hold: false, ..question };
        let answer = remote.acquire_within(&glance, &mut || {}).await?;
        let made = host.team.reads().into_iter().find_map(|scope| self.judge.answer(&(scope, named.1)));
        match (answer.acquired, made) {
            (Acquired::Hit(keyed), Some(_)) => host.take(&remote, module, &keyed).await,
            (Acquired::Hit(_), None) => {
                self.judge.blame(format!("{} {} is there, and nobody made it", named.0, module.name));
                Ok(())
            }
            (_, None) => Ok(()),
            (other, Some(_)) => {
                self.judge.blame(format!("{} {} is gone: {other:?}", named.0, module.name));
                Ok(())
            }
        }
    }

    /// Nobody sees another scope's blobs.
    async fn audit_strangers(&self, host: &Arc<Builder>) -> Result<(), RemoteError> {
        let remote = host.remote();
        let reads = host.team.reads();
        let others = self.hosts.iter().find(|other| !reads.contains(&other.team.scope));
        let Some(others) = others.map(|other| other.team.scope.clone()) else { return Ok(()) };
        for (digest, size) in self.judge.blobs_of(&others).into_iter().take(3) {
            match remote.fetch_within(digest, size, &mut Vec::new()).await {
                Err(RemoteError::Gone) => {}
                Err(error) => return Err(error),
                Ok(()) => self.judge.blame(format!("scopes: {} saw a blob of {others}", host.team.scope)),
            }
        }
        Ok(())
    }
}
