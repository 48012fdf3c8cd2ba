//! What the dashboard draws: a few counts over time, by the minute for a day and by the hour for a year, kept in a file
//! of their own over restarts.
//!
//! Invariants: bounded, whatever the clock does (see [`series`](self)). Nothing rests on it: a file that cannot be read is
//! moved aside and begun anew, one that cannot be written is told in the log. Crash story: rows are written once a minute
//! in one transaction, so a kill costs a minute of the charts.

mod file;
mod series;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::file::File;
use self::series::Series;
pub use self::series::{Bucket, Over, Span};
use crate::cache::{Cache, Snapshot};
use crate::fault::Fault;

/// How often what happened since is added.
const TICK: Duration = Duration::from_secs(10);
const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * 60;

/// The counts over time.
#[derive(Debug, Default)]
pub struct History {
    state: Mutex<State>,
    file: Option<File>,
}

#[derive(Debug, Default)]
struct State {
    series: Series,
    /// The counts at the last tick.
    last: Snapshot,
    /// The minute of the last tick.
    minute: u64,
}

impl History {
    /// What is kept in this directory; what is known of modules goes back to `cache`. Blocks.
    pub fn open(directory: &Path, cache: &Cache) -> Self {
        let Some((file, kept)) = File::open(directory) else { return Self::default() };
        if let Some(modules) = kept.modules {
            cache.seen.with_modules(|known| known.restore(modules));
        }
        let state = State { series: kept.series, ..State::default() };
        Self { state: Mutex::new(state), file: Some(file) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happened in this span of time that ends now.
    pub fn over(&self, span: Span, cache: &Cache) -> Over {
        self.tick(cache);
        self.state().series.over(span, cache.rooms.clock.unix_s())
    }

    /// Adds what happened since the last time; says whether a minute is over.
    fn tick(&self, cache: &Cache) -> bool {
        let (now, counts) = (cache.rooms.clock.unix_s(), cache.counters());
        cache.seen.with_modules(|modules| modules.turn(now / DAY));
        let mut state = self.state();
        let happened = Bucket::between(&state.last, &counts, cache.usage().total());
        state.series.add(now, &happened);
        state.last = counts;
        let turned = state.minute != now / MINUTE;
        state.minute = now / MINUTE;
        turned
    }

    /// Writes down what changed since the last time.
    async fn save(self: &Arc<Self>, cache: &Arc<Cache>) {
        if self.file.is_none() {
            return;
        }
        let (history, cache) = (Arc::clone(self), Arc::clone(cache));
        let saved = tokio::task::spawn_blocking(move || history.save_now(&cache)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(%error, "the dashboard's history could not be written; it will be with the next minute");
        }
    }

    fn save_now(&self, cache: &Cache) -> Result<(), Fault> {
        let Some(file) = &self.file else { return Ok(()) };
        let changes = self.state().series.take_changes();
        let modules = cache.seen.with_modules(|modules| modules.changed.then(|| modules.kept()));
        match file.write(&changes, modules.as_ref()) {
            Ok(()) => {
                if modules.is_some() {
                    cache.seen.with_modules(|modules| modules.changed = false);
                }
                Ok(())
            }
            Err(fault) => {
                self.state().series.changed(changes);
                Err(fault)
            }
        }
    }

    /// Adds and writes for ever: run it as a task beside the server, abort it at the end.
    pub async fn run(self: Arc<Self>, cache: Arc<Cache>) {
        loop {
            cache.rooms.clock.sleep(TICK).await;
            if self.tick(&cache) {
                self.save(&cache).await;
            }
        }
    }

    /// The last tick of all.
    pub async fn finish(self: &Arc<Self>, cache: &Arc<Cache>) {
        self.tick(cache);
        self.save(cache).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Limits, Rooms};
    use crate::clock::{CountedEntropy, MANUAL_START_S, ManualClock};
    use crate::memory::{MemoryBlobs, MemoryLeases, MemoryProfiles, MemoryResults};

    struct Scratch(std::path::PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("pcmcache-history-{name}-{}", std::process::id()));
            fs_err::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs_err::remove_dir_all(&self.0);
        }
    }

    fn cache(clock: &Arc<ManualClock>) -> Arc<Cache> {
        let rooms = Rooms {
            blobs: Arc::new(MemoryBlobs::default()),
            results: Arc::new(MemoryResults::new(clock.clone())),
            profiles: Arc::new(MemoryProfiles::new(clock.clone())),
            leases: Arc::new(MemoryLeases::new(clock.clone())),
            clock: clock.clone(),
            entropy: Arc::new(CountedEntropy::default()),
        };
        Cache::new(rooms, Limits::default())
    }

    fn hits(history: &History, cache: &Cache) -> u64 {
        history.over(Span::Day, cache).total.hits
    }

    #[tokio::test]
    async fn counts_outlive_the_process_and_are_counted_once() {
        let (scratch, clock) = (Scratch::new("restart"), Arc::new(ManualClock::default()));
        let first = cache(&clock);
        let history = Arc::new(History::open(&scratch.0, &first));
        first.counters.hits.add(3);
        first.seen.missed(&pcmcache_shared::Scope::default(), "std.cppm");
        assert_eq!((hits(&history, &first), hits(&history, &first)), (3, 3));
        history.finish(&first).await;
        first.counters.hits.add(40);
        drop(history);

        let second = cache(&clock);
        let history = Arc::new(History::open(&scratch.0, &second));
        second.counters.hits.add(2);
        assert_eq!(
            hits(&history, &second),
            5,
            "what the first counted after its last tick is lost, and no more"
        );
        assert_eq!(second.seen.modules(9, |_| true).0[0].subject, "std.cppm");
    }

    #[tokio::test]
    async fn it_is_written_when_a_minute_is_over() {
        let (scratch, clock) = (Scratch::new("minute"), Arc::new(ManualClock::default()));
        let first = cache(&clock);
        let history = Arc::new(History::open(&scratch.0, &first));
        history.tick(&first);
        let running = tokio::spawn(Arc::clone(&history).run(Arc::clone(&first)));
        first.counters.hits.add(7);
        let started = history.state().minute;
        for _ in 0..2_000 {
            if history.state().minute != started {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
            clock.advance(TICK);
        }
        running.abort();
        let _ = running.await;
        // What it was writing is written, and the file closed, when nobody else holds it.
        for _ in 0..2_000 {
            if Arc::strong_count(&history) == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(history);
        let second = cache(&clock);
        assert_eq!(hits(&History::open(&scratch.0, &second), &second), 7);
    }

    #[test]
    fn a_file_that_is_none_is_moved_aside() {
        let (scratch, clock) = (Scratch::new("damaged"), Arc::new(ManualClock::default()));
        let path = scratch.0.join(file::NAME);
        fs_err::write(&path, "no database").unwrap();
        let cache = cache(&clock);
        let history = History::open(&scratch.0, &cache);
        assert!(history.file.is_some());
        assert_eq!(fs_err::read_to_string(path.with_extension("redb.damaged")).unwrap(), "no database");
        assert_eq!(cache.rooms.clock.unix_s(), MANUAL_START_S);
    }
}
