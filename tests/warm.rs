//! Warm starts: one machine builds and pushes what it used, another fetches it and builds without compiling, scanning or
//! asking anyone. Whoever is killed on the way, and whatever the server sends, nothing wrong is ever built.

use std::time::Duration;

use pcmcache_tests::modules::By;
use pcmcache_tests::proxy::{Mischief, Proxy};
use pcmcache_tests::scratch::files_below;
use pcmcache_tests::{Chance, Finished, Machine, Modules, Scratch, Server, Unit, Weight, atlas, turn, until};

/// A build of the project by one machine.
const BUILD: Duration = Duration::from_secs(300);

fn run(machine: &Machine, words: &[&str]) -> Finished {
    machine.start(machine.launcher(), words).finish()
}

/// What `warm` said: how many results, of them here and fetched.
#[track_caller]
fn counts(warmed: &Finished) -> (u64, u64, u64) {
    let line = warmed.stdout.lines().last().unwrap_or_default();
    let numbers: Vec<u64> = line.split([' ', '(']).filter_map(|word| word.parse().ok()).collect();
    assert!(numbers.len() >= 3, "{}", warmed.transcript());
    (numbers[0], numbers[1], numbers[2])
}

/// Nothing of the store is other than its name or its seal says.
#[track_caller]
fn is_sound(machine: &Machine) {
    let verified = run(machine, &["verify"]);
    assert!(verified.status.success(), "{}", verified.transcript());
}

#[test]
fn after_warm_a_machine_builds_without_server_compiler_and_scanner() {
    let _turn = turn::alone();
    let scratch = Scratch::new("warm-atlas");
    let mut server = Server::start(&scratch);
    let machine = |name: &str| Machine::new(&scratch, name).remote(&server.url());
    let (first, second) = (machine("first").with("PCMCACHE_PROFILE", "nightly"), machine("second"));
    for machine in [&first, &second] {
        atlas::configure_by_module(machine, &atlas::source());
    }
    atlas::build(&first).finish_within(BUILD).ok();
    let cold = first.stats();
    let used = cold.compiles + cold.scans;
    let pushed = run(&first, &["profile", "push"]).ok();
    let expected = format!("pushed 'nightly' to the scope main: {used} results\n");
    assert_eq!(pushed.stdout, expected, "{}", first.log());
    let shown = run(&second, &["profile", "show", "nightly"]).ok().stdout;
    assert!(shown.contains(&format!("'nightly' in the scope main: {used} results\n")), "{shown}");
    assert!(shown.contains("noted here: 0 results"), "{shown}");

    let warmed = run(&second, &["warm", "nightly"]).ok();
    assert_eq!((counts(&warmed), warmed.stderr.as_str()), ((used, 0, used), ""), "{}", warmed.transcript());
    is_sound(&second);
    let again = run(&second, &["warm", "nightly"]).ok();
    assert_eq!(counts(&again), (used, used, 0));
    server.kill();
    atlas::build(&second).finish_within(BUILD).ok();
    let warm = second.stats();
    assert_eq!((warm.compiles, warm.scans, warm.remote_hits), (0, 0, 0), "{}", second.log());
    assert_eq!((warm.local_hits, warm.scan_hits), (used, cold.scans), "{warm:?}");
    assert!(warm.bypassed.is_empty() && warm.errors.is_empty(), "{warm:?}");
    atlas::check(&second);
    // Without the server it can only say so; it is a person who asks.
    let alone = run(&second, &["warm", "nightly"]);
    assert_eq!(alone.status.code(), Some(1), "{}", alone.transcript());
    assert!(alone.stderr.contains("nothing was fetched"), "{}", alone.transcript());
}

/// A program of modules, built and pushed by one machine under the profile `ci`.
struct Fleet {
    server: Server,
    program: Modules,
    used: u64,
    // Gone after the server, whose end looks into it.
    scratch: Scratch,
}

impl Fleet {
    fn new(name: &str, modules: usize, parts: usize) -> Self {
        let scratch = Scratch::new(name);
        let server = Server::start(&scratch);
        let program = Modules::write(scratch.dir("source"), modules, parts);
        let first = Machine::new(&scratch, "first").remote(&server.url()).with("PCMCACHE_PROFILE", "ci");
        program.start(&first, By::Launcher, 2).finish_within(BUILD).ok();
        run(&first, &["profile", "push"]).ok();
        let used = first.stats().compiles;
        Self { server, program, used, scratch }
    }

    fn machine(&self, name: &str) -> Machine {
        Machine::new(&self.scratch, name).remote(&self.server.url())
    }

    /// Builds, with the right outcome, and gives (compiles, local hits, remote hits).
    #[track_caller]
    fn build(&self, machine: &Machine) -> (u64, u64, u64) {
        self.program.start(machine, By::Launcher, 2).finish_within(BUILD).ok();
        self.program.check(machine);
        let stats = machine.stats();
        (stats.compiles, stats.local_hits, stats.remote_hits)
    }
}

