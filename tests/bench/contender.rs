//! What stands before the compiler: nothing, the launcher, a peer. Each with a cache of its own that starts empty.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pcmcache_tests::tool::CLANG;

/// A way to run the compiler.
#[derive(Debug)]
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    program: Option<PathBuf>,
    env: Vec<(&'static str, OsString)>,
    count: Option<Count>,
}

/// How to learn from a peer's own statistics how many commands it answered from its cache.
#[derive(Debug, Clone, Copy)]
struct Count {
    words: &'static [&'static str],
    read: fn(&str) -> Option<u64>,
}

impl Contender {
    /// The compiler alone.
    pub(crate) fn bare(scratch: &Path) -> Self {
        Self {
            name: "bare",
            version: version(Path::new(CLANG)),
            program: None,
            env: env(scratch),
            count: None,
        }
    }

    /// The launcher.
    pub(crate) fn pcmcache(program: &Path, scratch: &Path) -> Self {
        let mut env = env(scratch);
        env.push(("PCMCACHE_DIR", scratch.join("pcmcache").into()));
        let count = Count { words: &["stats", "--format", "json"], read: |text| json(text, "/local_hits") };
        Self::cache("pcmcache", program, env, count)
    }

    /// ccache, if it is there.
    pub(crate) fn ccache(scratch: &Path) -> Option<Self> {
        let mut env = env(scratch);
        env.push(("CCACHE_DIR", scratch.join("ccache").into()));
        let read = |text: &str| {
            let direct = text.lines().find_map(|line| line.strip_prefix("direct_cache_hit"))?;
            direct.trim().parse().ok()
        };
        let count = Count { words: &["--print-stats"], read };
        Some(Self::cache("ccache", &in_path("ccache")?, env, count))
    }

    /// sccache with a server of its own, if it is there.
    pub(crate) fn sccache(scratch: &Path) -> Option<Self> {
        let program = in_path("sccache")?;
        let mut env = env(scratch);
        env.push(("SCCACHE_DIR", scratch.join("sccache").into()));
        env.push(("SCCACHE_SERVER_UDS", scratch.join("sccache.socket").into()));
        env.push(("SCCACHE_IDLE_TIMEOUT", "600".into()));
        let words = &["--show-stats", "--stats-format", "json"];
        let read = |text: &str| {
            let stats: serde_json::Value = serde_json::from_str(text).ok()?;
            let hits = stats.pointer("/stats/cache_hits/counts")?.as_object()?;
            Some(hits.values().filter_map(serde_json::Value::as_u64).sum())
        };
        let this = Self::cache("sccache", &program, env, Count { words, read });
        this.tool(&["--start-server"]).is_some().then_some(this)
    }

    fn cache(name: &'static str, program: &Path, env: Vec<(&'static str, OsString)>, count: Count) -> Self {
        let (version, count) = (version(program), Some(count));
        Self { name, version, program: Some(program.to_owned()), env, count }
    }

    /// Whether this is the compiler alone.
    pub(crate) fn is_bare(&self) -> bool {
        self.program.is_none()
    }

    /// A command that compiles.
    pub(crate) fn command(&self, directory: &Path, arguments: &[String]) -> Command {
        let mut command = match &self.program {
            Some(program) => {
                let mut command = Command::new(program);
                command.arg(CLANG);
                command
            }
            None => Command::new(CLANG),
        };
        command.args(arguments).current_dir(directory).env_clear();
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// From the start of the command to its end, if it succeeds.
    pub(crate) fn time(&self, directory: &Path, arguments: &[String]) -> Option<Duration> {
        let mut command = self.command(directory, arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let start = Instant::now();
        let status = command.status().ok()?;
        let took = start.elapsed();
        status.success().then_some(took)
    }

    /// How many commands it answered from its cache so far.
    pub(crate) fn hits(&self) -> Option<u64> {
        let count = self.count?;
        (count.read)(&self.tool(count.words)?)
    }

    fn tool(&self, words: &[&str]) -> Option<String> {
        let mut command = Command::new(self.program.as_ref()?);
        command.args(words).env_clear().envs(self.env.iter().map(|(name, value)| (name, value)));
        let output = command.stdin(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        if self.name == "sccache" {
            let _ = self.tool(&["--stop-server"]);
        }
    }
}

/// Nothing of who runs the bench but where the tools are.
fn env(scratch: &Path) -> Vec<(&'static str, OsString)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    vec![("PATH", path), ("HOME", scratch.into()), ("LC_ALL", "C".into())]
}

fn json(text: &str, pointer: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(text).ok()?.pointer(pointer)?.as_u64()
}

fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

fn in_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}
