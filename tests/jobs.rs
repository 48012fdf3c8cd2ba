//! A host runs as many compilers at once as it was told to, however many launchers a build starts; and who waits for
//! another machine takes none of these places.

use std::path::{Path, PathBuf};

use pcmcache_tests::process::{self, HANG, MARK};
use pcmcache_tests::tool::CLANG;
use pcmcache_tests::{Machine, Process, Scratch, Server, Unit, Weight, turn, until};

/// A scratch directory with a few units.
fn units<const N: usize>(name: &str, weight: Weight) -> (Scratch, [Unit; N]) {
    let scratch = Scratch::new(name);
    let units = std::array::from_fn(|index| Unit::write(&scratch, &format!("u{index}"), 7, weight));
    (scratch, units)
}

fn machine(scratch: &Scratch, name: &str, jobs: &str) -> Machine {
    Machine::new(scratch, name).with("PCMCACHE_JOBS", jobs)
}

/// Starts a launcher that stops with its slot, before its compiler runs, until the file is removed.
fn start_and_hold(machine: &Machine, unit: &Unit, at: &Path) -> Process {
    let held = machine.clone().waiting("launch.staged", at).launch(unit.arguments());
    until("a launcher that holds a slot", || at.exists());
    held
}

fn release(at: &Path) {
    fs_err::remove_file(at).expect("the announcement");
}

fn waited(server: &Server) -> usize {
    server.metric("pcmcache_waited_total") as usize
}

/// The compilers that compile now, without launchers, watchers, and what a compiler is asked for.
fn compilers(mark: &str) -> usize {
    let compiles = |line: &&String| {
        let mut words = line.split(' ').skip(1);
        words.next().is_some_and(|program| program.ends_with(CLANG)) && line.contains(".pcmcache-")
    };
    process::alive(mark).iter().filter(compiles).count()
}

/// Where a launcher that waits for a slot leaves its mark.
fn next(machine: &Machine) -> PathBuf {
    machine.cache().join("v1/jobs/next")
}

#[test]
fn no_more_compilers_run_at_once_than_the_limit_says_and_all_of_them_come_to_run() {
    let _turn = turn::alone();
    for (jobs, right) in [("2", 2..=2), ("1", 1..=1), ("off", 3..=4)] {
        let (scratch, units) = units::<4>("jobs-limit", Weight::Thinking(2));
        let mark = scratch.path().to_string_lossy().into_owned();
        let machine = machine(&scratch, "machine", jobs).with(MARK, &mark);
        let mut launches = units.each_ref().map(|unit| machine.launch(unit.arguments()));
        let mut most = 0;
        while !launches.iter_mut().all(Process::ended) {
            most = most.max(compilers(&mark));
        }
        launches.into_iter().for_each(|launch| drop(launch.finish().ok()));
        assert!(right.contains(&most), "{most} compilers at once with PCMCACHE_JOBS={jobs}");
        assert_eq!(machine.stats().compiles, 4, "{}", machine.log());
    }
}

#[test]
fn scans_and_compiles_that_are_not_kept_take_slots_too_and_commands_that_are_handed_over_do_not() {
    let _turn = turn::beside_others();
    let (scratch, [held, other]) = units("jobs-kinds", Weight::Light);
    let (machine, at) = (machine(&scratch, "machine", "1"), scratch.path().join("at"));
    let holder = start_and_hold(&machine, &held, &at);
    // Preprocessing goes to the compiler as it is.
    machine.compile(["-E", &other.source().to_string_lossy(), "-o", "other.i"]).ok();

    let source = other.source().to_string_lossy().into_owned();
    let command = format!(
        "clang-scan-deps-22 -format=p1689 -- /usr/bin/{CLANG} -std=c++23 -x c++ -c -o other.o -MT other.ddi -MD -MF \
         other.ddi.d {source}"
    );
    let mut scan = machine.start(machine.launcher(), command.split(' '));
    until("the scan to wait for its slot", || next(&machine).exists());
    assert!(!scan.ended() && scan.stdout().is_empty());
    release(&at);
    assert!(scan.finish().ok().stdout.contains("logical-name"));
    holder.finish().ok();
    let stats = machine.stats();
    assert_eq!((stats.scans, stats.compiles), (1, 1), "{}", machine.log());
}

#[test]
fn a_slot_is_free_as_soon_as_its_holder_is_dead() {
    let _turn = turn::beside_others();
    let (scratch, [held, other]) = units("jobs-killed", Weight::Light);
    let (machine, at) = (machine(&scratch, "machine", "1"), scratch.path().join("at"));
    let mut holder = start_and_hold(&machine, &held, &at);
    let mut waiting = machine.launch(other.arguments());
    until("the other to wait", || next(&machine).exists());
    assert!(!waiting.ended());
    holder.kill();
    waiting.finish().ok();
    assert_eq!(other.outputs(machine.build()), other.right_outputs(&scratch));
}

#[test]
fn a_launcher_that_is_told_to_stop_does_not_wait_on_for_its_slot() {
    let _turn = turn::beside_others();
    let (scratch, [held, other]) = units("jobs-interrupted", Weight::Light);
    let (machine, at) = (machine(&scratch, "machine", "1"), scratch.path().join("at"));
    let holder = start_and_hold(&machine, &held, &at);
    let mut waiting = machine.launch(other.arguments());
    until("the other to wait", || next(&machine).exists());
    assert!(!waiting.ended());
    waiting.signal(rustix::process::Signal::TERM);
    assert_eq!(waiting.finish().signal(), Some(15));
    release(&at);
    holder.finish().ok();
}

