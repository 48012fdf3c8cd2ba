//! A machine of the fleet: a cache directory, a build directory, an environment of its own.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, lchown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use pcmcache::launch::sync::SYNC;
use pcmcache::remote::agent::AGENT;
use rustix::process::{Pid, getuid};
use serde::Deserialize;

use crate::process::MARK;
use crate::scratch::files_below;
use crate::tool::{self, CLANG};
use crate::{Finished, Process, Scratch, Unit, Weight};

/// Somebody without rights (Debian's `nobody`).
pub const NOBODY: u32 = 65534;

/// The variable that names the file which says by how many seconds a program's wall clock is off.
pub(crate) const CLOCK: &str = "PCMCACHE_TEST_CLOCK";

/// Names the promise that all programs of a run break: `tests/mutants.sh` sets it.
const MUTANT: &str = "PCMCACHE_TEST_MUTANT";

/// What a program under test is told of it.
pub(crate) fn mutant() -> Option<(&'static str, OsString)> {
    Some((MUTANT, std::env::var_os(MUTANT)?))
}

/// Writes that file. It is never there in part.
pub(crate) fn set_clock(file: &Path, seconds: i64) {
    let beside = file.with_extension("new");
    fs_err::write(&beside, seconds.to_string()).expect("a clock");
    fs_err::rename(&beside, file).expect("a clock");
}

/// One machine. Its processes see only the variables that it names: nothing of who runs the test.
#[derive(Debug, Clone)]
pub struct Machine {
    home: PathBuf,
    build: PathBuf,
    mark: String,
    env: BTreeMap<OsString, OsString>,
    launcher: PathBuf,
    ninja: PathBuf,
    user: Option<u32>,
}

impl Machine {
    /// A machine that has never built anything, with directories of its own in `scratch`.
    pub fn new(scratch: &Scratch, name: &str) -> Self {
        let home = scratch.dir(name);
        let build = scratch.dir(&format!("{name}/build"));
        let mark = home.to_string_lossy().into_owned();
        let env = BTreeMap::new();
        let machine = Self {
            home: home.clone(),
            build,
            mark: mark.clone(),
            env,
            launcher: tool::launcher(),
            ninja: tool::ninja(),
            user: None,
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        machine
            .with("PATH", path)
            .with("HOME", &home)
            .with("TMPDIR", scratch.dir(&format!("{name}/tmp")))
            .with("LC_ALL", "C")
            .with(MARK, mark)
            .with("PCMCACHE_DIR", home.join("cache"))
            .with("PCMCACHE_LOG", home.join("log"))
            .with(CLOCK, home.join("clock"))
            // A server that is slow because all tests run beside it is not what they are about.
            .with("PCMCACHE_TIMEOUT", "5")
    }

    /// With this variable.
    pub fn with(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.into(), value.as_ref().to_owned());
        self
    }

    /// Without this variable.
    pub fn without(mut self, name: &str) -> Self {
        self.env.remove(OsStr::new(name));
        self
    }

    /// With this server.
    pub fn remote(self, url: &str) -> Self {
        self.with("PCMCACHE_REMOTE", url)
    }

    /// With another launcher than the one with failpoints.
    pub fn with_launcher(self, launcher: PathBuf) -> Self {
        Self { launcher, ..self }
    }

    /// That stops at this step of a launch: announces itself by `at`, goes on once `at` is removed.
    pub fn waiting(self, failpoint: &str, at: &Path) -> Self {
        self.with("PCMCACHE_FAILPOINT", format!("{failpoint}=wait:{}", at.display()))
    }

    /// Sets its wall clock so many seconds ahead of the true time, for what runs already too.
    pub fn is_ahead_by(&self, seconds: i64) {
        set_clock(&self.home.join("clock"), seconds);
    }

    /// With a copy of another's cache: getting to know a compiler takes a second, which a test of many machines has not.
    pub fn knowing(self, other: &Self) -> Self {
        for file in files_below(&other.cache()) {
            let to = self.cache().join(&file);
            fs_err::create_dir_all(to.parent().expect("a directory")).expect("a directory");
            fs_err::copy(other.cache().join(&file), to).expect("what is known of the compiler");
        }
        self
    }

    /// One that has compiled something, and counted nothing.
    pub fn experienced(scratch: &Scratch) -> Self {
        let machine = Self::new(scratch, "experienced");
        machine.compile(Unit::write(scratch, "experience", 7, Weight::Light).arguments()).ok();
        machine.start(&machine.launcher, ["stats", "--zero"]).finish().ok();
        machine
    }

    /// With a second build directory, and the same cache.
    pub fn building_in(mut self, build: PathBuf) -> Self {
        fs_err::create_dir_all(&build).expect("a build directory");
        self.build = build;
        self
    }

    /// The same machine, whose processes are told apart by this name.
    pub fn marked(self, name: &str) -> Self {
        let mark = format!("{}#{name}", self.mark);
        Self { mark: mark.clone(), ..self.with(MARK, mark) }
    }

    /// The same machine, used by somebody for whom permissions count: root is none.
    pub fn used_by_no_root(self) -> Self {
        if getuid().is_root() { self.used_by(NOBODY) } else { self }
    }

