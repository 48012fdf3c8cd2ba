//! `pcmcache trim`: remove what was not used for longest.

use std::time::Duration;

use clap::Args;

use crate::local::{Store, TrimLock};
use crate::settings::Settings;
use crate::size::ByteSize;

/// How long to wait for another trim, and how often to look.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// What is asked for.
#[derive(Debug, Args)]
pub struct Trim {
    /// How much may be left, such as 500M, 10G or 5GiB [default: PCMCACHE_MAX_SIZE]
    #[arg(long, value_name = "SIZE")]
    max_size: Option<ByteSize>,
}

impl Trim {
    /// Trims, and says what was removed.
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        let store = super::store(settings)?;
        let target = self.max_size.or(settings.max_size);
        let _lock = wait_for_lock(&store)?;
        let done = store.trim(target);
        let bound = target.map_or_else(|| "no bound".to_owned(), |target| format!("bound {target}"));
        super::say(&format!(
            "removed {} results, {} blobs and {} other files: {}\nleft {} ({bound})\n",
            done.results, done.blobs, done.others, done.freed, done.kept
        ))
    }
}

fn wait_for_lock(store: &Store) -> anyhow::Result<TrimLock> {
    let mut waited = Duration::ZERO;
    loop {
        if let Some(lock) = store.lock_for_trim()? {
            return Ok(lock);
        }
        if waited >= PATIENCE {
            anyhow::bail!(
                "another trim of {} has been under way for a minute; try again",
                store.root().display()
            );
        }
        std::thread::sleep(PAUSE);
        waited += PAUSE;
    }
}

/// The trimmer that a launcher started. Its standard input is the lock, so it has the right to trim as long as it lives.
pub fn run_as_trimmer(settings: &Settings) -> u8 {
    if let Ok(store) = Store::open(&settings.dir) {
        store.trim_as_needed(settings.max_size);
    }
    0
}
