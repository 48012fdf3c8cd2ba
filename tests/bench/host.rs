//! What the numbers were taken on, and of which versions.

use std::path::Path;
use std::process::Command;

use pcmcache_tests::tool::{self, CLANG};
use serde_json::{Value, json};

pub(crate) fn describe() -> String {
    let said = json();
    let text = |name: &str| said[name].as_str().unwrap_or("unknown").to_owned();
    let versions = said["versions"].as_object().into_iter().flatten();
    let versions: String = versions
        .map(|(name, version)| format!("\n  {name:<14} {}", version.as_str().unwrap_or("not found")))
        .collect();
    format!(
        "{}; {} cores of {}; Linux {}; load {}{versions}\n\nms: median [10 %-90 %]",
        text("date"),
        said["cores"],
        text("cpu"),
        text("kernel"),
        text("load")
    )
}

pub(crate) fn json() -> Value {
    let read = |path: &str| fs_err::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let load = read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let peers = ["ccache", "sccache", "redis-server", "cmake", "ninja"].map(|name| {
        let version = tool::if_installed(name).and_then(|program| version(&program, "--version"));
        (name.to_owned(), json!(version))
    });
    let mut versions = serde_json::Map::from_iter(peers);
    versions.insert("clang".to_owned(), json!(version(Path::new(CLANG), "--version")));
    versions.insert("nginx".to_owned(), json!(version(&tool::nginx(), "-v")));
    json!({
        "date": said(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"])),
        "cores": cores,
        "cpu": cpu.map(|(_, model)| model),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load": load,
        "versions": versions,
    })
}

fn version(program: &Path, flag: &str) -> Option<String> {
    said(Command::new(program).arg(flag))
}

/// The first line that it says.
fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    text.lines().next().map(str::to_owned)
}
