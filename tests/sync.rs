//! What is made while the server cannot be had is queued, and uploaded once it can: by command, or in passing. Whoever is
//! killed on the way, nothing is lost, and nobody's build waits.

use std::io::Read as _;
use std::process::Stdio;
use std::time::Duration;

use pcmcache::local::Store;
use pcmcache_tests::liar::Liar;
use pcmcache_tests::modules::By;
use pcmcache_tests::scratch::files_below;
use pcmcache_tests::{Chance, Finished, Machine, Modules, Scratch, Server, Unit, Weight, tool, turn, until};

fn run(machine: &Machine, words: &[&str]) -> Finished {
    machine.start(machine.launcher(), words).finish()
}

fn store(machine: &Machine) -> Store {
    Store::open(&machine.cache()).expect("the machine's store")
}

/// How many results are queued on the machine.
fn queued(machine: &Machine) -> usize {
    store(machine).queue().len()
}

/// The launchers of this machine ask the server again at once.
fn forget_that_it_was_away(machine: &Machine) {
    let _ = fs_err::remove_dir_all(machine.cache().join("v1/breaker"));
}

#[test]
fn what_was_built_offline_is_uploaded_by_sync_and_hit_by_others() {
    let _turn = turn::alone();
    let scratch = Scratch::new("sync-offline");
    let mut server = Server::start(&scratch);
    let program = Modules::write(scratch.dir("source"), 4, 4);
    let all = program.compiles();
    let machine = |name: &str| Machine::new(&scratch, name).remote(&server.url());
    let (first, second) = (machine("first"), machine("second"));
    let nothing = run(&first, &["sync", "--wait"]).ok();
    assert_eq!((nothing.stdout.as_str(), nothing.stderr.as_str()), ("", ""), "there is nothing to do");

    server.kill();
    program.build(&first);
    assert_eq!((queued(&first), first.stats().compiles), (all, all as u64), "{}", first.log());
    assert_eq!(run(&first, &["sync", "--dry-run"]).ok().stdout, format!("{all} results are queued\n"));
    for words in [&["sync"][..], &["sync", "--wait"]] {
        let away = run(&first, words);
        assert_eq!((away.status.code(), away.stdout.as_str()), (Some(1), ""), "{}", away.transcript());
        assert!(away.stderr.contains(&format!("{all} results are still queued: ")), "{}", away.transcript());
        assert_eq!((away.stderr.lines().count(), queued(&first)), (1, all), "{}", away.transcript());
    }

    server.restart();
    let synced = run(&first, &["sync", "--wait"]).ok();
    assert!(synced.stdout.starts_with(&format!("{all} results uploaded (")), "{}", synced.transcript());
    assert_eq!((synced.stderr.as_str(), queued(&first), server.results()), ("", 0, all as u64));
    assert!(first.stats().uploaded_bytes > 0 && first.stats().diverged == 0);
    program.build(&second);
    program.check(&second);
    let stats = second.stats();
    assert_eq!((stats.compiles, stats.remote_hits), (0, all as u64), "{}", second.log());
}

#[test]
fn a_server_that_fails_gets_it_later_and_one_that_may_not_be_written_never() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("sync-which");
    let unit = Unit::write(&scratch, "unit", 7, Weight::Light);
    let failing = Liar::failing();
    let machine = |name: &str| Machine::new(&scratch, name).remote(&failing.url());
    for (name, mode, right) in
        [("writer", "read-write", 1), ("reader", "read-only", 0), ("local", "local", 0)]
    {
        let machine = machine(name).with("PCMCACHE_MODE", mode);
        machine.compile(unit.arguments()).ok();
        assert_eq!(queued(&machine), right, "{name}: {}", machine.log());
    }
    let writer = machine("writer");
    let synced = run(&writer, &["sync"]);
    assert_eq!((synced.status.code(), queued(&writer)), (Some(1), 1), "{}", synced.transcript());
    // What says 200 to everything is no server of ours, and takes nothing off the queue.
    let babbler = Liar::babbling();
    let fooled = Machine::new(&scratch, "fooled").remote(&babbler.url());
    fooled.compile(unit.arguments()).ok();
    let [found] = &store(&writer).queue()[..] else { panic!("one") };
    let mut entry = store(&writer).queued(found).expect("the entry");
    entry.server = pcmcache::local::origin::ServerId::of(&babbler.url());
    store(&fooled).enqueue(&entry).expect("queued");
    let synced = run(&fooled, &["sync"]);
    assert_eq!((synced.status.code(), queued(&fooled)), (Some(1), 1), "{}", synced.transcript());
}