#[test]
fn a_warm_start_that_is_killed_leaves_a_sound_store_and_the_next_goes_on() {
    let _turn = turn::alone();
    let fleet = Fleet::new("warm-kills", 6, 6);
    let steps = ["warm.blob", "warm.set", "warm.stored", "launch.taken-back"];
    for step in steps {
        let victim = fleet.machine(step);
        let killed = run(&victim.clone().with("PCMCACHE_FAILPOINT", format!("{step}=kill")), &["warm", "ci"]);
        assert_eq!(killed.status.code(), None, "{step}: {}", killed.transcript());
        is_sound(&victim);
        let warmed = run(&victim, &["warm", "ci"]).ok();
        let (named, here, fetched) = counts(&warmed);
        assert_eq!((named, here + fetched), (fleet.used, fleet.used), "{step}: {}", warmed.transcript());
        assert_eq!(fleet.build(&victim), (0, fleet.used, 0), "{step}: {}", victim.log());
    }
    // Once so many results are here, as the dice say.
    let mut chance = Chance::new("warm");
    let victim = fleet.machine("victim");
    let results = || files_below(&victim.cache().join("v1/results")).len() as u64;
    for round in 0..10 {
        run(&victim, &["clear"]).ok();
        let enough = chance.below(fleet.used);
        let mut process = victim.start(victim.launcher(), ["warm", "ci"]);
        until("the moment to kill it", || results() >= enough || process.ended());
        process.kill();
        until("its end", || process.ended());
        is_sound(&victim);
        println!("round {round}: killed at {enough}, {} of {} results are here", results(), fleet.used);
    }
    run(&victim, &["warm", "ci"]).ok();
    assert_eq!(fleet.build(&victim), (0, fleet.used, 0), "{}", victim.log());
}

#[test]
fn bytes_that_are_not_what_they_should_be_are_refused_and_a_partial_warm_is_fewer_hits() {
    let _turn = turn::alone();
    let fleet = Fleet::new("warm-lies", 3, 3);
    for mischief in [Mischief::Flip, Mischief::Short, Mischief::CutOff, Mischief::Endless] {
        let victim = fleet.machine(&format!("{mischief:?}"));
        let proxy = Proxy::start(fleet.server.address(), mischief);
        let through = victim.clone().remote(&proxy.url());
        let warmed = run(&through, &["warm", "ci"]);
        assert_eq!(warmed.status.code(), Some(1), "{mischief:?}: {}", warmed.transcript());
        assert!(warmed.stdout.contains("not taken") && proxy.harmed() > 0, "{}", warmed.transcript());
        is_sound(&victim);
        let (named, here, fetched) = counts(&warmed);
        assert!(named == fleet.used && here == 0 && fetched < named, "{}", warmed.transcript());
        // What came is a hit, the rest is built: nothing but work is lost.
        let alone = victim.clone().without("PCMCACHE_REMOTE");
        let (compiles, hits, _) = fleet.build(&alone);
        assert_eq!(compiles + hits, fleet.used, "{}", alone.log());
        assert!(compiles > 0, "{mischief:?}: what was harmed is not used");
    }
}

#[test]
fn a_store_that_is_nearly_full_keeps_what_it_has() {
    let _turn = turn::alone();
    let fleet = Fleet::new("warm-full", 3, 3);
    let small = fleet.machine("small").with("PCMCACHE_MAX_SIZE", "400K");
    let unit = Unit::write(&fleet.scratch, "unit", 7, Weight::Light);
    small.clone().without("PCMCACHE_REMOTE").compile(unit.arguments()).ok();
    let warmed = run(&small, &["warm", "ci"]);
    assert_eq!(warmed.status.code(), Some(1), "{}", warmed.transcript());
    assert!(warmed.stderr.contains("nearly at its bound"), "{}", warmed.transcript());
    is_sound(&small);
    small.compile(unit.arguments()).ok();
    let stats = small.stats();
    assert_eq!((stats.compiles, stats.local_hits), (1, 1), "what was built here stayed: {}", small.log());
}

#[test]
fn beside_a_running_build_a_warm_start_does_no_harm() {
    let _turn = turn::alone();
    let fleet = Fleet::new("warm-beside", 6, 6);
    let machine = fleet.machine("machine");
    let build = fleet.program.start(&machine, By::Launcher, 2);
    let warms: Vec<_> = (0..3).map(|_| machine.start(machine.launcher(), ["warm", "ci"])).collect();
    build.finish_within(BUILD).ok();
    warms.into_iter().for_each(|warm| drop(warm.finish_within(BUILD).ok()));
    fleet.program.check(&machine);
    is_sound(&machine);
    let stats = machine.stats();
    assert_eq!((stats.compiles, stats.local_hits + stats.remote_hits), (0, fleet.used), "{}", machine.log());
}

