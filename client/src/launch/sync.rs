//! Uploading what is queued: results that were made while the server could not be had, or that no launch waits for.
//!
//! One process at a time does it for a cache directory: a command, or one that a launch started, which has just reached the
//! server or has just queued what it made. What the server says decides an entry: taken, or another was published first (a
//! fork, counted as `diverged`), or refused for good. What it could not say leaves the entry where it is. Results are
//! signed here, as they are uploaded.
//!
//! A launch that hands its lease over queues first, then looks whether somebody uploads. Who uploads looks at the queue
//! all the while, for a moment longer than there is something in it, lets go of the right to upload, and looks once more:
//! so nothing is queued that nobody sees.
//!
//! Crash story: see `local::queue`; an upload that was cut off leaves nothing visible at the server. Whoever dies here lets
//! go of all leases, which the server notices as it does of a launcher.

mod line;
mod tally;
mod work;

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use self::line::{Line, Seen};
pub use self::tally::Tally;
use self::work::Work;
use super::session::Session;
use crate::local::Store;
use crate::local::inventory::Found;
use crate::local::origin::ServerId;
use crate::os;
use crate::remote::{Remote, RemoteError};
use crate::settings::Settings;

/// The hidden first argument that makes this program upload what is queued.
pub const SYNC: &str = "--pcmcache-sync";

/// How many results are uploaded at a time.
const AT_ONCE: usize = 4;

/// For so long a process that launches started waits for more of them: hundreds of launches do not start hundreds.
const LINGER: Duration = Duration::from_secs(2);

/// What may be taken later is tried again for so long by a process that launches started.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is queued here: for the server and the scope of the settings, and how much for others.
#[derive(Debug, Default)]
pub struct Waiting {
    /// The oldest first.
    pub ours: Vec<Found>,
    /// For another server or another scope.
    pub others: u64,
}

impl Waiting {
    /// Looks what is queued.
    pub fn of(store: &Store, settings: &Settings) -> Self {
        store.expire_queue();
        let server = settings.remote.as_deref().map(ServerId::of);
        let mut waiting = Self::default();
        for found in store.queue() {
            match store.queued(&found) {
                Some(queued) if Some(queued.server) == server && queued.scope == settings.scope => {
                    waiting.ours.push(found);
                }
                Some(_) => waiting.others += 1,
                None => {}
            }
        }
        waiting
    }
}

/// How long an upload goes on.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// With nothing to do.
    linger: Duration,
    /// With what the server did not take, and may take later.
    patience: Duration,
}

/// The process that a launch started. Its standard input is the lock, so it has the right to upload as long as it lives.
pub fn run_as_uploader(settings: &Settings) -> u8 {
    let lock = io::stdin();
    let pace = Pace { linger: LINGER, patience: PATIENCE };
    let mut seen = Seen::default();
    loop {
        let mut session = Session::open(settings.clone());
        let (true, Some(store)) = (session.connect(), session.store.clone()) else { return 0 };
        let Some(remote) = session.remote.take() else { return 0 };
        let tally = upload(session, remote, &mut seen, pace, &|| false);
        tally.log(settings.log.as_deref());
        os::unlock(&lock);
        // Whoever queued before that, and found it locked, relies on us.
        let is_new = || Waiting::of(&store, settings).ours.iter().any(|found| !seen.has(found));
        if tally.is_over || !is_new() || !os::try_lock(&lock).unwrap_or(false) {
            return 0;
        }
    }
}

/// Uploads what is queued, by command, and what is queued meanwhile. The caller has the lock. What may be taken later is tried
/// again for as long as `patience`.
pub fn sync(
    settings: Settings,
    remote: Remote,
    patience: Duration,
    is_late: &(dyn Fn() -> bool + Sync),
) -> Tally {
    let pace = Pace { linger: Duration::ZERO, patience };
    upload(Session::open(settings), remote, &mut Seen::default(), pace, is_late)
}

fn upload(
    mut session: Session,
    remote: Remote,
    seen: &mut Seen,
    pace: Pace,
    is_late: &(dyn Fn() -> bool + Sync),
) -> Tally {
    let Some(store) = session.store.clone() else { return Tally::default() };
    let interrupt = session.interrupt.clone();
    let work = Work {
        store: &store,
        remote: &remote,
        settings: &session.settings,
        interrupted: &|| interrupt.came() || is_late(),
        pace,
        line: Line::default(),
        tally: Mutex::default(),
        faults: Mutex::default(),
    };
    store.expire_queue();
    work.take_on(seen);
    // Whatever answers there is asked who we are first: something that says 200 to everything takes nothing off the queue.
    match remote.who_am_i() {
        Ok(_) => std::thread::scope(|threads| {
            for _ in 0..AT_ONCE {
                threads.spawn(|| work.go_on());
            }
            work.look_out(seen);
        }),
        Err(error) => work.end(error),
    }
    let Work { line, tally, faults, .. } = work;
    let mut tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    let faults = faults.into_inner().unwrap_or_else(PoisonError::into_inner);
    tally.left += line.leave();
    session.remote = Some(remote);
    if !faults.iter().any(RemoteError::trips_breaker)
        && let Some(breaker) = session.breaker()
    {
        breaker.close();
    }
    faults.iter().for_each(|error| session.remote_fault(error));
    session.disconnect();
    tally.bytes = session.counts.uploaded_bytes;
    session.counts.diverged += tally.diverged;
    (0..tally.gone).for_each(|_| session.counts.error("queue_gone"));
    let _ = store.count(&session.counts);
    if let Some(log) = &session.settings.stats_log {
        let _ = session.counts.append_to(log);
    }
    tally
}

impl Session {
    /// Has what is queued uploaded by a process that outlives this one: nobody waits for it. Now and then only, since the
    /// server may not take it.
    pub(super) fn have_it_synced(&self) {
        if let Some(store) = self.store.as_ref().filter(|store| store.has_queue())
            && let Some(lock) = store.lock_for_sync_in_passing()
        {
            os::start_apart(SYNC, lock.into_file());
        }
    }

    /// Has what was queued just now uploaded: by the process that does so already, else by one that is started at once.
    pub(super) fn have_it_uploaded(&self) {
        if let Some(store) = &self.store {
            pass_on(store);
        }
    }
}

/// Leaves what is queued to a process that nobody waits for, unless somebody uploads.
pub fn pass_on(store: &Store) {
    if let Ok(Some(lock)) = store.lock_for_sync() {
        os::start_apart(SYNC, lock.into_file());
    }
}
