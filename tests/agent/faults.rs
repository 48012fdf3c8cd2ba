//! Killed, stopped, or gone at the worst moment.

use std::time::{Duration, Instant};

use pcmcache_shared::api::limits::GRACE;
use pcmcache_tests::modules::By;
use pcmcache_tests::{Chance, Machine, Modules, Process, Unit, Weight, turn, until};
use rustix::process::{Signal, test_kill_process};

use super::{Team, only, signal, wake};

#[test]
fn killed_over_and_over_it_costs_no_build_and_no_compile() {
    let _turn = turn::alone();
    let team = Team::start("agent-killed");
    let program = Modules::write(team.scratch.dir("source"), 12, 60);
    let right = program.right_outputs(&team.scratch);
    let mut chance = Chance::new("agent-killed");
    let mut kills = 0;
    for name in ["cold", "warm", "again"] {
        let machine = team.warmed(name);
        let before = machine.stats().compiles;
        let mut build = program.start(&machine, By::Launcher, 4);
        while !build.ended() {
            std::thread::sleep(chance.moment(Duration::from_millis(400)));
            let agents = machine.agents();
            kills += agents.len();
            signal(&agents, Signal::KILL);
        }
        build.finish().ok();
        program.check(&machine);
        assert_eq!(program.outputs(machine.build()), right);
        let stats = machine.stats();
        assert!(stats.errors.is_empty() && stats.diverged == 0, "{stats:?}\n{}", machine.log());
        let compiles = if name == "cold" { program.compiles() as u64 } else { 0 };
        assert_eq!(stats.compiles - before, compiles, "{stats:?}");
    }
    println!("{kills} agents were killed");
    assert!(kills >= 20, "{kills} agents were killed");
}

#[test]
fn stopped_it_is_passed_by_and_replaced() {
    let _turn = turn::alone();
    let team = Team::start("agent-stopped");
    let machine = team.warmed("machine");
    let stopped = only(&machine);
    signal(&[stopped], Signal::STOP);
    let socket = machine.sockets().remove(0);
    let id = |path: &std::path::Path| {
        fs_err::metadata(path).ok().map(|there| std::os::unix::fs::MetadataExt::ino(&there))
    };
    let old = id(&socket);
    let took = machine.compile(team.unit("unit").arguments()).ok().took;
    println!("a launch before a stopped agent took {took:?}");
    until("another agent", || machine.agents().len() == 2 && id(&socket).is_some_and(|new| Some(new) != old));
    signal(&[stopped], Signal::CONT);
    until("the end of the one that was stopped", || {
        test_kill_process(stopped).is_err() || machine.agents() != [stopped] && machine.agents().len() == 1
    });
    assert!(id(&socket).is_some(), "it leaves the other's socket alone");
    assert!(machine.stats().errors.is_empty(), "{:?}", machine.stats());
}

#[test]
fn a_lease_outlives_the_agent_that_it_came_by() {
    let _turn = turn::alone();
    let team = Team::start("agent-lease");
    let (first, second) = (team.warmed("first"), team.warmed("second"));
    let unit = team.unit("unit");
    let at = team.scratch.path().join("at");
    let mut builder = first.clone().waiting("launch.granted", &at).launch(unit.arguments());
    stands_at(&mut builder, &at);
    let other = second.launch(unit.arguments());
    signal(&first.agents(), Signal::KILL);
    // Whoever lost its lease would have been replaced by then.
    std::thread::sleep(GRACE * 3);
    fs_err::remove_file(&at).expect("the announcement");
    builder.finish().ok();
    other.finish().ok();
    let compiles = |machine: &Machine| machine.stats().compiles;
    assert_eq!(
        (compiles(&first), compiles(&second)),
        (2, 1),
        "each its own first one, and the builder the other"
    );
    assert_eq!(second.stats().remote_hits, 1);
    for machine in [first, second] {
        assert!(machine.stats().errors.is_empty(), "{:?}", machine.stats());
    }
}

#[test]
fn a_builder_that_is_killed_is_replaced_at_once() {
    let _turn = turn::alone();
    let team = Team::start("agent-builder");
    let (first, second) = (team.warmed("first"), team.warmed("second"));
    let unit = team.unit("unit");
    let (at, granted) = (team.scratch.path().join("at"), team.scratch.path().join("granted"));
    let before = team.link.connections();
    let mut victim = first.clone().waiting("launch.granted", &at).launch(unit.arguments());
    stands_at(&mut victim, &at);
    let other = second.clone().waiting("launch.granted", &granted).launch(unit.arguments());
    assert!(team.link.connections() <= before + 2, "both went by way of their agents");
    victim.kill();
    let killed = Instant::now();
    until("the other machine's grant", || granted.exists());
    println!("another goes on {:?} after the builder was killed", killed.elapsed());
    assert!(killed.elapsed() < GRACE * 4);
    fs_err::remove_file(&granted).expect("the announcement");
    other.finish().ok();
}

#[test]
fn half_a_blob_is_not_fetched_twice() {
    let _turn = turn::alone();
    // A narrow link: the blob is on its way for seconds.
    let team = Team::at("agent-blob", (Duration::from_millis(5), 2 << 20));
    let unit = Unit::write(&team.scratch, "unit", 7, Weight::Filling(6 << 20));
    let right = unit.right_outputs(&team.scratch);
    let builder = team.machine("builder").remote(&team.server.url()).with("PCMCACHE_AGENT", "off");
    builder.compile(unit.arguments()).ok();

    let machine = team.warmed("machine");
    let before = team.link.down();
    let launch = machine.launch(unit.arguments());
    until("half of it", || team.link.down() - before > 3 << 20);
    signal(&machine.agents(), Signal::KILL);
    launch.finish().ok();
    let stats = machine.stats();
    assert_eq!(unit.outputs(machine.build()), right);
    assert_eq!((stats.compiles, stats.remote_hits), (1, 1), "{stats:?}");
    assert!(stats.errors.is_empty(), "{stats:?}");
    let came = team.link.down() - before;
    println!("{came} bytes came over the link for {} bytes of blobs", stats.downloaded_bytes);
    assert!(came < stats.downloaded_bytes * 3 / 2, "{came} bytes came over the link");
}

#[test]
fn a_server_that_goes_away_is_still_noticed() {
    let _turn = turn::alone();
    let mut team = Team::start("agent-server");
    let machine = team.warmed("machine");
    team.server.kill();
    machine.compile(team.unit("away").arguments()).ok();
    assert_eq!(machine.stats().errors.get("remote_unreachable"), Some(&1), "{:?}", machine.stats());
    machine.compile(team.unit("still_away").arguments()).ok();
    assert_eq!(machine.stats().errors.get("remote_unreachable"), Some(&1), "the breaker is open");
    team.server.restart();
    wake(&team, &machine.clone().with("PCMCACHE_DIR", team.scratch.dir("anew")), "back");
}

/// Waits until the process stands at the failpoint that announces itself by `at`.
fn stands_at(process: &mut Process, at: &std::path::Path) {
    until("the failpoint", || {
        assert!(!process.ended(), "it never came there: {}", process.stderr());
        at.exists()
    });
}
