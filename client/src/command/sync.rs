//! `pcmcache sync`: what is queued, uploaded now.

use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use tokio::time::Instant;

use crate::launch::sync::{Waiting, pass_on, sync};
use crate::local::Store;
use crate::local::inventory::Found;
use crate::local::queue::SyncLock;
use crate::settings::Settings;

/// How often to look whether another upload has ended.
const PAUSE: Duration = Duration::from_millis(50);

/// What `sync --help` says below the flags.
const AFTER_HELP: &str = "\
What launches make while the server is away, or has too much to do, is queued in the cache directory,
at most 10000 results for at most seven days. A launch that reaches the server again has them
uploaded in passing; this command does it now, for the server and the scope that are set. Where
another was published first, that stays: 'pcmcache stats' counts it as diverged.

With PCMCACHE_UPLOAD=background everything is queued, and a process uploads it while the build goes on;
this command then waits for the rest of that.

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
        let Some(lock) = self.lock(&store, waiting.ours, until)? else {
            return Ok(());
        };
        let patience = Duration::from_secs(if self.wait { self.timeout } else { 0 });
        let is_late = || Instant::now() >= until;
        let tally = sync(settings.clone(), super::server(&settings)?, patience, &is_late);
        drop(lock);
        // A launch that queued at the very end, and found the queue locked, relies on us.
        if tally.left == 0 && !Waiting::of(&store, &settings).ours.is_empty() {
            pass_on(&store);
        }
        let said = tally.to_string();
        if !said.is_empty() {
            super::say(&(said + "\n"))?;
        }
        let why = tally.why_left.as_deref().unwrap_or_default();
        let left = tally.left;
        ensure!(left == 0, "{left} results are still queued: {why}; another sync goes on from there");
        Ok(())
    }

    /// The right to upload. `None`: somebody else does, and nobody wants to wait for that, or what was queued has been
    /// uploaded meanwhile.
    fn lock(
        &self,
        store: &Store,
        mut queued: Vec<Found>,
        until: Instant,
    ) -> anyhow::Result<Option<SyncLock>> {
        loop {
            if let Some(lock) = store.lock_for_sync()? {
                return Ok(Some(lock));
            }
            if !self.wait {
                super::say("another upload is under way\n")?;
                return Ok(None);
            }
            queued.retain(|found| found.path.exists());
            if queued.is_empty() {
                return Ok(None);
            }
            let left = queued.len();
            ensure!(
                Instant::now() < until,
                "another upload is still under way, and {left} results are still queued"
            );
            std::thread::sleep(PAUSE);
        }
    }
}
