//! Sixty-four launches of one key at once, again and again, and a fifth of them killed at random moments, or their compilers:
//! whoever lives ends well, and there is one compile in a round, and one more for each holder that was killed.
//!
//!     tests/run.sh --test contended -- --nocapture                                # a few rounds
//!     PCMCACHE_TEST_ROUNDS=200 tests/run.sh --test contended -- --nocapture       # as many; `local` or `server` for one kind
//!
//! `PCMCACHE_TEST_SEED` has the same kills again, as far as the machine's own timing lets it. Compiles are counted by the
//! compiler, which notes that it begins, not by the launchers, most of which do not live to tell.

use std::time::{Duration, Instant};

use pcmcache_tests::counted::{Begun, Counted};
use pcmcache_tests::scratch::names_in;
use pcmcache_tests::{Chance, Machine, Process, Scratch, Server, Unit, Weight, turn, until};
use rustix::process::{Pid, Signal, kill_process};

/// As many launches at once.
const CROWD: usize = 64;
/// Every so manieth of them is killed.
const KILLED: usize = 5;
/// As many cache directories have they where they have a server.
const CACHES: usize = 8;
/// As many rounds, unless somebody says otherwise.
const ROUNDS: u32 = 5;
/// One round, at the longest: each holder that is killed costs the others a compile, and with a server the grace.
const ROUND: Duration = Duration::from_secs(90);

/// Whom a kill is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    /// The launcher of this number, or else the next that runs.
    Anyone(usize),
    /// Who compiles just now.
    Holder,
    /// The compiler itself that runs just now.
    Compiler,
}

/// What came of all rounds.
#[derive(Debug, Default)]
struct Tally {
    rounds: u32,
    killed: usize,
    killed_holders: usize,
    killed_compilers: usize,
    compiles: usize,
    most: usize,
}

/// Those who build the same.
struct Crowd {
    compiler: Counted,
    machines: Vec<Machine>,
    chance: Chance,
    /// How long a quick round takes: kills are spread over it, and make it longer.
    quick: Duration,
    tally: Tally,
    scratch: Scratch,
}

/// A launch, and whether it or its compiler was killed.
struct Launch {
    process: Process,
    killed: bool,
}

impl Crowd {
    /// Each builds in a directory of its own, under one of these caches.
    fn new(name: &str, scratch: Scratch, caches: &[Machine]) -> Self {
        let build = |index: usize| scratch.dir(&format!("build-{index}"));
        let machine = |index: usize| caches[index % caches.len()].clone().building_in(build(index));
        let (machines, compiler) = ((0..CROWD).map(machine).collect(), Counted::build(&scratch));
        let (chance, quick) = (Chance::new(name), Duration::from_secs(1));
        Self { compiler, machines, chance, quick, tally: Tally::default(), scratch }
    }

    /// Each cache gets to know the compiler, which sixty-four launches would do at once else.
    fn meet(&self, caches: usize) {
        let unit = Unit::write(&self.scratch, "first", 1, Weight::Light);
        for machine in self.machines.iter().take(caches) {
            self.compiler.launch(machine, 0, unit.arguments()).finish().ok();
            unit.outputs(machine.build()).keys().for_each(|name| {
                fs_err::remove_file(machine.build().join(name)).expect("what it made");
            });
        }
    }

