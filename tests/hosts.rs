//! What a compiler finds on its host, without being told, is part of what it makes: hosts that differ in it never share,
//! hosts that do not differ do.

use std::path::{Path, PathBuf};
use std::process::Command;

use pcmcache_tests::tool::{self, CLANG};
use pcmcache_tests::{Finished, Machine, Process, Scratch, Server, turn};

/// A compiler that runs the real one with what `cpu` says in place of `native`, as a processor's answer would: the same
/// binary on every host.
const FAKE: &str = r#"
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int count, char **words) {
  char cpu[64] = "x86-64";
  FILE *file = fopen(getenv("HOST_CPU"), "r");
  if (!file || fscanf(file, "%63s", cpu) != 1) return 99;
  for (int i = 1; i < count; ++i) {
    char *value = strstr(words[i], "=native");
    if (!value || words[i][0] != '-' || words[i][1] != 'm') continue;
    int length = value - words[i];
    if (asprintf(&words[i], "%.*s=%s", length, words[i], cpu) < 0) return 99;
  }
  words[0] = REAL;
  execv(REAL, words);
  return 99;
}
"#;

/// The fake compiler for the real one, built.
fn fake_compiler(scratch: &Scratch, name: &str) -> PathBuf {
    let source = scratch.file("fake/compiler.c", FAKE);
    let program = scratch.dir("fake/bin").join(name.trim_end_matches("-22"));
    let real = if name == CLANG {
        tool::installed("PCMCACHE_TEST_CLANG", CLANG)
    } else {
        Path::new("/usr/bin").join(name)
    };
    let mut build = Command::new(CLANG.replace("++", ""));
    build.arg(format!("-DREAL=\"{}\"", real.display())).args(["-O1", "-o"]).arg(&program).arg(source);
    Process::start(build).finish().ok();
    program
}

/// A host with this processor, whose cache directory is `cache`.
fn host(scratch: &Scratch, name: &str, cpu: &str, cache: &str) -> Machine {
    let file = scratch.file(&format!("{name}/cpu"), cpu);
    Machine::new(scratch, name).with("HOST_CPU", file).with("PCMCACHE_DIR", scratch.path().join(cache))
}

/// What the launcher makes on this host, which must be what the compiler itself makes there.
fn compile(machine: &Machine, compiler: &Path, words: &[String]) -> Vec<u8> {
    let outputs = |finished: Finished| {
        let finished = finished.ok();
        let files =
            ["a.o", "a.pcm", "a.d"].map(|name| fs_err::read(machine.build().join(name)).unwrap_or_default());
        (finished.stdout, finished.stderr, files)
    };
    let clean = || {
        ["a.o", "a.pcm", "a.d"].iter().for_each(|name| drop(fs_err::remove_file(machine.build().join(name))))
    };
    clean();
    let embedded = words.iter().any(|word| word.starts_with("-fmodule-output"));
    let embed: &[&str] = if embedded { &["-Xclang", "-fmodules-embed-all-files"] } else { &[] };
    let right = outputs(
        machine.start(compiler, words.iter().map(String::as_str).chain(embed.iter().copied())).finish(),
    );
    clean();
    let launched = std::iter::once(compiler.to_string_lossy().into_owned()).chain(words.iter().cloned());
    let seen = outputs(machine.start(machine.launcher(), launched).finish());
    assert_eq!((&seen.0, &seen.1), (&right.0, &right.1));
    assert!(
        seen.2 == right.2,
        "other bytes than the compiler's own on {}: {}",
        machine.build().display(),
        machine.log()
    );
    let [object, _, _] = seen.2;
    object
}

fn words(line: &str, source: &Path) -> Vec<String> {
    let source = source.to_string_lossy();
    line.split(' ').map(|word| word.replace("SOURCE", &source)).collect()
}

const LOOP: &str =
    "export module a;\nexport void f(int *a, int *b) { for (int i = 0; i < 64; ++i) a[i] += b[i]; }\n";

