//! The mailing list's demand: whoever builds may be killed at any step, and whoever waits for it still completes,
//! correctly, soon, and without a clean.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pcmcache_tests::modules::By;
use pcmcache_tests::proxy::{Mischief, Proxy};
use pcmcache_tests::scratch::{files_below, names_in};
use pcmcache_tests::{Chance, Machine, Modules, Process, Scratch, Server, Unit, Weight, turn, until, within};
use rustix::process::{Pid, Signal, kill_process};

/// The steps of a launch that does not find a result, in their order.
const MISS: [&str; 11] = [
    "launch.looked",
    "launch.locked",
    "launch.granted",
    "launch.staged",
    "launch.compiled",
    "launch.blobs",
    "launch.uploaded",
    "launch.published",
    "launch.stored",
    "launch.placed-first",
    "launch.placed",
];
/// The steps that are there only with a server.
const REMOTE_ONLY: [&str; 3] = ["launch.granted", "launch.uploaded", "launch.published"];
/// From here on this machine's store has the result.
const STORED: &str = "launch.stored";
/// From here on the server has the result.
const PUBLISHED: &str = "launch.published";
/// The steps of a launch that does find one.
const HIT: [&str; 2] = ["hit.staged", "hit.placed-first"];
/// The steps of the server that a publish takes, in their order.
const SERVER: [&str; 7] = [
    "upload.staged",
    "upload.renamed",
    "upload.committed",
    "publish.checked",
    "publish.blobs",
    "publish.committed",
    "publish.discharged",
];

/// How soon another takes over from a builder that was killed.
const TAKEOVER: Duration = Duration::from_secs(2);
/// The same for a builder whose packets stop.
const SILENT_TAKEOVER: Duration = Duration::from_secs(15 + 2);

fn is_from(step: &str, first: &str) -> bool {
    let at = |step: &str| MISS.iter().position(|known| *known == step);
    at(step) >= at(first)
}

/// Waits until the process stands at the failpoint that announces itself by `at`.
fn stands_at(process: &mut Process, at: &Path) {
    until(&format!("{} to be announced", at.display()), || {
        assert!(!process.ended(), "it never came to {}: {}", at.display(), process.stderr());
        at.exists()
    });
}

/// Lets a process pass that may come to the failpoint announced by `at`, or end without.
fn passes(process: &mut Process, at: &Path) {
    until(&format!("{} to be announced or passed by", at.display()), || at.exists() || process.ended());
    let _ = fs_err::remove_file(at);
}

/// All processes of `machine` are gone, and what it builds next lies alone in its build directory.
fn builds_again_and_leaves_nothing_else(
    machine: &Machine,
    unit: &Unit,
    right: &pcmcache_tests::unit::Outputs,
) {
    within(Duration::from_secs(2), "the end of all that the killed builder had started", || {
        machine.alive().is_empty().then_some(())
    });
    machine.compile(unit.arguments()).ok();
    assert_eq!(unit.outputs(machine.build()), *right);
    assert_eq!(names_in(machine.build()), right.keys().cloned().collect::<Vec<_>>());
}

#[test]
fn a_builder_killed_at_any_step_does_not_keep_one_on_its_machine_from_completing() {
    let _turn = turn::alone();
    let scratch = Scratch::new("kills-local");
    let unit = Unit::write(&scratch, "unit", 7, Weight::Light);
    let right = unit.right_outputs(&scratch);
    for step in MISS.into_iter().filter(|step| !REMOTE_ONLY.contains(step)) {
        println!("{step}");
        let at = scratch.path().join(format!("{step}.at"));
        let looked = scratch.path().join(format!("{step}.looked"));
        let machine = Machine::new(&scratch, step);
        let mut victim = machine.clone().waiting(step, &at).launch(unit.arguments());
        stands_at(&mut victim, &at);

        let beside = machine.clone().building_in(scratch.dir(&format!("{step}-beside")));
        let mut other = beside.clone().waiting("launch.looked", &looked).launch(unit.arguments());
        passes(&mut other, &looked);
        victim.kill();
        other.finish_within(Duration::from_secs(20)).ok();
        assert_eq!(unit.outputs(beside.build()), right, "{step}");
        let stats = machine.stats();
        let (compiles, hits) = if is_from(step, STORED) { (0, 1) } else { (1, 0) };
        assert_eq!((stats.compiles, stats.local_hits), (compiles, hits), "{step}: {stats:?}");
        builds_again_and_leaves_nothing_else(&machine, &unit, &right);
    }
}

