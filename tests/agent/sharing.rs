//! What it is for.

use std::time::Duration;

use pcmcache_tests::modules::By;
use pcmcache_tests::{Machine, Modules, Scratch, Server, Unit, Weight, turn, until, within};

use super::{Team, answers, only, said, wake};

#[test]
fn hundreds_of_requests_go_over_a_few_connections() {
    let _turn = turn::alone();
    let team = Team::start("agent-sharing");
    let program = Modules::write(team.scratch.dir("source"), 10, 30);
    let right = program.right_outputs(&team.scratch);
    for (name, is_cold) in [("first", true), ("second", false)] {
        let machine = team.warmed(name);
        let (before, counted) = (team.link.connections(), machine.stats());
        let passed_on = passed_on(&machine);
        program.build(&machine);
        program.check(&machine);
        assert_eq!(program.outputs(machine.build()), right);
        let stats = machine.stats();
        assert!(stats.errors.is_empty(), "{stats:?}");
        let built = stats.compiles - counted.compiles;
        assert_eq!(built, if is_cold { program.compiles() as u64 } else { 0 }, "{stats:?}");
        let (made, requests) = (team.link.connections() - before, self::passed_on(&machine) - passed_on);
        let per_compile = if is_cold { 2 } else { 1 };
        println!("{name}: {requests} requests over {made} connections made meanwhile");
        assert!(requests >= per_compile * program.compiles() as u64, "{requests} requests went that way");
        assert!(made <= 4, "{made} connections were made for {requests} requests");
    }
}

/// What it is worth is printed; what is asked for is that the handshakes are gone.
#[test]
fn far_from_the_server_launchers_do_not_pay_for_handshakes() {
    let _turn = turn::alone();
    let team = Team::at("agent-far", (Duration::from_millis(20), 125_000_000));
    let program = Modules::write(team.scratch.dir("source"), 1, 48);
    let right = program.right_outputs(&team.scratch);
    let near = team.machine("near").remote(&team.server.url()).with("PCMCACHE_AGENT", "off");
    program.build(&near);
    assert!(near.stats().errors.is_empty(), "{:?}", near.stats());
    for round in 0..3 {
        for agent in ["off", "on"] {
            let machine = team.machine(&format!("{agent}_{round}"));
            if agent == "on" {
                wake(&team, &machine, &format!("wake_{round}"));
            }
            let machine = machine.with("PCMCACHE_AGENT", agent);
            let before = team.link.connections();
            let load = fs_err::read_to_string("/proc/loadavg").expect("the load");
            let took = program.start(&machine, By::Launcher, 4).finish().ok().took;
            let made = team.link.connections() - before;
            let load = load.split(' ').next().unwrap_or_default();
            println!(
                "agent {agent}: {} hits took {took:?} over {made} connections, load {load}",
                program.compiles()
            );
            assert_eq!(program.outputs(machine.build()), right);
            let stats = machine.stats();
            assert!(stats.errors.is_empty(), "{stats:?}");
            assert_eq!(stats.remote_hits, program.compiles() as u64, "{stats:?}");
            assert!(if agent == "on" { made <= 4 } else { made >= program.compiles() }, "{made} connections");
        }
    }
}

/// How many requests went by way of the machine's agent, as it says itself once it finds the time.
fn passed_on(machine: &Machine) -> u64 {
    within(Duration::from_secs(60), "the agent's own word", || {
        let said = said(machine);
        said.split_once(" requests")?.0.rsplit(' ').next()?.parse().ok()
    })
}

#[test]
fn launchers_that_start_it_at_the_same_time_start_one() {
    let _turn = turn::alone();
    let team = Team::start("agent-race");
    let machine = team.machine("machine");
    let units: Vec<Unit> = (0..8).map(|index| team.unit(&format!("unit{index}"))).collect();
    let launches: Vec<_> = units.iter().map(|unit| machine.launch(unit.arguments())).collect();
    for launch in launches {
        launch.finish().ok();
    }
    until("an agent", || answers(&machine));
    only(&machine);
    assert_eq!(machine.sockets().len(), 1);
}

#[test]
fn it_is_there_where_it_pays_and_where_it_is_wanted() {
    let _turn = turn::beside_others();
    let team = Team::start("agent-wanted");
    let off = team.machine("off").with("PCMCACHE_AGENT", "off");
    off.compile(team.unit("a").arguments()).ok();
    assert!(said(&off).contains("off"), "{}", said(&off));
    let scratch = Scratch::new("agent-plain");
    let plain = Server::start(&scratch);
    let near = Machine::new(&scratch, "near").remote(&plain.url());
    near.compile(Unit::write(&scratch, "b", 7, Weight::Light).arguments()).ok();
    for machine in [off, near.clone()] {
        assert_eq!((machine.agents().len(), machine.sockets().len()), (0, 0));
    }
    let near = near.with("PCMCACHE_AGENT", "on");
    near.compile(Unit::write(&scratch, "c", 7, Weight::Light).arguments()).ok();
    until("an agent", || answers(&near));
    near.compile(Unit::write(&scratch, "d", 7, Weight::Light).arguments()).ok();
    assert!(passed_on(&near) >= 3, "{}", said(&near));
    assert!(near.stats().errors.is_empty(), "{:?}", near.stats());
}

#[test]
fn a_cache_directory_may_have_a_long_name() {
    let _turn = turn::beside_others();
    let team = Team::start("agent-long");
    let cache = team.scratch.path().join("l".repeat(120)).join("cache");
    let machine = team.machine("machine").with("PCMCACHE_DIR", &cache);
    fs_err::create_dir_all(cache.parent().expect("its parent")).expect("a long directory");
    wake(&team, &machine, "unit");
    let before = team.link.connections();
    machine.compile(team.unit("other").arguments()).ok();
    assert!(team.link.connections() <= before + 1, "the agent's lane for blobs, and nothing else");
    assert!(machine.stats().errors.is_empty(), "{:?}", machine.stats());
}