#[test]
fn a_launch_that_reaches_the_server_again_has_it_uploaded_and_does_not_wait() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("sync-passing");
    let mut server = Server::start(&scratch);
    let machine = Machine::new(&scratch, "machine").remote(&server.url());
    let [early, late] = ["early", "late"].map(|name| Unit::write(&scratch, name, 7, Weight::Light));
    server.kill();
    machine.compile(early.arguments()).ok();
    assert_eq!(queued(&machine), 1);
    server.restart();
    forget_that_it_was_away(&machine);
    // The upload stands still, and its launch ends, and what it says has an end: nobody else holds the pipes.
    let at = scratch.path().join("at");
    let slow = machine.clone().waiting("sync.published", &at);
    let mut launch = slow.command(slow.launcher());
    launch
        .arg(tool::CLANG)
        .args(late.arguments())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut launch = launch.spawn().expect("a launcher");
    let mut said = String::new();
    launch.stdout.take().expect("a pipe").read_to_string(&mut said).expect("an end");
    launch.stderr.take().expect("a pipe").read_to_string(&mut said).expect("an end");
    assert!(launch.wait().expect("an end").success() && said.is_empty(), "{said}");
    until("an upload in passing", || at.exists());
    assert_eq!(queued(&machine), 1, "nothing is taken off the queue yet");
    let other = run(&machine, &["sync"]).ok();
    assert_eq!(other.stdout, "another upload is under way\n");
    fs_err::remove_file(&at).expect("the announcement");
    until("the queue to be empty", || queued(&machine) == 0);
    assert_eq!((server.results(), machine.stats().compiles), (2, 2));
}

#[test]
fn a_sync_that_is_killed_at_any_moment_loses_nothing() {
    let _turn = turn::alone();
    let scratch = Scratch::new("sync-kills");
    let mut server = Server::start(&scratch);
    let program = Modules::write(scratch.dir("source"), 6, 6);
    let all = program.compiles();
    let victim = Machine::new(&scratch, "victim").remote(&server.url());
    server.kill();
    program.start(&victim, By::Launcher, 2).finish().ok();
    assert_eq!(queued(&victim), all);
    server.restart();
    for step in ["sync.published", "launch.uploaded"] {
        let killed = run(&victim.clone().with("PCMCACHE_FAILPOINT", format!("{step}=kill")), &["sync"]);
        assert_eq!(killed.status.code(), None, "{step}: {}", killed.transcript());
        let left = queued(&victim);
        assert!(
            left > 0 && left + server.results() as usize >= all,
            "what was not answered stays: {step}: {left}"
        );
    }
    let mut chance = Chance::new("sync");
    for round in 0..10 {
        let mut process = victim.start(victim.launcher(), ["sync", "--wait"]);
        let after = chance.moment(Duration::from_millis(300));
        until("the moment to kill it", || process.age() >= after || process.ended());
        process.kill();
        until("its end", || process.ended());
        let left = queued(&victim);
        println!("round {round}: killed after {after:?}, {left} of {all} left");
        assert!(left + server.results() as usize >= all, "nothing is lost: {left} left");
    }
    run(&victim, &["sync", "--wait"]).ok();
    assert_eq!((queued(&victim), server.results(), victim.stats().diverged), (0, all as u64, 0));
    let second = Machine::new(&scratch, "second").remote(&server.url());
    program.build(&second);
    program.check(&second);
    assert_eq!(second.stats().compiles, 0, "{}", second.log());
}