#[test]
fn a_launcher_killed_while_it_places_a_hit_does_not_keep_another_from_completing() {
    let _turn = turn::alone();
    let scratch = Scratch::new("kills-hit");
    let unit = Unit::write(&scratch, "unit", 7, Weight::Light);
    let right = unit.right_outputs(&scratch);
    for step in HIT {
        let at = scratch.path().join(format!("{step}.at"));
        let machine = Machine::new(&scratch, step);
        machine.clone().building_in(scratch.dir("elsewhere")).compile(unit.arguments()).ok();
        let mut victim = machine.clone().waiting(step, &at).launch(unit.arguments());
        stands_at(&mut victim, &at);
        let other = machine.launch(unit.arguments());
        victim.kill();
        other.finish_within(Duration::from_secs(20)).ok();
        assert_eq!(unit.outputs(machine.build()), right, "{step}");
        builds_again_and_leaves_nothing_else(&machine, &unit, &right);
        assert_eq!(machine.stats().compiles, 1, "{step}");
    }
}

#[test]
fn a_builder_killed_at_any_step_does_not_keep_another_machine_from_completing() {
    let _turn = turn::alone();
    let scratch = Scratch::new("kills-remote");
    for (index, step) in MISS.into_iter().enumerate() {
        // Another content, so that the server has no result of the step before.
        let unit = Unit::write(&scratch, &format!("unit{index}"), 7, Weight::Light);
        let right = unit.right_outputs(&scratch);
        let server_scratch = Scratch::new("kills-remote-server");
        let server = Server::start(&server_scratch);
        let at = scratch.path().join(format!("{step}.at"));
        let granted = scratch.path().join(format!("{step}.granted"));
        let machine = |name: &str| Machine::new(&scratch, &format!("{step}-{name}")).remote(&server.url());
        let (here, there) = (machine("here"), machine("there"));
        let mut victim = here.clone().waiting(step, &at).launch(unit.arguments());
        stands_at(&mut victim, &at);

        let mut other = there.clone().waiting("launch.granted", &granted).launch(unit.arguments());
        let holds = is_from(step, "launch.granted") && !is_from(step, PUBLISHED);
        if holds {
            until("the other machine to wait", || server.metric("pcmcache_waited_total") > 0.0);
        }
        victim.kill();
        let killed = Instant::now();
        passes(&mut other, &granted);
        let took = killed.elapsed();
        println!("{step}: another goes on {took:?} after the kill");
        assert!(took <= TAKEOVER, "{step}: another goes on only {took:?} after the kill");
        other.finish_within(Duration::from_secs(20)).ok();
        assert_eq!(unit.outputs(there.build()), right, "{step}");
        let stats = there.stats();
        let (compiles, hits) = if is_from(step, PUBLISHED) { (0, 1) } else { (1, 0) };
        assert_eq!((stats.compiles, stats.remote_hits), (compiles, hits), "{step}: {stats:?}");
        builds_again_and_leaves_nothing_else(&here, &unit, &right);
        assert_eq!(here.stats().compiles, 0, "{step}: what the other machine built is there for all");
    }
}

