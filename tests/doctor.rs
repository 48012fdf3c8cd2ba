//! `doctor` says what is wrong with a set-up, each time with its remedy, and nothing where nothing is.

use std::path::PathBuf;

use pcmcache_shared::api::problem::{Code, Problem};
use pcmcache_tests::liar::Liar;
use pcmcache_tests::scratch::names_in;
use pcmcache_tests::tool::{self, CLANG, cmake};
use pcmcache_tests::{Finished, Machine, Scratch, Server, turn};
use serde_json::Value;

fn doctor(machine: &Machine, arguments: &[&str]) -> Finished {
    let words = std::iter::once("doctor").chain(arguments.iter().copied());
    machine.start(machine.launcher(), words).finish()
}

/// What needs care: each finding with its remedy.
fn cares(end: &Finished) -> Vec<String> {
    let lines: Vec<&str> = end.stdout.lines().collect();
    let pairs = lines.windows(2).filter(|pair| pair[0].starts_with("care "));
    let cares: Vec<String> = pairs
        .map(|pair| {
            assert!(pair[1].contains("remedy: "), "a finding without a remedy: {}", end.transcript());
            format!("{} / {}", pair[0], pair[1].trim())
        })
        .collect();
    let code = if cares.is_empty() { Some(0) } else { Some(1) };
    assert_eq!(end.status.code(), code, "{}", end.transcript());
    cares
}

#[track_caller]
fn assert_told(end: &Finished, told: &str, remedy: &str) {
    let cares = cares(end);
    assert!(
        cares.iter().any(|care| care.contains(told) && care.contains(remedy)),
        "no '{told}' in {}",
        end.transcript()
    );
}

#[test]
fn where_nothing_is_wrong_nothing_needs_care_and_nothing_is_left_behind() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("doctor-well");
    let server = Server::start(&scratch);
    let machine = Machine::new(&scratch, "machine").remote(&server.url());
    let base = scratch.path().to_string_lossy().into_owned();
    let machine = machine.with("PCMCACHE_BASE_DIRS", base);
    let end = doctor(&machine, &[CLANG]);
    assert_eq!(cares(&end), Vec::<String>::new(), "{}", end.transcript());
    for told in ["identity", "grants leases", "is writable", "GiB stored", "base directories"] {
        assert!(end.stdout.contains(told), "no '{told}' in {}", end.transcript());
    }
    assert!(names_in(machine.build()).is_empty());

    // A link that stands before compilers is none, and nothing to care about.
    let masks = scratch.dir("masks");
    std::os::unix::fs::symlink(machine.launcher(), masks.join("clang++")).expect("a link");
    let path = format!("{}:{}", masks.display(), std::env::var("PATH").expect("PATH"));
    let end = doctor(&machine.clone().with("PATH", path), &[]);
    assert!(!end.stdout.contains("masks"), "{}", end.transcript());

    let json = doctor(&machine, &[CLANG, "--format", "json"]).ok().stdout;
    let findings: Vec<Value> = serde_json::from_str(&json).expect("findings");
    assert!(findings.len() >= 6 && findings.iter().all(|finding| finding["state"] == "ok"), "{json}");
}

#[test]
fn what_is_wrong_with_settings_cache_and_server_is_told() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("doctor-ill");
    let plain = |name: &str| Machine::new(&scratch, name);

    let told = doctor(&plain("mode").with("PCMCACHE_MODE", "off"), &[CLANG]);
    assert_told(&told, "PCMCACHE_MODE is off", "unset it");
    let told = doctor(&plain("wait").with("PCMCACHE_WAIT", "soon"), &[CLANG]);
    assert_told(&told, "PCMCACHE_WAIT = 'soon'", "pcmcache config");
    let told = doctor(&plain("none"), &["no-such-compiler"]);
    assert_told(&told, "no no-such-compiler", "install one");
    let told = doctor(&plain("large").with("PCMCACHE_MAX_SIZE", "9000T"), &[CLANG]);
    assert_told(&told, "the bound is", "PCMCACHE_MAX_SIZE");
    let told = doctor(&plain("bases").with("PCMCACHE_BASE_DIRS", "/nowhere/at/all"), &[CLANG]);
    assert_told(&told, "/nowhere/at/all is no directory", "name directories that are there");
    let told = doctor(&plain("outside").with("PCMCACHE_BASE_DIRS", "/usr"), &[CLANG]);
    assert_told(&told, "is below none of /usr", "PCMCACHE_BASE_DIRS");
    // Nobody listens on a port that was free a moment ago.
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
    let told = doctor(&plain("alone").remote(&format!("http://127.0.0.1:{port}")), &[CLANG]);
    assert_told(&told, "does not answer", "start pcmcache-server");

    let told =
        doctor(&plain("clear").remote("http://192.0.2.1:1").with("PCMCACHE_TOKEN", "secret"), &[CLANG]);
    assert_told(&told, "for everyone on the way to read", "https://");
    let newer = Liar::telling(|request, peer| match request.is("GET", "/healthz") {
        true => peer.body(200, ""),
        false => peer.problem(&Problem::new(Code::WireVersion, "install pcmcache 9 or newer")),
    });
    let told = doctor(&plain("newer").remote(&newer.url()), &[CLANG]);
    assert_told(&told, "install pcmcache 9", "install the one it names");
    let told = doctor(&plain("key").with("PCMCACHE_SIGN_KEY", "/nowhere/at/all"), &[CLANG]);
    assert_told(&told, "nothing is published", "PCMCACHE_SIGN_KEY");
    let told = doctor(&plain("pins").with("PCMCACHE_TRUSTED_KEYS", "oops"), &[CLANG]);
    assert_told(&told, "no server's result is used", "pcmcache config");

    let file = plain("file");
    fs_err::write(file.cache(), "no directory").expect("a file");
    assert_told(&doctor(&file, &[CLANG]), "is not a directory of this user's own", "PCMCACHE_DIR");

    let bin = scratch.dir("bin");
    fs_err::write(bin.join("ccache"), "#!/bin/sh\n").expect("a launcher");
    std::os::unix::fs::symlink("ccache", bin.join("clang++")).expect("a link");
    let made = std::process::Command::new("chmod").arg("+x").arg(bin.join("ccache")).status().expect("chmod");
    assert!(made.success());
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("PATH"));
    assert_told(&doctor(&plain("ccache").with("PATH", path), &[]), "is ccache by another name", "PATH");
}

