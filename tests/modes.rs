//! What a mode promises: `read-only` publishes nothing, `local` calls nobody, `off` is the compiler itself; and what the
//! commands beside the launcher do.

use pcmcache_tests::liar::Liar;
use pcmcache_tests::scratch::files_below;
use pcmcache_tests::{Machine, Modules, Scratch, Server, Stats, Unit, Weight, turn, until};

#[test]
fn read_only_takes_what_is_there_waits_for_what_is_made_and_publishes_nothing() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("read-only");
    let unit = Unit::write(&scratch, "unit", 7, Weight::Light);
    let right = unit.right_outputs(&scratch);
    let server = Server::start(&scratch);
    let machine = |name: &str| Machine::new(&scratch, name).remote(&server.url());

    let early = machine("early").with("PCMCACHE_MODE", "read-only");
    early.compile(unit.arguments()).ok();
    assert_eq!((server.results(), early.stats().compiles), (0, 1));
    assert_eq!(files_below(&server.data().join("blobs")).len(), 0);

    let at = scratch.path().join("at");
    let builder = machine("builder");
    let mut build = builder.clone().waiting("launch.staged", &at).launch(unit.arguments());
    until("a builder", || at.exists() || build.ended());
    let watcher = machine("watcher").with("PCMCACHE_MODE", "read-only");
    let watch = watcher.launch(unit.arguments());
    until("a reader to wait", || server.metric("pcmcache_waited_total") > 0.0);
    fs_err::remove_file(&at).expect("the announcement");
    build.finish().ok();
    watch.finish().ok();
    assert_eq!((watcher.stats().compiles, watcher.stats().remote_hits), (0, 1), "{:?}", watcher.stats());
    assert_eq!((server.results(), builder.stats().compiles), (1, 1));
    for machine in [early, builder, watcher] {
        assert_eq!(unit.outputs(machine.build()), right);
    }
}

#[test]
fn local_calls_nobody() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("local");
    let silent = Liar::silent();
    let unit = Unit::write(&scratch, "unit", 7, Weight::Light);
    let machine = Machine::new(&scratch, "machine").remote(&silent.url()).with("PCMCACHE_MODE", "local");
    machine.compile(unit.arguments()).ok();
    machine.compile(unit.arguments()).ok();
    assert_eq!((machine.stats().compiles, machine.stats().local_hits), (1, 1));
    assert_eq!(silent.connections(), 0);
}

#[test]
fn off_is_the_compiler_itself() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("off");
    let silent = Liar::silent();
    let unit = Unit::write(&scratch, "unit", 7, Weight::Light);
    let machine = Machine::new(&scratch, "machine").remote(&silent.url()).with("PCMCACHE_MODE", "off");
    machine.compile(unit.arguments()).ok();
    let bare = Machine::new(&scratch, "bare");
    bare.bare(unit.arguments()).ok();
    assert_eq!(unit.outputs(machine.build()), unit.outputs(bare.build()));
    assert!(!machine.cache().exists(), "{:?}", files_below(&machine.cache()));
    assert_eq!(silent.connections(), 0);
}

#[test]
fn scopes_do_not_see_each_other() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("scopes");
    let unit = Unit::write(&scratch, "unit", 7, Weight::Light);
    let right = unit.right_outputs(&scratch);
    let server = Server::start(&scratch);
    Machine::new(&scratch, "first").remote(&server.url()).compile(unit.arguments()).ok();
    // There is one scope so far, and a launcher that names another gets nothing and loses nothing.
    let other = Machine::new(&scratch, "other").remote(&server.url()).with("PCMCACHE_SCOPE", "other");
    other.compile(unit.arguments()).ok();
    assert_eq!(unit.outputs(other.build()), right);
    assert_eq!((other.stats().compiles, other.stats().remote_hits), (1, 0));
    assert_eq!(server.results(), 1);
}

#[test]
fn stats_are_zeroed_clear_empties_and_config_says_where_from() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("commands");
    let program = Modules::write(scratch.dir("source"), 2, 1);
    let machine = Machine::new(&scratch, "machine");
    let run = |arguments: &[&str]| machine.start(machine.launcher(), arguments).finish().ok().stdout;
    program.build(&machine);
    assert_eq!(machine.stats().compiles, program.compiles() as u64);
    assert!(run(&["stats"]).contains("compiles"));
    run(&["stats", "--zero"]);
    assert_eq!(machine.stats(), Stats::default());
    program.build(&machine.clone().building_in(scratch.dir("hits")));
    assert_eq!(machine.stats().local_hits, program.compiles() as u64);
    run(&["clear"]);
    program.build(&machine.clone().building_in(scratch.dir("misses")));
    assert_eq!(machine.stats().compiles, program.compiles() as u64);
    let config = run(&["config"]);
    assert!(config.contains(&machine.cache().display().to_string()), "{config}");
}
