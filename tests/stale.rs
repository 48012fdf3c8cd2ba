//! What changed since is never hit: compile, compile again (a hit), change one thing, compile, and compare with what the
//! compiler itself makes of the same.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use pcmcache_tests::{Machine, Scratch, turn, until};

/// A change to the sources, by what it is.
type Change = (&'static str, fn(&Path));

/// `src/a.cpp` includes `inc/scale.h`, probes for `extra.h` and imports `m`, which lies in `second`, the other of two
/// prebuilt paths.
fn write_sources(root: &Path) {
    let files = [
        (
            "src/a.cpp",
            "#include \"scale.h\"\n#include <limits.h>\n#if __has_include(\"extra.h\")\nint extra = 1;\n#endif\n\
             import m;\nint f() { return SCALE + m() + CHAR_BIT; }\n",
        ),
        ("src/m.cppm", "export module m;\nexport inline int m() { return 1; }\n"),
        ("src/m2.cppm", "export module m;\nexport inline int m() { return 2; }\n"),
        ("inc/scale.h", "#define SCALE 1\n"),
        ("first/empty", ""),
        ("second/empty", ""),
        ("early/empty", ""),
    ];
    for (name, text) in files {
        put(&root.join(name), text);
    }
}

fn put(path: &Path, text: &str) {
    fs_err::create_dir_all(path.parent().expect("a file in a directory")).expect("a directory");
    fs_err::write(path, text).expect("a file");
}

fn compile_arguments(root: &Path) -> Vec<String> {
    let at = |name: &str| root.join(name).to_string_lossy().into_owned();
    vec![
        "-std=c++23".to_owned(),
        format!("-I{}", at("early")),
        format!("-I{}", at("inc")),
        format!("-fprebuilt-module-path={}", at("first")),
        format!("-fprebuilt-module-path={}", at("second")),
        "-MD".to_owned(),
        "-c".to_owned(),
        at("src/a.cpp"),
        "-o".to_owned(),
        "a.o".to_owned(),
    ]
}

fn precompile(machine: &Machine, source: &Path, bmi: &Path) {
    let words =
        ["-std=c++23".as_ref(), "--precompile".as_ref(), source.as_os_str(), "-o".as_ref(), bmi.as_os_str()];
    machine.compile(words).ok();
}

/// What is made in the machine's build directory: object and depfile.
fn made(build: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    ["a.o", "a.d"]
        .iter()
        .map(|name| (name.into(), fs_err::read(build.join(name)).unwrap_or_default()))
        .collect()
}

#[test]
fn what_changed_since_is_never_hit() {
    let _turn = turn::beside_others();
    let changes: [Change; 8] = [
        ("the source", |root| put(&root.join("src/a.cpp"), "int f() { return 7; }\n")),
        ("a header", |root| put(&root.join("inc/scale.h"), "#define SCALE 2\n")),
        ("a header of the same size and time", |root| {
            let header = root.join("inc/scale.h");
            let time = fs_err::metadata(&header).and_then(|m| m.modified()).expect("a time");
            put(&header, "#define SCALE 3\n");
            let file = fs_err::OpenOptions::new().write(true).open(&header).expect("the header");
            file.file().set_modified(time).expect("its time");
        }),
        ("a new header in an earlier directory", |root| {
            put(&root.join("early/scale.h"), "#define SCALE 4\n")
        }),
        ("a new header beside the source", |root| put(&root.join("src/scale.h"), "#define SCALE 5\n")),
        ("a new system header in an earlier directory", |root| {
            put(&root.join("early/limits.h"), "#define CHAR_BIT 80\n");
        }),
        ("a probe that turns true", |root| put(&root.join("inc/extra.h"), "")),
        ("a header that is gone", |root| fs_err::remove_file(root.join("inc/scale.h")).expect("the header")),
    ];
    for (what, change) in changes {
        let scratch = Scratch::new("stale");
        let root = scratch.dir("project");
        write_sources(&root);
        let machine = Machine::new(&scratch, "machine");
        precompile(&machine, &root.join("src/m.cppm"), &root.join("second/m.pcm"));
        check(what, &scratch, &machine, &root, || change(&root));
    }
}

#[test]
fn another_bmi_is_never_taken_for_the_one_before() {
    let _turn = turn::beside_others();
    for (what, bmi) in
        [("a BMI that was rebuilt", "second/m.pcm"), ("a BMI found earlier now", "first/m.pcm")]
    {
        let scratch = Scratch::new("stale-bmi");
        let root = scratch.dir("project");
        write_sources(&root);
        let machine = Machine::new(&scratch, "machine");
        precompile(&machine, &root.join("src/m.cppm"), &root.join("second/m.pcm"));
        check(what, &scratch, &machine, &root, || {
            precompile(&machine, &root.join("src/m2.cppm"), &root.join(bmi));
        });
    }
}

/// Who may go through a directory and not list it finds in it what the compiler finds.
#[test]
fn a_header_in_a_directory_that_nobody_may_list_is_seen() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("stale-unlisted");
    let root = scratch.dir("project");
    write_sources(&root);
    let mode = |name: &str, mode| {
        fs_err::set_permissions(root.join(name), Permissions::from_mode(mode)).expect("its mode");
    };
    let machine = Machine::new(&scratch, "machine").used_by_no_root();
    mode("second", 0o777);
    precompile(&machine, &root.join("src/m.cppm"), &root.join("second/m.pcm"));
    mode("early", 0o311);
    check("a new header in a directory that cannot be listed", &scratch, &machine, &root, || {
        put(&root.join("early/scale.h"), "#define SCALE 4\n");
    });
    mode("early", 0o755);
}

