//! Uploads off the critical path (`PCMCACHE_UPLOAD=background`): a launch ends before the server has what it made, one process
//! uploads for all, under the leases that the launches had, and a job that ends waits for it with `sync --wait`.
//!
//!     tests/run.sh --test upload -- --ignored --nocapture        # what that saves over a slow link

use std::process::Stdio;
use std::time::{Duration, Instant};

use pcmcache::local::Store;
use pcmcache::local::queue::Queued;
use pcmcache_shared::api::limits::GRACE;
use pcmcache_tests::link::Link;
use pcmcache_tests::{Finished, Machine, Process, Scratch, Server, Unit, Weight, tool, turn, until};
use rustix::process::{Pid, Signal, kill_process};

/// Before an upload begins, and behind its blobs.
const BEGUN: &str = "sync.begun";
const UPLOADED: &str = "launch.uploaded";

fn run(machine: &Machine, words: &[&str]) -> Finished {
    machine.start(machine.launcher(), words).finish()
}

fn machine(scratch: &Scratch, server: &Server, name: &str) -> Machine {
    Machine::new(scratch, name).remote(&server.url()).with("PCMCACHE_UPLOAD", "background")
}

fn unit(scratch: &Scratch, name: &str) -> Unit {
    Unit::write(scratch, name, 7, Weight::Light)
}

fn queued(machine: &Machine) -> Vec<Queued> {
    let store = Store::open(&machine.cache()).expect("the machine's store");
    store.queue().iter().filter_map(|found| store.queued(found)).collect()
}

/// The one that uploads.
#[track_caller]
fn uploader(machine: &Machine) -> Pid {
    let [one] = machine.uploaders()[..] else { panic!("{:?}", machine.uploaders()) };
    one
}

/// Those who wait are still there long after a lease would have ended that nobody keeps.
fn outwait_the_grace(waiter: &mut Process) {
    until("longer than the grace", || waiter.age() >= 3 * GRACE);
    assert!(!waiter.ended(), "it waits for the upload: {}", waiter.stderr());
}

#[test]
fn a_launch_ends_before_its_upload_begins_and_nobody_else_compiles_it() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("upload-order");
    let server = Server::start(&scratch);
    let (first, second) = (machine(&scratch, &server, "first"), machine(&scratch, &server, "second"));
    let unit = unit(&scratch, "unit");
    let right = unit.right_outputs(&scratch);
    let at = scratch.path().join("at");
    first.clone().waiting(BEGUN, &at).compile(unit.arguments()).ok();
    assert_eq!(unit.outputs(first.build()), right);
    until("an upload", || at.exists());
    assert_eq!((queued(&first).len(), server.results()), (1, 0), "it ended, and the server has nothing yet");
    first.compile(unit.arguments()).ok();
    assert_eq!((first.stats().compiles, first.stats().local_hits), (1, 1), "here it is used already");

    let mut waiter = second.launch(unit.arguments());
    until("another machine to wait", || server.metric("pcmcache_waited_total") > 0.0);
    outwait_the_grace(&mut waiter);
    assert_eq!(run(&first, &["sync"]).ok().stdout, "another upload is under way\n");
    let waits = first.start(first.launcher(), ["sync", "--wait"]);
    fs_err::remove_file(&at).expect("the announcement");
    waits.finish().ok();
    assert_eq!((queued(&first).len(), server.results()), (0, 1), "{}", first.log());
    waiter.finish().ok();
    assert_eq!(unit.outputs(second.build()), right);
    let stats = second.stats();
    assert_eq!((stats.compiles, stats.remote_hits, stats.waits), (0, 1, 1), "{}", second.log());
    until("the uploader's end", || first.uploaders().is_empty());
    let stats = first.stats();
    assert!(stats.uploaded_bytes > 0 && stats.diverged == 0 && stats.errors.is_empty(), "{stats:?}");
    assert!(first.log().contains("uploader: 1 results uploaded ("), "{}", first.log());
}