#[test]
fn a_server_killed_at_any_step_of_a_publish_costs_nobody_a_build() {
    let _turn = turn::alone();
    for step in SERVER {
        let scratch = Scratch::new("kills-server");
        let unit = Unit::write(&scratch, "unit", 7, Weight::Light);
        let right = unit.right_outputs(&scratch);
        let mut server = Server::start_with(&scratch, Some(&format!("{step}=kill")));
        let machine = |name: &str| Machine::new(&scratch, name).remote(&server.url());
        let (here, there) = (machine("here"), machine("there"));
        let builder = here.launch(unit.arguments());
        let waiter = there.launch(unit.arguments());
        until(&format!("the server to die at {step}"), || server.ended());
        server.restart();
        for (machine, build) in [(&here, builder), (&there, waiter)] {
            build.finish_within(Duration::from_secs(40)).ok();
            assert_eq!(unit.outputs(machine.build()), right, "{step}");
        }
        assert!(!server.log().contains("panicked"), "{}", server.log());

        // Whatever the server kept of it serves a third machine well.
        let third = Machine::new(&scratch, "third").remote(&server.url());
        third.compile(unit.arguments()).ok();
        assert_eq!(unit.outputs(third.build()), right, "{step}");
        let stages: Vec<_> = files_below(server.data())
            .into_iter()
            .filter(|path| path.components().any(|part| part.as_os_str() == "stages"))
            .collect();
        assert!(stages.is_empty(), "{step}: orphaned stages {stages:?}");
    }
}

#[test]
fn a_builder_whose_packets_stop_is_replaced_once_its_lease_runs_out() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("cable");
    let unit = Unit::write(&scratch, "unit", 7, Weight::Light);
    let right = unit.right_outputs(&scratch);
    let server = Server::start(&scratch);
    let proxy = Proxy::start(server.address(), Mischief::None);
    let (at, granted) = (scratch.path().join("at"), scratch.path().join("granted"));
    let here = Machine::new(&scratch, "here").remote(&proxy.url());
    let there = Machine::new(&scratch, "there").remote(&server.url());
    let mut victim = here.waiting("launch.granted", &at).launch(unit.arguments());
    stands_at(&mut victim, &at);
    let mut other = there.clone().waiting("launch.granted", &granted).launch(unit.arguments());
    until("the other machine to wait", || server.metric("pcmcache_waited_total") > 0.0);

    proxy.pull_the_cable();
    let pulled = Instant::now();
    passes(&mut other, &granted);
    let took = pulled.elapsed();
    println!("another goes on {took:?} after the cable was pulled");
    assert!(took <= SILENT_TAKEOVER, "another goes on only {took:?} after the cable was pulled");
    other.finish().ok();
    assert_eq!(unit.outputs(there.build()), right);

    // The one behind the pulled cable builds for itself in the end, and well.
    fs_err::remove_file(&at).expect("the announcement");
    victim.finish_within(Duration::from_secs(40)).ok();
}

/// A builder that is stopped shows life to nobody, but holds its lock, its lease and its connection.
#[test]
fn a_builder_that_stands_still_is_waited_for_no_longer_than_told() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("still");
    let unit = Unit::write(&scratch, "unit", 7, Weight::Light);
    let right = unit.right_outputs(&scratch);
    let server = Server::start(&scratch);
    let at = scratch.path().join("at");
    let here = Machine::new(&scratch, "here").remote(&server.url()).with("PCMCACHE_WAIT", "1");
    let beside = here.clone().building_in(scratch.dir("beside"));
    let there = Machine::new(&scratch, "there").remote(&server.url()).with("PCMCACHE_WAIT", "1");
    let mut still = here.clone().waiting("launch.staged", &at).launch(unit.arguments());
    stands_at(&mut still, &at);
    still.signal(Signal::STOP);
    for machine in [&beside, &there] {
        let end = machine.compile(unit.arguments()).ok();
        assert_eq!(unit.outputs(machine.build()), right);
        assert!(end.took < Duration::from_secs(8), "it waited for {:?}", end.took);
    }
    // What was stopped goes on, and finds that others were faster.
    fs_err::remove_file(&at).expect("the announcement");
    still.signal(Signal::CONT);
    still.finish().ok();
    assert_eq!(unit.outputs(here.build()), right);
    assert_eq!(server.results(), 1);
}

