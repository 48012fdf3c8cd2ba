//! Two machines build a real project cold at the same time: each of its actions is compiled once.

use std::time::Duration;

use pcmcache_tests::sleepers::Sleepers;
use pcmcache_tests::{Machine, Scratch, Server, Stats, atlas, turn};

/// A cold build of the project by two machines on two cores.
const COLD: Duration = Duration::from_secs(300);

#[test]
fn two_machines_cold_at_once_compile_each_action_once_and_a_third_compiles_nothing() {
    let _turn = turn::alone();
    let scratch = Scratch::new("fleet");
    let server = Server::start(&scratch);
    let machine = |name: &str| {
        let machine = Machine::new(&scratch, name).remote(&server.url());
        atlas::configure(&machine);
        machine
    };
    let pair = [machine("first"), machine("second")];
    let builds = [atlas::build(&pair[0]), atlas::build(&pair[1])];
    for build in builds {
        build.finish_within(COLD).ok();
    }
    let stats: Vec<Stats> = pair.iter().map(Machine::stats).collect();
    for (machine, stats) in pair.iter().zip(&stats) {
        atlas::check(machine);
        assert_clean(stats);
    }
    let compiles: u64 = stats.iter().map(|stats| stats.compiles).sum();
    println!("{compiles} compiles, {} results; {stats:?}", server.results());
    assert!(compiles > 60, "the project has more than 60 compile commands, {stats:?}");
    assert_eq!(compiles, server.results(), "{stats:?}");
    assert!(stats.iter().all(|stats| stats.remote_hits > 0), "both had something from the other: {stats:?}");

    let third = machine("third");
    atlas::build(&third).finish_within(COLD).ok();
    atlas::check(&third);
    let warm = third.stats();
    assert_clean(&warm);
    assert_eq!((warm.compiles, warm.remote_hits), (0, compiles), "{warm:?}");
    assert_eq!(server.results(), compiles);
}

#[test]
fn machines_that_build_one_graph_with_more_launchers_than_cores_take_different_modules() {
    let _turn = turn::alone();
    let scratch = Scratch::new("fleet-shares");
    let project = Sleepers::write(&scratch, 60, 0.5);
    let server = Server::start(&scratch);
    let fleet = ["first", "second", "third"].map(|name| {
        // One machine stands for three: that it is slow to answer means nothing here.
        let machine = Machine::new(&scratch, name).remote(&server.url());
        machine.with("PCMCACHE_JOBS", "1").with("PCMCACHE_TIMEOUT", "20")
    });
    let builds = fleet.each_ref().map(|machine| project.start(machine, 8));
    builds.into_iter().for_each(|build| drop(build.finish_within(COLD).ok()));
    let stats = fleet.each_ref().map(Machine::stats);
    for (machine, stats) in fleet.iter().zip(&stats) {
        project.check(machine);
        assert_clean(stats);
        assert!(stats.compiles as usize > project.count() / 10, "{stats:?}");
        assert_eq!((stats.compiles + stats.remote_hits) as usize, project.count(), "{stats:?}");
    }
    let compiles: u64 = stats.iter().map(|stats| stats.compiles).sum();
    assert_eq!((compiles as usize, compiles), (project.count(), server.results()), "{stats:?}");
}

fn assert_clean(stats: &Stats) {
    assert!(stats.bypassed.is_empty() && stats.errors.is_empty() && stats.diverged == 0, "{stats:?}");
}
