//! The module for CMake, as a user has it: the launcher before every compile and every scan, and a build that is warm
//! scans and compiles nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use pcmcache_tests::{Finished, Machine, Process, Scratch, atlas, tool, turn};

/// A build of the project by one machine.
const BUILD: Duration = Duration::from_secs(300);

/// What Ninja ran, by what it was.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
struct Edges {
    scans: usize,
    compiles: usize,
    archives: usize,
    links: usize,
}

fn build(machine: &Machine) -> Edges {
    let shown = machine.start(tool::ninja(), ["-j2", "-v"]).finish_within(BUILD).ok();
    let mut edges = Edges::default();
    for line in shown.stdout.lines().filter(|line| line.starts_with('[')) {
        let kind = match line {
            line if line.contains("clang-scan-deps") => &mut edges.scans,
            line if line.contains(" -c ") && line.contains(" -MF ") => &mut edges.compiles,
            line if line.contains(" qc ") => &mut edges.archives,
            line if line.contains(" -o bin/") => &mut edges.links,
            _ => continue,
        };
        *kind += 1;
    }
    edges
}

fn clean(machine: &Machine) {
    machine.start(tool::ninja(), ["-t", "clean"]).finish().ok();
}

#[test]
fn in_a_warm_build_every_scan_and_every_compile_hits() {
    let _turn = turn::alone();
    let scratch = Scratch::new("cmake-warm");
    let machine = Machine::new(&scratch, "machine");
    let said = atlas::configure_by_module(&machine, &atlas::source()).stdout;
    assert!(said.contains(", before scans for modules too"), "{said}");
    let edges = build(&machine);
    let cold = machine.stats();
    assert!(edges.scans > 50 && edges.compiles > 60, "{edges:?}");
    assert_eq!((cold.scans, cold.compiles), (edges.scans as u64, edges.compiles as u64), "{}", machine.log());
    assert_eq!((cold.local_hits, cold.bypassed.len(), cold.errors.len()), (0, 0, 0), "{cold:?}");

    clean(&machine);
    assert_eq!(build(&machine), edges);
    let warm = machine.stats();
    assert_eq!((warm.scans, warm.compiles), (cold.scans, cold.compiles), "{}", machine.log());
    assert_eq!((warm.scan_hits, warm.local_hits), (cold.scans, cold.scans + cold.compiles), "{warm:?}");
    atlas::check(&machine);

    // Configured again in place, the rules are what they were, and nothing is to be done.
    atlas::configure_by_module(&machine, &atlas::source());
    assert_eq!(build(&machine), Edges::default());

    // Another build directory finds all of it, too.
    let other = machine.clone().building_in(scratch.dir("other"));
    atlas::configure_by_module(&other, &atlas::source());
    assert_eq!(build(&other), edges);
    let there = other.stats();
    assert_eq!((there.scans, there.compiles), (cold.scans, cold.compiles), "{}", other.log());
    atlas::check(&other);
}

#[test]
fn a_touched_interface_is_looked_at_and_nothing_that_imports_it() {
    let _turn = turn::alone();
    let scratch = Scratch::new("cmake-touch");
    let source = scratch.dir("atlas");
    copy(&atlas::source(), &source);
    let machine = Machine::new(&scratch, "machine");
    let bare = Machine::new(&scratch, "bare");
    atlas::configure_by_module(&machine, &source);
    atlas::configure_bare(&bare, &source);
    build(&machine);
    build(&bare);
    let before = machine.stats();

    let interface = source.join("base/ints.cppm");
    let file = fs_err::OpenOptions::new().append(true).open(&interface).expect("the interface");
    file.file().set_modified(std::time::SystemTime::now()).expect("its time");
    let touched = build(&machine);
    let plain = build(&bare);
    println!("with the launcher {touched:?}, without {plain:?}");
    let after = machine.stats();
    assert_eq!(
        (after.scans, after.compiles),
        (before.scans, before.compiles),
        "all of it hits: {}",
        machine.log()
    );
    assert_eq!((touched.scans, touched.compiles), (1, 1));
    assert!(plain.compiles > 10, "many units import it: {plain:?}");
    assert!(touched.archives <= plain.archives && touched.links <= plain.links);
    assert_eq!(build(&machine), Edges::default(), "and then all is done");
    atlas::check(&machine);
}

fn copy(from: &Path, to: &Path) {
    for file in pcmcache_tests::scratch::files_below(from) {
        let target = to.join(&file);
        fs_err::create_dir_all(target.parent().expect("a directory")).expect("a directory");
        fs_err::copy(from.join(&file), target).expect("a copy");
    }
}

