//! A server that was given what a file of `deploy/` gives it, but for a directory of its own and a free port.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use pcmcache_tests::{Process, Scratch, http, tool, within};

/// Starts one with these variables, and asks it whether it is ready.
pub(crate) fn is_ready(scratch: &Scratch, variables: &[(String, String)]) {
    let mut command = Command::new(tool::server());
    // The command line wins over the environment.
    command.env_clear().envs(variables.iter().cloned());
    command.args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(scratch.dir("data"));
    let (_process, address) = listening(Process::start(command));
    assert_eq!(http::get(address, "/readyz").status, 200);
}

/// The process, and where it says that it listens.
pub(crate) fn listening(mut process: Process) -> (Process, SocketAddr) {
    let line = within(Duration::from_secs(20), "the server's first line, or its end", || {
        let said = process.stdout();
        let line = said.split_once('\n').map(|(line, _)| line.to_owned());
        if line.is_none() && process.ended() {
            panic!("the server ended:\n{said}{}", process.stderr());
        }
        line
    });
    let address = line.rsplit_once("//").and_then(|(_, address)| address.parse().ok());
    (process, address.unwrap_or_else(|| panic!("the server's first line is {line:?}")))
}
