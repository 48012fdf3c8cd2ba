//! `pcmcache config`: the settings, and where each comes from.

use std::fmt::Write as _;

use crate::settings::{NAMES, Settings, Source, config_path};

/// Shows the settings. The token itself is not shown.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    let mut text = String::new();
    for name in NAMES {
        let source = match settings.sources.get(name) {
            Some(Source::Environment) => format!("PCMCACHE_{}", name.to_uppercase()),
            Some(Source::File) => "config.toml".to_owned(),
            Some(Source::Default) | None => "default".to_owned(),
        };
        let _ = writeln!(text, "{name:<12} = {:<40} ({source})", value(settings, name));
    }
    if let Some(path) = config_path(&|name| std::env::var_os(name)) {
        let there = if path.exists() { "read" } else { "not there" };
        let _ = writeln!(text, "\nconfig file: {} ({there})", path.display());
    }
    for fault in &settings.faults {
        let _ = writeln!(text, "fault: {fault}");
    }
    super::say(&text)
}

fn value(settings: &Settings, name: &str) -> String {
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let shown = match name {
        "dir" => Some(settings.dir.display().to_string()),
        "remote" => settings.remote.clone(),
        "token" => settings.token.as_ref().map(|_| "(set)".to_owned()),
        "token_file" => path(&settings.token_file),
        "sign_key" => path(&settings.sign_key),
        "trusted_keys" => settings.trusted_keys.as_ref().map(|keys| match keys.spelled().join(" ") {
            none if none.is_empty() => "(none that can be read: no server's result is used)".to_owned(),
            keys => keys,
        }),
        "ca_file" => path(&settings.papers.ca_file),
        "client_cert" => path(&settings.papers.client_cert),
        "client_key" => path(&settings.papers.client_key),
        "scope" => Some(settings.scope.to_string()),
        "mode" => Some(settings.mode.word().to_owned()),
        "wait" => Some(format!("{} s", settings.wait.as_secs_f64())),
        "timeout" => Some(format!("{} s", settings.timeout.as_secs_f64())),
        "upload" => Some(settings.upload.word().to_owned()),
        "jobs" => settings.jobs.map(|jobs| jobs.to_string()),
        "agent" => Some(settings.agent.word().to_owned()),
        "agent_idle" => Some(format!("{} s", settings.agent_idle.as_secs_f64())),
        "compress" => Some(settings.compress.word().to_owned()),
        "max_size" => settings.max_size.map(|size| size.to_string()),
        "profile" => settings.profile.as_ref().map(ToString::to_string),
        "log" => path(&settings.log),
        "stats_log" => path(&settings.stats_log),
        "base_dirs" => {
            Some(settings.base_dirs.directories().join(":")).filter(|directories| !directories.is_empty())
        }
        _ => None,
    };
    shown.unwrap_or_else(|| "(none)".to_owned())
}
