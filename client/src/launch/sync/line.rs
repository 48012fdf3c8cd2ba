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

/// A result that was taken on.
pub(super) struct Entry {
    pub(super) found: Found,
    pub(super) queued: Queued,
    pub(super) lease: Option<Lease>,
    /// Since when.
    pub(super) taken_on: Instant,
}

impl Entry {
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
    is_closed: bool,
}

impl State {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.later.is_empty() && self.at_work == 0
    }

    /// Those that others may wait for go first.
    fn pop(&mut self) -> Option<Entry> {
        let leased = self.waiting.iter().position(|entry| entry.lease.is_some());
        self.waiting.remove(leased.unwrap_or(0))
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

    /// Who comes next, once somebody does. `None`: nobody will. Each is followed by [`Line::done`].
    pub(super) fn next(&self) -> Option<Entry> {
        let idles = |state: &mut State| state.waiting.is_empty() && !state.is_closed;
        let mut state = self.bell.wait_while(self.state(), idles).unwrap_or_else(PoisonError::into_inner);
        if state.is_closed {
            return None;
        }
        state.at_work += 1;
        state.pop()
    }

    /// One that was next is done, or is to be tried again from this moment on.
    pub(super) fn done(&self, again: Option<(Instant, Entry)>) {
        let mut state = self.state();
        state.at_work = state.at_work.saturating_sub(1);
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