#[test]
fn a_launch_without_a_profile_notes_nothing_and_a_push_says_what_is_not_there() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("warm-notes");
    let server = Server::start(&scratch);
    let unit = Unit::write(&scratch, "unit", 7, Weight::Light);
    let machine = Machine::new(&scratch, "machine").remote(&server.url());
    machine.compile(unit.arguments()).ok();
    assert!(!machine.cache().join("v1/profiles").exists());
    let refused = run(&machine, &["profile", "push", "ci"]);
    assert!(refused.stderr.contains("PCMCACHE_PROFILE=ci"), "{}", refused.transcript());
    // Compiled offline, so that the server has nothing of it; then what it has.
    let noting = machine.clone().with("PCMCACHE_PROFILE", "ci");
    let offline = Unit::write(&scratch, "offline", 8, Weight::Light);
    noting.clone().with("PCMCACHE_MODE", "local").compile(offline.arguments()).ok();
    noting.compile(unit.arguments()).ok();
    let pushed = run(&noting, &["profile", "push", "--inherit", "main"]).ok();
    assert!(pushed.stdout.contains(": 1 results; 1 were left out"), "{}", pushed.transcript());
    let shown = run(&machine, &["profile", "show", "ci"]).ok();
    assert!(
        shown.stdout.contains("1 results, inherits main\nnoted here: 2 results"),
        "{}",
        shown.transcript()
    );
    run(&noting, &["profile", "clear"]).ok();
    assert!(run(&machine, &["profile", "show", "ci"]).ok().stdout.contains("noted here: 0 results"));
    let modest = run(&noting.with("PCMCACHE_MODE", "read-only"), &["profile", "push"]);
    assert!(modest.stderr.contains("read-only"), "{}", modest.transcript());
    // A name without a profile is said, and no failure: the first build of a branch has none.
    let warmed = run(&Machine::new(&scratch, "new").remote(&server.url()), &["warm", "branch", "ci"]).ok();
    assert_eq!(counts(&warmed), (1, 0, 1));
    assert!(warmed.stderr.contains("no profile 'branch'") && warmed.stderr.contains("no profile 'main'"));
}

#[test]
fn rights_revocations_and_pinned_keys_count_as_for_a_launch() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("warm-rights");
    let server = Server::start(&scratch);
    let mallory = server.new_token("mallory", &["--write", "main"]);
    let bob = server.new_token("bob", &["--read", "main"]);
    let elsewhere = server.new_token("elsewhere", &["--write", "elsewhere"]);
    let machine = |name: &str, token: &str| {
        Machine::new(&scratch, name).remote(&server.url()).with("PCMCACHE_TOKEN", token)
    };
    let unit = Unit::write(&scratch, "unit", 7, Weight::Light);
    let writer = machine("writer", &mallory).with("PCMCACHE_PROFILE", "ci");
    writer.compile(unit.arguments()).ok();
    run(&writer, &["profile", "push"]).ok();
    let reader = machine("reader", &bob);
    let refused = run(&reader.clone().with("PCMCACHE_PROFILE", "ci"), &["profile", "push", "--inherit", "x"]);
    assert!(refused.stderr.contains("may only be read"), "{}", refused.transcript());
    let other = machine("other", &elsewhere).with("PCMCACHE_SCOPE", "elsewhere");
    let absent = run(&other, &["warm", "ci"]).ok();
    assert!(absent.stderr.contains("no profile 'ci'"), "{}", absent.transcript());
    let stranger = run(&other.with("PCMCACHE_SCOPE", "main"), &["warm", "ci"]);
    assert!(stranger.stderr.contains("no such scope"), "{}", stranger.transcript());

    let key = run(&reader, &["key", "new", scratch.path().join("key").to_str().expect("a path")]).ok();
    let key = key.stdout.split_whitespace().last().expect("a key").to_owned();
    let pinned = machine("pinned", &bob).with("PCMCACHE_TRUSTED_KEYS", key);
    let unsigned = run(&pinned, &["warm", "ci"]);
    assert_eq!(
        (unsigned.status.code(), counts(&unsigned)),
        (Some(1), (1, 0, 0)),
        "{}",
        unsigned.transcript()
    );
    assert!(unsigned.stderr.contains("not signed"), "{}", unsigned.transcript());

    assert_eq!(counts(&run(&reader, &["warm", "ci"]).ok()), (1, 0, 1));
    server.token(&["revoke", "mallory"]).ok();
    let late = run(&machine("late", &bob), &["warm", "ci"]).ok();
    assert!(late.stderr.contains("no profile 'ci'"), "{}", late.transcript());
    // Whoever warmed before hears of it with the next question, as after a hit.
    run(&reader, &["--pcmcache-catch-up"]);
    reader.compile(unit.arguments()).ok();
    let stats = reader.stats();
    assert_eq!(
        (stats.compiles, stats.local_hits, stats.errors.get("revoked")),
        (1, 0, Some(&1)),
        "{stats:?}"
    );
}
