//! Wall clocks that jump by a second, an hour, ten years, forwards and back, at the server, at a builder, in the times of a
//! cache's files: no lease ends early, none lives on, nothing is evicted for it, a token ends when the calendar says and
//! counts again when that is mended, what was seen to be away is found again, and the builds are right.
//!
//!     tests/run.sh --test clocks -- --nocapture
//!
//! The programs under test add what a file says to the wall clock each time they ask for it. The kernel's stamps on files do
//! not jump along: to a launcher whose clock is ahead, what it wrote itself looks old, as if it lay on a slow file server.

use std::path::Path;
use std::time::{Duration, SystemTime};

use pcmcache::local::Store;
use pcmcache_shared::api::limits::GRACE;
use pcmcache_tests::link::Link;
use pcmcache_tests::link::fault::Fault;
use pcmcache_tests::scratch::files_below;
use pcmcache_tests::{Finished, Machine, Scratch, Server, Unit, Weight, turn, until};

const HOUR: i64 = 3600;
const DECADE: i64 = 10 * 365 * 24 * HOUR;
/// What waits in the queue for longer is not uploaded any more: README and DESIGN say so.
const QUEUED_FOR: i64 = 7 * 24 * HOUR;

const JUMPS: [i64; 6] = [1, -1, HOUR, -HOUR, DECADE, -DECADE];

/// How soon another takes over from a builder that was killed, on a machine on which all jumps happen at once.
const TAKEOVER: Duration = Duration::from_secs(10);

/// Every jump on a thread of its own.
fn for_each_jump(what: impl Fn(i64, &Machine) + Sync) {
    let beside = Scratch::new("clocks-experienced");
    let known = Machine::experienced(&beside);
    std::thread::scope(|scope| {
        let threads = JUMPS.map(|jump| {
            scope.spawn({
                let (what, known) = (&what, &known);
                move || what(jump, known)
            })
        });
        let failed: Vec<_> = JUMPS
            .into_iter()
            .zip(threads)
            .filter_map(|(jump, thread)| thread.join().is_err().then_some(jump))
            .collect();
        assert!(failed.is_empty(), "jumps that went wrong, in seconds: {failed:?}");
    });
}

fn run(machine: &Machine, words: &[&str]) -> Finished {
    machine.start(machine.launcher(), words).finish()
}

/// Compiles, and compares with what the compiler itself makes.
#[track_caller]
fn build(machine: &Machine, scratch: &Scratch, unit: &Unit) {
    let end = machine.compile(unit.arguments()).ok();
    assert!(end.stdout.is_empty() && end.stderr.is_empty(), "{}", end.transcript());
    assert_eq!(unit.outputs(machine.build()), unit.right_outputs(scratch), "{}", machine.log());
}

/// The machine in another directory, which has none of its outputs.
fn elsewhere(machine: &Machine, scratch: &Scratch, name: &str) -> Machine {
    machine.clone().building_in(scratch.dir(name))
}

#[test]
fn a_servers_clock_that_jumps_ends_no_lease_keeps_none_and_evicts_nothing() {
    let _turn = turn::alone();
    for_each_jump(|jump, known| {
        let scratch = Scratch::new(&format!("server-clock{jump}"));
        let mut server = Server::start_as(&scratch, ["--max-size", "64M"]);
        let machine = |name: &str| Machine::new(&scratch, name).knowing(known).remote(&server.url());
        let unit = |name: &str| Unit::write(&scratch, name, 7, Weight::Light);
        let (holder, waiting, third) = (machine("holder"), machine("waiting"), machine("third"));
        let (kept, wanted, more, after) = (unit("kept"), unit("wanted"), unit("more"), unit("after"));
        build(&holder, &scratch, &kept);

        let at = scratch.path().join("at");
        let mut victim = holder.clone().waiting("launch.granted", &at).launch(wanted.arguments());
        until("the lease", || at.exists());
        let granted = || server.metric("pcmcache_granted_total");
        let mut waiter = waiting.launch(wanted.arguments());
        until("another to wait", || server.metric("pcmcache_waited_total") > 0.0);
        let before = granted();
        server.is_ahead_by(jump);
        // Who asks now looks at the lease anew.
        let mut asks_later = third.launch(wanted.arguments());
        std::thread::sleep(GRACE * 4);
        let waits = !waiter.ended() && !asks_later.ended();
        assert!(waits && granted() == before, "the lease did not end with the jump");
        victim.kill();
        for (machine, launch) in [(&waiting, waiter), (&third, asks_later)] {
            let end = launch.finish_within(TAKEOVER).ok();
            assert!(end.stderr.is_empty(), "{}", end.transcript());
            assert_eq!(wanted.outputs(machine.build()), wanted.right_outputs(&scratch));
        }
        assert_eq!(waiting.stats().compiles + third.stats().compiles, 1);
        let made = third.stats().compiles;
        build(&third, &scratch, &kept);
        build(&third, &scratch, &more);
        let stats = third.stats();
        assert_eq!((stats.remote_hits, stats.compiles), (2 - made, 1 + made), "{}", third.log());

        // Started anew at that time, and at the true one, it has what it had.
        for ahead in [jump, 0] {
            server.is_ahead_by(ahead);
            server.kill();
            server.restart();
            assert_eq!(server.results(), 3, "nothing was evicted");
        }
        let late = Machine::new(&scratch, "late").knowing(known).remote(&server.url());
        build(&late, &scratch, &kept);
        build(&late, &scratch, &after);
        let stats = late.stats();
        assert_eq!((stats.remote_hits, stats.compiles, server.results()), (1, 1, 4), "{}", late.log());
        assert!(stats.errors.is_empty(), "{stats:?}");
        assert!(!server.log().contains("panicked"), "{}", server.log());
    });
}