#[test]
fn what_was_edited_during_a_wait_is_not_hit_either() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("stale-wait");
    let root = scratch.dir("project");
    write_sources(&root);
    let machine = Machine::new(&scratch, "machine");
    precompile(&machine, &root.join("src/m.cppm"), &root.join("second/m.pcm"));
    let arguments = compile_arguments(&root);
    let (stored, looked) = (scratch.path().join("stored"), scratch.path().join("looked"));

    let beside = machine.clone().building_in(scratch.dir("beside"));
    let mut first = beside.waiting("launch.stored", &stored).launch(&arguments);
    until("the first launcher to have stored its result", || stored.exists() || first.ended());
    // The second has looked before there was a result: it was started before the first stored one, in effect.
    let results = machine.cache().join("v1/units");
    let aside = machine.cache().join("v1/aside");
    fs_err::rename(&results, &aside).expect("the include sets, out of sight");
    let mut second = machine.clone().waiting("launch.looked", &looked).launch(&arguments);
    until("the second launcher to have looked", || looked.exists() || second.ended());
    let _ = fs_err::remove_dir_all(&results);
    fs_err::rename(&aside, &results).expect("the include sets, in sight again");
    fs_err::remove_file(&looked).expect("the announcement");
    // It is waiting for the lock by now; if it is not, no wait is counted below.
    std::thread::sleep(std::time::Duration::from_millis(500));
    put(&root.join("src/a.cpp"), "int f() { return 7; }\n");
    fs_err::remove_file(&stored).expect("the announcement");
    first.finish().ok();
    second.finish().ok();

    let reference = Machine::new(&scratch, "reference");
    reference.bare(&arguments).ok();
    assert!(made(machine.build()) == made(reference.build()), "{}", machine.log());
    assert_eq!((machine.stats().waits, machine.stats().local_hits), (1, 0), "{}", machine.log());
}

fn check(what: &str, scratch: &Scratch, machine: &Machine, root: &Path, change: impl FnOnce()) {
    println!("{what}");
    let arguments = compile_arguments(root);
    machine.compile(&arguments).ok();
    let hits = machine.stats().local_hits;
    machine.compile(&arguments).ok();
    assert_eq!(machine.stats().local_hits, hits + 1, "{what}: {}", machine.log());
    change();
    let seen = machine.compile(&arguments);
    let reference = Machine::new(scratch, "reference");
    let right = reference.bare(&arguments);
    assert_eq!(
        (seen.status.code(), &seen.stdout, &seen.stderr),
        (right.status.code(), &right.stdout, &right.stderr),
        "{what}"
    );
    assert!(made(machine.build()) == made(reference.build()), "{what}: other bytes\n{}", machine.log());
    assert_eq!(machine.stats().local_hits, hits + 1, "{what}: {}", machine.log());
}