/// It is the compiler that somebody kills, for want of memory say: the caller sees what it would see without us, and the
/// next who waits builds.
#[test]
fn a_killed_compiler_is_a_failure_of_its_own_launch_only() {
    let _turn = turn::alone();
    let scratch = Scratch::new("killed-compiler");
    let unit = Unit::write(&scratch, "unit", 7, Weight::Thinking(6));
    let server = Server::start(&scratch);
    let here = Machine::new(&scratch, "here").remote(&server.url());
    let there = Machine::new(&scratch, "there").remote(&server.url());
    let launcher = here.launch(unit.arguments());
    let compiler = within(Duration::from_secs(20), "the compiler", || {
        let lines = here.alive().into_iter().filter(|line| line.contains("unit.cppm"));
        let mut compilers = lines.filter_map(|line| {
            let (pid, command) = line.split_once(' ')?;
            command.starts_with("/usr/bin/clang++-22 ").then(|| pid.parse().ok())?
        });
        compilers.next()
    });
    let waiter = there.launch(unit.arguments());
    until("another machine to wait", || server.metric("pcmcache_waited_total") > 0.0);
    kill_process(Pid::from_raw(compiler).expect("a pid"), Signal::KILL)
        .expect("a signal for our own compiler");
    let end = launcher.finish_within(Duration::from_secs(5));
    let shell_would_say = end.status.code() == Some(128 + 9) || end.signal() == Some(9);
    assert!(shell_would_say, "{}", end.transcript());
    assert_eq!(names_in(here.build()), [""; 0]);
    waiter.finish_within(Duration::from_secs(30)).ok();
    assert_eq!(there.stats().compiles, 1);
    assert_eq!(server.metric("pcmcache_granted_total"), 2.0, "it did not build without a lease");
}

/// Whoever is killed next, launcher, watcher or compiler: the machine's own next build is right, and another machine,
/// which builds the same all the while, does not notice.
#[test]
fn random_kills_on_one_machine_disturb_no_other() {
    let _turn = turn::alone();
    let scratch = Scratch::new("random-kills");
    let server = Server::start(&scratch);
    let mut chance = Chance::new("random-kills");
    let mut killed = 0;
    for round in 0..6 {
        let program = Modules::write(scratch.dir(&format!("source-{round}")), 5, 3);
        let machine = |name: &str| Machine::new(&scratch, &format!("{name}-{round}")).remote(&server.url());
        let (here, there) = (machine("here"), machine("there"));
        let other = program.start(&there, By::Launcher, 2);
        for _ in 0..3 {
            // A kill ends Ninja's build as well, as it would a person's, who starts it again.
            let mut build = program.start(&here, By::Launcher, 2);
            while !build.ended() {
                std::thread::sleep(chance.moment(Duration::from_millis(150)));
                killed += u32::from(kill_one_of(&here, &mut chance));
            }
        }
        other.finish().ok();
        program.check(&there);
        until("the end of all that was orphaned", || here.alive().is_empty());
        program.build(&here);
        program.check(&here);
        assert_eq!(program.outputs(here.build()), program.outputs(there.build()), "round {round}");
        let stages: Vec<_> =
            names_in(here.build()).into_iter().filter(|name| name.contains("pcmcache")).collect();
        assert_eq!(stages, [""; 0], "round {round}");
    }
    println!("{killed} killed");
    assert!(killed >= 10, "hardly anybody was killed: {killed}");
}

/// Kills one of the processes that run for a launcher on the machine, if there is one.
fn kill_one_of(machine: &Machine, chance: &mut Chance) -> bool {
    let lines = machine.alive();
    let ours: Vec<_> =
        lines.iter().filter(|line| line.contains("pcmcache") && !line.contains("ninja")).collect();
    let pick = chance.below(ours.len() as u64) as usize;
    let Some(pid) = ours.get(pick).and_then(|line| line.split(' ').next()?.parse().ok()) else {
        return false;
    };
    Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
}

