//! What connections to a server depend on. Launchers that agree on all of it may share an agent.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use pcmcache_shared::Digest;
use pcmcache_shared::api::WIRE;

use crate::os::{self, FileId};
use crate::settings::Settings;

/// What TLS and HTTP read of the environment themselves, and whether it names a file or a directory.
const VARIABLES: [(&str, bool); 10] = [
    ("SSL_CERT_FILE", true),
    ("SSL_CERT_DIR", true),
    ("HTTPS_PROXY", false),
    ("https_proxy", false),
    ("HTTP_PROXY", false),
    ("http_proxy", false),
    ("ALL_PROXY", false),
    ("all_proxy", false),
    ("NO_PROXY", false),
    ("no_proxy", false),
];

/// For how long it stays does not tell one agent from another.
const IDLE: &str = "PCMCACHE_AGENT_IDLE";
/// Those of our own variables that name files.
const FILES: [&str; 3] = ["PCMCACHE_CA_FILE", "PCMCACHE_CLIENT_CERT", "PCMCACHE_CLIENT_KEY"];

/// The variables that an agent is started with: no token, and nothing of the build. It runs elsewhere, so that paths are
/// absolute.
pub(super) fn environment(settings: &Settings, url: &str) -> Vec<(&'static str, OsString)> {
    let papers = &settings.papers;
    let files = [&papers.ca_file, &papers.client_cert, &papers.client_key];
    let mut environment = vec![
        ("PCMCACHE_DIR", settings.dir.clone().into_os_string()),
        ("PCMCACHE_REMOTE", OsString::from(url)),
        (IDLE, settings.agent_idle.as_secs_f64().to_string().into()),
    ];
    for (name, file) in FILES.into_iter().zip(files) {
        environment.extend(file.as_ref().map(|path| (name, absolute(path).into_os_string())));
    }
    for (name, is_path) in VARIABLES {
        let value = std::env::var_os(name).filter(|value| !value.is_empty());
        let spelled = |value: OsString| {
            if is_path { absolute(Path::new(&value)).into_os_string() } else { value }
        };
        environment.extend(value.map(|value| (name, spelled(value))));
    }
    environment
}

/// A digest of these variables, of the files they name as they are now, of this program, and of the network it is in: the
/// cache directory may be on a file system that other hosts and containers see as well.
pub(super) fn serves(environment: &[(&'static str, OsString)]) -> Digest {
    let mut text = format!("agent 1\nwire {WIRE}\nnetwork {}\n", os::network());
    let _ = writeln!(text, "program {}", state(&os::own_program()));
    for (name, value) in environment.iter().filter(|(name, _)| *name != IDLE) {
        let _ = writeln!(text, "{name} {}", value.as_encoded_bytes().escape_ascii());
        if names_file(name) {
            let _ = writeln!(text, "state {}", state(Path::new(OsStr::new(value))));
        }
    }
    Digest::of(text)
}

fn names_file(name: &str) -> bool {
    FILES.contains(&name) || VARIABLES.contains(&(name, true))
}

/// What tells a file from what is there once it was written or replaced.
fn state(path: &Path) -> String {
    fs_err::metadata(path).map_or_else(|_| "none".to_owned(), |metadata| FileId::of(&metadata).to_string())
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