#[test]
fn hosts_whose_native_differs_share_nothing_and_hosts_whose_native_is_the_same_share_all() {
    let _turn = turn::beside_others();
    for flags in ["-march=native", "-mtune=native -mavx", "-march=native -g"] {
        let scratch = Scratch::new("hosts");
        let server = Server::start(&scratch);
        let compiler = fake_compiler(&scratch, CLANG);
        let source = scratch.file("source/a.cppm", LOOP);
        let line = format!("-std=c++23 -O2 {flags} -MD -c SOURCE -o a.o -fmodule-output=a.pcm");
        let words = words(&line, &source);
        let cwd = scratch.dir("build");
        let [first, other, same] =
            [("first", "haswell"), ("other", "bonnell"), ("same", "haswell")].map(|(name, cpu)| {
                host(&scratch, name, cpu, name).remote(&server.url()).building_in(cwd.clone())
            });

        let on_first = compile(&first, &compiler, &words);
        let on_other = compile(&other, &compiler, &words);
        assert!(on_first != on_other, "{flags}: these two processors make no difference: a test of nothing");
        assert_eq!((other.stats().compiles, other.stats().remote_hits), (1, 0), "{flags}: {}", other.log());

        compile(&same, &compiler, &words);
        assert_eq!((same.stats().compiles, same.stats().remote_hits), (0, 1), "{flags}: {}", same.log());
    }
}

#[test]
fn hosts_whose_native_differs_share_nothing_of_gcc_either() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("hosts-native-gcc");
    let server = Server::start(&scratch);
    let compiler = fake_compiler(&scratch, "g++");
    let source = scratch.file("source/a.cpp", LOOP.trim_start_matches("export module a;\nexport "));
    let words = words("-O3 -march=native -MD -c SOURCE -o a.o", &source);
    let cwd = scratch.dir("build");
    let [first, other, same] = [("first", "haswell"), ("other", "bonnell"), ("same", "haswell")]
        .map(|(name, cpu)| host(&scratch, name, cpu, name).remote(&server.url()).building_in(cwd.clone()));
    let on_first = compile(&first, &compiler, &words);
    assert!(on_first != compile(&other, &compiler, &words), "a test of nothing");
    assert_eq!((other.stats().compiles, other.stats().remote_hits), (1, 0), "{}", other.log());
    compile(&same, &compiler, &words);
    assert_eq!((same.stats().compiles, same.stats().remote_hits), (0, 1), "{}", same.log());
}

#[test]
fn a_cache_directory_that_moves_to_another_processor_gives_nothing_that_was_native() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("hosts-moved");
    let compiler = fake_compiler(&scratch, CLANG);
    let source = scratch.file("source/a.cppm", LOOP);
    let words = words("-std=c++23 -O2 -march=native -c SOURCE -o a.o -fmodule-output=a.pcm", &source);
    let machine = host(&scratch, "host", "haswell", "cache");
    let first = compile(&machine, &compiler, &words);
    assert!(first == compile(&machine, &compiler, &words));
    assert_eq!((machine.stats().compiles, machine.stats().local_hits), (1, 1), "{}", machine.log());

    scratch.file("host/cpu", "bonnell");
    assert!(first != compile(&machine, &compiler, &words));
    assert_eq!((machine.stats().compiles, machine.stats().local_hits), (2, 1), "{}", machine.log());

    scratch.file("host/cpu", "haswell");
    assert!(first == compile(&machine, &compiler, &words));
    assert_eq!((machine.stats().compiles, machine.stats().local_hits), (2, 2), "{}", machine.log());
}

/// A root in which the driver finds these GCC installations; `<answer>` says which one's headers are used.
fn root(scratch: &Scratch, name: &str, versions: &[u32]) -> PathBuf {
    for version in versions {
        scratch.file(&format!("{name}/usr/lib/gcc/x86_64-linux-gnu/{version}/crtbegin.o"), "");
        scratch
            .file(&format!("{name}/usr/include/c++/{version}/answer"), format!("#define ANSWER {version}\n"));
    }
    scratch.path().join(name)
}

