//! Those who wait for their upload: results that were taken on, each with the lease that it was made under.
//!
//! The workers take from here, and who looks at the queue puts in. A lease is kept from the moment its entry is seen, not
//! only from its turn on: its launcher's stream has dropped, and the grace is short.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::local::inventory::Found;
use crate::local::queue::Queued;
use crate::os::Moment;
use crate::remote::Lease;

/// What is under way at once is no larger than this in all, in bytes, but for one that is larger alone: on a slow link each
/// upload has the time that its size gives it, and launches that ask something meanwhile stand behind all of them.
const MOST_AT_ONCE: u64 = 8 * 1024 * 1024;

/// A result that was taken on.
pub(super) struct Entry {
    pub(super) found: Found,
    pub(super) queued: Queued,
    pub(super) lease: Option<Lease>,
    /// Since when.
    pub(super) taken_on: Instant,
}

impl Entry {
    /// What there is to upload at most.
    pub(super) fn size(&self) -> u64 {
        self.queued.result.outputs.iter().fold(0, |sum, output| sum.saturating_add(output.size))
    }

    /// Its lease, which goes elsewhere.
    fn hand_over(self) {
        if let Some(lease) = self.lease {
            lease.hand_over();
        }
    }
}

/// The files of the queue that were looked at, as they were then: one that was written again since is another.
#[derive(Default)]
pub(super) struct Seen(BTreeSet<(String, Moment)>);

impl Seen {
    pub(super) fn has(&self, found: &Found) -> bool {
        self.0.contains(&(found.name.clone(), found.used))
    }

    /// Those that were not looked at before. This is the whole queue: what is not in it is forgotten.
    pub(super) fn new_of(&mut self, queue: Vec<Found>) -> Vec<Found> {
        let all = queue.iter().map(|found| (found.name.clone(), found.used)).collect();
        let before = Self(std::mem::replace(&mut self.0, all));
        queue.into_iter().filter(|found| !before.has(found)).collect()
    }
}

/// The line.
#[derive(Default)]
pub(super) struct Line {
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Entry>,
    /// Those to try again, and from when on.
    later: Vec<(Instant, Entry)>,
    at_work: usize,
    bytes_at_work: u64,
    is_closed: bool,
}

impl State {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.later.is_empty() && self.at_work == 0
    }

    /// Who comes next: those that others may wait for go first.
    fn first(&self) -> Option<usize> {
        let leased = self.waiting.iter().position(|entry| entry.lease.is_some());
        let first = leased.unwrap_or(0);
        let bytes = self.waiting.get(first)?.size().saturating_add(self.bytes_at_work);
        (self.at_work == 0 || bytes <= MOST_AT_ONCE).then_some(first)
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.waiting.remove(self.first()?)?;
        self.at_work += 1;
        self.bytes_at_work += entry.size();
        Some(entry)
    }
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn join(&self, entry: Entry) {
        self.state().waiting.push_back(entry);
        self.bell.notify_all();
    }

    /// Who comes next, once somebody may. `None`: nobody will. Each is followed by [`Line::done`] with its size.
    pub(super) fn next(&self) -> Option<Entry> {
        let idles = |state: &mut State| state.first().is_none() && !state.is_closed;
        let mut state = self.bell.wait_while(self.state(), idles).unwrap_or_else(PoisonError::into_inner);
        if state.is_closed { None } else { state.pop() }
    }

    /// One of this size that was next is done, or is to be tried again from this moment on.
    pub(super) fn done(&self, size: u64, again: Option<(Instant, Entry)>) {
        let mut state = self.state();
        state.at_work = state.at_work.saturating_sub(1);
        state.bytes_at_work = state.bytes_at_work.saturating_sub(size);
        state.later.extend(again);
        drop(state);
        self.bell.notify_all();
    }

    /// Puts those back into the line whose time has come. `true`: nobody waits, works, or is to be tried again.
    pub(super) fn go_on(&self) -> bool {
        let mut state = self.state();
        let now = Instant::now();
        let all = std::mem::take(&mut state.later).into_iter();
        let (due, later): (Vec<_>, Vec<_>) = all.partition(|(again, _)| *again <= now);
        state.later = later;
        state.waiting.extend(due.into_iter().map(|(_, entry)| entry));
        let is_idle = state.is_idle();
        drop(state);
        self.bell.notify_all();
        is_idle
    }

    /// Rests for so long, or until there is nothing more to do.
    pub(super) fn rest(&self, at_most: Duration) {
        let state = self.state();
        let was_idle = state.is_idle();
        let _ = self.bell.wait_timeout_while(state, at_most, |state| was_idle || !state.is_idle());
    }

    /// Nobody is next any more.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.bell.notify_all();
    }

    /// How many have not had their turn, or not their last. Their leases are for another process to keep.
    pub(super) fn leave(self) -> u64 {
        let State { waiting, later, .. } = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let left = waiting.into_iter().chain(later.into_iter().map(|(_, entry)| entry));
        left.map(Entry::hand_over).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use pcmcache_shared::{ActionKey, ActionResult, Claim, Cost, Digest, Output, Role, Scope};

    use super::*;
    use crate::local::origin::ServerId;

    fn entry(name: &str, size: u64) -> Entry {
        let outputs = vec![Output { role: Role::Object, digest: Digest::of(name), size }];
        let result = ActionResult { outputs, cost: Cost::default(), builder: String::new(), signature: None };
        let (server, scope) = (ServerId::of("http://cache"), Scope::default());
        let (action, claim) = (ActionKey::of(name), Claim::of(name));
        let queued = Queued { server, scope, action, claim, lease: None, result };
        let found = Found { name: name.to_owned(), path: name.into(), pages: 1, used: Moment::now() };
        Entry { found, queued, lease: None, taken_on: Instant::now() }
    }

    #[test]
    fn little_goes_together_and_much_goes_alone() {
        let line = Line::default();
        for (name, size) in [("large", 2 * MOST_AT_ONCE), ("a", MOST_AT_ONCE / 2), ("b", MOST_AT_ONCE / 2)] {
            line.join(entry(name, size));
        }
        assert_eq!(line.next().unwrap().found.name, "large", "nothing else is under way");
        assert_eq!(line.state().first(), None);
        line.done(2 * MOST_AT_ONCE, None);
        assert_eq!(["a", "b"].map(|_| line.next().unwrap().found.name), ["a", "b"]);
        line.join(entry("c", 1));
        assert_eq!(line.state().first(), None);
        line.done(MOST_AT_ONCE / 2, None);
        assert_eq!(line.next().unwrap().found.name, "c");
        assert!(!line.go_on(), "two are under way");
        line.done(1, Some((Instant::now() + Duration::from_secs(3600), entry("c", 1))));
        line.done(MOST_AT_ONCE / 2, None);
        assert!(!line.go_on(), "one is to be tried again");
        line.close();
        assert!(line.next().is_none());
        assert_eq!(line.leave(), 1);
    }

    #[test]
    fn what_was_seen_is_new_once_it_was_written_again() {
        let mut seen = Seen::default();
        let (old, other) = (entry("a", 1).found, entry("b", 1).found);
        let again = Found { used: old.used.later(Duration::from_secs(1)), ..old.clone() };
        let names = |found: Vec<Found>| found.into_iter().map(|found| found.name).collect::<Vec<_>>();
        assert_eq!(names(seen.new_of(vec![old.clone()])), ["a"]);
        assert_eq!(names(seen.new_of(vec![old.clone(), other.clone()])), ["b"]);
        assert!(seen.has(&old) && !seen.has(&again));
        assert_eq!(names(seen.new_of(vec![again, other])), ["a"]);
    }
}
