//! The log: lines for people or for programs on standard error, and the audit, an account of every write.
//!
//! What other crates say at `trace` is left out whatever the flag says: there they may tell a request's headers, and
//! with them a token. Nothing of ours ever puts one on a line.

mod audit;

use std::io;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, filter_fn};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use self::audit::AuditFile;
use crate::config::Config;

/// The target of the audit's lines.
pub const AUDIT: &str = "audit";

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// A JSON object a line.
    Json,
}

/// Starts the log that the flags ask for. The audit's file, if there is one, is open when this returns.
pub fn start(config: &Config) -> anyhow::Result<()> {
    let audit = config.audit_log.as_ref().map(|path| AuditFile::open(path.clone())).transpose()?;
    let chosen = EnvFilter::try_new(&config.log)?;
    let (apart, together) = (audit.is_some(), audit.is_none());
    let ours = filter_fn(|line| is_ours(line) || *line.level() <= Level::DEBUG);
    // Whatever the flag says of other lines, those of the audit are written.
    let shown = chosen.or(filter_fn(move |line| together && is_audit(line)));
    let shown = shown.and(ours).and(filter_fn(move |line| !(apart && is_audit(line))));
    let lines = layer(config.log_format, io::stderr).with_filter(shown);
    let audit = audit.map(|file| layer(Format::Json, file).with_filter(filter_fn(is_audit)));
    tracing_subscriber::registry().with(lines).with(audit).try_init()?;
    Ok(())
}

fn layer<S, W>(format: Format, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    match format {
        Format::Text => fmt::layer().with_writer(writer).boxed(),
        Format::Json => {
            let layer = fmt::layer().json().flatten_event(true).with_current_span(true).with_span_list(false);
            layer.with_writer(writer).boxed()
        }
    }
}

fn is_ours(line: &Metadata<'_>) -> bool {
    line.target().starts_with("pcmcache") || is_audit(line)
}

fn is_audit(line: &Metadata<'_>) -> bool {
    line.target() == AUDIT && line.is_event() && *line.level() <= LevelFilter::INFO
}
