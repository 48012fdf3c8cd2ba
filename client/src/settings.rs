//! What the user set: the environment first, then `config.toml`, then defaults.
//!
//! A value that cannot be read is a fault of the set-up, never of the build: it is noted, the default is taken.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcmcache_shared::{ProfileName, Scope};

use crate::bases::Bases;
use crate::signing::TrustedKeys;
use crate::size::ByteSize;
use crate::slots;

/// Which parts of the cache take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Look locally and at the server; store in both.
    ReadWrite,
    /// Look in both, wait for builds that are under way, publish nothing.
    ReadOnly,
    /// Do as if no server were set.
    Local,
    /// Hand every command to the compiler unchanged.
    Off,
}

impl Mode {
    /// The word for it in the environment and in `config.toml`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
            Self::Local => "local",
            Self::Off => "off",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::ReadWrite, Self::ReadOnly, Self::Local, Self::Off].into_iter().find(|mode| mode.word() == text)
    }
}

/// When something is done that does not pay with every server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Where it pays.
    Auto,
    /// With every server.
    On,
    /// Never.
    Off,
}

impl When {
    /// The word for it in the environment and in `config.toml`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Auto, Self::On, Self::Off].into_iter().find(|when| when.word() == text)
    }
}

/// When what was made goes to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upload {
    /// While its launch waits.
    Wait,
    /// Once its launch has ended, by a process that does it for all.
    Background,
}

impl Upload {
    /// The word for it in the environment and in `config.toml`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Background => "background",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Wait, Self::Background].into_iter().find(|upload| upload.word() == text)
    }
}

/// Where a value came from, for `pcmcache config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// `config.toml`.
    File,
    /// An environment variable.
    Environment,
}

/// How a server and the launcher know each other under TLS, by files in PEM form.
#[derive(Debug, Clone, Default)]
pub struct Papers {
    /// The authorities that servers are believed by; without it the system's.
    pub ca_file: Option<PathBuf>,
    /// What the launcher shows to a server that asks.
    pub client_cert: Option<PathBuf>,
    /// The key of that.
    pub client_key: Option<PathBuf>,
}

/// All that can be set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The cache directory.
    pub dir: PathBuf,
    /// The server's URL.
    pub remote: Option<String>,
    /// The token for the server.
    pub token: Option<String>,
    /// The file that holds it, if it was not said itself.
    pub token_file: Option<PathBuf>,
    /// How the server and the launcher know each other under TLS.
    pub papers: Papers,
    /// The key that results are signed with before they are published.
    pub sign_key: Option<PathBuf>,
    /// The keys that a server's results must be signed by; none: they are taken as they are.
    pub trusted_keys: Option<TrustedKeys>,
    /// The scope to read and write.
    pub scope: Scope,
    /// Which parts take part.
    pub mode: Mode,
    /// The longest wait for someone else's build of the same thing.
    pub wait: Duration,
    /// How long the server may take to accept and to begin an answer.
    pub timeout: Duration,
    /// When what was made goes to the server.
    pub upload: Upload,
    /// How many compilers run at once under the launchers of the cache directory; none: there is no limit.
    pub jobs: Option<usize>,
    /// When connections to the server are shared by way of an agent.
    pub agent: When,
    /// For how long an agent that nobody asks stays.
    pub agent_idle: Duration,
    /// When blobs travel packed.
    pub compress: When,
    /// The bound of the local store; none if it is 0.
    pub max_size: Option<ByteSize>,
    /// Launches note under this name which results they used.
    pub profile: Option<ProfileName>,
    /// Where to log; nowhere if not set.
    pub log: Option<PathBuf>,
    /// Where every launch appends its counts; nowhere if not set.
    pub stats_log: Option<PathBuf>,
    /// Checkouts in different places share what lies below these.
    pub base_dirs: Bases,
    /// Where each of the above came from, by its name in `config.toml`.
    pub sources: BTreeMap<&'static str, Source>,
    /// What could not be read, for people.
    pub faults: Vec<String>,
}

/// The largest configuration file anyone reads, in bytes.
const MAX_CONFIG: u64 = 1024 * 1024;
/// The names in `config.toml`; each is `PCMCACHE_` + upper case in the environment.
pub const NAMES: [&str; 23] = [
    "dir",
    "remote",
    "token",
    "token_file",
    "ca_file",
    "client_cert",
    "client_key",
    "sign_key",
    "trusted_keys",
    "scope",
    "mode",
    "wait",
    "timeout",
    "upload",
    "jobs",
    "agent",
    "agent_idle",
    "compress",
    "max_size",
    "profile",
    "log",
    "stats_log",
    "base_dirs",
];
/// The bound of the local store where nobody sets one.
const MAX_SIZE: ByteSize = ByteSize(10 << 30);

