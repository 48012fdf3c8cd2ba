//! The commands: what a person asks of the cache.

pub mod clear;
pub mod config;
pub mod doctor;
pub mod explain;
pub mod key;
pub mod login;
pub mod papers;
pub mod profile;
pub mod stats;
pub mod sync;
pub mod trim;
pub mod verify;
pub mod warm;

use std::io::{self, Write};

use anyhow::Context;
use clap::ValueEnum;

use crate::local::Store;
use crate::remote::{self, Remote};
use crate::settings::{Mode, Settings};

/// How to show something.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

/// The store of these settings, or why there is none.
fn store(settings: &Settings) -> anyhow::Result<Store> {
    Store::open(&settings.dir)
        .with_context(|| format!("cannot use the cache directory {}", settings.dir.display()))
}

/// The server of these settings, for a command that needs one.
fn server(settings: &Settings) -> anyhow::Result<Remote> {
    let url = settings.remote.clone().filter(|_| !matches!(settings.mode, Mode::Local | Mode::Off));
    let url =
        url.context("no server is set: PCMCACHE_REMOTE names one, unless PCMCACHE_MODE leaves it out")?;
    Ok(Remote::new(remote::Settings::of(settings, url))?)
}

/// Writes to stdout; a reader that went away is no fault.
fn say(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Says what a person should know, besides what was asked for.
#[expect(clippy::print_stderr, reason = "stdout holds what was asked for")]
fn warn(text: &str) {
    eprintln!("pcmcache: {text}");
}

/// Says to another program, which listens there, what is not for stdout.
#[expect(clippy::print_stderr, reason = "stdout holds what was asked for")]
fn note(text: &str) {
    eprintln!("{text}");
}

/// Says why a command failed.
#[expect(clippy::print_stderr, reason = "this is where a command's errors are said")]
pub fn complain(error: &anyhow::Error) {
    eprintln!("pcmcache: {error:#}");
}
