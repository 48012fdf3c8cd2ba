//! The image's file and the compose file. No image is built: that takes an engine, and bases from a registry.

use std::process::Command;

use pcmcache_tests::{Process, Scratch, deployed, tool};

use crate::check;
use crate::started::is_ready;

const FILE: &str = "deploy/container/Containerfile";
const COMPOSE: &str = "deploy/compose/compose.yaml";

#[test]
fn the_linter_finds_nothing() {
    let end =
        check("PCMCACHE_TEST_HADOLINT", "hadolint", &["--failure-threshold", "style"], &deployed::file(FILE));
    assert!(end.status.success() && end.stdout.is_empty(), "{}", end.transcript());
}

#[test]
fn the_image_runs_as_nobody_and_adds_nothing_from_afar() {
    let text = deployed::text(FILE);
    let last = text.rsplit("\nFROM ").next().expect("a last stage");
    let user = last.lines().find_map(|line| line.strip_prefix("USER ")).expect("a user");
    // A cluster that asks for runAsNonRoot can tell by a number only.
    assert!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "USER {user}");
    assert!(!text.contains("\nADD ") && !last.contains("\nRUN "), "{text}");
    for base in
        text.lines().filter_map(|line| line.strip_prefix("ARG ")).filter_map(|arg| arg.split_once('='))
    {
        assert!(base.1.contains(':') && !base.1.ends_with(":latest"), "the base {base:?} may be anything");
    }
}

/// The last stage has the C library, its mathematics and the unwinder, and nothing else.
#[test]
fn the_program_needs_no_library_that_the_image_lacks() {
    let mut ldd = Command::new("ldd");
    ldd.arg(tool::server());
    let listed = Process::start(ldd).finish().ok().stdout;
    let there = [
        "linux-vdso.so",
        "ld-linux",
        "libc.so.6",
        "libm.so.6",
        "libgcc_s.so.1",
        "libdl.so.2",
        "libpthread.so.0",
    ];
    for line in listed.lines().map(str::trim) {
        let name = line.split_ascii_whitespace().next().unwrap_or_default();
        let name = name.rsplit('/').next().unwrap_or(name);
        assert!(there.iter().any(|known| name.starts_with(known)), "{line}");
    }
    assert!(listed.contains("libc.so.6"), "{listed}");
}

#[test]
fn what_the_image_sets_the_server_understands() {
    let text = deployed::text(FILE);
    let (_, from_env) = text.split_once("\nENV ").expect("variables");
    let block = from_env.lines().scan(true, |more, line| {
        let this = *more;
        *more = line.ends_with('\\');
        this.then_some(line)
    });
    let variables: Vec<_> = block
        .filter_map(|line| line.trim_end_matches('\\').trim().split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert!(variables.len() > 1, "{variables:?}");
    is_ready(&Scratch::new("image"), &variables);
}

#[test]
fn the_compose_file_is_one() {
    let schema = ["--builtin-schema", "vendor.compose-spec"];
    let end = check("PCMCACHE_TEST_CHECK_JSONSCHEMA", "check-jsonschema", &schema, &deployed::file(COMPOSE));
    assert!(end.status.success(), "{}", end.transcript());
}
