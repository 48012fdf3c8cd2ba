//! `pcmcache warm`: what builds of these profiles used, fetched before this machine's build asks for it.

use std::fmt::Write as _;

use anyhow::ensure;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use pcmcache_shared::ProfileName;

use crate::launch::warm::{Tally, warm};
use crate::settings::Settings;
use crate::size::ByteSize;

/// What `warm --help` says below the flags.
const AFTER_HELP: &str = "\
A profile names the results that a build used: launches note them under PCMCACHE_PROFILE, and
'pcmcache profile push' publishes them. Profiles are looked for in PCMCACHE_SCOPE, then in the
scopes it reads. What they name is fetched in their order, then what they inherit; what is here is
passed over, so a run that was cut short goes on where it ended. Beside a running build it does no
harm: what is not here yet is a miss. Nothing is removed to make room: it ends when the local store
is full.

  pcmcache warm feature-x main     the branch's own, then what main's has besides

Exit status: 0 if all of it is here now, also where a name has no profile yet, or the server has
removed some of the results; 1 if something could not be fetched. A build is right in either case.";

/// What is asked for.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Warm {
    /// Profiles, the most urgent first [default: PCMCACHE_PROFILE]
    #[arg(value_name = "NAME")]
    names: Vec<ProfileName>,
}

impl Warm {
    /// Fetches, and says what came of it.
    pub fn run(&self, settings: Settings) -> anyhow::Result<()> {
        let names = match (self.names.is_empty(), &settings.profile) {
            (false, _) => self.names.clone(),
            (true, Some(name)) => vec![name.clone()],
            (true, None) => anyhow::bail!("which profile? Name one, or set PCMCACHE_PROFILE"),
        };
        super::store(&settings)?;
        let remote = super::server(&settings)?;
        let bar = bar();
        let tally = warm(settings, remote, &names, &|tally| {
            bar.set_length(tally.named);
            bar.set_position(tally.done());
        });
        bar.finish_and_clear();
        for name in &tally.missing {
            super::warn(&format!("there is no profile '{name}'"));
        }
        super::say(&summary(&tally))?;
        let left = tally.named.saturating_sub(tally.done());
        match &tally.failure {
            Some(failure) if tally.named == 0 => anyhow::bail!("nothing was fetched: {failure}"),
            Some(failure) => {
                anyhow::bail!("{left} results were not fetched: {failure}; another run goes on from there")
            }
            None => {}
        }
        ensure!(
            !tally.is_full,
            "{left} results were not fetched: the local store is nearly at its bound (PCMCACHE_MAX_SIZE); \
             'pcmcache trim --max-size SIZE' makes room"
        );
        let refusal = tally.refusal.as_deref().unwrap_or_default();
        ensure!(tally.refused == 0, "{} results were not taken, the first because: {refusal}", tally.refused);
        Ok(())
    }
}

/// A bar on a terminal, and nothing elsewhere.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:32} {pos} of {len} results, {elapsed} ({eta} left)");
    let bar = ProgressBar::new(0);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn summary(tally: &Tally) -> String {
    let names: Vec<_> = tally.found.iter().map(ProfileName::as_str).collect();
    let of = if names.is_empty() { String::new() } else { format!(" of {}", names.join(", ")) };
    let mut text = format!(
        "{} results{of}: {} were here, {} fetched ({})",
        tally.named,
        tally.here,
        tally.fetched,
        ByteSize(tally.bytes)
    );
    for (count, what) in [(tally.gone, "gone from the server"), (tally.refused, "not taken")] {
        if count > 0 {
            let _ = write!(text, ", {count} {what}");
        }
    }
    text + "\n"
}
