//! The examples, run as those run them who copy them: by make, as a script, by a preset.

use std::path::{Path, PathBuf};

use pcmcache_tests::{Machine, Process, Scratch, Server, deployed, tool, turn};

const NAMES: [&str; 6] =
    ["Makefile", "build.sh", "greet.cppm", "main.cpp", "CMakeLists.txt", "CMakePresets.json"];

/// A copy of the examples, beside what they include.
fn copied(scratch: &Scratch) -> PathBuf {
    let [examples, cmake] = ["deploy/examples", "deploy/cmake"].map(|name| scratch.dir(name));
    for name in NAMES {
        fs_err::copy(deployed::file(&format!("deploy/examples/{name}")), examples.join(name))
            .expect("a copy");
    }
    fs_err::copy(deployed::file("deploy/cmake/pcmcache.cmake"), cmake.join("pcmcache.cmake"))
        .expect("a copy");
    examples
}

fn says_hello(program: &Path) {
    let said = Process::start(std::process::Command::new(program)).finish().ok();
    assert_eq!(said.stdout, "hello, modules\n");
}

/// Runs `build` on one machine after the other, in the same directory; `clean` is what is to go before the second. That
/// one compiles nothing.
fn shared(name: &str, build: impl Fn(&Machine, &Path), clean: &[&str], hello: &str) {
    let _turn = turn::beside_others();
    let scratch = Scratch::new(name);
    let server = Server::start(&scratch);
    let examples = copied(&scratch);
    for turn in 0..2 {
        let machine = Machine::new(&scratch, &format!("machine-{turn}")).remote(&server.url());
        let machine = machine.building_in(examples.clone());
        build(&machine, &examples);
        says_hello(&examples.join(hello));
        let stats = machine.stats();
        assert_eq!(stats.compiles, if turn == 0 { 2 } else { 0 }, "{stats:?}\n{}", machine.log());
        assert_eq!((stats.bypassed.len(), stats.errors.len()), (0, 0), "{stats:?}\n{}", machine.log());
        for file in clean {
            let file = examples.join(file);
            let _ = if file.is_dir() { fs_err::remove_dir_all(file) } else { fs_err::remove_file(file) };
        }
    }
}

#[test]
fn make_builds_each_module_once_for_all() {
    let build = |machine: &Machine, _: &Path| {
        let launcher = format!("PCMCACHE={}", machine.launcher().display());
        machine.start(tool::make(), ["-j2", &launcher]).finish().ok();
        let again = machine.start(tool::make(), ["-q", &launcher]).finish();
        assert!(again.status.success(), "there is something left to do: {}", again.transcript());
    };
    shared("make-example", build, &["hello", "greet.o", "main.o", "greet.pcm"], "hello");
}

#[test]
fn a_script_warms_up_builds_and_leaves_its_profile() {
    let build = |machine: &Machine, examples: &Path| {
        let mut command = machine.command(examples.join("build.sh"));
        command.env("PCMCACHE", machine.launcher());
        let said = Process::start(command).finish().ok();
        assert!(said.stdout.contains("2 results"), "{}", said.transcript());
    };
    shared("script-example", build, &["build"], "build/hello");
}

#[test]
fn a_preset_puts_it_before_compiles_and_scans() {
    let build = |machine: &Machine, _: &Path| {
        let launcher = format!("-DPCMCACHE_PROGRAM={}", machine.launcher().display());
        machine.start(tool::cmake(), ["--preset", "shared", &launcher]).finish().ok();
        machine.start(machine.ninja(), ["-C", "build"]).finish().ok();
        let ran = machine.stats();
        assert_eq!(ran.scans + ran.scan_hits, 2, "{ran:?}");
    };
    shared("preset-example", build, &["build"], "build/hello");
}
