//! A project of modules with a Makefile of its own: pattern rules, depfiles, times. make restats nothing, so whatever is
//! placed must be newer than what it was made of.

use std::path::{Path, PathBuf};

use pcmcache_tests::{Machine, Scratch, scratch, tool, turn};

/// Seven modules and partitions precompiled and compiled, and two other units.
const ACTIONS: u64 = 7 + 7 + 2;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("projects/ledger")
}

/// Checks the project out on the machine, where it is built in place.
fn check_out(machine: &Machine) {
    for file in scratch::files_below(&project()).into_iter().filter(|file| !file.starts_with("build")) {
        let target = machine.build().join(&file);
        fs_err::create_dir_all(target.parent().expect("a directory")).expect("a directory");
        fs_err::copy(project().join(&file), target).expect("a copy");
    }
}

/// Runs make, and gives the commands that it ran.
fn make(machine: &Machine, compiler: &str, goals: &[&str]) -> Vec<String> {
    let compiler_is = format!("CXX={compiler}");
    let words = ["-j2", &compiler_is].into_iter().chain(goals.iter().copied());
    let said = machine.start(tool::make(), words).finish().ok().stdout;
    let commands = said.lines().filter_map(|line| line.strip_prefix(compiler));
    let mut commands: Vec<String> = commands.map(str::to_owned).collect();
    commands.sort();
    commands
}

fn edit(machine: &Machine, file: &str, from: &str, to: &str) {
    let path = machine.build().join(file);
    let text = fs_err::read_to_string(&path).expect("a source");
    assert!(text.contains(from), "{file} holds {from}");
    fs_err::write(path, text.replace(from, to)).expect("a source");
}

#[test]
fn a_makefile_of_modules_builds_cold_warm_and_after_edits() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("make");
    let [machine, bare] = ["machine", "bare"].map(|name| Machine::new(&scratch, name));
    [&machine, &bare].into_iter().for_each(check_out);
    let launcher = format!("{} {}", machine.launcher().display(), tool::CLANG);
    let cold = make(&machine, &launcher, &["check"]);
    assert_eq!(cold, make(&bare, tool::CLANG, &["check"]));
    let stats = machine.stats();
    assert_eq!((stats.compiles, stats.local_hits), (ACTIONS, 0), "{}", machine.log());
    assert_eq!(stats.bypassed.values().sum::<u64>(), 1, "the link alone: {stats:?}");

    make(&machine, &launcher, &["clean"]);
    assert_eq!(make(&machine, &launcher, &["check"]), cold);
    let warm = machine.stats();
    assert_eq!((warm.compiles, warm.local_hits), (ACTIONS, ACTIONS), "{}", machine.log());
    assert_eq!(make(&machine, &launcher, &["all"]), Vec::<String>::new(), "nothing is left to do");

    // Touched, changed, a header changed: make runs what it runs without the launcher, and then all is done.
    let edits: [(&str, &str, &str); 4] = [
        ("src/money.cppm", "", ""),
        ("src/date.cppm", "\"-\" + two(date.month) + \"-\"", "\"/\" + two(date.month) + \"/\""),
        ("src/limits.h", "1'000'000'000'000LL", "100'000LL"),
        ("src/report.cppm", "\"--\\n\"", "\"==\\n\""),
    ];
    for (file, from, to) in edits {
        let says = [(&machine, launcher.as_str()), (&bare, tool::CLANG)].map(|(machine, compiler)| {
            edit(machine, file, from, to);
            let ran = make(machine, compiler, &["all"]);
            assert!(!ran.is_empty(), "{file}");
            assert_eq!(
                make(machine, compiler, &["all"]),
                Vec::<String>::new(),
                "{file}: and then all is done"
            );
            let input = machine.build().join("accounts.txt").display().to_string();
            let said =
                machine.start("/bin/sh", ["-c", &format!("build/ledger < {input}")]).finish().ok().stdout;
            (ran, said)
        });
        let [ours, plain] = says;
        assert_eq!(ours, plain, "{file}");
    }
    assert_eq!(machine.stats().errors.len(), 0, "{}", machine.log());

    // A touch alone compiled nothing.
    let before = machine.stats().compiles;
    edit(&machine, "src/money.cppm", "", "");
    make(&machine, &launcher, &["all"]);
    assert_eq!(machine.stats().compiles, before, "{}", machine.log());
}