/// A driver that runs two compilers leaves the first one writing when driver and launcher die. Ours does not.
#[test]
fn no_orphaned_compiler_writes_on() {
    let _turn = turn::alone();
    let scratch = Scratch::new("two-jobs");
    let unit = Unit::write(&scratch, "unit", 7, Weight::Headers);
    let mut chance = Chance::new("two-jobs");
    for round in 0..6 {
        let machine = Machine::new(&scratch, &format!("round-{round}"));
        let mut launcher = machine.launch(unit.two_job_arguments());
        let cc1 = |line: &String| line.contains(" -cc1 ") && line.contains("unit.cppm");
        until("a compiler to run", || machine.alive().iter().any(cc1));
        std::thread::sleep(chance.moment(Duration::from_millis(700)));
        launcher.kill();
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(machine.alive(), [""; 0], "round {round}: they live 1 s after their launcher was killed");
        let left = sizes(machine.build());
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(sizes(machine.build()), left, "round {round}");
    }
    let right = unit.right_outputs_of(&scratch, unit.two_job_arguments());
    let machine = Machine::new(&scratch, "machine");
    machine.compile(unit.two_job_arguments()).ok();
    assert_eq!(unit.outputs(machine.build()), right);
    assert_eq!(machine.stats().compiles, 1);
}

/// The harness sees orphans where there are some: the bare driver's compiler outlives it.
#[test]
fn a_bare_two_job_driver_does_leave_an_orphan() {
    let _turn = turn::alone();
    let scratch = Scratch::new("orphan");
    let unit = Unit::write(&scratch, "unit", 7, Weight::Headers);
    let machine = Machine::new(&scratch, "machine");
    let mut driver = machine.start("clang++-22", unit.two_job_arguments());
    let cc1 = |line: &String| line.contains(" -cc1 ") && line.contains("unit.cppm");
    until("a compiler to run", || machine.alive().iter().any(cc1));
    driver.kill();
    assert!(driver.finish().signal().is_some());
    assert!(machine.alive().iter().any(cc1), "no orphan: {:?}", machine.alive());
    until("the orphan's end", || machine.alive().is_empty());
}

fn sizes(dir: &Path) -> Vec<(PathBuf, Option<u64>)> {
    let size = |path: &PathBuf| fs_err::metadata(dir.join(path)).ok().map(|metadata| metadata.len());
    files_below(dir).into_iter().map(|path| (path.clone(), size(&path))).collect()
}

#[test]
fn a_launcher_told_to_end_leaves_nothing_behind_and_ends_by_that_signal() {
    let _turn = turn::alone();
    let scratch = Scratch::new("signals");
    let unit = Unit::write(&scratch, "unit", 7, Weight::Headers);
    let server = Server::start(&scratch);
    for (index, signal) in [Signal::INT, Signal::TERM].into_iter().enumerate() {
        let machine = Machine::new(&scratch, &format!("machine-{index}")).remote(&server.url());
        let mut launcher = machine.launch(unit.arguments());
        until("a compiler to run", || machine.alive().iter().any(|line| line.contains("unit.cppm")));
        until("its stage", || !names_in(machine.build()).is_empty());
        launcher.signal(signal);
        let end = launcher.finish_within(Duration::from_secs(3));
        assert_eq!(end.signal(), Some(signal.as_raw()), "{}", end.transcript());
        assert_eq!(names_in(machine.build()), [""; 0], "{signal:?}");
        within(Duration::from_secs(1), "the end of all it had started", || {
            machine.alive().is_empty().then_some(())
        });
    }
    // Its lease was given back, so the next one does not wait.
    let next = Machine::new(&scratch, "next").remote(&server.url());
    next.compile(unit.arguments()).ok();
    assert_eq!(next.stats().waits, 0);
}