#[test]
fn a_wait_that_was_long_enough_and_files_that_cannot_be_had_end_in_compiling() {
    let _turn = turn::beside_others();
    let (scratch, [held, other]) = units("jobs-bounds", Weight::Light);
    for (name, wait, broken) in [("patience", "0.2", false), ("no-files", "300", true)] {
        let machine = machine(&scratch, name, "1").with("PCMCACHE_WAIT", wait);
        let at = scratch.path().join(name).join("at");
        if broken {
            fs_err::create_dir_all(machine.cache().join("v1")).expect("a cache directory");
            fs_err::write(machine.cache().join("v1/jobs"), "no directory").expect("a file in the way");
        }
        let holder = start_and_hold(&machine, &held, &at);
        machine.compile(other.arguments()).ok();
        assert!(at.exists(), "the holder holds on");
        release(&at);
        holder.finish().ok();
        let stats = machine.stats();
        assert_eq!((stats.compiles, stats.errors.len()), (2, 0), "{}", machine.log());
    }
}

#[test]
fn who_waits_for_another_machine_leaves_its_slot_to_others() {
    let _turn = turn::beside_others();
    let (scratch, [shared, own]) = units("jobs-waiting", Weight::Light);
    let server = Server::start(&scratch);
    let [far, near] = ["far", "near"].map(|name| machine(&scratch, name, "1").remote(&server.url()));
    let at = scratch.path().join("at");
    let builder = start_and_hold(&far, &shared, &at);
    let mut waiting = near.launch(shared.arguments());
    until("the near one to wait for the far one", || waited(&server) == 1);
    near.compile(own.arguments()).ok();
    assert!(!waiting.ended());
    release(&at);
    [builder, waiting].into_iter().for_each(|launch| drop(launch.finish().ok()));
    let stats = near.stats();
    assert_eq!((stats.compiles, stats.remote_hits, stats.waits), (1, 1, 1), "{}", near.log());
    assert_eq!(server.results(), 2);
}

#[test]
fn hits_wait_for_no_slot() {
    let _turn = turn::beside_others();
    let (scratch, [held, local, remote]) = units("jobs-hits", Weight::Light);
    let server = Server::start(&scratch);
    let [far, near] = ["far", "near"].map(|name| machine(&scratch, name, "1").remote(&server.url()));
    near.compile(local.arguments()).ok();
    far.compile(remote.arguments()).ok();
    let at = scratch.path().join("at");
    let holder = start_and_hold(&near, &held, &at);
    near.compile(local.arguments()).ok();
    near.compile(remote.arguments()).ok();
    assert!(!next(&near).exists(), "nobody waited for a slot");
    let stats = near.stats();
    assert_eq!((stats.compiles, stats.local_hits, stats.remote_hits), (1, 1, 1), "{}", near.log());
    release(&at);
    holder.finish().ok();
    let (misses, granted) = (server.metric("pcmcache_misses_total"), server.metric("pcmcache_granted_total"));
    assert_eq!((misses, granted), (3.0, 3.0));
}

#[test]
fn who_waits_for_a_slot_takes_what_another_machine_made_meanwhile() {
    let _turn = turn::beside_others();
    let (scratch, [held, wanted]) = units("jobs-meanwhile", Weight::Light);
    let server = Server::start(&scratch);
    let [far, near] = ["far", "near"].map(|name| machine(&scratch, name, "1").remote(&server.url()));
    let at = scratch.path().join("at");
    let holder = start_and_hold(&near, &held, &at);
    let mut waiting = near.launch(wanted.arguments());
    until("the near one to wait for its slot", || next(&near).exists());
    assert!(!waiting.ended());
    assert_eq!(server.metric("pcmcache_granted_total"), 1.0, "it holds no lease");
    far.compile(wanted.arguments()).ok();
    assert_eq!(far.stats().compiles, 1, "{}", far.log());
    waiting.finish_within(HANG).ok();
    assert!(at.exists(), "the slot is still held");
    assert_eq!((near.stats().compiles, near.stats().remote_hits), (0, 1), "{}", near.log());
    release(&at);
    holder.finish().ok();
    assert_eq!(server.metric("pcmcache_misses_total"), 2.0, "its glances were nobody's misses");
}

#[test]
fn a_lease_that_comes_while_no_slot_is_free_goes_to_the_next_who_waits() {
    let _turn = turn::beside_others();
    let (scratch, [shared, own]) = units("jobs-next", Weight::Light);
    let server = Server::start(&scratch);
    let [far, busy, idle] =
        ["far", "busy", "idle"].map(|name| machine(&scratch, name, "1").remote(&server.url()));
    let (at, own_at) = (scratch.path().join("at"), scratch.path().join("own-at"));
    let mut builder = start_and_hold(&far, &shared, &at);
    let first = busy.launch(shared.arguments());
    until("the busy one to wait", || waited(&server) == 1);
    let holder = start_and_hold(&busy, &own, &own_at);
    let second = idle.launch(shared.arguments());
    until("the idle one to wait", || waited(&server) == 2);

    builder.kill();
    second.finish().ok();
    first.finish().ok();
    assert!(own_at.exists(), "the busy one's slot is still held");
    assert_eq!((idle.stats().compiles, idle.stats().remote_hits), (1, 0), "{}", idle.log());
    assert_eq!((busy.stats().compiles, busy.stats().remote_hits), (0, 1), "{}", busy.log());
    assert_eq!(server.metric("pcmcache_released_total"), 1.0);
    release(&own_at);
    holder.finish().ok();
}
