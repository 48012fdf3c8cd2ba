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

use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pcmcache_shared::api::actions::PublishRequest;
use pcmcache_shared::api::problem::Code;
use pcmcache_shared::{ActionKey, Digest, Recipe, ReleaseReason, disk, failpoint};
use tokio::time::Instant;

use super::keep::release_reason;
use super::look::recipe_of;
use super::session::Session;
use crate::local::Store;
use crate::local::inventory::Found;
use crate::local::origin::{Origin, ServerId};
use crate::local::queue::Queued;
use crate::os;
use crate::remote::{Lease, Published, Remote, RemoteError};
use crate::settings::Settings;
use crate::signing::{NoKey, SigningKey};
use crate::size::ByteSize;
use line::{Entry, Line, Seen};

/// The hidden first argument that makes this program upload what is queued.
pub const SYNC: &str = "--pcmcache-sync";

/// How many results are uploaded at a time.
const AT_ONCE: usize = 4;

/// How often it is looked whether more was queued: well within the grace of a lease. A long queue is looked at less often.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A look takes at most one part in so many of the time.
const LOOKS_FOR: u32 = 10;

/// For so long a process that launches started waits for more of them: hundreds of launches do not start hundreds.
const LINGER: Duration = Duration::from_secs(2);

/// What may be taken later is tried again so often, and by a process that launches started for so long.
const TRY_AGAIN_EVERY: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(60);

/// What an upload came to.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Results that the server has now.
    pub uploaded: u64,
    /// Results that lost to another that was published first.
    pub diverged: u64,
    /// Results that the server does not take.
    pub refused: u64,
    /// Why not, the first of them.
    pub refusal: Option<String>,
    /// Results of which something is gone from the local store.
    pub gone: u64,
    /// Results that are still queued.
    pub left: u64,
    /// Why they are.
    pub why_left: Option<String>,
    /// It is of no use to try again soon.
    pub is_over: bool,
    /// What was sent, in bytes of blobs.
    pub bytes: u64,
}

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

/// What those who upload share.
struct Work<'a> {
    store: &'a Store,
    remote: &'a Remote,
    settings: &'a Settings,
    interrupted: &'a (dyn Fn() -> bool + Sync),
    pace: Pace,
    line: Line,
    tally: Mutex<Tally>,
    faults: Mutex<Vec<RemoteError>>,
}

/// Why an entry was not uploaded.
enum Failed {
    /// Something that it names is not here any more.
    Gone,
    /// The key to sign it with cannot be had.
    Unsigned(NoKey),
    Remote(RemoteError),
}

