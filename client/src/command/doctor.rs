//! `pcmcache doctor`: is everything set up so that caching works?

use std::ffi::OsString;
use std::fmt::Write as _;

use clap::Args;

use super::Format;
use crate::doctor::{Finding, State, examine};
use crate::os;
use crate::settings::Settings;

/// What is asked for.
#[derive(Debug, Args)]
pub struct Doctor {
    /// The compiler to look at [default: all in PATH that pcmcache knows]
    compiler: Option<OsString>,
    /// How to show it
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Doctor {
    /// Looks, says what was found, and fails if something needs care.
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        let findings = examine(settings, &os::working_directory()?, self.compiler.as_deref());
        super::say(&match self.format {
            Format::Text => text(&findings),
            Format::Json => serde_json::to_string_pretty(&findings)? + "\n",
        })?;
        let careful = findings.iter().filter(|finding| finding.state == State::Care).count();
        anyhow::ensure!(careful == 0, "{careful} of {} findings need care", findings.len());
        Ok(())
    }
}

fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let state = if finding.state == State::Ok { "ok" } else { "care" };
        let _ = writeln!(text, "{state:<5} {:<17} {}", finding.what, finding.found);
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(text, "      {:<17} remedy: {remedy}", "");
        }
    }
    text
}
