//! Links in PATH under compilers' names: each works as the launcher, whatever kind of link it is, and no two of them
//! ever call each other for long.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use pcmcache_tests::tool::{self, CLANG};
use pcmcache_tests::{Finished, Machine, Scratch, turn};

const SCANNER: &str = "clang-scan-deps-22";

/// How a mask leads to the launcher: from the one, at the other.
type Kind = (&'static str, fn(&Path, &Path));

const KINDS: [Kind; 4] = [
    ("a symbolic link", |launcher, mask| symlink(launcher, mask).expect("a link")),
    ("a hard link", |launcher, mask| {
        // Links do not cross file systems: from a copy that lies beside.
        let copy = mask.with_file_name("pcmcache");
        tool::copy(launcher, &copy);
        std::fs::hard_link(copy, mask).expect("a hard link");
    }),
    ("a copy", tool::copy),
    ("a copy of another version", another_version),
];

/// A launcher that is not ours byte for byte, and does not have its name.
fn another_version(launcher: &Path, mask: &Path) {
    let mut bytes = fs_err::read(launcher).expect("the launcher");
    bytes.extend_from_slice(mask.as_os_str().as_encoded_bytes());
    let other = mask.with_extension("other");
    fs_err::write(&other, bytes).expect("another version");
    fs_err::set_permissions(&other, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a program");
    tool::copy(&other, mask);
}

fn path_of(directories: &[&Path]) -> std::ffi::OsString {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let all = directories.iter().map(|directory| directory.to_path_buf()).chain(std::env::split_paths(&rest));
    std::env::join_paths(all).expect("a PATH")
}

fn write_unit(machine: &Machine) -> PathBuf {
    let source = machine.build().join("a.cpp");
    fs_err::write(&source, "int f(int x) { return x + 1; }\n").expect("a source");
    source
}

/// Runs a program by its name in the machine's PATH, as a shell does.
fn by_name(machine: &Machine, name: &str, words: &[&str]) -> Finished {
    let script = ["-c", "exec \"$0\" \"$@\"", name];
    machine.start("/bin/sh", script.iter().chain(words)).finish()
}

#[test]
fn every_kind_of_link_under_every_name_launches() {
    let _turn = turn::beside_others();
    for (what, make) in KINDS {
        for name in [CLANG, "clang++", "clang-22", "g++", "gcc"] {
            let scratch = Scratch::new("masks");
            let machine = Machine::new(&scratch, "machine");
            if name == "clang++" {
                // Debian has no such name: the next in PATH.
                symlink("/usr/bin/clang++-22", scratch.dir("plain").join(name)).expect("a link");
            }
            let (masks, plain) = (scratch.dir("masks"), scratch.dir("plain"));
            make(machine.launcher(), &masks.join(name));
            let masked = machine.clone().with("PATH", path_of(&[&masks, &plain]));
            let source = write_unit(&machine);
            let words = ["-O1", "-c", &source.to_string_lossy(), "-o", "a.o"];
            for _ in 0..2 {
                by_name(&masked, name, &words).ok();
            }
            let stats = machine.stats();
            assert_eq!((stats.compiles, stats.local_hits), (1, 1), "{what}, {name}: {}", machine.log());
            let made = fs_err::read(machine.build().join("a.o")).expect("an object");
            let bare = machine.clone().with("PATH", path_of(&[&plain]));
            by_name(&bare, name, &words).ok();
            assert_eq!(fs_err::read(machine.build().join("a.o")).expect("an object"), made, "{what}, {name}");
            let version = by_name(&masked, name, &["--version"]).ok().stdout;
            assert_eq!(version, by_name(&bare, name, &["--version"]).ok().stdout, "{what}, {name}");
        }
    }
}

#[test]
fn a_masked_scanner_scans_from_the_cache() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("masks-scanner");
    let machine = Machine::new(&scratch, "machine");
    let masks = scratch.dir("masks");
    symlink(machine.launcher(), masks.join(SCANNER)).expect("a link");
    let source = write_unit(&machine).to_string_lossy().into_owned();
    let words = ["-format=p1689", "--", "/usr/bin/clang++-22", "-std=c++23", "-x", "c++", "-c", "-o", "a.o"];
    let words = [&words[..], &["-MT", "a.ddi", "-MD", "-MF", "a.d", &source]].concat();
    let masked = machine.clone().with("PATH", path_of(&[&masks]));
    let first = by_name(&masked, SCANNER, &words).ok();
    let second = by_name(&masked, SCANNER, &words).ok();
    assert_eq!(first.stdout, second.stdout);
    assert!(first.stdout.contains("\"primary-output\": \"a.o\""), "{}", first.stdout);
    assert_eq!((machine.stats().scans, machine.stats().scan_hits), (1, 1), "{}", machine.log());
}

#[test]
fn a_mask_that_is_named_stands_before_what_it_masks() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("masks-named");
    let machine = Machine::new(&scratch, "machine");
    let masks = scratch.dir("masks");
    symlink(machine.launcher(), masks.join(CLANG)).expect("a link");
    let source = write_unit(&machine).to_string_lossy().into_owned();
    let words = ["-c", &source, "-o", "a.o"];
    machine.start(masks.join(CLANG), words).finish().ok();
    let mask = masks.join(CLANG).to_string_lossy().into_owned();
    machine.start(machine.launcher(), [&[mask.as_str()], &words[..]].concat()).finish().ok();
    assert_eq!((machine.stats().compiles, machine.stats().local_hits), (1, 1), "{}", machine.log());
}

#[test]
fn installations_that_mask_each_other_come_to_an_end() {
    let _turn = turn::beside_others();
    for (what, make) in KINDS {
        let scratch = Scratch::new("masks-mutual");
        let machine = Machine::new(&scratch, "machine");
        let directories = ["one", "two", "three"].map(|name| scratch.dir(name));
        another_version(machine.launcher(), &directories[0].join(CLANG));
        make(machine.launcher(), &directories[1].join(CLANG));
        another_version(machine.launcher(), &directories[2].join(CLANG));
        let source = write_unit(&machine).to_string_lossy().into_owned();
        let [one, two, three] = directories.each_ref().map(PathBuf::as_path);
        for order in [[one, two, three], [two, three, one], [three, one, two]] {
            let masked = machine.clone().with("PATH", path_of(&order));
            for words in [&["-c", &source, "-o", "a.o"][..], &["-E", &source, "-o", "a.ii"]] {
                by_name(&masked, CLANG, words).ok();
            }
            assert!(machine.build().join("a.o").exists(), "{what}");
            fs_err::remove_file(machine.build().join("a.o")).expect("the object");

            // Nobody is behind the masks.
            let only = std::env::join_paths(order).expect("a PATH");
            let alone = machine.clone().with("PATH", only);
            let end = alone.start("/bin/sh", ["-c", &format!("exec {CLANG} -c a.cpp -o a.o")]).finish();
            assert_eq!(end.status.code(), Some(127), "{what}: {}", end.transcript());
            assert!(end.stderr.contains("no such compiler"), "{what}: {}", end.transcript());
        }
    }
}
