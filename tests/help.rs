//! `--help` and README.md tell the truth about each other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use pcmcache_tests::{Process, Scratch, tool};

/// What a user may set, and what the project's own design says of it.
const VARIABLES: [&str; 22] = [
    "PCMCACHE_DIR",
    "PCMCACHE_REMOTE",
    "PCMCACHE_TOKEN",
    "PCMCACHE_TOKEN_FILE",
    "PCMCACHE_CA_FILE",
    "PCMCACHE_CLIENT_CERT",
    "PCMCACHE_CLIENT_KEY",
    "PCMCACHE_SIGN_KEY",
    "PCMCACHE_TRUSTED_KEYS",
    "PCMCACHE_SCOPE",
    "PCMCACHE_MODE",
    "PCMCACHE_WAIT",
    "PCMCACHE_TIMEOUT",
    "PCMCACHE_UPLOAD",
    "PCMCACHE_JOBS",
    "PCMCACHE_AGENT",
    "PCMCACHE_AGENT_IDLE",
    "PCMCACHE_COMPRESS",
    "PCMCACHE_MAX_SIZE",
    "PCMCACHE_PROFILE",
    "PCMCACHE_LOG",
    "PCMCACHE_STATS_LOG",
];

fn said_by(program: PathBuf, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.env_clear().env("HOME", "/nonexistent").args(arguments);
    let end = Process::start(command).finish().ok();
    assert_eq!(end.stderr, "");
    end.stdout
}

#[test]
fn both_programs_say_who_they_are() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(said_by(tool::launcher(), &["--version"]), format!("pcmcache {version}\n"));
    assert_eq!(said_by(tool::server(), &["--version"]), format!("pcmcache-server {version}\n"));
}

#[test]
fn help_names_every_command_and_variable_of_the_launcher() {
    let help = said_by(tool::launcher(), &["--help"]);
    for word in VARIABLES.into_iter().chain([
        "stats",
        "login",
        "key",
        "warm",
        "profile",
        "sync",
        "config",
        "trim",
        "verify",
        "clear",
        "completions",
        "man",
        "COMPILER",
    ]) {
        assert!(help.contains(word), "{word} is not in\n{help}");
    }
    let stats = said_by(tool::launcher(), &["stats", "--help"]);
    assert!(stats.contains("--zero") && stats.contains("--format"), "{stats}");
}

#[test]
fn shells_and_readers_are_told_every_command() {
    let commands = [
        "stats",
        "explain",
        "doctor",
        "login",
        "key",
        "warm",
        "profile",
        "config",
        "trim",
        "verify",
        "clear",
        "completions",
        "man",
    ];
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = said_by(tool::launcher(), &["completions", shell]);
        assert!(commands.iter().all(|command| script.contains(command)), "{shell}: {script}");
    }
    let page = said_by(tool::launcher(), &["man"]);
    assert!(page.contains(".TH") && page.contains("PCMCACHE_DIR"), "{page}");
    let scratch = Scratch::new("man");
    let dir = scratch.path().join("man1");
    said_by(tool::launcher(), &["man", "--dir", dir.to_str().expect("a path")]);
    for command in commands {
        let page = fs_err::read_to_string(dir.join(format!("pcmcache-{command}.1"))).expect("a page");
        assert!(page.contains(".SH NAME"), "{page}");
    }
}

#[test]
fn each_flag_of_the_server_has_its_variable() {
    let help = said_by(tool::server(), &["--help"]);
    let flags = words(&help, "--");
    assert!(flags.contains("--listen") && flags.contains("--data-dir"), "{help}");
    for flag in flags.iter().filter(|flag| !matches!(flag.as_str(), "--help" | "--version")) {
        let name = flag.trim_start_matches('-').to_uppercase().replace('-', "_");
        let variable = match name.as_str() {
            "OTLP_ENDPOINT" => "OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(),
            _ => format!("PCMCACHE_SERVER_{name}"),
        };
        assert!(help.contains(&variable), "{flag} has no {variable} in\n{help}");
    }
}

#[test]
fn readme_names_each_variable_of_the_launcher() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs_err::read_to_string(path).expect("a file of the project");
    for variable in VARIABLES {
        assert!(readme.contains(variable), "README.md does not name {variable}");
    }
}

/// The words of `text` that start so, and go on in letters.
fn words(text: &str, start: &str) -> BTreeSet<String> {
    let splits = |c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let words = text.split(splits).filter(|word| word.len() > start.len() && word.starts_with(start));
    words
        .map(|word| word.trim_end_matches(['-', '_']).to_owned())
        .filter(|word| word.len() > start.len())
        .collect()
}
