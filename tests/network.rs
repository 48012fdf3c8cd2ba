//! A network that fails, in every way of a table, between launchers and a server: on the way in (ask, upload, publish) and on
//! the way out (ask, fetch), directly, by way of an agent, under TLS, with uploads in the background, in `sync`. Each time
//! the launch passes in silence with the compiler's own bytes, within what its deadlines allow; nothing is wrong in its
//! cache; and once the network is well again, everything that was made reaches the server and the next launch hits.
//!
//!     tests/run.sh --test network -- --nocapture                           # two cases of each script
//!     PCMCACHE_TEST_WAYS=all tests/run.sh --test network -- --nocapture    # all of them, in every way
//!     PCMCACHE_TEST_SCRIPT=reset tests/run.sh --test network               # those that have this in their name
//!
//! `PCMCACHE_TEST_SEED` has the same byte counts again.

#[path = "network/partition.rs"]
mod partition;
#[path = "network/scripts.rs"]
mod scripts;
#[path = "network/twice.rs"]
mod twice;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pcmcache::local::Store;
use pcmcache_shared::api::limits::{GRACE, LEASE_TTL};
use pcmcache_tests::authority::Authority;
use pcmcache_tests::link::Link;
use pcmcache_tests::link::fault::Fault;
use pcmcache_tests::unit::Outputs;
use pcmcache_tests::{Chance, Finished, Machine, Scratch, Server, Unit, Weight, turn, within};
use scripts::{Case, SCRIPTS, Side, Way};

const HOST: &str = "127.0.0.1";

/// `PCMCACHE_TIMEOUT` of all machines here, in seconds.
const TIMEOUT: u64 = 2;
/// What a launcher gives anything else is in `client/src/remote/server.rs`: a whole answer, or a blob beside what its size
/// takes; the pauses in between; a server that was there a moment ago.
const ANSWER: u64 = 10;
const IDLE: u64 = 5;
const RESTART: u64 = 5;
/// What a machine takes for what it does itself while many others run beside it.
const WORK: u64 = 15;

/// As many cases at a time. They wait more than they work.
const AT_ONCE: usize = 16;

/// The servers that all cases share.
struct Stage {
    plain: Server,
    tls: Server,
    authority: Authority,
    known: Machine,
    scratch: Scratch,
    _servers: [Scratch; 2],
}

/// One case as it runs.
struct Play<'a> {
    stage: &'a Stage,
    case: &'a Case,
    unit: Unit,
    right: Outputs,
    link: Link,
}

impl Stage {
    fn set() -> Self {
        let (scratch, servers) = (Scratch::new("network"), ["plain", "tls"].map(Scratch::new));
        let authority = Authority::new(&scratch, "team");
        let shows = authority.sign(HOST);
        let plain = Server::start(&servers[0]);
        let tls = Server::start_as(&servers[1], ["--tls-cert", &shows.cert, "--tls-key", &shows.key]);
        let known = Machine::experienced(&scratch);
        Self { plain, tls, authority, known, scratch, _servers: servers }
    }

    fn server(&self, way: Way) -> &Server {
        if way.is_tls() { &self.tls } else { &self.plain }
    }
}

impl<'a> Play<'a> {
    fn set(stage: &'a Stage, case: &'a Case, index: usize) -> Self {
        // Large enough for no part of it to ride in an answer, and to be cut in many places.
        let unit = Unit::write(&stage.scratch, &format!("unit{index}"), 7, Weight::Filling(60_000));
        let right = unit.right_outputs(&stage.scratch);
        let (round_trip, bytes_per_second) = case.road;
        let link = Link::start(stage.server(case.way).address(), round_trip, bytes_per_second);
        Self { stage, case, unit, right, link }
    }

    fn machine(&self, name: &str) -> Machine {
        let machine = Machine::new(&self.stage.scratch, &format!("{}-{name}", self.unit_name()))
            .with("PCMCACHE_TIMEOUT", TIMEOUT.to_string())
            .with("PCMCACHE_AGENT", if self.case.way.has_agent() { "on" } else { "off" })
            .with("PCMCACHE_CA_FILE", self.stage.authority.file())
            .knowing(&self.stage.known);
        let scheme = if self.case.way.is_tls() { "https" } else { "http" };
        machine.remote(&format!("{scheme}://{}", self.link.address()))
    }

    fn unit_name(&self) -> String {
        self.unit.source().file_stem().expect("a name").to_string_lossy().into_owned()
    }