impl Work<'_> {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends before the first: nothing is known of any of them.
    fn end(&self, error: RemoteError) {
        let mut tally = self.tally();
        (tally.why_left, tally.is_over) =
            (Some(error.to_string()), !error.may_pass() || error.trips_breaker());
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push(error);
    }

    /// Takes on what was queued since the last time, and keeps its leases from now on.
    fn take_on(&self, seen: &mut Seen) {
        let server = self.settings.remote.as_deref().map(ServerId::of);
        for found in seen.new_of(self.store.queue()) {
            // One that is gone was removed as too old, or by `clear`.
            let Some(queued) = self.store.queued(&found) else { continue };
            if Some(queued.server) != server || queued.scope != self.settings.scope {
                continue;
            }
            let handed = queued.lease.as_ref();
            let lease = handed.map(|lease| {
                self.remote.adopt(queued.claim, lease.hold.clone(), &lease.request_id, &lease.subject)
            });
            self.line.join(Entry { found, queued, lease, taken_on: Instant::now() });
        }
    }

    /// Looks at the queue until nothing was to do for long enough, or nothing can be done.
    fn look_out(&self, seen: &mut Seen) {
        let mut idle_since = None;
        loop {
            let began = Instant::now();
            self.take_on(seen);
            let took = began.elapsed();
            let is_idle = self.line.go_on();
            idle_since = idle_since.filter(|_| is_idle).or(is_idle.then_some(began));
            if (self.interrupted)() {
                self.tally().stay("there was no more time".to_owned(), true);
            }
            let is_done = idle_since.is_some_and(|since: Instant| since.elapsed() >= self.pace.linger);
            if is_done || self.tally().is_over {
                return self.line.close();
            }
            self.line.rest((took * LOOKS_FOR).clamp(LOOK_EVERY, LONGEST_PAUSE));
        }
    }

    /// Uploads one entry after the other.
    fn go_on(&self) {
        while let Some(entry) = self.line.next() {
            let size = entry.size();
            failpoint!("sync.begun");
            let done = self.publish(&entry.queued, entry.lease.as_ref());
            failpoint!("sync.published");
            let again = self.settle(entry, done);
            self.line.done(size, again);
        }
    }

    fn publish(&self, queued: &Queued, lease: Option<&Lease>) -> Result<Published, Failed> {
        let recipe = recipe_of(self.store, queued.action).and_then(|text| Recipe::parse(text).ok());
        let set = recipe.as_ref().and_then(|recipe| recipe.include_set().ok());
        let (Some(recipe), Some(set)) = (recipe, set) else { return Err(Failed::Gone) };
        let mut result = queued.result.clone();
        if let Some(path) = &self.settings.sign_key {
            let key = SigningKey::read(path).map_err(Failed::Unsigned)?;
            result.signature = Some(key.sign(&queued.scope, queued.action, &result));
        }
        let request = PublishRequest {
            result,
            recipe: recipe.text().to_owned(),
            include_set: set.text(),
            claim: queued.claim,
            // One that was lost is as good, where nobody else has it now.
            lease: lease.map(|lease| {
                lease.wait_until_known();
                lease.hold()
            }),
        };
        let blob = |digest: Digest| -> Option<PathBuf> {
            let output = queued.result.outputs.iter().find(|output| output.digest == digest)?;
            self.store.has_blob(digest, output.size).then(|| self.store.blob_path(digest))
        };
        let published = self.remote.publish(queued.action, &request, &blob, self.interrupted);
        let is_here = || queued.result.outputs.iter().all(|output| blob(output.digest).is_some());
        published.map_err(|error| match is_here() {
            true => Failed::Remote(error),
            false => Failed::Gone,
        })
    }

    /// Counts what became of an entry. Gives it back if it is to be tried again, and when.
    fn settle(&self, entry: Entry, done: Result<Published, Failed>) -> Option<(Instant, Entry)> {
        let (why, is_over) = match done {
            Ok(published) => {
                self.settle_published(entry, &published);
                return None;
            }
            Err(Failed::Gone) => {
                self.tally().gone += 1;
                self.take_off(&entry.found);
                return None;
            }
            Err(Failed::Unsigned(error)) => (error.to_string(), true),
            Err(Failed::Remote(RemoteError::Interrupted)) => ("there was no more time".to_owned(), true),
            Err(Failed::Remote(error)) => {
                let (stays, is_over) = judge(&error);
                let (why, reason) = (error.to_string(), release_reason(&error));
                self.faults.lock().unwrap_or_else(PoisonError::into_inner).push(error);
                if !stays {
                    self.settle_refused(entry, why, reason);
                    return None;
                }
                (why, is_over)
            }
        };
        self.tally().stay(why, is_over);
        if is_over {
            // All that is in the line stays there, this one too.
            self.line.close();
        } else if entry.taken_on.elapsed() >= self.pace.patience {
            self.tally().left += 1;
            return None;
        }
        Some((Instant::now() + TRY_AGAIN_EVERY, entry))
    }

    fn settle_published(&self, entry: Entry, published: &Published) {
        let Entry { found, queued, lease, .. } = entry;
        if let Some(lease) = lease {
            lease.discharge();
        }
        match published {
            Published::Stored | Published::Same => self.tally().uploaded += 1,
            Published::Winner(_) => {
                self.tally().diverged += 1;
                self.forget_loser(queued.action, &queued);
            }
        }
        self.take_off(&found);
    }

    fn settle_refused(&self, entry: Entry, why: String, reason: ReleaseReason) {
        self.take_off(&entry.found);
        if let Some(lease) = entry.lease {
            lease.release(reason);
        }
        let mut tally = self.tally();
        tally.refused += 1;
        tally.refusal.get_or_insert(why);
    }

    /// Takes an entry off the queue, unless another was written in its place meanwhile.
    fn take_off(&self, found: &Found) {
        if found.is_as_found() {
            found.remove();
        }
    }

    /// From here on launches of this host use the one that everybody else uses, too. What was built of ours stays right: keys
    /// of dependents hold its bytes.
    fn forget_loser(&self, action: ActionKey, queued: &Queued) {
        let kept = self.store.peek_result(action);
        if kept.is_some_and(|k| k.origin == Origin::Own && k.result.same_outputs(&queued.result)) {
            self.store.forget_result(action);
        }
    }
}

impl Tally {
    /// Something stays queued; where it `is_over`, all the rest would fare the same.
    fn stay(&mut self, why: String, is_over: bool) {
        self.why_left.get_or_insert(why);
        self.is_over |= is_over;
    }

    /// One line for a log, so that launchers that log side by side do not mix theirs.
    fn log(&self, to: Option<&Path>) {
        let (said, pid) = (self.to_string(), std::process::id());
        let left = self.why_left.as_ref().filter(|_| self.left > 0);
        let left = left.map(|why| format!("; {} are still queued: {why}", self.left)).unwrap_or_default();
        if let Some(path) = to.filter(|_| !said.is_empty() || !left.is_empty()) {
            let line = format!("pcmcache[{pid}] uploader: {said}{left}\n");
            let opened = disk::OpenOptions::new().append(true).create(true).open(path);
            let _ = opened.and_then(|mut file| file.write_all(line.as_bytes()));
        }
    }
}

/// What there is to say of it, for people; nothing, where nothing was done.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.uploaded + self.diverged + self.gone + self.refused == 0 {
            return Ok(());
        }
        write!(f, "{} results uploaded ({})", self.uploaded, ByteSize(self.bytes))?;
        let refused = format!("refused: {}", self.refusal.as_deref().unwrap_or_default());
        for (count, what) in [
            (self.diverged, "lost to others that were published first"),
            (self.gone, "gone from the local store"),
            (self.refused, refused.as_str()),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}

/// Whether what was refused so stays queued, and whether that ends the upload: others would fare the same.
fn judge(error: &RemoteError) -> (bool, bool) {
    match error {
        RemoteError::Unreachable { .. } | RemoteError::Misconfigured(_) => (true, true),
        RemoteError::Refused { code: Some(Code::StoreFull), .. } => (true, true),
        RemoteError::Refused { code: Some(Code::LeaseHeld), .. } => (true, false),
        RemoteError::Refused { .. } if error.shuts_us_out() => (true, true),
        RemoteError::Refused { .. } => (error.may_pass(), false),
        RemoteError::Damaged { .. }
        | RemoteError::Unsigned(_)
        | RemoteError::Gone
        | RemoteError::Local(_)
        | RemoteError::Interrupted => (true, false),
    }
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
