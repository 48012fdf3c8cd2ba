//! A process that a test started: killed by its pid, never outliving the test, its end awaited with a limit.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::NamedTempFile;

use crate::patience::within;

/// What no test's process takes, unless it hangs.
pub const HANG: Duration = Duration::from_secs(90);

/// The variable by which [`alive`] knows whose process it is.
pub const MARK: &str = "PCMCACHE_TEST_MARK";

/// A running process. Its output goes to files: whoever inherits them cannot keep the test waiting.
#[derive(Debug)]
pub struct Process {
    what: String,
    child: Child,
    stdout: NamedTempFile,
    stderr: NamedTempFile,
    started: Instant,
}

impl Process {
    /// Starts it, with nothing on its standard input.
    pub fn start(mut command: Command) -> Self {
        let what = format!("{command:?}");
        let file = || NamedTempFile::new().expect("a file for a process's output");
        let (stdout, stderr) = (file(), file());
        let twin = |file: &NamedTempFile| Stdio::from(file.reopen().expect("a second handle"));
        let child = command
            .stdin(Stdio::null())
            .stdout(twin(&stdout))
            .stderr(twin(&stderr))
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {what}: {error}"));
        Self { what, child, stdout, stderr, started: Instant::now() }
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// How long it has been running.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Sends it a signal, if it still runs.
    pub fn signal(&mut self, signal: Signal) {
        if !self.ended() {
            kill_process(self.pid(), signal).expect("a signal for our own child");
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().expect("the state of our own child").is_some()
    }

    /// What it has written to its standard output so far.
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// What it has written to its standard error so far.
    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// Its end, which comes before [`HANG`].
    pub fn finish(self) -> Finished {
        self.finish_within(HANG)
    }

    /// Its end, which comes before `limit`.
    pub fn finish_within(mut self, limit: Duration) -> Finished {
        let what = std::mem::take(&mut self.what);
        let status = within(limit, &what, || self.child.try_wait().expect("the state of our own child"));
        let took = self.started.elapsed();
        Finished { what, status, stdout: self.stdout(), stderr: self.stderr(), took }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn text(file: &NamedTempFile) -> String {
    let bytes = fs_err::read(file.path()).expect("a process's output");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A process's end.
#[derive(Debug, Clone)]
pub struct Finished {
    what: String,
    /// How it ended.
    pub status: ExitStatus,
    /// All it wrote to its standard output.
    pub stdout: String,
    /// All it wrote to its standard error.
    pub stderr: String,
    /// From its start to its end.
    pub took: Duration,
}

impl Finished {
    /// Panics with all that is known unless it exited with 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.status.success(), "{}", self.transcript());
        self
    }

    /// The signal that ended it.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// What a terminal would show.
    pub fn transcript(&self) -> String {
        format!("$ {}\n{}{}[{} after {:?}]", self.what, self.stdout, self.stderr, self.status, self.took)
    }
}

/// The live processes that were started, by whomever, with [`MARK`] set to `mark`: pid and command line.
pub fn alive(mark: &str) -> Vec<String> {
    let wanted = format!("{MARK}={mark}");
    let processes = fs_err::read_dir("/proc").expect("/proc").flatten();
    let marked = processes.filter(|entry| {
        let environ = fs_err::read(entry.path().join("environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    });
    let line = |entry: fs_err::DirEntry| {
        let arguments = fs_err::read(entry.path().join("cmdline")).unwrap_or_default();
        let shown = String::from_utf8_lossy(&arguments).replace('\0', " ");
        format!("{} {shown}", entry.file_name().display())
    };
    marked.map(line).collect()
}