/// A project without modules.
fn write_plain(root: &Path) {
    let files = [
        (
            "CMakeLists.txt",
            "cmake_minimum_required(VERSION 3.28)\nproject(plain LANGUAGES C CXX)\nadd_subdirectory(sub)\n\
             add_executable(plain main.cpp part.c)\ntarget_link_libraries(plain sub)\n",
        ),
        ("sub/CMakeLists.txt", "project(sub LANGUAGES CXX)\nadd_library(sub sub.cpp)\n"),
        ("sub/sub.cpp", "int sub() { return 20; }\n"),
        ("part.c", "int part(void) { return 22; }\n"),
        (
            "main.cpp",
            "extern \"C\" int part(void);\nint sub();\nint main() { return sub() + part() - 42; }\n",
        ),
    ];
    for (name, text) in files {
        fs_err::create_dir_all(root.join(name).parent().expect("a directory")).expect("a directory");
        fs_err::write(root.join(name), text).expect("a source");
    }
}

fn configure_plain(machine: &Machine, root: &Path, more: &[&str]) -> Finished {
    let mut command = machine.command(tool::cmake());
    command.env("PCMCACHE_MODE", "off").arg("-S").arg(root).args(["-B", "."]);
    command.arg(format!("-DCMAKE_PROJECT_TOP_LEVEL_INCLUDES={}", atlas::cmake_module().display()));
    command.arg(format!("-DCMAKE_MAKE_PROGRAM={}", tool::ninja().display())).args(more);
    Process::start(command).finish().ok()
}

fn run_build(machine: &Machine) {
    machine.start(tool::cmake(), ["--build", ".", "--clean-first"]).finish_within(BUILD).ok();
    machine.start(machine.build().join("plain"), [""; 0]).finish().ok();
}

#[test]
fn without_modules_with_gcc_and_with_make_it_is_a_launcher_and_no_more() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("cmake-plain");
    let root = scratch.dir("plain");
    write_plain(&root);
    let make = format!("-DCMAKE_MAKE_PROGRAM={}", tool::make().display());
    let kinds: [(&str, &[&str]); 3] = [
        ("clang", &["-GNinja", "-DCMAKE_C_COMPILER=clang-22", "-DCMAKE_CXX_COMPILER=clang++-22"]),
        ("gcc", &["-GNinja", "-DCMAKE_C_COMPILER=gcc", "-DCMAKE_CXX_COMPILER=g++"]),
        (
            "make",
            &["-GUnix Makefiles", &make, "-DCMAKE_C_COMPILER=clang-22", "-DCMAKE_CXX_COMPILER=clang++-22"],
        ),
    ];
    for (name, generator) in kinds {
        let machine = Machine::new(&scratch, name);
        let program = format!("-DPCMCACHE_PROGRAM={}", machine.launcher().display());
        let said = configure_plain(&machine, &root, &[generator, &[&program]].concat()).stdout;
        assert_eq!(said.matches("-- pcmcache: ").count(), 1, "{said}");
        run_build(&machine);
        run_build(&machine);
        let stats = machine.stats();
        assert_eq!((stats.compiles, stats.local_hits, stats.scans), (3, 3, 0), "{name}: {}", machine.log());
        assert_eq!(stats.bypassed, BTreeMap::new(), "{name}");
    }
}

#[test]
fn the_launcher_of_somebody_else_stays_and_none_is_no_fault() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("cmake-others");
    let root = scratch.dir("plain");
    write_plain(&root);
    let compilers = ["-GNinja", "-DCMAKE_C_COMPILER=clang-22", "-DCMAKE_CXX_COMPILER=clang++-22"];
    let machine = Machine::new(&scratch, "machine");
    let program = format!("-DPCMCACHE_PROGRAM={}", machine.launcher().display());
    let theirs: [&str; 2] = ["-DCMAKE_CXX_COMPILER_LAUNCHER=env", &program];
    let said = configure_plain(&machine, &root, &[&compilers[..], &theirs].concat()).stdout;
    assert!(said.contains("not before CXX, which has a launcher"), "{said}");
    run_build(&machine);
    assert_eq!(machine.stats().compiles, 1, "the C of it: {}", machine.log());

    let without = Machine::new(&scratch, "without");
    // Nowhere in PATH, nor beside the module.
    let module =
        scratch.file("elsewhere/pcmcache.cmake", fs_err::read(atlas::cmake_module()).expect("the module"));
    let include = format!("-DCMAKE_PROJECT_TOP_LEVEL_INCLUDES={}", module.display());
    let said = configure_plain(&without, &root, &[&compilers[..], &[&include]].concat()).stdout;
    assert_eq!(said.matches("-- pcmcache: not found").count(), 1, "{said}");
    run_build(&without);
}