    /// The same machine, used by somebody else: its directories become theirs, and they run copies of the launcher and
    /// of ninja that lie where they may read them.
    fn used_by(mut self, user: u32) -> Self {
        let scratch = self.home.parent().expect("a machine lies in a scratch directory").to_owned();
        for (tool, name) in [(&mut self.launcher, "pcmcache"), (&mut self.ninja, "ninja")] {
            let copy = scratch.join(name);
            if !copy.exists() {
                crate::tool::copy(tool, &copy);
            }
            *tool = copy;
        }
        for path in files_and_directories(&self.home) {
            lchown(&path, Some(user), Some(user)).expect("only root gives files away");
        }
        for dir in [&scratch, &self.home] {
            fs_err::set_permissions(dir, Permissions::from_mode(0o755)).expect("a way in");
        }
        self.user = Some(user);
        self
    }

    /// The launcher.
    pub fn launcher(&self) -> &Path {
        &self.launcher
    }

    /// Ninja, where the machine's user may run it.
    pub fn ninja(&self) -> &Path {
        &self.ninja
    }

    /// The directory that builds run in.
    pub fn build(&self) -> &Path {
        &self.build
    }

    /// The cache directory.
    pub fn cache(&self) -> PathBuf {
        self.env.get(OsStr::new("PCMCACHE_DIR")).map(PathBuf::from).expect("PCMCACHE_DIR of a machine")
    }

    /// The launcher's log, so far.
    pub fn log(&self) -> String {
        let bytes = fs_err::read(self.home.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The machine's processes that are alive.
    pub fn alive(&self) -> Vec<String> {
        crate::process::alive(&self.mark)
    }

    /// The agents of this machine that run. They know nothing of who started them but where the cache is.
    pub fn agents(&self) -> Vec<Pid> {
        self.running(AGENT)
    }

    /// The processes of this machine that upload for launches that have ended.
    pub fn uploaders(&self) -> Vec<Pid> {
        self.running(SYNC)
    }

    /// The processes of this machine's cache that were started with this word.
    pub fn running(&self, word: &str) -> Vec<Pid> {
        let cache = [b"PCMCACHE_DIR=", self.cache().as_os_str().as_encoded_bytes()].concat();
        let holds = |pid: &str, file: &str, what: &[u8]| {
            let bytes = fs_err::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            bytes.split(|byte| *byte == 0).any(|word| word == what)
        };
        let names = fs_err::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.file_name());
        names
            .filter_map(|name| name.into_string().ok())
            .filter(|pid| holds(pid, "cmdline", word.as_bytes()) && holds(pid, "environ", &cache))
            .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
            .collect()
    }

    /// Where the sockets of its agents are.
    pub fn sockets(&self) -> Vec<PathBuf> {
        let directory = self.cache().join("v1/agents");
        let files = fs_err::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
        files.filter(|path| path.extension().is_none()).collect()
    }

    /// A command that runs on this machine, in its build directory.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.build).env_clear().envs(mutant()).envs(&self.env);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    /// Starts a program on this machine.
    pub fn start<A: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Process {
        let mut command = self.command(program);
        command.args(arguments);
        Process::start(command)
    }

    /// Starts the launcher with the compiler and these arguments.
    pub fn launch<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Process {
        let mut command = self.command(&self.launcher);
        command.arg(CLANG).args(arguments);
        Process::start(command)
    }

    /// Runs the launcher with the compiler and these arguments.
    pub fn compile<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Finished {
        self.launch(arguments).finish()
    }

    /// Runs the compiler itself with these arguments.
    pub fn bare<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Finished {
        self.start(CLANG, arguments).finish()
    }

    /// What the launchers of this machine counted.
    pub fn stats(&self) -> Stats {
        let shown = self.start(&self.launcher, ["stats", "--format", "json"]).finish().ok();
        serde_json::from_str(&shown.stdout).unwrap_or_else(|error| {
            panic!("stats are not what they should be: {error}\n{}", shown.transcript())
        })
    }
}

fn files_and_directories(top: &Path) -> Vec<PathBuf> {
    let is_dir = fs_err::symlink_metadata(top).is_ok_and(|metadata| metadata.is_dir());
    let below = is_dir.then(|| fs_err::read_dir(top)).into_iter().flatten().flatten().flatten();
    let nested = below.flat_map(|entry| files_and_directories(&entry.path()));
    std::iter::once(top.to_owned()).chain(nested).collect()
}

/// What `pcmcache stats --format json` says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Stats {
    /// Compilers actually run for cacheable compile commands.
    pub compiles: u64,
    /// Scanners actually run.
    pub scans: u64,
    /// Results taken from the machine's own store.
    pub local_hits: u64,
    /// Results taken from the server.
    pub remote_hits: u64,
    /// Scans among these.
    pub scan_hits: u64,
    /// Times it waited for another builder.
    pub waits: u64,
    /// Results of others taken in place of its own.
    pub adopted: u64,
    /// Results that differ from what others made of the same.
    pub diverged: u64,
    /// Command lines handed to the compiler, by reason.
    pub bypassed: BTreeMap<String, u64>,
    /// Faults, by kind.
    pub errors: BTreeMap<String, u64>,
    /// Bytes sent to the server.
    pub uploaded_bytes: u64,
    /// Bytes taken from the server.
    pub downloaded_bytes: u64,
}