impl Settings {
    /// Reads the settings of this process.
    pub fn load() -> Self {
        Self::from_environment(&|name| std::env::var_os(name))
    }

    /// Reads the settings that this environment, and the files it names, make up.
    pub fn from_environment(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let mut reader = Reader::new(variable);
        let home = variable("HOME").map(PathBuf::from).unwrap_or_else(|| PathBuf::from("/"));
        let cache_home = directory(variable("XDG_CACHE_HOME")).unwrap_or_else(|| home.join(".cache"));
        let dir = reader.take("dir", |text| {
            Path::new(text).is_absolute().then(|| PathBuf::from(text)).ok_or("must be an absolute path")
        });
        let positive_seconds = |text: &str| {
            let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
            seconds.map(Duration::from_secs_f64).ok_or("must be a number of seconds, 0 to 86400")
        };
        let when = |text: &str| When::parse(text).ok_or("must be auto, on or off");
        let text = |text: &str| Ok(text.to_owned());
        let path = |text: &str| Ok(PathBuf::from(text));
        let trusted_keys = reader.trusted_keys();
        let size =
            |text: &str| text.parse().map_err(|_| "must be a size such as 500M, 10G or 5GiB; 0: no bound");
        Self {
            dir: dir.unwrap_or_else(|| cache_home.join("pcmcache")),
            remote: reader.take("remote", |text| {
                let plain = text.trim_end_matches('/');
                let known = ["https://", "http://"].iter().any(|scheme| plain.starts_with(scheme));
                known.then(|| plain.to_owned()).ok_or("must start with https:// or http://")
            }),
            token: reader.take("token", text),
            token_file: reader.take("token_file", path),
            sign_key: reader.take("sign_key", path),
            trusted_keys,
            papers: Papers {
                ca_file: reader.take("ca_file", path),
                client_cert: reader.take("client_cert", path),
                client_key: reader.take("client_key", path),
            },
            scope: reader
                .take("scope", |text| text.parse().map_err(|_| "is no scope name"))
                .unwrap_or_default(),
            mode: reader
                .take("mode", |text| Mode::parse(text).ok_or("must be read-write, read-only, local or off"))
                .unwrap_or(Mode::ReadWrite),
            wait: reader.take("wait", positive_seconds).unwrap_or(Duration::from_secs(300)),
            timeout: reader.take("timeout", positive_seconds).unwrap_or(Duration::from_secs(1)),
            upload: reader
                .take("upload", |text| Upload::parse(text).ok_or("must be wait or background"))
                .unwrap_or(Upload::Wait),
            jobs: reader.take("jobs", jobs).unwrap_or_else(cores),
            agent: reader.take("agent", when).unwrap_or(When::Auto),
            agent_idle: reader.take("agent_idle", positive_seconds).unwrap_or(Duration::from_secs(60)),
            compress: reader.take("compress", when).unwrap_or(When::Auto),
            max_size: Some(reader.take("max_size", size).unwrap_or(MAX_SIZE)).filter(|size| size.0 > 0),
            profile: reader.take("profile", |text| text.parse().map_err(|_| "is no name of a profile")),
            log: reader.take("log", path),
            stats_log: reader.take("stats_log", path),
            base_dirs: reader.take("base_dirs", Bases::parse).unwrap_or_default(),
            sources: reader.sources,
            faults: reader.faults,
        }
        .with_one_token()
    }

    /// The environment wins, also where it says in a file what the file says itself.
    fn with_one_token(mut self) -> Self {
        let from = |name| self.sources.get(name).copied();
        if (from("token"), from("token_file")) == (Some(Source::File), Some(Source::Environment)) {
            self.token = None;
        } else if self.token.is_some() {
            self.token_file = None;
        }
        self
    }
}

/// How many compilers run at once, as people write it.
fn jobs(text: &str) -> Result<Option<usize>, &'static str> {
    match text.parse() {
        _ if text == "off" => Ok(None),
        Ok(0) => Ok(None),
        Ok(count @ 1..=slots::MOST) => Ok(Some(count)),
        Ok(_) | Err(_) => Err("must be a number of compilers, 1 to 1024; 0 or off: no limit"),
    }
}

/// As many as this process may use.
fn cores() -> Option<usize> {
    std::thread::available_parallelism().ok().map(|cores| cores.get().min(slots::MOST))
}