#[test]
fn what_lost_to_another_has_diverged_and_this_host_uses_the_winner_from_then_on() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("sync-diverged");
    let unit = Unit::write(&scratch, "unit", 7, Weight::Light);
    let right = unit.right_outputs(&scratch);
    let mut server = Server::start(&scratch);
    let machine = |name: &str| Machine::new(&scratch, name).remote(&server.url());
    let (offline, online) = (machine("offline"), machine("online"));
    server.kill();
    offline.compile(unit.arguments()).ok();
    // Clang makes the same of the same; so another compiler is played, whose object differs.
    let store = store(&offline);
    let [found] = &store.queue()[..] else { panic!("one") };
    let mut entry = store.queued(found).expect("the entry");
    let object = entry.result.outputs.iter_mut().find(|o| o.role == pcmcache_shared::Role::Object);
    let object = object.expect("an object");
    object.digest = store.put_blob(b"made elsewhere").expect("a blob");
    object.size = 14;
    store.enqueue(&entry).expect("queued");
    let mut kept = store.result(entry.action).expect("the result");
    kept.result = entry.result.clone();
    store.put_result(entry.action, &kept).expect("kept");

    server.restart();
    online.compile(unit.arguments()).ok();
    let synced = run(&offline, &["sync", "--wait"]).ok();
    assert!(synced.stdout.contains("0 results uploaded"), "{}", synced.transcript());
    assert!(synced.stdout.contains("1 lost to others that were published first"), "{}", synced.transcript());
    assert_eq!((queued(&offline), offline.stats().diverged, server.results()), (0, 1, 1));
    forget_that_it_was_away(&offline);
    offline.compile(unit.arguments()).ok();
    assert_eq!((offline.stats().compiles, offline.stats().remote_hits), (1, 1), "{}", offline.log());
    assert_eq!(unit.outputs(offline.build()), right);
}

#[test]
fn what_is_gone_from_the_store_ends_and_is_counted_and_what_is_for_others_stays() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("sync-gone");
    let unit = Unit::write(&scratch, "unit", 7, Weight::Light);
    let mut server = Server::start(&scratch);
    let machine = Machine::new(&scratch, "machine").remote(&server.url());
    server.kill();
    machine.compile(unit.arguments()).ok();
    server.restart();
    let elsewhere = run(&machine.clone().with("PCMCACHE_SCOPE", "other"), &["sync", "--wait"]).ok();
    assert!(
        elsewhere.stderr.contains("1 results are queued for another server or scope"),
        "{}",
        elsewhere.stderr
    );
    assert_eq!((queued(&machine), server.results()), (1, 0));
    let blobs = machine.cache().join("v1/blobs");
    for blob in files_below(&blobs) {
        fs_err::remove_file(blobs.join(blob)).expect("a blob");
    }
    let synced = run(&machine, &["sync", "--wait"]).ok();
    assert!(synced.stdout.contains("1 gone from the local store"), "{}", synced.transcript());
    assert_eq!((queued(&machine), machine.stats().errors["queue_gone"], server.results()), (0, 1, 0));
}

#[test]
fn a_launch_that_is_killed_as_it_queues_has_queued_all_or_nothing() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("sync-launch-kills");
    let mut server = Server::start(&scratch);
    let url = server.url();
    server.kill();
    for (step, right) in [("launch.published", 0), ("launch.queued", 1)] {
        let unit = Unit::write(&scratch, &step.replace('.', "_"), 7, Weight::Light);
        let machine = Machine::new(&scratch, step).remote(&url);
        machine.clone().with("PCMCACHE_FAILPOINT", format!("{step}=kill")).compile(unit.arguments());
        assert_eq!(queued(&machine), right, "{step}");
        machine.compile(unit.arguments()).ok();
        assert_eq!(
            (queued(&machine), unit.outputs(machine.build())),
            (1, unit.right_outputs(&scratch)),
            "{step}"
        );
    }
    server.restart();
}
