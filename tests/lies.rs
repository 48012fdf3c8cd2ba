//! No server, a bad server, a lying server: the build does not notice.

use std::time::Duration;

use pcmcache_tests::faithful::Faithful;
use pcmcache_tests::liar::{self, Liar};
use pcmcache_tests::modules::By;
use pcmcache_tests::proxy::{Mischief, Proxy};
use pcmcache_tests::{Machine, Modules, Scratch, Server, turn};

#[test]
fn without_a_server_that_deserves_the_name_a_launcher_is_the_compiler() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("lies");
    let (silent, failing, babbling) = (Liar::silent(), Liar::failing(), Liar::babbling());
    let nobody = liar::nobody();
    let urls = [
        ("nobody", nobody.as_str()),
        ("silent", &silent.url()),
        ("failing", &failing.url()),
        ("babbling", &babbling.url()),
        ("babbling-no-tls", &babbling.url().replacen("http", "https", 1)),
        ("silent-no-tls", &silent.url().replacen("http", "https", 1)),
        ("no-url", "what is this?"),
        ("no-host", "http://pcmcache.invalid:1"),
    ];
    let faithful = Faithful::new(&scratch);
    let program = Modules::write(scratch.dir("source"), 4, 3);
    let right = program.right_outputs(&scratch);
    for (name, url) in urls {
        println!("{name}");
        let machine = |name: &str| Machine::new(&scratch, name).without("PCMCACHE_TIMEOUT").remote(url);
        faithful.check(&machine(&format!("{name}-commands")));
        let machine = machine(name);
        program.build(&machine);
        program.check(&machine);
        assert_eq!(program.outputs(machine.build()), right, "{name}");
        // What is known locally is had, whatever the server is.
        let again = machine.clone().building_in(scratch.dir(&format!("{name}-again")));
        program.build(&again);
        assert_eq!(program.outputs(again.build()), right, "{name}");
        assert_eq!(machine.stats().compiles, program.compiles() as u64, "{name}: {:?}", machine.stats());
    }
}

#[test]
fn a_silent_server_costs_a_project_two_timeouts_not_sixty() {
    let _turn = turn::alone();
    let scratch = Scratch::new("silent");
    let program = Modules::write(scratch.dir("source"), 20, 39);
    assert_eq!(program.compiles(), 60);
    let silent = Liar::silent();
    let alone = Machine::new(&scratch, "alone");
    let without = program.build(&alone).took;
    let machine = Machine::new(&scratch, "machine").remote(&silent.url()).without("PCMCACHE_TIMEOUT");
    let with = program.build(&machine).took;
    program.check(&machine);
    let (connections, held) = (silent.connections(), silent.held());
    println!(
        "{without:?} without a server, {with:?} with a silent one: {connections} connections, {held:?} in all"
    );
    assert!((1..=2).contains(&connections), "{connections} connections");
    assert!(held < Duration::from_secs(4), "two timeouts are 2 s, the connections were held for {held:?}");
    assert_eq!(machine.stats().compiles, 60);
}

#[test]
fn a_blob_that_is_not_what_its_name_says_reaches_no_compiler() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("mischief");
    let server = Server::start(&scratch);
    let faithful = Faithful::new(&scratch);
    let program = Modules::write(scratch.dir("source"), 4, 3);
    let right = program.right_outputs(&scratch);
    let warm = Machine::new(&scratch, "warm").remote(&server.url());
    program.build(&warm);
    faithful.check(&Machine::new(&scratch, "warm-commands").remote(&server.url()));

    for mischief in [Mischief::Flip, Mischief::Short, Mischief::CutOff, Mischief::Endless] {
        println!("{mischief:?}");
        let proxy = Proxy::start(server.address(), mischief);
        faithful.check(&Machine::new(&scratch, &format!("{mischief:?}-commands")).remote(&proxy.url()));
        let machine = Machine::new(&scratch, &format!("{mischief:?}")).remote(&proxy.url());
        program.start(&machine, By::Launcher, 2).finish().ok();
        program.check(&machine);
        assert_eq!(program.outputs(machine.build()), right, "{mischief:?}");
        assert!(proxy.harmed() > 0, "{mischief:?} did no harm: no blob went by");
    }
    // The server itself is as good as before.
    let honest = Machine::new(&scratch, "honest").remote(&server.url());
    program.build(&honest);
    assert_eq!(honest.stats().compiles, 0, "{:?}", honest.stats());
    assert_eq!(program.outputs(honest.build()), right);
}