/// Three hosts, each with a root of its own that lies at one path while the host compiles.
fn hosts_with_roots(flag: &str, below: &str) {
    let scratch = Scratch::new("hosts-gcc");
    let server = Server::start(&scratch);
    let source = scratch.file("source/a.cpp", "#include <answer>\nint f() { return ANSWER; }\n");
    let roots = [("first", &[12][..]), ("other", &[12, 13]), ("same", &[12])]
        .map(|(name, versions)| (name, root(&scratch, &format!("root-{name}"), versions)));
    let shared = scratch.path().join("root");
    let words = words(&format!("{flag}{}{below} -MD -c SOURCE -o a.o", shared.display()), &source);
    let cwd = scratch.dir("build");
    let made = roots.map(|(name, root)| {
        let machine = Machine::new(&scratch, name).remote(&server.url()).building_in(cwd.clone());
        fs_err::rename(&root, &shared).expect("the host's root at its place");
        let object = compile(&machine, Path::new(CLANG), &words);
        fs_err::rename(&shared, &root).expect("the host's root out of the way");
        (object, machine)
    });
    let [(on_first, _), (on_other, other), (_, same)] = made;
    assert!(on_first != on_other, "{flag}: the other installation was not found: a test of nothing");
    assert_eq!((other.stats().compiles, other.stats().remote_hits), (1, 0), "{flag}: {}", other.log());
    assert_eq!((same.stats().compiles, same.stats().remote_hits), (0, 1), "{flag}: {}", same.log());
}

#[test]
fn hosts_with_another_gcc_installation_in_their_root_share_nothing() {
    let _turn = turn::beside_others();
    hosts_with_roots("--sysroot=", "");
}

#[test]
fn hosts_with_another_gcc_installation_in_their_toolchain_share_nothing() {
    let _turn = turn::beside_others();
    hosts_with_roots("--gcc-toolchain=", "/usr");
}

/// The same without a flag: the hosts' own directories, in a mount namespace each. Only root may do that.
#[test]
fn hosts_with_another_gcc_installation_of_their_own_share_nothing() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("hosts-mounts");
    let may = Machine::new(&scratch, "asking").start("unshare", ["-m", "true"]).finish();
    if !may.status.success() {
        println!("skipped: no right to mount anything: {}", may.stderr);
        return;
    }
    let server = Server::start(&scratch);
    let source = scratch.file("source/a.cpp", "#include <answer>\nint f() { return ANSWER; }\n");
    scratch.file("gcc/13/crtbegin.o", "");
    scratch.dir("gcc/12");
    scratch.file("headers/13/answer", "#define ANSWER 13\n");
    scratch.file("headers/12/answer", "#define ANSWER 12\n");
    scratch.dir("alone/12");
    let words = words("-MD -c SOURCE -o a.o", &source).join(" ");
    let cwd = scratch.dir("build");
    let made = [("first", "alone"), ("other", "gcc"), ("same", "alone")].map(|(name, installations)| {
        let machine = Machine::new(&scratch, name).remote(&server.url()).building_in(cwd.clone());
        let (here, launcher) = (scratch.path().display(), machine.launcher().display());
        // The true installation 12 stays what it is, seen through the directory that stands in its parent's place.
        let script = format!(
            "set -e; lib=/usr/lib/gcc/x86_64-linux-gnu; mount --bind $lib/12 {here}/{installations}/12
             mount --rbind {here}/{installations} $lib; mount --bind {here}/headers /usr/include/c++
             {CLANG} {words}; mv a.o right.o; mv a.d right.d; {launcher} {CLANG} {words}; cmp a.o right.o; cmp a.d right.d"
        );
        machine.start("unshare", ["-m", "/bin/sh", "-c", &script]).finish().ok();
        (fs_err::read(cwd.join("a.o")).expect("the object"), machine)
    });
    let [(on_first, _), (on_other, other), (_, same)] = made;
    assert!(on_first != on_other, "the other installation was not found: a test of nothing");
    assert_eq!((other.stats().compiles, other.stats().remote_hits), (1, 0), "{}", other.log());
    assert_eq!((same.stats().compiles, same.stats().remote_hits), (0, 1), "{}", same.log());
}
