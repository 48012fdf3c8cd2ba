//! Uploading what is queued: results that were made while the server could not be had.
//!
//! One process at a time does it for a cache directory, by command or started in passing by a launch that has just reached
//! the server. What the server says decides an entry: taken, or another was published first (a fork, counted as
//! `diverged`), or refused for good. What it could not say leaves the entry where it is. Results are signed here, as they
//! are uploaded.
//!
//! Crash story: see `local::queue`; an upload that was cut off leaves nothing visible at the server.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pcmcache_shared::api::actions::PublishRequest;
use pcmcache_shared::api::problem::Code;
use pcmcache_shared::{ActionKey, Digest, Recipe, failpoint};

use super::look::recipe_of;
use super::session::Session;
use crate::local::Store;
use crate::local::inventory::Found;
use crate::local::origin::{Origin, ServerId};
use crate::local::queue::Queued;
use crate::os;
use crate::remote::{Published, Remote, RemoteError};
use crate::settings::Settings;
use crate::signing::{NoKey, SigningKey};

/// The hidden first argument that makes this program upload what is queued.
pub const SYNC: &str = "--pcmcache-sync";

/// How many results are uploaded at a time.
const AT_ONCE: usize = 4;

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

/// The process that a launch started. Its standard input is the lock, so it has the right to upload as long as it lives.
pub fn run_in_passing(settings: impl FnOnce() -> Settings) -> u8 {
    os::leave_everything();
    let mut session = Session::open(settings());
    if session.connect()
        && let (Some(store), Some(remote)) = (session.store.clone(), session.remote.take())
    {
        let waiting = Waiting::of(&store, &session.settings);
        upload(session, remote, waiting.ours, &|| false);
    }
    0
}

/// Uploads these entries, by command. The caller has the lock.
pub fn sync(
    settings: Settings,
    remote: Remote,
    queue: Vec<Found>,
    is_late: &(dyn Fn() -> bool + Sync),
) -> Tally {
    upload(Session::open(settings), remote, queue, is_late)
}

fn upload(
    mut session: Session,
    remote: Remote,
    queue: Vec<Found>,
    is_late: &(dyn Fn() -> bool + Sync),
) -> Tally {
    let Some(store) = session.store.clone() else { return Tally::default() };
    let interrupt = session.interrupt.clone();
    let work = Work {
        store: &store,
        remote: &remote,
        settings: &session.settings,
        interrupted: &|| interrupt.came() || is_late(),
        queue: Mutex::new(queue.into_iter()),
        tally: Mutex::default(),
        faults: Mutex::default(),
    };
    // Whatever answers there is asked who we are first: something that says 200 to everything takes nothing off the queue.
    match remote.who_am_i() {
        Ok(_) => std::thread::scope(|threads| {
            for _ in 0..AT_ONCE {
                threads.spawn(|| work.go_on());
            }
        }),
        Err(error) => work.end(error),
    }
    let mut tally = work.tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    let faults = work.faults.into_inner().unwrap_or_else(PoisonError::into_inner);
    let rest = work.queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    tally.left += rest.count() as u64;
    session.remote = Some(remote);
    faults.iter().for_each(|error| session.remote_fault(error));
    session.disconnect();
    tally.bytes = session.counts.uploaded_bytes;
    session.counts.diverged += tally.diverged;
    (0..tally.gone).for_each(|_| session.counts.error("queue_gone"));
    let _ = store.count(&session.counts);
    tally
}

/// What those who upload share.
struct Work<'a> {
    store: &'a Store,
    remote: &'a Remote,
    settings: &'a Settings,
    interrupted: &'a (dyn Fn() -> bool + Sync),
    queue: Mutex<std::vec::IntoIter<Found>>,
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

    /// Uploads one entry after the other.
    fn go_on(&self) {
        while !self.tally().is_over {
            let next = self.queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(found) = next else { return };
            // One that is gone was removed as too old, or by `clear`.
            let Some(queued) = self.store.queued(&found) else { continue };
            let done = self.publish(&queued);
            failpoint!("sync.published");
            self.settle(&found, &queued, done);
        }
    }

    fn publish(&self, queued: &Queued) -> Result<Published, Failed> {
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
            lease: queued.lease.clone(),
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

    fn settle(&self, found: &Found, queued: &Queued, done: Result<Published, Failed>) {
        let mut tally = self.tally();
        match done {
            Ok(Published::Stored | Published::Same) => tally.uploaded += 1,
            Ok(Published::Winner(_)) => {
                tally.diverged += 1;
                self.forget_loser(queued.action, queued);
            }
            Err(Failed::Gone) => tally.gone += 1,
            Err(Failed::Unsigned(error)) => return tally.stay(error.to_string(), true),
            Err(Failed::Remote(RemoteError::Interrupted)) => {
                return tally.stay("there was no more time".to_owned(), true);
            }
            Err(Failed::Remote(error)) => {
                let (stays, is_over) = judge(&error);
                let why = error.to_string();
                self.faults.lock().unwrap_or_else(PoisonError::into_inner).push(error);
                if stays {
                    return tally.stay(why, is_over);
                }
                tally.refused += 1;
                tally.refusal.get_or_insert(why);
            }
        }
        found.remove();
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
    /// What this one came to after what came before it: only what it left is left.
    pub fn add(&mut self, next: Self) {
        self.uploaded += next.uploaded;
        self.diverged += next.diverged;
        self.refused += next.refused;
        self.gone += next.gone;
        self.bytes += next.bytes;
        self.refusal = self.refusal.take().or(next.refusal);
        (self.left, self.why_left, self.is_over) = (next.left, next.why_left, next.is_over);
    }

    fn stay(&mut self, why: String, is_over: bool) {
        self.left += 1;
        self.why_left.get_or_insert(why);
        self.is_over |= is_over;
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
    /// Has what is queued uploaded by a process that outlives this one: nobody waits for it.
    pub(super) fn have_it_synced(&self) {
        if let Some(store) = self.store.as_ref().filter(|store| store.has_queue())
            && let Some(lock) = store.lock_for_sync_in_passing()
        {
            os::start_apart(SYNC, lock.into_file());
        }
    }
}