#[test]
fn an_uploader_that_is_killed_leaves_its_entry_and_its_lease_to_others() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("upload-kill");
    let server = Server::start(&scratch);
    let (first, second) = (machine(&scratch, &server, "first"), machine(&scratch, &server, "second"));
    let unit = unit(&scratch, "unit");
    let right = unit.right_outputs(&scratch);
    let at = scratch.path().join("at");
    first.clone().waiting(UPLOADED, &at).compile(unit.arguments()).ok();
    until("an upload whose blobs are there", || at.exists());
    let waiter = second.launch(unit.arguments());
    until("another machine to wait", || server.metric("pcmcache_waited_total") > 0.0);
    kill_process(uploader(&first), Signal::KILL).expect("the uploader");
    waiter.finish().ok();
    assert_eq!(unit.outputs(second.build()), right);
    assert_eq!((second.stats().compiles, queued(&first).len()), (1, 1), "{}", second.log());
    run(&second, &["sync", "--wait"]).ok();
    let synced = run(&first, &["sync", "--wait"]).ok();
    assert!(synced.stdout.starts_with("1 results uploaded ("), "{}", synced.transcript());
    assert_eq!((queued(&first).len(), server.results(), first.stats().diverged), (0, 1, 0));
}

#[test]
fn many_launches_start_one_uploader_and_it_ends_by_itself() {
    const MANY: usize = 30;
    let _turn = turn::alone();
    let scratch = Scratch::new("upload-many");
    let server = Server::start(&scratch);
    let machine = machine(&scratch, &server, "machine");
    let at = scratch.path().join("at");
    let slow = machine.clone().waiting(BEGUN, &at);
    let units: Vec<_> = (0..MANY).map(|index| unit(&scratch, &format!("unit{index}"))).collect();
    let launches: Vec<_> = units.iter().map(|unit| slow.launch(unit.arguments())).collect();
    launches.into_iter().for_each(|launch| drop(launch.finish().ok()));
    until("an upload", || at.exists());
    let one = uploader(&machine);
    assert_eq!((queued(&machine).len(), server.results()), (MANY, 0), "{}", machine.log());
    assert!(queued(&machine).iter().all(|queued| queued.lease.is_some()), "each under its lease");
    until("an empty queue", || {
        let _ = fs_err::remove_file(&at);
        assert!(machine.uploaders().iter().all(|uploader| *uploader == one));
        queued(&machine).is_empty()
    });
    assert_eq!(server.results() as usize, MANY);
    until("its end", || machine.uploaders().is_empty());
    assert_eq!(machine.log().matches("uploader: ").count(), 1, "{}", machine.log());
    assert_eq!(machine.stats().compiles as usize, MANY);
}

#[test]
fn an_uploader_leaves_the_build_behind_and_finds_what_is_named_relative_to_it() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("upload-apart");
    let server = Server::start(&scratch);
    let machine = machine(&scratch, &server, "machine");
    run(&machine, &["key", "new", machine.build().join("key").to_str().expect("a path")]).ok();
    let (at, pipe) = (scratch.path().join("at"), scratch.path().join("pipe"));
    let slow = machine.clone().with("PCMCACHE_SIGN_KEY", "key").waiting(BEGUN, &at);
    let unit = unit(&scratch, "unit");
    let mut build = slow.command("/bin/sh");
    build.args(["-c", "exec 9>\"$0\"; exec \"$@\""]).arg(&pipe).arg(slow.launcher());
    build.arg(tool::CLANG).args(unit.arguments()).stdin(Stdio::null());
    Process::start(build).finish().ok();
    until("an upload", || at.exists());
    let one = uploader(&machine).as_raw_nonzero();
    let open = fs_err::read_dir(format!("/proc/{one}/fd")).expect("what it has open").flatten();
    let open: Vec<_> = open.filter_map(|entry| fs_err::read_link(entry.path()).ok()).collect();
    assert!(!open.is_empty() && !open.contains(&pipe), "{open:?}");
    let stat = fs_err::read_to_string(format!("/proc/{one}/stat")).expect("its state");
    let fields: Vec<_> = stat.rsplit_once(") ").expect("fields").1.split(' ').collect();
    let one = one.to_string();
    assert_eq!(fields[2..4], [one.as_str(), one.as_str()], "its own process group and session: {stat}");
    fs_err::remove_file(&at).expect("the announcement");
    until("a signed result", || queued(&machine).is_empty());
    assert_eq!(server.results(), 1, "{}", machine.log());
}

