//! Settings: `config.toml`, variables, and the server's flags. Whatever they hold, the launcher has settings to go on with,
//! says where each came from, and shows no token.
//!
//! The first part is the file; each line of the second is a variable; each of the third is a flag of the server.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::OnceLock;

use clap::Parser as _;
use pcmcache::settings::{NAMES, Settings};
use pcmcache_server::Config;

use crate::{parts, scratch};

pub(crate) fn run(input: &[u8]) {
    static HOME: OnceLock<PathBuf> = OnceLock::new();
    let home = HOME.get_or_init(|| {
        let home = scratch::directory("settings");
        fs_err::create_dir_all(home.join("pcmcache")).expect("a directory");
        home
    });
    let parts = parts::of(input);
    fs_err::write(home.join("pcmcache/config.toml"), parts[0]).expect("a file");
    let lines = |number: usize| {
        let text = String::from_utf8_lossy(parts.get(number).copied().unwrap_or_default()).into_owned();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let variables = lines(1);
    let variable = |name: &str| -> Option<OsString> {
        if name == "XDG_CONFIG_HOME" {
            return Some(home.clone().into());
        }
        let named = variables.iter().filter_map(|line| line.split_once('='));
        named.rev().find(|(named, _)| *named == name).map(|(_, value)| value.into())
    };
    // What is named there is not this target's to read.
    let names_files = ["trusted_keys", "token_file"].iter().any(|name| {
        let is_in = |text: &str| text.contains(name) || text.contains(&name.to_uppercase());
        variables.iter().any(|line| is_in(line)) || is_in(&String::from_utf8_lossy(parts[0]))
    });
    if !names_files {
        let settings = Settings::from_environment(&variable);
        assert!(settings.sources.keys().all(|name| NAMES.contains(name)));
        // Who writes it into something else as well shows it himself.
        let text = String::from_utf8_lossy(input);
        let is_once = |token: &&String| text.matches(token.as_str()).count() == 1;
        if let Some(token) = settings.token.as_ref().filter(|token| token.len() > 8).filter(is_once) {
            assert!(settings.faults.iter().all(|fault| !fault.contains(token.as_str())), "a token is shown");
        }
    }
    let flags = std::iter::once("pcmcache-server".to_owned()).chain(lines(2));
    if let Ok(config) = Config::try_parse_from(flags).and_then(Config::checked) {
        let _ = (config.plan(), config.bounds(), config.connection_limits(), config.client_bounds());
    }
}
