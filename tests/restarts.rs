//! The server is killed and started again while fleets build: nobody's build suffers, nothing acknowledged is lost,
//! nothing is built twice that somebody is building.

use std::time::Duration;

use pcmcache_shared::Digest;
use pcmcache_tests::modules::By;
use pcmcache_tests::proxy::{Exchange, Mischief, Proxy};
use pcmcache_tests::{Chance, Machine, Modules, Scratch, Server, Stats, Unit, Weight, http, turn, until};

const ROUNDS: u32 = 20;

#[test]
fn twenty_kills_cost_no_build_and_lose_nothing_that_was_acknowledged() {
    let _turn = turn::alone();
    let scratch = Scratch::new("restarts");
    let mut server = Server::start(&scratch);
    let proxy = Proxy::start(server.address(), Mischief::None);
    let mut chance = Chance::new("restarts");
    let mut round_time = Duration::from_secs(1);
    for round in 0..ROUNDS {
        // Each round's sources lie elsewhere, so each round's keys are new.
        let program = Modules::write(scratch.dir(&format!("source-{round}")), 6, 3);
        let watched = Machine::new(&scratch, &format!("watched-{round}")).remote(&proxy.url());
        let other = Machine::new(&scratch, &format!("other-{round}")).remote(&server.url());
        let builds = [&watched, &other].map(|machine| program.start(machine, By::Launcher, 2));
        std::thread::sleep(chance.moment(round_time));
        server.kill();
        std::thread::sleep(chance.moment(Duration::from_millis(200)));
        server.restart();
        for (machine, build) in [&watched, &other].into_iter().zip(builds) {
            round_time = build.finish().ok().took;
            program.check(machine);
        }
    }
    assert!(!server.log().contains("panicked"), "{}", server.log());
    let acknowledged = acknowledged(&proxy);
    println!("{} acknowledged", acknowledged.len());
    assert!(acknowledged.len() > 40, "hardly anything was published: {}", acknowledged.len());
    for exchange in acknowledged {
        is_there_and_verifies(&server, &exchange.path);
    }
}

/// What the server said it had taken for good.
fn acknowledged(proxy: &Proxy) -> Vec<Exchange> {
    let taken = |exchange: &Exchange| exchange.method == "PUT" && matches!(exchange.status, 200 | 201);
    proxy.exchanges().into_iter().filter(taken).collect()
}

fn is_there_and_verifies(server: &Server, path: &str) {
    let answer = http::get(server.address(), path);
    assert_eq!(answer.status, 200, "{path} was acknowledged, and now: {}", answer.text());
    let (kind, name) = path.rsplit_once('/').expect("a path with a name");
    if kind.ends_with("/blobs") {
        assert_eq!(Digest::of(&answer.body).to_string(), name);
        return;
    }
    let outputs = answer.json()["result"]["outputs"].as_array().expect("outputs").clone();
    let blobs = kind.replace("/actions", "/blobs");
    for output in outputs {
        is_there_and_verifies(server, &format!("{blobs}/{}", output["digest"].as_str().expect("a digest")));
    }
}

#[test]
fn a_builder_that_lives_through_a_restart_is_not_duplicated() {
    let _turn = turn::alone();
    let scratch = Scratch::new("lives-through");
    let unit = Unit::write(&scratch, "unit", 7, Weight::Thinking(14));
    let mut server = Server::start(&scratch);
    let machine = |name: &str| Machine::new(&scratch, name).remote(&server.url());
    let (builder, before, after) = (machine("builder"), machine("before"), machine("after"));
    let build = builder.launch(unit.arguments());
    until("the builder's grant", || server.metric("pcmcache_granted_total") > 0.0);
    let waits_before = before.launch(unit.arguments());
    until("another machine to wait", || server.metric("pcmcache_waited_total") > 0.0);
    server.kill();
    server.restart();
    let waits_after = after.launch(unit.arguments());
    for launch in [build, waits_before, waits_after] {
        launch.finish().ok();
    }
    let stats: Vec<Stats> = [&builder, &before, &after].map(Machine::stats).to_vec();
    let compiles: Vec<u64> = stats.iter().map(|stats| stats.compiles).collect();
    assert_eq!(compiles, [1, 0, 0], "{stats:?}");
    for machine in [&before, &after] {
        assert_eq!(unit.outputs(machine.build()), unit.outputs(builder.build()));
    }
}