    fn run(mut self, caches: usize) -> Tally {
        self.meet(caches);
        let named = std::env::var("PCMCACHE_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
        for round in 0..named.unwrap_or(ROUNDS) {
            let failures = self.round(round);
            assert!(failures.is_empty(), "round {round}:\n{}", failures.join("\n"));
        }
        self.tally
    }

    /// When the kills are, and for whom.
    fn plan(&mut self) -> Vec<(Duration, Aim)> {
        let kill = |_| {
            let aim = match self.chance.below(4) {
                0 => Aim::Holder,
                1 => Aim::Compiler,
                _ => Aim::Anyone(self.chance.below(CROWD as u64) as usize),
            };
            (self.chance.moment(self.quick), aim)
        };
        // Some come when all is over.
        let mut plan: Vec<_> = (0..CROWD.div_ceil(KILLED) * 2).map(kill).collect();
        plan.sort_by_key(|(moment, _)| std::cmp::Reverse(*moment));
        plan
    }

    /// All launch what nobody has built; what went wrong.
    fn round(&mut self, round: u32) -> Vec<String> {
        let unit = Unit::write(&self.scratch, "unit", round, Weight::Light);
        let right = unit.right_outputs(&self.scratch);
        let (mut plan, before) = (self.plan(), self.compiler.begun().len());
        let began = Instant::now();
        let launch = |(index, machine)| Launch {
            process: self.compiler.launch(machine, index, unit.arguments()),
            killed: false,
        };
        let mut launches: Vec<_> = self.machines.iter().enumerate().map(launch).collect();
        while launches.iter_mut().any(|launch| !launch.process.ended()) {
            while plan.last().is_some_and(|(moment, _)| began.elapsed() >= *moment) {
                let begun = self.compiler.begun().split_off(before);
                if let Some((_, aim)) = plan.pop() {
                    self.strike(aim, &mut launches, &begun);
                }
            }
            assert!(began.elapsed() < ROUND, "round {round} does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
        let took = began.elapsed();
        // A compiler whose launcher was killed before it could note that it begins may still do so.
        until("the end of all that was orphaned", || {
            self.machines.iter().take(CACHES).all(|m| m.alive().is_empty())
        });
        // A machine that others use at the same time is slower now and then.
        self.quick = took.min(self.quick * 5 / 4);

        let begun = self.compiler.begun().split_off(before);
        let mut failures = self.count(&format!("round {round}: {took:.1?}"), &launches, &begun);
        for (launch, machine) in launches.into_iter().zip(&self.machines).filter(|(launch, _)| !launch.killed)
        {
            let end = launch.process.finish();
            let silent = end.stdout.is_empty() && end.stderr.is_empty();
            let names: Vec<_> = right.keys().cloned().collect();
            if !end.status.success() || !silent {
                failures.push(end.transcript());
            } else if unit.outputs(machine.build()) != right || names_in(machine.build()) != names {
                failures.push(format!("{:?} in {}", names_in(machine.build()), machine.build().display()));
            }
        }
        failures
    }

    fn strike(&mut self, aim: Aim, launches: &mut [Launch], begun: &[Begun]) {
        if launches.iter().filter(|launch| launch.killed).count() >= CROWD.div_ceil(KILLED) {
            return;
        }
        let holder = begun.last().copied().filter(|begun| !launches[begun.launch].killed);
        let holder = holder.filter(|begun| self.compiler.runs(*begun));
        let victim = match (aim, holder) {
            (Aim::Compiler, Some(holder)) => {
                let compiler = Pid::from_raw(holder.compiler).expect("a pid");
                // It may have ended since it was seen to run, and its launch ends well then.
                launches[holder.launch].killed = kill_process(compiler, Signal::KILL).is_ok();
                self.tally.killed_compilers += usize::from(launches[holder.launch].killed);
                return;
            }
            (Aim::Holder, Some(holder)) => holder.launch,
            (Aim::Anyone(index), _) => index,
            (Aim::Holder | Aim::Compiler, None) => self.chance.below(CROWD as u64) as usize,
        };
        let next = (0..CROWD).map(|step| (victim + step) % CROWD);
        let next =
            next.into_iter().find(|index| !launches[*index].killed && !launches[*index].process.ended());
        if let Some(index) = next {
            launches[index].process.kill();
            launches[index].killed = true;
        }
    }

    /// Compares what was compiled with who was killed.
    fn count(&mut self, round: &str, launches: &[Launch], begun: &[Begun]) -> Vec<String> {
        let killed = launches.iter().filter(|launch| launch.killed).count();
        let holders = launches
            .iter()
            .enumerate()
            .filter(|(index, launch)| launch.killed && begun.iter().any(|begun| begun.launch == *index));
        let holders = holders.count();
        println!("{round}, {killed} killed, {holders} of them holders, {} compiles", begun.len());
        let tally = &mut self.tally;
        tally.rounds += 1;
        tally.killed += killed;
        tally.killed_holders += holders;
        tally.compiles += begun.len();
        tally.most = tally.most.max(begun.len());
        if begun.len() <= 1 + holders {
            return Vec::new();
        }
        let logs: String = self.machines.iter().take(CACHES).map(Machine::log).collect();
        let lines = logs.lines().filter(|line| !line.contains("hit:") && line.contains("]   "));
        let faults: Vec<_> = lines.rev().take(20).collect();
        vec![format!("{} compiles, and {holders} holders were killed: {begun:?}\n{faults:#?}", begun.len())]
    }
}

/// A server or a machine that is slow because sixty-four launches run beside it is not what this is about.
fn patient(machine: Machine) -> Machine {
    machine.with("PCMCACHE_TIMEOUT", "30")
}

fn is_hard_enough(tally: &Tally) {
    println!("{tally:?}");
    println!("tally: crowds={} kills={}", tally.rounds, tally.killed);
    assert!(
        tally.killed >= tally.rounds as usize * CROWD / KILLED * 3 / 4,
        "hardly anybody was killed: {tally:?}"
    );
    assert!(tally.killed_holders > 0, "no holder was killed: {tally:?}");
}

#[test]
fn local_a_crowd_compiles_once_and_once_more_for_each_holder_that_is_killed() {
    let _turn = turn::alone();
    let scratch = Scratch::new("crowd");
    let cache = patient(Machine::new(&scratch, "machine"));
    let crowd = Crowd::new("crowd", scratch, &[cache]);
    is_hard_enough(&crowd.run(1));
}

#[test]
fn server_crowds_of_several_machines_compile_once_and_once_more_for_each_holder_that_is_killed() {
    let _turn = turn::alone();
    let beside = Scratch::new("crowds-server");
    let server = Server::start(&beside);
    let scratch = Scratch::new("crowds");
    let cache = |index| patient(Machine::new(&scratch, &format!("machine-{index}")).remote(&server.url()));
    let caches: Vec<_> = (0..CACHES).map(cache).collect();
    let crowd = Crowd::new("crowds", scratch, &caches);
    is_hard_enough(&crowd.run(CACHES));
}
