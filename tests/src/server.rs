//! A server that a test starts, kills and starts again on the same port and the same data.
//!
//! However it ended, its store is compared with its index afterwards, all bytes of it: what a test did to a server on its
//! way to something else must have left nothing half done.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::machine::{CLOCK, mutant, set_clock};
use crate::patience::within;
use crate::process::{Finished, MARK, Process};
use crate::{Scratch, http, tool};

/// A running server.
#[derive(Debug)]
pub struct Server {
    url: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    process: Process,
    /// What the processes before this one wrote to their standard error.
    past: String,
    /// Goes after the process.
    store: Store,
}

/// Its data directory, which is sound in the end.
#[derive(Debug)]
struct Store {
    data: PathBuf,
    mark: String,
    is_damaged: bool,
}

impl Store {
    /// Runs the server's program on the directory.
    fn run(&self, words: &[&str]) -> Finished {
        let mut command = Command::new(tool::server());
        command.env_clear().env(MARK, &self.mark).env(CLOCK, self.data.with_extension("clock"));
        command.arg("--data-dir").arg(&self.data).args(words);
        Process::start(command).finish()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if !self.is_damaged && !std::thread::panicking() {
            self.run(&["check", "--full"]).ok();
        }
    }
}

impl Server {
    /// A server with an empty data directory of its own in `scratch`, on a free port of the loopback interface.
    pub fn start(scratch: &Scratch) -> Self {
        Self::start_with(scratch, None)
    }

    /// The same, with these flags.
    pub fn start_as<A: Into<String>>(scratch: &Scratch, arguments: impl IntoIterator<Item = A>) -> Self {
        Self::start_all(scratch, arguments.into_iter().map(Into::into).collect(), Vec::new(), None)
    }

    /// The same, with these variables too; they are there after a restart as well.
    pub fn start_in(scratch: &Scratch, arguments: Vec<String>, environment: Vec<(String, String)>) -> Self {
        Self::start_all(scratch, arguments, environment, None)
    }

    /// The same, with this value of `PCMCACHE_FAILPOINT`.
    pub fn start_with(scratch: &Scratch, failpoint: Option<&str>) -> Self {
        Self::start_all(scratch, Vec::new(), Vec::new(), failpoint)
    }

    /// The same, with these variables, and with this value of `PCMCACHE_FAILPOINT` until it is restarted.
    pub fn start_planned(scratch: &Scratch, environment: Vec<(String, String)>, failpoint: &str) -> Self {
        Self::start_all(scratch, Vec::new(), environment, Some(failpoint))
    }

    fn start_all(
        scratch: &Scratch,
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
        failpoint: Option<&str>,
    ) -> Self {
        let (data, mark) = (scratch.path().join("server"), format!("{}#server", scratch.path().display()));
        let store = Store { data, mark, is_damaged: false };
        let process = run(&store, "127.0.0.1:0", &arguments, &environment, failpoint);
        let url = listening(&process);
        Self { url, arguments, environment, process, past: String::new(), store }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        let address = self.url.rsplit_once('/').and_then(|(_, address)| address.parse().ok());
        address.unwrap_or_else(|| panic!("no address is in {}", self.url))
    }

    /// Its URL.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.store.data
    }

    /// The test damages the store itself: it need not be sound in the end.
    pub fn is_damaged_on_purpose(&mut self) {
        self.store.is_damaged = true;
    }

    /// Runs `pcmcache-server token` with these words on its data directory.
    pub fn token(&self, words: &[&str]) -> Finished {
        self.store.run(&[&["token"], words].concat())
    }

    /// A token of this name with these rights. From the first one on the server asks for one.
    pub fn new_token(&self, name: &str, rights: &[&str]) -> String {
        let made = self.token(&[&["create", "--name", name], rights].concat()).ok();
        made.stdout.trim().to_owned()
    }

    /// Sets its wall clock so many seconds ahead of the true time, for what runs already too.
    pub fn is_ahead_by(&self, seconds: i64) {
        set_clock(&self.store.data.with_extension("clock"), seconds);
    }

    /// Whether its process has ended.
    pub fn ended(&mut self) -> bool {
        self.process.ended()
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// SIGKILL, and its end.
    pub fn kill(&mut self) {
        self.process.kill();
        within(Duration::from_secs(10), "the killed server's end", || self.process.ended().then_some(()));
    }

    /// SIGTERM, and its end within `limit`.
    pub fn terminate(mut self, limit: Duration) -> Finished {
        self.process.signal(Signal::TERM);
        self.process.finish_within(limit)
    }

    /// Starts again, once it has ended, on the same data directory and the same port.
    pub fn restart(&mut self) {
        self.restart_with(None);
    }

    /// The same, with this value of `PCMCACHE_FAILPOINT`.
    pub fn restart_with(&mut self, failpoint: Option<&str>) {
        assert!(self.process.ended(), "the server still runs");
        self.past = self.log();
        let address = self.address().to_string();
        self.process = run(&self.store, &address, &self.arguments, &self.environment, failpoint);
        assert_eq!(listening(&self.process), self.url);
    }

    /// All that it, and those before it, wrote to standard error.
    pub fn log(&self) -> String {
        format!("{}{}", self.past, self.process.stderr())
    }

    /// How many results it holds.
    pub fn results(&self) -> u64 {
        self.metric("pcmcache_results") as u64
    }

    /// The values of `/metrics` whose name starts with `name`, summed over their labels.
    pub fn metric(&self, name: &str) -> f64 {
        let page = http::get(self.address(), "/metrics").text();
        let values: Vec<f64> = page
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])))
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .collect();
        assert!(!values.is_empty(), "no metric {name} in\n{page}");
        values.iter().sum()
    }
}

fn run(
    store: &Store,
    listen: &str,
    arguments: &[String],
    environment: &[(String, String)],
    failpoint: Option<&str>,
) -> Process {
    let mut command = Command::new(tool::server());
    command.env_clear().env(MARK, &store.mark).args(["--listen", listen, "--data-dir"]).arg(&store.data);
    command.args(arguments).envs(mutant()).env(CLOCK, store.data.with_extension("clock"));
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    if let Some(failpoint) = failpoint {
        command.env("PCMCACHE_FAILPOINT", failpoint);
    }
    Process::start(command)
}

/// The URL in the first line of its output: `listening on http://ADDR:PORT`.
fn listening(process: &Process) -> String {
    let line = within(Duration::from_secs(20), "the server's first line", || {
        process.stdout().split_once('\n').map(|(line, _)| line.to_owned())
    });
    let url =
        line.strip_prefix("listening on ").unwrap_or_else(|| panic!("the server's first line is {line:?}"));
    url.to_owned()
}