#[test]
fn a_server_that_goes_away_leaves_it_queued_for_the_next_launch() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("upload-away");
    let mut server = Server::start(&scratch);
    let machine = machine(&scratch, &server, "machine");
    let at = scratch.path().join("at");
    machine.clone().waiting(BEGUN, &at).compile(unit(&scratch, "early").arguments()).ok();
    until("an upload", || at.exists());
    server.kill();
    fs_err::remove_file(&at).expect("the announcement");
    until("the uploader's end", || machine.uploaders().is_empty());
    assert_eq!(queued(&machine).len(), 1, "{}", machine.log());
    let waits = run(&machine, &["sync", "--wait"]);
    assert_eq!(waits.status.code(), Some(1), "{}", waits.transcript());
    assert!(waits.stderr.contains("1 results are still queued: "), "{}", waits.transcript());
    server.restart();
    let _ = fs_err::remove_dir_all(machine.cache().join("v1/breaker"));
    machine.compile(unit(&scratch, "late").arguments()).ok();
    until("both to be uploaded", || queued(&machine).is_empty());
    assert_eq!(server.results(), 2, "{}", machine.log());
}

#[test]
fn who_has_no_lease_publishes_before_anything_depends_on_it() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("upload-alone");
    let server = Server::start(&scratch);
    let (first, second) = (machine(&scratch, &server, "first"), machine(&scratch, &server, "second"));
    let unit = unit(&scratch, "unit");
    let at = scratch.path().join("at");
    let mut builder = first.clone().waiting("launch.compiled", &at).launch(unit.arguments());
    until("a build under a lease", || at.exists());
    // It has waited for long enough, and builds without one: before it ends it knows whose bytes everybody gets.
    second.clone().with("PCMCACHE_WAIT", "0").compile(unit.arguments()).ok();
    assert_eq!((second.stats().compiles, queued(&second).len()), (1, 0), "{}", second.log());
    assert!(!builder.ended() && second.uploaders().is_empty());
    assert_eq!(server.results(), 1, "{}", second.log());
    fs_err::remove_file(&at).expect("the announcement");
    builder.finish().ok();
    run(&first, &["sync", "--wait"]).ok();
    let stats = first.stats();
    assert_eq!((stats.compiles, stats.diverged, server.results()), (1, 0, 1), "{}", first.log());
}

/// A chain of modules, each of which embeds headers of the standard library, compiled one after the other.
#[test]
#[ignore = "a minute: over 20 ms and 100 Mb/s"]
fn a_chain_over_a_slow_link_takes_so_long() {
    const CHAIN: usize = 10;
    let _turn = turn::alone();
    for (round, upload) in ["wait", "background", "wait", "background"].into_iter().enumerate() {
        let scratch = Scratch::new("upload-link");
        let server = Server::start(&scratch);
        let link = Link::start(server.address(), Duration::from_millis(20), 100_000_000 / 8);
        let machine = Machine::new(&scratch, "machine").remote(&format!("http://{}", link.address()));
        let machine = machine.with("PCMCACHE_UPLOAD", upload);
        let (began, mut bytes) = (Instant::now(), 0);
        for index in 0..CHAIN {
            let import = if index > 0 { format!("import m{};", index - 1) } else { String::new() };
            let text = format!("module;\n#include <string>\nexport module m{index};\n{import}\n");
            let source =
                scratch.file(&format!("m{index}.cppm"), text + &format!("export std::string s{index};\n"));
            let bmi = machine.build().join(format!("m{index}.pcm"));
            let path = format!("-fprebuilt-module-path={}", machine.build().display());
            let words = ["-std=c++23", path.as_str(), "--precompile", source.to_str().expect("a path"), "-o"];
            machine.compile(words.into_iter().chain([bmi.to_str().expect("a path")])).ok();
            bytes += fs_err::metadata(&bmi).expect("a BMI").len();
        }
        let built = began.elapsed();
        run(&machine, &["sync", "--wait"]).ok();
        let all = began.elapsed();
        assert_eq!(server.results() as usize, CHAIN, "{}", machine.log());
        println!("{round} {upload}: built in {built:.2?}, with sync --wait {all:.2?}, {bytes} bytes of BMIs");
    }
}
