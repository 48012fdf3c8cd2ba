//! Behind a slow link blobs travel packed, both ways, and what a build gets is the same.

use std::time::Duration;

use pcmcache_tests::link::Link;
use pcmcache_tests::{Machine, Scratch, Server, Unit, Weight, turn, until};

#[test]
fn what_travels_packed_is_less_and_the_same() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("packing");
    let unit = Unit::write(&scratch, "unit", 7, Weight::Filling(4_000_000));
    let right = unit.right_outputs(&scratch);
    let server = Server::start(&scratch);
    let link = Link::start(server.address(), Duration::from_millis(2), 50_000_000);
    let machine = |name: &str, compress: &str, agent: &str| {
        Machine::new(&scratch, name)
            .remote(&format!("http://{}", link.address()))
            .with("PCMCACHE_COMPRESS", compress)
            .with("PCMCACHE_AGENT", agent)
    };
    let compile = |machine: &Machine| {
        let before = (link.up(), link.down());
        machine.compile(unit.arguments()).ok();
        assert_eq!(unit.outputs(machine.build()), right);
        let stats = machine.stats();
        assert!(stats.errors.is_empty(), "{stats:?}");
        (link.up() - before.0, link.down() - before.1, stats)
    };

    let (up, _, stats) = compile(&machine("builder", "on", "off"));
    assert_eq!((stats.compiles, server.results()), (1, 1));
    println!("{up} bytes went for {}", stats.uploaded_bytes);
    assert!(stats.uploaded_bytes > 1_000_000 && up < stats.uploaded_bytes / 2);

    for (name, agent) in [("directly", "off"), ("by-an-agent", "on")] {
        let machine = machine(name, "on", agent);
        if agent == "on" {
            // What starts it goes without it.
            let other = Unit::write(&scratch, "other", 1, Weight::Light);
            machine.compile(other.arguments()).ok();
            until("the agent's socket", || !machine.sockets().is_empty());
        }
        let (_, down, stats) = compile(&machine);
        assert_eq!(stats.remote_hits, 1);
        println!("{name}: {down} bytes came for {}", stats.downloaded_bytes);
        assert!(stats.downloaded_bytes > 1_000_000 && down < stats.downloaded_bytes / 2);
    }

    let before = link.down();
    let (.., stats) = compile(&machine("as-it-is", "off", "off"));
    assert_eq!(stats.remote_hits, 1);
    until("all of it to be counted", || link.down() - before >= stats.downloaded_bytes);
}

/// The first large blob that comes says how the link is, and this very host is never far away.
#[test]
fn nobody_packs_for_this_very_host_by_themselves() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("packing-here");
    let unit = Unit::write(&scratch, "unit", 7, Weight::Filling(4_000_000));
    let server = Server::start(&scratch);
    let link = Link::start(server.address(), Duration::from_millis(2), 10_000_000);
    let machine = |name: &str| Machine::new(&scratch, name).remote(&format!("http://{}", link.address()));
    machine("builder").compile(unit.arguments()).ok();
    for name in ["first", "second"] {
        let (machine, before) = (machine(name), link.down());
        machine.compile(unit.arguments()).ok();
        let stats = machine.stats();
        assert_eq!((stats.remote_hits, &stats.errors.is_empty()), (1, &true), "{stats:?}");
        until("all of it to be counted", || link.down() - before >= stats.downloaded_bytes);
        assert!(!machine.cache().join("v1/slow").exists());
    }
}