/// Whoever is shut out builds all the same.
#[test]
fn a_token_ends_when_the_calendar_says_and_counts_again_when_that_is_mended() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("token-clock");
    let server = Server::start(&scratch);
    let token = server.new_token("builders", &["--write", "main", "--expires", "30d"]);
    let unit = Unit::write(&scratch, "unit", 7, Weight::Light);
    for (index, (ahead, hits)) in
        [(0, 0), (HOUR, 1), (-HOUR, 1), (-DECADE, 1), (DECADE, 0), (0, 1)].into_iter().enumerate()
    {
        server.is_ahead_by(ahead);
        let machine = Machine::new(&scratch, &format!("machine{index}")).remote(&server.url());
        let machine = machine.with("PCMCACHE_TOKEN", &token);
        build(&machine, &scratch, &unit);
        let (stats, shut_out) = (machine.stats(), u64::from(ahead == DECADE));
        assert_eq!((stats.remote_hits, stats.compiles), (hits, 1 - hits), "{}", machine.log());
        assert_eq!(stats.errors.get("remote_unauthorized").copied().unwrap_or(0), shut_out, "{stats:?}");
    }
}

#[test]
fn a_builders_clock_that_jumps_ends_no_lease_and_hides_no_server() {
    let _turn = turn::alone();
    for_each_jump(|jump, known| {
        let scratch = Scratch::new(&format!("client-clock{jump}"));
        let beside = Scratch::new("client-clock-server");
        let server = Server::start(&beside);
        let link = Link::near(server.address());
        let machine = Machine::new(&scratch, "machine").knowing(known).remote(&link.url());
        let other = Machine::new(&scratch, "other").knowing(known).remote(&server.url());
        let unit = |name: &str| Unit::write(&scratch, name, 7, Weight::Light);
        let (kept, held, lost) = (unit("kept"), unit("held"), unit("lost"));
        build(&machine, &scratch, &kept);

        // It holds a lease as its clock jumps.
        let at = scratch.path().join("at");
        let holder = machine.clone().waiting("launch.granted", &at).launch(held.arguments());
        until("the lease", || at.exists());
        let mut waiter = other.launch(held.arguments());
        until("another to wait", || server.metric("pcmcache_waited_total") > 0.0);
        machine.is_ahead_by(jump);
        std::thread::sleep(GRACE * 4);
        assert!(!waiter.ended(), "the lease did not end with the jump");
        fs_err::remove_file(&at).expect("the announcement");
        holder.finish().ok();
        waiter.finish().ok();
        // A source that lies ahead of the clock may have been edited just now: what it made is not kept, and the other is
        // told so at once.
        let is_unsure = u64::from(jump <= -HOUR);
        assert_eq!((machine.stats().compiles, other.stats().compiles), (2, is_unsure), "{}", other.log());
        assert_eq!(held.outputs(machine.build()), held.right_outputs(&scratch));

        // What it has is there, before and after a trim.
        for name in ["before", "trimmed"] {
            build(&elsewhere(&machine, &scratch, name), &scratch, &kept);
            run(&machine, &["trim"]).ok();
        }
        let stats = machine.stats();
        assert_eq!((stats.local_hits, stats.compiles), (2, 2), "{}", machine.log());

        // The server goes away at one time, and is back at another.
        for (index, (then, now)) in [(0, jump), (jump, 0)].into_iter().enumerate() {
            machine.is_ahead_by(then);
            link.plays(Fault::nobody_there());
            build(&machine, &scratch, &unit(&format!("away{index}")));
            link.heal();
            machine.is_ahead_by(now);
            let mut tries = 0..;
            let granted = || server.metric("pcmcache_granted_total");
            let before = granted();
            until("a launch to reach the server", || {
                std::thread::sleep(Duration::from_millis(300));
                let next = tries.next().expect("a number");
                build(&machine, &scratch, &unit(&format!("back{index}_{next}")));
                granted() > before
            });
        }
        run(&machine, &["sync", "--wait"]).ok();
        assert_eq!(Store::open(&machine.cache()).expect("the store").queue().len(), 0);
        let stats = machine.stats();
        let expired = stats.errors.get("queue_expired").copied().unwrap_or(0);
        println!("{jump:>10} s: {} results, {stats:?}", server.results());
        assert!(expired == 0 || jump > QUEUED_FOR, "{}", machine.log());
        let unsure = stats.bypassed.get("input-changed").copied().unwrap_or(0);
        assert!((unsure == 0 || jump < 0) && stats.bypassed.len() == usize::from(unsure > 0), "{stats:?}");
        let others = other.stats().compiles;
        assert_eq!(server.results() + expired + unsure, stats.compiles + others, "{}", machine.log());
        assert_eq!(stats.diverged, 0);

        // A failure is not held against the source for longer than its minute, nor is a launch kept waiting by it.
        lost.add("static_assert(false);");
        for ahead in [jump, 0] {
            machine.is_ahead_by(ahead);
            assert!(!machine.compile(lost.arguments()).status.success());
        }
    });
}

