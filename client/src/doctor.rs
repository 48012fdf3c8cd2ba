//! Looking whether this machine, the server and the build at hand are set up so that caching works.
//!
//! Each room looks at one thing and gives findings; none of them changes anything but for files of its own, which it
//! removes. A finding that needs care says what to do.

mod build;
mod cache;
mod compilers;
mod server;
mod trust;

use std::path::Path;

use serde::Serialize;

use crate::settings::{Mode, Settings};

/// Whether something is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is.
    Ok,
    /// It is not, or not quite.
    Care,
}

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether it is as it should be.
    pub state: State,
    /// What was looked at.
    pub what: &'static str,
    /// What was found.
    pub found: String,
    /// What to do, if something is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self { state: State::Ok, what, found: found.into(), remedy: None }
    }

    fn care(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state: State::Care, what, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// Looks at everything, from `cwd`; at the compiler of this name, or at all in PATH that we know.
pub fn examine(settings: &Settings, cwd: &Path, compiler: Option<&std::ffi::OsStr>) -> Vec<Finding> {
    let mut findings = said(settings);
    findings.extend(compilers::examine(settings, compiler));
    findings.extend(cache::examine(settings, cwd));
    findings.extend(bases(settings, cwd));
    findings.extend(trust::examine(settings));
    findings.extend(server::examine(settings));
    findings.extend(build::examine(cwd));
    findings
}

/// What the user set.
fn said(settings: &Settings) -> Vec<Finding> {
    let fix = "set it right, or take it out; 'pcmcache config' shows where each setting comes from";
    let mut findings: Vec<Finding> =
        settings.faults.iter().map(|fault| Finding::care("settings", fault, fix)).collect();
    if settings.mode == Mode::Off {
        findings.push(Finding::care("settings", "PCMCACHE_MODE is off: nothing is cached", "unset it"));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("settings", format!("mode {}", settings.mode.word())));
    }
    findings
}

fn bases(settings: &Settings, cwd: &Path) -> Vec<Finding> {
    let bases = &settings.base_dirs;
    let mut findings = Vec::new();
    for base in bases.directories().iter().filter(|base| !Path::new(base).is_dir()) {
        let remedy = "name directories that are there, by the names the compiler is given";
        findings.push(Finding::care("base directories", format!("{base} is no directory"), remedy));
    }
    if !bases.is_empty() && !bases.contain(cwd, cwd) {
        findings.push(Finding::care(
            "base directories",
            format!("{} is below none of {}", cwd.display(), bases.directories().join(":")),
            "add the checkout's directory to PCMCACHE_BASE_DIRS, so that it shares with others",
        ));
    }
    if !bases.is_empty() && findings.is_empty() {
        findings.push(Finding::ok("base directories", bases.directories().join(":")));
    }
    findings
}
