//! The shape of the bug report: builds that share one directory of module files per host, each looking at times and then
//! compiling straight into it, natively and as a second variant, all at once, some of them killed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pcmcache_tests::process::alive;
use pcmcache_tests::scratch::{files_below, names_in};
use pcmcache_tests::{Chance, Machine, Process, Scratch, turn, until};
use rustix::process::{Pid, Signal, kill_process};

const NATIVE: &[&str] = &["x86-64"];
/// For another processor, and with other flags as well.
const OTHER: &[&str] = &["x86-64-v2", "-fno-rtti"];
/// Precompiles and compiles of std and of the three units, and the program's own: for each of the two.
const ACTIONS: u64 = 2 * (4 + 4 + 1);
/// Four builds of everything on two cores.
const BUILD: Duration = Duration::from_secs(240);

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("projects/shared-bmis")
}

fn build(machine: &Machine, shared: &Path, out: &Path, variant: &[&str]) -> Process {
    let mut command = machine.command(project().join("build.sh"));
    command.env("CXX", format!("{} clang++-22", machine.launcher().display()));
    command.arg(shared).arg(out).args(variant);
    Process::start(command)
}

fn check(machine: &Machine, out: &Path) {
    let said = machine.start(out.join("paint"), [""; 0]).finish().ok().stdout;
    assert_eq!(said, fs_err::read_to_string(project().join("expected.txt")).expect("what is expected"));
}

/// Kills a build with all that it started.
fn kill_all(mark: &str) {
    until("the end of all processes of the build", || {
        let processes = alive(mark);
        for process in &processes {
            let pid = process.split(' ').next().and_then(|pid| Pid::from_raw(pid.parse().ok()?));
            let _ = kill_process(pid.expect("a process's id"), Signal::KILL);
        }
        processes.is_empty()
    });
}

#[test]
fn builds_that_share_their_module_files_never_disturb_each_other() {
    let _turn = turn::alone();
    let scratch = Scratch::new("shared-bmis");
    let mut chance = Chance::new("shared-bmis");
    let machine = Machine::new(&scratch, "machine");
    let shared = scratch.dir("shared");
    let out = |name: &str| scratch.dir(name);

    let victim = machine.clone().marked("victim");
    let mut victim_build = build(&victim, &shared, &out("victim"), NATIVE);
    let builds = [("one", NATIVE), ("two", NATIVE), ("three", OTHER), ("four", OTHER)]
        .map(|(name, variant)| (name, build(&machine, &shared, &out(name), variant)));
    let moment = chance.moment(Duration::from_secs(5));
    until("the moment to kill a build", || victim_build.age() >= moment || victim_build.ended());
    let mark = format!("{}#victim", machine.cache().parent().expect("the machine's directory").display());
    kill_all(&mark);
    for (name, build) in builds {
        build.finish_within(BUILD).ok();
        check(&machine, &out(name));
    }
    let stats = machine.stats();
    println!("killed after {moment:?}: {stats:?}");
    assert_eq!(stats.errors.len(), 0, "{stats:?}");
    // What was linked passes the cache by. The killed build counted what it finished before.
    // Who looked at the time before another placed the file, and came only then, places the same bytes once more: a
    // compile that loads them by then does not know what it read, and its result is not kept.
    let disturbed = |machine: &Machine| machine.stats().bypassed.get("input-changed").copied().unwrap_or(0);
    let most = ACTIONS + 1 + disturbed(&machine);
    assert!(stats.compiles <= most, "one build was killed: {stats:?}");
    let bmis = ["Paint-Canvas.pcm", "Paint-Colour.pcm", "Paint.pcm", "std.pcm"];
    for variant in ["x86_64-linux-gnu-x86-64", "x86_64-linux-gnu-x86-64-v2"] {
        // A stage of the killed one goes with the next launch that places there.
        let names = names_in(&shared.join(variant));
        let left: Vec<_> = names.iter().filter(|name| !name.starts_with('.')).collect();
        assert_eq!(left, bmis);
    }

    let twice = |names: [&str; 2]| {
        fs_err::remove_dir_all(&shared).expect("the module files");
        for (name, variant) in names.into_iter().zip([NATIVE, OTHER]) {
            build(&machine, &shared, &out(name), variant).finish_within(BUILD).ok();
            check(&machine, &out(name));
        }
        machine.stats()
    };
    let warm = twice(["five", "six"]);
    assert!(warm.compiles <= stats.compiles + disturbed(&machine), "{stats:?}, then {warm:?}");
    let hot = twice(["seven", "eight"]);
    assert_eq!(hot.compiles, warm.compiles, "all of it was there: {warm:?}, then {hot:?}");
    assert_eq!(hot.local_hits, warm.local_hits + ACTIONS, "{hot:?}");
    let stages = files_below(&shared).into_iter().filter(|file| file.to_string_lossy().contains("pcmcache"));
    assert_eq!(stages.collect::<Vec<_>>(), Vec::<PathBuf>::new());
}