/// Sets the time of every file so far off.
fn move_times(directory: &Path, seconds: i64) {
    let apart = Duration::from_secs(seconds.unsigned_abs());
    let then = if seconds < 0 { SystemTime::now() - apart } else { SystemTime::now() + apart };
    for file in files_below(directory) {
        let file = fs_err::File::options().write(true).open(directory.join(file));
        file.and_then(|file| file.set_modified(then)).expect("a file of the cache");
    }
}

/// How many files have a time that lies ahead by more than a use leaves alone.
fn ahead(directory: &Path) -> usize {
    let (files, limit) = (files_below(directory), SystemTime::now() + Duration::from_secs(1200));
    let time = |file: &&std::path::PathBuf| {
        fs_err::metadata(directory.join(file)).and_then(|file| file.modified()).expect("a time") > limit
    };
    files.iter().filter(time).count()
}

#[test]
fn files_of_a_cache_that_a_wrong_clock_wrote_are_used_and_do_not_stay_for_it() {
    let _turn = turn::alone();
    for_each_jump(|jump, known| {
        let scratch = Scratch::new(&format!("file-times{jump}"));
        let beside = Scratch::new("file-times-server");
        let server = Server::start(&beside);
        let maker = Machine::new(&scratch, "maker").knowing(known).remote(&server.url());
        let machine = Machine::new(&scratch, "machine").knowing(known).remote(&server.url());
        let [fetched, own, unused] =
            ["fetched", "own", "unused"].map(|name| Unit::write(&scratch, name, 7, Weight::Light));
        build(&maker, &scratch, &fetched);
        [&fetched, &own, &unused].into_iter().for_each(|unit| build(&machine, &scratch, unit));
        let cache = machine.cache().join("v1");
        move_times(&cache, jump);

        let again = elsewhere(&machine, &scratch, "again");
        [&fetched, &own].into_iter().for_each(|unit| build(&again, &scratch, unit));
        let stats = machine.stats();
        assert_eq!((stats.compiles, stats.remote_hits, stats.local_hits), (2, 1, 2), "{}", machine.log());
        if jump.abs() >= HOUR {
            // What its server took back is asked about soon, whatever the time of the notes.
            until("the server to be asked", || {
                let notes = files_below(&cache.join("servers"));
                let is_new = |path: &std::path::PathBuf| {
                    let time =
                        fs_err::metadata(cache.join("servers").join(path)).and_then(|file| file.modified());
                    time.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < Duration::from_secs(600)))
                };
                !notes.is_empty() && notes.iter().all(is_new)
            });
        }
        // A trim keeps it all, and nothing of it will be the last to go for years.
        run(&machine, &["trim"]).ok();
        assert_eq!(ahead(&cache.join("results")), 0);
        let last = elsewhere(&machine, &scratch, "last");
        [&fetched, &own, &unused].into_iter().for_each(|unit| build(&last, &scratch, unit));
        let stats = machine.stats();
        assert_eq!((stats.compiles, stats.local_hits), (2, 5), "{}", machine.log());
        run(&machine, &["verify"]).ok();
    });
}

/// A header is edited while its compiler runs, and the clock set back, so that the edit looks older than the compile.
#[test]
fn an_edit_under_a_clock_that_is_set_back_is_seen() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("set-back");
    let unit = Unit::write(&scratch, "unit", 7, Weight::Light);
    let machine = Machine::new(&scratch, "machine");
    let (at, header) = (scratch.path().join("at"), scratch.path().join("source/unit.h"));
    machine.is_ahead_by(HOUR);
    let old = unit.right_outputs(&scratch);
    let launch = machine.clone().waiting("launch.compiled", &at).launch(unit.arguments());
    until("a compile", || at.exists());
    machine.is_ahead_by(0);
    let text = fs_err::read_to_string(&header).expect("the header");
    fs_err::write(&header, text.replace('3', "4")).expect("the header");
    fs_err::remove_file(&at).expect("the announcement");
    launch.finish().ok();
    assert_eq!(unit.outputs(machine.build()), old, "it made what it read");
    build(&machine, &scratch, &unit);
    assert_ne!(unit.outputs(machine.build()), old);
    assert_eq!(machine.stats().compiles, 2, "{}", machine.log());
}