    /// What goes wrong, if something does; else what the launch took.
    fn run(&self) -> Result<Duration, String> {
        let (case, machine) = (self.case, self.machine("first"));
        if case.side == Side::Out {
            let maker = self.machine("maker").remote(&self.stage.server(case.way).url());
            self.compile(&maker, "the maker")?;
        }
        if case.way.has_agent() {
            let other =
                Unit::write(&self.stage.scratch, &format!("{}_other", self.unit_name()), 7, Weight::Light);
            machine.compile(other.arguments()).ok();
            within(Duration::from_secs(20), "an agent", || (machine.agents().len() == 1).then_some(()));
        }
        let machine = match case.way {
            Way::Background => machine.with("PCMCACHE_UPLOAD", "background"),
            _ => machine,
        };
        let before = machine.stats();
        let took = if case.way == Way::Sync {
            self.sync_meets_it(&machine)?
        } else {
            self.launch_meets_it(&machine)?
        };
        if self.link.befell() == 0 && case.fault.is_some() && case.is_certain() {
            return Err("it did not happen".to_owned());
        }
        self.link.heal();

        let again =
            machine.clone().building_in(self.stage.scratch.dir(&format!("{}-again", self.unit_name())));
        self.compile(&again, "the next launch")?;
        let stats = machine.stats();
        let own = stats.compiles - before.compiles;
        let right = stats.local_hits == before.local_hits + 1
            && own + stats.remote_hits == 1
            && stats.bypassed.is_empty()
            && stats.diverged == 0
            && (case.side == Side::Out || own == 1);
        if !right {
            return Err(format!("{stats:?}\n{}", machine.log()));
        }
        // A lease whose holder was cut off lives until its time is over.
        let patience = LEASE_TTL + GRACE + Duration::from_secs(ANSWER + WORK);
        let synced = machine.start(machine.launcher(), ["sync", "--wait"]).finish_within(patience);
        let queued = Store::open(&machine.cache()).expect("the store").queue().len();
        if !synced.status.success() || queued > 0 {
            return Err(format!("{queued} queued\n{}\n{}", synced.transcript(), machine.log()));
        }
        let verified = machine.start(machine.launcher(), ["verify"]).finish();
        if !verified.status.success() {
            return Err(verified.transcript());
        }
        let fresh = self.machine("fresh");
        self.compile(&fresh, "a machine that comes later")?;
        let stats = fresh.stats();
        if (stats.compiles, stats.remote_hits) != (0, 1) || !stats.errors.is_empty() {
            return Err(format!("a machine that comes later: {stats:?}\n{}\n{}", fresh.log(), machine.log()));
        }
        Ok(took)
    }

    fn launch_meets_it(&self, machine: &Machine) -> Result<Duration, String> {
        self.case.fault.into_iter().for_each(|fault| self.link.plays(fault));
        let took = self.compile(machine, "the launch")?;
        if took > self.case.bound() {
            return Err(format!("it took {took:?} of {:?}\n{}", self.case.bound(), machine.log()));
        }
        if self.case.way == Way::Background {
            // What is beside the build meets it, too.
            within(LEASE_TTL * 4, "it to happen to the uploader, or its end", || {
                (self.link.befell() > 0 || machine.uploaders().is_empty()).then_some(())
            });
        }
        Ok(took)
    }

    /// The launch finds no server, and what it made is uploaded by `sync`.
    fn sync_meets_it(&self, machine: &Machine) -> Result<Duration, String> {
        let nobody = Fault::nobody_there();
        self.link.plays(nobody);
        self.compile(machine, "the launch")?;
        self.link.heal();
        self.case.fault.into_iter().for_each(|fault| self.link.plays(fault));
        let end = machine.start(machine.launcher(), ["sync"]).finish();
        match end.took > self.case.bound() {
            true => Err(format!("sync took {:?} of {:?}", end.took, self.case.bound())),
            false => Ok(end.took),
        }
    }

    fn compile(&self, machine: &Machine, who: &str) -> Result<Duration, String> {
        let wrong = |what: &str, end: &Finished| {
            Err(format!("{who}: {what}\n{}\n{}", end.transcript(), machine.log()))
        };
        let end = machine.compile(self.unit.arguments());
        if !end.status.success() || !end.stdout.is_empty() || !end.stderr.is_empty() {
            return wrong("it did not pass in silence", &end);
        }
        if self.unit.outputs(machine.build()) != self.right {
            return wrong("other bytes than the compiler's", &end);
        }
        Ok(end.took)
    }
}

#[test]
fn no_fault_of_the_network_costs_a_build_or_what_it_made() {
    let _turn = turn::beside_others();
    let mut chance = Chance::new("network");
    let only = std::env::var("PCMCACHE_TEST_SCRIPT").unwrap_or_default();
    let all = std::env::var_os("PCMCACHE_TEST_WAYS").is_some();
    let cases: Vec<_> = SCRIPTS.iter().flat_map(|script| script.cases(&mut chance, all)).collect();
    let cases: Vec<_> = cases.into_iter().filter(|case| case.name.contains(&only)).collect();
    let stage = Stage::set();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::SeqCst);
                    let Some(case) = cases.get(index) else { return };
                    let play = Play::set(&stage, case, index);
                    match play.run() {
                        Ok(took) => {
                            println!("{:>6} ms, {:>3} times  {case}", took.as_millis(), play.link.befell());
                        }
                        Err(what) => {
                            println!("{case}: {what}");
                            failures.lock().expect("failures").push(case.to_string());
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("failures");
    println!("{} scripts, {} cases", SCRIPTS.len(), cases.len());
    println!("tally: network-cases={}", cases.len());
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
    for server in [&stage.plain, &stage.tls] {
        assert!(!server.log().contains("panicked"), "{}", server.log());
    }
}
