//! The count at the start: what lies in each place, on a thread of its own, since a large store takes a while.
//!
//! Until it is done nothing is taken in, and all that is there can be read. It ends with the store.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::files::Files;
use super::ledger::PLACES;

/// After a place that cannot be read, before the next try; twice as long each time.
const FIRST_REST: Duration = Duration::from_millis(10);
const LONGEST_REST: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Counting {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Counting {
    pub(super) fn start(files: Arc<Files>) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("store-count".to_owned())
            .spawn(move || count_all(&files, &stopped))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn count_all(files: &Files, stop: &AtomicBool) {
    let mut rest = FIRST_REST;
    for place in 0..PLACES {
        // A place that is not counted keeps uploads out: better than a bound that does not hold.
        while let Err(error) = files.count(place) {
            if stop.load(Ordering::Acquire) {
                return;
            }
            tracing::error!(%error, "cannot count what the store holds; no uploads until it can");
            std::thread::park_timeout(rest);
            rest = (rest * 2).min(LONGEST_REST);
        }
        if stop.load(Ordering::Acquire) {
            return;
        }
    }
}
