//! Checkouts in different directories share everything, debug information included, and work without each other.

use std::path::Path;
use std::time::Duration;

use pcmcache_tests::{Machine, Scratch, atlas, tool, turn};

const COLD: Duration = Duration::from_secs(300);

/// A checkout that is built in place: its build directory lies in it.
fn checkout(machine: &Machine, root: &Path) -> Machine {
    atlas::check_out(root);
    let machine = machine.clone().building_in(root.join("build")).with("PCMCACHE_BASE_DIRS", root);
    atlas::configure_type_by_module(&machine, root, "Debug");
    machine
}

/// The line of a module's source that this text stands in.
fn line_of(source: &Path, text: &str) -> usize {
    let lines = fs_err::read_to_string(source).expect("a source of the project");
    lines.lines().position(|line| line.contains(text)).expect("the line to stop at") + 1
}

#[test]
fn a_second_checkout_compiles_nothing_and_lives_on_when_the_first_is_gone() {
    let _turn = turn::alone();
    let scratch = Scratch::new("bases");
    let machine = Machine::new(&scratch, "machine");
    let (one, two) = (scratch.path().join("one"), scratch.path().join("another/two"));
    let first = checkout(&machine, &one);
    atlas::build(&first).finish_within(COLD).ok();
    atlas::check(&first);
    let cold = machine.stats();
    assert!(cold.compiles > 60, "{cold:?}");
    assert!(cold.bypassed.is_empty() && cold.errors.is_empty(), "{cold:?}");

    fs_err::remove_dir_all(&one).expect("the first checkout goes away");
    let second = checkout(&machine, &two);
    atlas::build(&second).finish_within(COLD).ok();
    atlas::check(&second);
    let warm = machine.stats();
    assert_eq!((warm.compiles, warm.scans), (cold.compiles, cold.scans), "{warm:?}");
    assert_eq!(warm.local_hits, cold.compiles + cold.scans, "{warm:?}");
    // What Ninja learnt from the depfiles.
    let learnt = second.start(tool::ninja(), ["-t", "deps"]).finish().ok().stdout;
    assert!(
        learnt.contains(&*two.to_string_lossy()) && !learnt.contains(&*one.to_string_lossy()),
        "{learnt}"
    );

    // What depends on the first checkout's bytes compiles where its sources are no more.
    let edited = two.join("geometry/ball.cpp");
    let text = fs_err::read_to_string(&edited).expect("a source");
    fs_err::write(&edited, text + "\n// edited\n").expect("an edit");
    atlas::build(&second).finish_within(COLD).ok();
    atlas::check(&second);
    assert_eq!(machine.stats().compiles, cold.compiles + 1);

    stops_at_a_line_of_a_module(&second, &one, &two);
}

/// As the README tells to: the debugger is told once where the sources are now.
fn stops_at_a_line_of_a_module(machine: &Machine, one: &Path, two: &Path) {
    let gdb = tool::installed("PCMCACHE_TEST_GDB", "gdb");
    let source = two.join("text/distance.cppm");
    let line = line_of(&source, "std::exchange(row[0], i)");
    let said = machine.start(
        gdb,
        [
            "-batch".to_owned(),
            "-ex".to_owned(),
            format!("set substitute-path {} {}", one.display(), two.display()),
            "-ex".to_owned(),
            format!("break distance.cppm:{line}"),
            "-ex".to_owned(),
            "run > /dev/null".to_owned(),
            "-ex".to_owned(),
            "list".to_owned(),
            machine.build().join("bin/lexicon").display().to_string(),
        ],
    );
    let said = said.finish_within(Duration::from_secs(60)).ok();
    assert!(said.stdout.contains(&format!("distance.cppm:{line}")), "{}", said.transcript());
    assert!(said.stdout.contains("std::exchange(row[0], i)"), "it lists the line: {}", said.transcript());
}
