//! What lies in `deploy/` is looked at by the tools of those who will use it, and what it sets is given to a real server.

#[path = "deploy/chart.rs"]
mod chart;
#[path = "deploy/ci.rs"]
mod ci;
#[path = "deploy/container.rs"]
mod container;
#[path = "deploy/examples.rs"]
mod examples;
#[path = "deploy/prometheus.rs"]
mod prometheus;
#[path = "deploy/started.rs"]
mod started;
#[path = "deploy/systemd.rs"]
mod systemd;

use std::path::Path;
use std::process::Command;

use pcmcache_tests::{Finished, Process, tool};

/// Runs a checker, found by its variable or in PATH.
fn check(variable: &str, name: &str, arguments: &[&str], file: &Path) -> Finished {
    let mut command = Command::new(tool::installed(variable, name));
    command.args(arguments).arg(file);
    Process::start(command).finish()
}