fn directory(value: Option<OsString>) -> Option<PathBuf> {
    value.map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Takes values by name, and remembers where each came from and what was wrong with it.
struct Reader<'a> {
    variable: &'a dyn Fn(&str) -> Option<OsString>,
    file: toml::Table,
    sources: BTreeMap<&'static str, Source>,
    faults: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(variable: &'a dyn Fn(&str) -> Option<OsString>) -> Self {
        let mut reader =
            Self { variable, file: toml::Table::new(), sources: BTreeMap::new(), faults: Vec::new() };
        if let Some(path) = config_path(variable) {
            reader.read_file(&path);
        }
        reader
    }

    fn read_file(&mut self, path: &Path) {
        match fs_err::metadata(path) {
            Ok(metadata) if metadata.len() <= MAX_CONFIG => {}
            Ok(_) => {
                return self.faults.push(format!("{} is larger than {MAX_CONFIG} bytes", path.display()));
            }
            Err(_) => return,
        }
        match fs_err::read_to_string(path).map(|text| text.parse::<toml::Table>()) {
            Ok(Ok(table)) => self.file = table,
            Ok(Err(error)) => self.faults.push(format!("{}: {}", path.display(), error.message())),
            Err(error) => self.faults.push(error.to_string()),
        }
        for name in self.file.keys().filter(|name| !NAMES.contains(&name.as_str())) {
            self.faults.push(format!("{}: there is no setting '{name}'", path.display()));
        }
    }

    /// What cannot be read trusts nobody: that is what whoever set it wanted of everybody else.
    fn trusted_keys(&mut self) -> Option<TrustedKeys> {
        let keys = self.take("trusted_keys", |text| Ok(TrustedKeys::parse(text)))?;
        Some(keys.unwrap_or_else(|fault| {
            self.faults
                .push(format!("trusted_keys {fault}; until it is set right no server's result is used"));
            TrustedKeys::default()
        }))
    }

    fn take<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, &'static str>) -> Option<T> {
        let variable = format!("PCMCACHE_{}", name.to_uppercase());
        let set = (self.variable)(&variable).filter(|value| !value.is_empty());
        let (text, source, label) = if let Some(value) = set {
            (value.to_string_lossy().into_owned(), Source::Environment, variable)
        } else if let Some(value) = self.file.get(name) {
            let text = listed(name, value).unwrap_or_else(|| value.to_string());
            (text, Source::File, format!("config.toml: {name}"))
        } else {
            self.sources.insert(name, Source::Default);
            return None;
        };
        match parse(&text) {
            Ok(value) => {
                self.sources.insert(name, source);
                Some(value)
            }
            Err(fault) => {
                // A token is not repeated to whoever reads the log.
                let shown = if name == "token" { "..." } else { &text };
                self.faults.push(format!("{label} = '{shown}' {fault}; the default is taken"));
                self.sources.insert(name, Source::Default);
                None
            }
        }
    }
}

/// A value's text; of keys there may be a list.
fn listed(name: &str, value: &toml::Value) -> Option<String> {
    let words = value.as_array().filter(|_| name == "trusted_keys");
    let joined = || Some(words?.iter().map(toml::Value::as_str).collect::<Option<Vec<_>>>()?.join(" "));
    value.as_str().map(str::to_owned).or_else(joined)
}

