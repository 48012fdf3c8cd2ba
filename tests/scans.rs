//! A scan for modules is an action: what it says and its depfile are what the scanner itself makes of the same, and a
//! second one is a hit only where nothing changed that the scanner could tell.

use std::path::{Path, PathBuf};

use pcmcache_tests::tool::CLANG;
use pcmcache_tests::{Finished, Machine, Scratch, turn};

const SCANNER: &str = "clang-scan-deps-22";

/// A change to the sources or to the command, by what it is.
type Change = (&'static str, fn(&Path, &mut Vec<String>));

fn put(path: &Path, text: &str) {
    fs_err::create_dir_all(path.parent().expect("a file in a directory")).expect("a directory");
    fs_err::write(path, text).expect("a file");
}

fn write_sources(root: &Path) {
    put(
        &root.join("src/m.cppm"),
        "module;\n#include \"early.h\"\n#include <limits.h>\n#if __has_include(\"extra.h\")\nimport extra;\n#endif\n\
         export module m;\n#ifdef WITH_B\nimport b;\n#endif\n#if SCALE\nimport scale;\n#endif\n",
    );
    put(&root.join("inc/early.h"), "#define SCALE 1\n");
    put(&root.join("first/empty"), "");
}

/// The command as CMake writes it.
fn scan(root: &Path) -> Vec<String> {
    let compiler = PathBuf::from("/usr/bin").join(CLANG);
    let at = |name: &str| root.join(name).to_string_lossy().into_owned();
    let inner = format!(
        "{} -I{} -I{} -stdlib=libc++ -std=c++23 -x c++ -c -o m.o -resource-dir /usr/lib/llvm-22/lib/clang/22 \
         -MT m.o.ddi -MD -MF m.o.ddi.d {}",
        compiler.display(),
        at("first"),
        at("inc"),
        at("src/m.cppm")
    );
    ["-format=p1689", "--"].into_iter().chain(inner.split(' ')).map(str::to_owned).collect()
}

fn launch(machine: &Machine, words: &[String]) -> Finished {
    let command = std::iter::once(SCANNER.to_owned()).chain(words.iter().cloned());
    machine.start(machine.launcher(), command).finish()
}

/// All that a caller sees: status, what was said, the depfile.
fn seen(machine: &Machine, end: &Finished) -> (Option<i32>, String, String, Option<String>) {
    let depfile = fs_err::read_to_string(machine.build().join("m.o.ddi.d")).ok();
    (end.status.code(), end.stdout.clone(), end.stderr.clone(), depfile)
}

#[test]
fn what_changed_since_is_scanned_again_and_nothing_else_is() {
    let _turn = turn::beside_others();
    let changes: [Change; 10] = [
        ("the source", |root, _| put(&root.join("src/m.cppm"), "export module n;\nimport c;\n")),
        ("a header", |root, _| put(&root.join("inc/early.h"), "#define SCALE 0\n")),
        ("a header found earlier", |root, _| put(&root.join("first/early.h"), "#define SCALE 0\n")),
        ("a header beside the source", |root, _| put(&root.join("src/early.h"), "#define SCALE 0\n")),
        ("a system header found earlier", |root, _| put(&root.join("first/limits.h"), "import l;\n")),
        ("a probe that turns true", |root, _| put(&root.join("inc/extra.h"), "")),
        ("a header that is gone", |root, _| {
            fs_err::remove_file(root.join("inc/early.h")).expect("the header")
        }),
        ("a macro", |_, words| words.insert(3, "-DWITH_B".to_owned())),
        ("the object's name", |_, words| rename(words, "m.o", "d/other.o")),
        ("the depfile's target", |_, words| rename(words, "m.o.ddi", "d/other.ddi")),
    ];
    for (what, change) in changes {
        println!("{what}");
        let scratch = Scratch::new("scans");
        let root = scratch.dir("project");
        write_sources(&root);
        let machine = Machine::new(&scratch, "machine");
        let mut words = scan(&root);
        let first = launch(&machine, &words).ok();
        let made = seen(&machine, &first);
        fs_err::remove_file(machine.build().join("m.o.ddi.d")).expect("the depfile");
        let again = launch(&machine, &words).ok();
        assert_eq!(seen(&machine, &again), made, "{what}");
        let stats = machine.stats();
        assert_eq!(
            (stats.scans, stats.scan_hits, stats.local_hits, stats.compiles),
            (1, 1, 1, 0),
            "{}",
            machine.log()
        );

        change(&root, &mut words);
        let changed = launch(&machine, &words);
        let reference = Machine::new(&scratch, "reference");
        if changed.status.code() != Some(0) {
            // A scanner that fails leaves the depfile that was there.
            fs_err::copy(machine.build().join("m.o.ddi.d"), reference.build().join("m.o.ddi.d"))
                .expect("a copy");
        }
        let right = reference.start(SCANNER, &words).finish();
        assert_eq!(seen(&machine, &changed), seen(&reference, &right), "{what}");
        assert_ne!(
            seen(&machine, &changed),
            made,
            "{what}: the change changes nothing, so this shows nothing"
        );
        assert_eq!(machine.stats().scan_hits, 1, "{what}: {}", machine.log());
    }
}

fn rename(words: &mut [String], from: &str, to: &str) {
    let word = words.iter_mut().find(|word| *word == from).expect("a word of the command");
    *word = to.to_owned();
}

#[test]
fn what_is_not_understood_goes_to_the_scanner() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("scans-bypass");
    let root = scratch.dir("project");
    write_sources(&root);
    let machine = Machine::new(&scratch, "machine");
    let plain = scan(&root);
    let with = |at: usize, word: &str| {
        let mut words = plain.clone();
        words.insert(at, word.to_owned());
        words
    };
    let mut make = plain.clone();
    make[0] = "-format=make".to_owned();
    let without_depfile: Vec<String> = plain
        .iter()
        .filter(|word| !["-MD", "-MF", "-MT", "m.o.ddi", "m.o.ddi.d"].contains(&word.as_str()))
        .cloned()
        .collect();
    let named_short = plain.iter().map(|word| word.replace("/usr/bin/", "")).collect();
    for words in [make, with(1, "-j2"), with(0, "-v"), with(3, "-MP"), without_depfile, named_short] {
        let reference = Machine::new(&scratch, "reference");
        let ours = launch(&machine, &words);
        let right = reference.start(SCANNER, &words).finish();
        assert_eq!(seen(&machine, &ours), seen(&reference, &right), "{words:?}");
        for made in [&machine, &reference] {
            let _ = fs_err::remove_file(made.build().join("m.o.ddi.d"));
        }
    }
    let stats = machine.stats();
    assert_eq!((stats.scans, stats.local_hits), (0, 0), "{stats:?}");
    assert_eq!(stats.bypassed.values().sum::<u64>(), 6, "{stats:?}");
}

#[test]
fn a_scan_of_another_cache_directory_comes_from_the_server() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("scans-remote");
    let root = scratch.dir("project");
    write_sources(&root);
    let server = pcmcache_tests::Server::start(&scratch);
    let words = scan(&root);
    let [one, two] = ["one", "two"].map(|name| Machine::new(&scratch, name).remote(&server.url()));
    let first = launch(&one, &words).ok();
    let second = launch(&two, &words).ok();
    assert_eq!(seen(&one, &first), seen(&two, &second));
    let stats = two.stats();
    assert_eq!((stats.scans, stats.remote_hits, stats.scan_hits), (0, 1, 1), "{stats:?}\n{}", two.log());
}
