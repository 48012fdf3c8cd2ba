//! The uploading itself: entry after entry, until nothing was to do for long enough.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pcmcache_shared::api::actions::PublishRequest;
use pcmcache_shared::api::problem::Code;
use pcmcache_shared::{ActionKey, Digest, Recipe, ReleaseReason, failpoint};
use tokio::time::Instant;

use super::line::{Entry, Line, Seen};
use super::{Pace, Tally};
use crate::launch::keep::release_reason;
use crate::launch::look::recipe_of;
use crate::local::Store;
use crate::local::inventory::Found;
use crate::local::origin::{Origin, ServerId};
use crate::local::queue::Queued;
use crate::remote::{Lease, Published, Remote, RemoteError};
use crate::settings::Settings;
use crate::signing::{NoKey, SigningKey};

/// How often it is looked whether more was queued: well within the grace of a lease. A long queue is looked at less often.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A look takes at most one part in so many of the time.
const LOOKS_FOR: u32 = 10;

/// What may be taken later is tried again so often.
const TRY_AGAIN_EVERY: Duration = Duration::from_secs(1);

/// What those who upload share.
pub(super) struct Work<'a> {
    pub(super) store: &'a Store,
    pub(super) remote: &'a Remote,
    pub(super) settings: &'a Settings,
    pub(super) interrupted: &'a (dyn Fn() -> bool + Sync),
    pub(super) pace: Pace,
    pub(super) line: Line,
    pub(super) tally: Mutex<Tally>,
    pub(super) faults: Mutex<Vec<RemoteError>>,
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
    pub(super) fn end(&self, error: RemoteError) {
        let mut tally = self.tally();
        (tally.why_left, tally.is_over) =
            (Some(error.to_string()), !error.may_pass() || error.trips_breaker());
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push(error);
    }

    /// Takes on what was queued since the last time, and keeps its leases from now on.
    pub(super) fn take_on(&self, seen: &mut Seen) {
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
    pub(super) fn look_out(&self, seen: &mut Seen) {
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
    pub(super) fn go_on(&self) {
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