/// Where the configuration file is looked for.
pub fn config_path(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let home = || directory(variable("HOME")).map(|home| home.join(".config"));
    let base = directory(variable("XDG_CONFIG_HOME")).or_else(home)?;
    Some(base.join("pcmcache/config.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        let map: BTreeMap<_, _> = variables.iter().copied().collect();
        Settings::from_environment(&|name| map.get(name).map(|value| OsString::from(*value)))
    }

    #[test]
    fn defaults() {
        let settings = settings(&[("HOME", "/home/ada")]);
        assert_eq!(settings.dir, Path::new("/home/ada/.cache/pcmcache"));
        assert_eq!((settings.remote, settings.mode), (None, Mode::ReadWrite));
        assert_eq!((settings.wait.as_secs(), settings.timeout.as_secs()), (300, 1));
        assert_eq!(settings.scope.as_str(), "main");
        assert!(settings.faults.is_empty());
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let dir = std::env::temp_dir().join(format!("pcmcache-settings-{}", std::process::id()));
        fs_err::create_dir_all(dir.join("pcmcache")).unwrap();
        fs_err::write(dir.join("pcmcache/config.toml"), "scope = 'pr-1'\nwait = 7\nwat = 1\n").unwrap();
        let read = settings(&[
            ("XDG_CONFIG_HOME", dir.to_str().unwrap()),
            ("PCMCACHE_SCOPE", "pr-2"),
            ("PCMCACHE_REMOTE", "http://cache:7733/"),
        ]);
        fs_err::remove_dir_all(&dir).unwrap();
        assert_eq!(read.scope.as_str(), "pr-2");
        assert_eq!(read.wait.as_secs(), 7);
        assert_eq!(read.remote.as_deref(), Some("http://cache:7733"));
        assert_eq!(read.sources.get("wait"), Some(&Source::File));
        assert_eq!(read.faults.len(), 1, "{:?}", read.faults);
    }

    #[test]
    fn pins_that_cannot_be_read_trust_nobody() {
        let key = "Mj4mXyIcTJ+xwkwXmlvYjIdhvR5YZSNaDDt/p/e0Ct0=";
        let pinned = |value: &str| settings(&[("PCMCACHE_TRUSTED_KEYS", value)]);
        assert_eq!(pinned(key).trusted_keys.unwrap().spelled(), [key]);
        assert_eq!(settings(&[]).trusted_keys, None);
        for bad in ["x", "@/nowhere", " "] {
            let read = pinned(bad);
            assert_eq!((read.trusted_keys, read.faults.len()), (Some(TrustedKeys::default()), 1), "{bad}");
        }
        let dir = std::env::temp_dir().join(format!("pcmcache-pins-{}", std::process::id()));
        fs_err::create_dir_all(dir.join("pcmcache")).unwrap();
        fs_err::write(dir.join("pcmcache/config.toml"), format!("trusted_keys = ['{key}', 'main:{key}']"))
            .unwrap();
        let read = settings(&[("XDG_CONFIG_HOME", dir.to_str().unwrap())]);
        fs_err::remove_dir_all(&dir).unwrap();
        assert_eq!(read.trusted_keys.unwrap().spelled(), [key.to_owned(), format!("main:{key}")]);
    }

    #[test]
    fn the_limit_of_compilers_is_a_number_or_off() {
        let jobs = |value: &str| settings(&[("PCMCACHE_JOBS", value)]);
        let default = settings(&[]).jobs;
        assert!(default.is_some());
        for (value, right) in [("1", Some(1)), ("1024", Some(1024)), ("0", None), ("off", None)] {
            assert_eq!((jobs(value).jobs, jobs(value).faults.len()), (right, 0), "{value}");
        }
        for bad in ["-1", "1025", "two", "1.5"] {
            assert_eq!((jobs(bad).jobs, jobs(bad).faults.len()), (default, 1), "{bad}");
        }
    }

    #[test]
    fn there_is_one_token() {
        let dir = std::env::temp_dir().join(format!("pcmcache-token-{}", std::process::id()));
        fs_err::create_dir_all(dir.join("pcmcache")).unwrap();
        fs_err::write(dir.join("pcmcache/config.toml"), "token = 'from the file'\n").unwrap();
        let home = ("XDG_CONFIG_HOME", dir.to_str().unwrap());
        let tokens = |settings: Settings| (settings.token, settings.token_file);
        let said = |text: &str| (Some(text.to_owned()), None);
        let file = ("PCMCACHE_TOKEN_FILE", "/run/token");
        assert_eq!(tokens(settings(&[home])), said("from the file"));
        assert_eq!(tokens(settings(&[home, file])), (None, Some("/run/token".into())));
        assert_eq!(tokens(settings(&[home, file, ("PCMCACHE_TOKEN", "said")])), said("said"));
        fs_err::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_cannot_be_read_is_noted_and_the_default_taken() {
        let read = settings(&[
            ("PCMCACHE_MODE", "sometimes"),
            ("PCMCACHE_WAIT", "soon"),
            ("PCMCACHE_DIR", "relative"),
            ("PCMCACHE_REMOTE", "cache:7733"),
            ("PCMCACHE_AGENT", "yes"),
            ("PCMCACHE_COMPRESS", "gzip"),
            ("PCMCACHE_UPLOAD", "later"),
        ]);
        assert_eq!((read.agent, read.compress, read.upload), (When::Auto, When::Auto, Upload::Wait));
        assert_eq!((read.mode, read.wait.as_secs(), read.remote.is_none()), (Mode::ReadWrite, 300, true));
        assert_eq!(read.faults.len(), 7, "{:?}", read.faults);
    }
}