/// A project of a module and its user, configured in the machine's build directory.
fn configure(scratch: &Scratch, machine: &Machine, arguments: &[String]) {
    let source = scratch.dir("project");
    scratch.file(
        "project/CMakeLists.txt",
        "cmake_minimum_required(VERSION 3.30)\nproject(doctor CXX)\nset(CMAKE_CXX_STANDARD 23)\nadd_library(m)\n\
         target_sources(m PUBLIC FILE_SET CXX_MODULES FILES m.cppm)\nadd_executable(use use.cpp)\n\
         target_link_libraries(use m)\nif(PCH)\n  target_precompile_headers(use PRIVATE <vector>)\nendif()\n",
    );
    scratch.file("project/m.cppm", "export module m;\nexport int m() { return 1; }\n");
    scratch.file("project/use.cpp", "import m;\nint main() { return m(); }\n");
    let words = ["-G", "Ninja", "-S", &source.to_string_lossy(), "-B", "."].map(str::to_owned);
    let ninja = format!("-DCMAKE_MAKE_PROGRAM={}", machine.ninja().display());
    let compiler = format!("-DCMAKE_CXX_COMPILER={CLANG}");
    let words = words.into_iter().chain([ninja, compiler]).chain(arguments.iter().cloned());
    machine.start(cmake(), words).finish().ok();
}

#[test]
fn a_cmake_build_is_looked_through() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("doctor-cmake");
    let module = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/cmake/pcmcache.cmake");
    let own = Machine::new(&scratch, "any").launcher().display().to_string();
    let case = |name: &str, arguments: &[&str]| {
        let machine = Machine::new(&scratch, name);
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        configure(&scratch, &machine, &arguments);
        doctor(&machine, &[CLANG])
    };
    let with_module = format!("-DCMAKE_PROJECT_TOP_LEVEL_INCLUDES={}", module.display());
    let program = format!("-DPCMCACHE_PROGRAM={own}");
    let launcher = format!("-DCMAKE_CXX_COMPILER_LAUNCHER={own}");

    let well = case("well", &[&with_module, &program]);
    assert_eq!(cares(&well), Vec::<String>::new(), "{}", well.transcript());
    assert!(well.stdout.contains("goes through this launcher"), "{}", well.transcript());

    let bare = case("bare", &[]);
    assert_told(&bare, "no launcher is set", "CMAKE_PROJECT_TOP_LEVEL_INCLUDES");
    assert_told(&bare, "scans for modules do not go through pcmcache", "CMAKE_PROJECT_TOP_LEVEL_INCLUDES");
    let half = case("half", &[&launcher]);
    assert!(!half.stdout.contains("no launcher is set"), "{}", half.transcript());
    assert_told(&half, "scans for modules do not go through pcmcache", "CMAKE_PROJECT_TOP_LEVEL_INCLUDES");
    let headers = case("headers", &[&with_module, &program, "-DPCH=ON"]);
    assert_told(&headers, "precompiled headers are used", "CMAKE_DISABLE_PRECOMPILE_HEADERS=ON");
    let other = case("other", &["-DCMAKE_CXX_COMPILER_LAUNCHER=/usr/bin/env"]);
    assert_told(&other, "the launcher is /usr/bin/env, and not pcmcache", "pcmcache alone");
    let copy = scratch.path().join("pcmcache");
    tool::copy(own.as_ref(), &copy);
    let copied = case("copied", &[&format!("-DCMAKE_CXX_COMPILER_LAUNCHER={}", copy.display())]);
    assert_told(&copied, "is another program than this pcmcache", "configure again with this one");
}
