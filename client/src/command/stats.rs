//! `pcmcache stats`: what launches came to.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::Format;
use crate::local::stats::Counts;
use crate::settings::Settings;

/// What is asked for.
#[derive(Debug, Args)]
pub struct Stats {
    /// Start again from zero, and show nothing
    #[arg(long)]
    zero: bool,
    /// How to show it
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Show the sum of a log that PCMCACHE_STATS_LOG named
    #[arg(long, value_name = "FILE", conflicts_with = "zero")]
    log: Option<PathBuf>,
}

impl Stats {
    /// Shows the counters, or sets them to zero.
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        let counts = match &self.log {
            Some(log) => sum_of(log)?,
            None => {
                let store = super::store(settings)?;
                if self.zero {
                    return Ok(store.zero_counts()?);
                }
                store.counts()
            }
        };
        super::say(&match self.format {
            Format::Text => text(&counts),
            Format::Json => serde_json::to_string_pretty(&counts)? + "\n",
        })
    }
}

fn sum_of(log: &Path) -> anyhow::Result<Counts> {
    let (counts, bad) = Counts::sum_of_log(log)?;
    if bad > 0 {
        super::warn(&format!("{}: {bad} lines are no counts, and were left out", log.display()));
    }
    Ok(counts)
}

fn text(counts: &Counts) -> String {
    let mut text = String::new();
    let rows = [
        ("compiles", counts.compiles),
        ("scans", counts.scans),
        ("local hits", counts.local_hits),
        ("remote hits", counts.remote_hits),
        ("scans among the hits", counts.scan_hits),
        ("waits", counts.waits),
        ("adopted", counts.adopted),
        ("diverged", counts.diverged),
        ("uploaded bytes", counts.uploaded_bytes),
        ("downloaded bytes", counts.downloaded_bytes),
    ];
    for (name, count) in rows {
        let _ = writeln!(text, "{name:<28} {count:>12}");
    }
    add_rows(&mut text, "not cached", &counts.bypassed);
    add_rows(&mut text, "cache faults", &counts.errors);
    text
}

fn add_rows(text: &mut String, title: &str, rows: &BTreeMap<String, u64>) {
    let _ = writeln!(text, "{title:<28} {:>12}", rows.values().sum::<u64>());
    for (name, count) in rows {
        let _ = writeln!(text, "  {name:<26} {count:>12}");
    }
}
