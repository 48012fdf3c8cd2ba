//! The unit, by systemd's own checkers, and what it allows against what a server does.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use pcmcache_shared::{Digest, Scope, api};
use pcmcache_tests::{Process, Scratch, deployed, http, tool};
use rustix::process::{Pid, Signal, kill_process};

use crate::check;
use crate::started::{is_ready, listening};

const UNIT: &str = "deploy/systemd/pcmcache-server.service";
const SETTINGS: &str = "deploy/systemd/pcmcache-server.env";

/// In tenths: 0 is a service that may do nothing, 100 one that may do all. Most of Debian's are above 90.
const MOST_EXPOSURE: &str = "15";

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let scratch = Scratch::new("unit");
    // The program is not installed here.
    let program = tool::server().display().to_string();
    let unit = deployed::changed(UNIT, deployed::text(UNIT), &[("/usr/bin/pcmcache-server", &program)]);
    let unit = scratch.file("pcmcache-server.service", unit);
    let end = check("PCMCACHE_TEST_SYSTEMD_ANALYZE", "systemd-analyze", &["--man=no", "verify"], &unit);
    let ours: Vec<_> = end.stderr.lines().filter(|line| line.contains("pcmcache-server")).collect();
    assert!(end.status.success() && ours.is_empty(), "{}", end.transcript());

    let threshold = format!("--threshold={MOST_EXPOSURE}");
    let arguments = ["--no-pager", "security", "--offline=true", &threshold];
    let end = check("PCMCACHE_TEST_SYSTEMD_ANALYZE", "systemd-analyze", &arguments, &unit);
    assert!(end.status.success(), "{}", end.transcript());
}

#[test]
fn what_the_unit_sets_the_server_understands() {
    let text = deployed::text(UNIT);
    let set = text.lines().filter_map(|line| line.strip_prefix("Environment="));
    let variables: Vec<_> = set.filter_map(|set| set.split_once('=')).map(owned).collect();
    assert!(variables.iter().any(|(name, _)| name == "PCMCACHE_SERVER_DATA_DIR"), "{variables:?}");
    is_ready(&Scratch::new("unit-settings"), &variables);
}

#[test]
fn what_the_settings_show_the_server_understands() {
    let scratch = Scratch::new("settings");
    let text = deployed::text(SETTINGS);
    let shown = text.lines().filter_map(|line| line.strip_prefix('#')?.split_once('='));
    // One thing or the other; and there is no such certificate here.
    let shown = shown.filter(|(name, _)| !name.contains("_TLS_") && !name.ends_with("_LISTEN"));
    let log = scratch.dir("log").display().to_string();
    let here = |value: &str| value.replace("/var/log/pcmcache-server", &log);
    let plain: Vec<_> = shown.map(|(name, value)| (name.to_owned(), here(value))).collect();
    assert!(!plain.is_empty(), "{text}");
    is_ready(&scratch, &plain);
    assert!(scratch.path().join("log/audit.log").exists(), "{plain:?}");
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// A filter that lacks one call shows in production as an error that nobody understands.
#[test]
fn the_unit_allows_every_system_call_that_a_server_makes() {
    let scratch = Scratch::new("system-calls");
    let made = calls_of_a_session(&scratch);
    assert!(made.contains("fdatasync") && made.contains("accept4"), "{made:?}");
    let allowed = allowed_calls();
    let refused: Vec<_> = made.difference(&allowed).collect();
    assert!(refused.is_empty(), "the unit refuses {refused:?}");
    assert!(!allowed.contains("mount") && !allowed.contains("ptrace"), "the unit allows all: {allowed:?}");
}

/// Start, upload, download, refusal, counts, a check that the server is asked for, end.
fn calls_of_a_session(scratch: &Scratch) -> BTreeSet<String> {
    let trace = scratch.path().join("trace");
    let mut command = Command::new(tool::installed("PCMCACHE_TEST_STRACE", "strace"));
    command.args(["-f", "-qq", "-s", "0", "-e", "signal=none", "-o"]).arg(&trace).arg(tool::server());
    command.env_clear().args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(scratch.dir("data"));
    let (process, server) = listening(Process::start(command));
    let path = api::blobs::path(&Scope::default(), Digest::of("hello"));
    let put = http::ask(server, "PUT", &path, &[("Content-Type", "application/octet-stream")], b"hello");
    assert_eq!(put.expect("an answer").status, 201);
    assert_eq!(http::get(server, &path).body, b"hello");
    assert_eq!(http::get(server, "/nothing").status, 404);
    assert_eq!(http::get(server, "/metrics").status, 200);
    let mut check = Command::new(tool::server());
    check.env_clear().args(["check", "--full", "--data-dir"]).arg(scratch.dir("data"));
    Process::start(check).finish().ok();
    kill_process(child_of(process.pid()), Signal::TERM).expect("a signal for the server");
    process.finish_within(Duration::from_secs(20)).ok();
    let text = fs_err::read_to_string(&trace).expect("a trace");
    text.lines().filter_map(call_of).map(str::to_owned).collect()
}

/// The server, which strace started.
fn child_of(parent: Pid) -> Pid {
    let listed = format!("/proc/{0}/task/{0}/children", parent.as_raw_nonzero());
    let children = fs_err::read_to_string(listed).expect("strace's children");
    let child = children.split_ascii_whitespace().next().and_then(|pid| pid.parse().ok());
    child.and_then(Pid::from_raw).unwrap_or_else(|| panic!("strace has no child: {children:?}"))
}

/// `1234 openat(...` or `1234 <... openat resumed>...`.
fn call_of(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(' ')?;
    let rest = rest.trim_start();
    match rest.strip_prefix("<... ") {
        Some(resumed) => resumed.split(' ').next(),
        None => rest.split_once('(').map(|(name, _)| name).filter(|name| !name.contains(' ')),
    }
}

/// The lines of the unit's filter, one after the other, as systemd reads them.
fn allowed_calls() -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    let unit = deployed::text(UNIT);
    for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (names, without) = match line.strip_prefix('~') {
            Some(names) => (names, true),
            None => (line, false),
        };
        for call in names.split(' ').flat_map(expanded) {
            if without {
                allowed.remove(&call)
            } else {
                allowed.insert(call)
            };
        }
    }
    // systemd itself allows these wherever a filter is set.
    allowed.extend(["execve", "exit", "exit_group", "rt_sigreturn"].map(str::to_owned));
    allowed
}

/// A call, or all calls of a set.
fn expanded(name: &str) -> Vec<String> {
    if !name.starts_with('@') {
        return vec![name.to_owned()];
    }
    let mut command = Command::new(tool::installed("PCMCACHE_TEST_SYSTEMD_ANALYZE", "systemd-analyze"));
    command.args(["--no-pager", "syscall-filter", name]);
    let listed = Process::start(command).finish().ok().stdout;
    let names =
        listed.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    names.flat_map(expanded).collect()
}
