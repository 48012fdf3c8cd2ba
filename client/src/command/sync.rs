//! `pcmcache sync`: what was made while the server could not be had, uploaded now.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use tokio::time::Instant;

use crate::launch::sync::{Tally, Waiting, sync};
use crate::local::Store;
use crate::local::queue::SyncLock;
use crate::settings::Settings;
use crate::size::ByteSize;

/// How often to look whether another upload has ended, or the server has time.
const PAUSE: Duration = Duration::from_millis(50);
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// What `sync --help` says below the flags.
const AFTER_HELP: &str = "\
What launches make while the server is away, or has too much to do, is queued in the cache directory,
at most 10000 results for at most seven days. A launch that reaches the server again has them
uploaded in passing; this command does it now, for the server and the scope that are set. Where
another was published first, that stays: 'pcmcache stats' counts it as diverged.

  pcmcache sync --wait     the last line of a CI job: nothing that it made is lost with its disk

Exit status: 0 if nothing is queued any more, also where the server has refused some of it for good;
1 if something still is.";

/// What is asked for.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Sync {
    /// Wait for another upload that is under way, and for a server that is there and has too much to do
    #[arg(long)]
    wait: bool,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = clap::value_parser!(u64).range(..=86_400))]
    timeout: u64,
    /// Only say how much is queued
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
}

impl Sync {
    /// Uploads, and says what came of it; nothing, where nothing is queued.
    pub fn run(&self, settings: Settings) -> anyhow::Result<()> {
        let store = super::store(&settings)?;
        let until = Instant::now() + Duration::from_secs(self.timeout);
        let waiting = Waiting::of(&store, &settings);
        if waiting.others > 0 {
            super::warn(&format!("{} results are queued for another server or scope", waiting.others));
        }
        if self.dry_run {
            return super::say(&format!("{} results are queued\n", waiting.ours.len()));
        }
        if waiting.ours.is_empty() {
            return Ok(());
        }
        let Some(_lock) = self.lock(&store, until)? else {
            return super::say("another upload is under way\n");
        };
        let mut total = Tally::default();
        loop {
            // The other one may have left nothing.
            let queue = Waiting::of(&store, &settings).ours;
            let is_late = || Instant::now() >= until;
            let tally = sync(settings.clone(), super::server(&settings)?, queue, &is_late);
            let goes_on = self.wait && tally.left > 0 && !tally.is_over && !is_late();
            total.add(tally);
            if !goes_on {
                break;
            }
            std::thread::sleep(BUSY_PAUSE);
        }
        super::say(&summary(&total))?;
        let why = total.why_left.as_deref().unwrap_or_default();
        ensure!(
            total.left == 0,
            "{} results are still queued: {why}; another sync goes on from there",
            total.left
        );
        Ok(())
    }

    /// The right to upload. `None`: another has it, and nobody wants to wait.
    fn lock(&self, store: &Store, until: Instant) -> anyhow::Result<Option<SyncLock>> {
        loop {
            let lock = store.lock_for_sync()?;
            if lock.is_some() || !self.wait {
                return Ok(lock);
            }
            ensure!(Instant::now() < until, "another upload is still under way; what is left stays queued");
            std::thread::sleep(PAUSE);
        }
    }
}

fn summary(tally: &Tally) -> String {
    if tally.uploaded + tally.diverged + tally.gone + tally.refused == 0 {
        return String::new();
    }
    let mut text = format!("{} results uploaded ({})", tally.uploaded, ByteSize(tally.bytes));
    let refused = format!("refused: {}", tally.refusal.as_deref().unwrap_or_default());
    for (count, what) in [
        (tally.diverged, "lost to others that were published first"),
        (tally.gone, "gone from the local store"),
        (tally.refused, refused.as_str()),
    ] {
        if count > 0 {
            let _ = write!(text, ", {count} {what}");
        }
    }
    text + "\n"
}
