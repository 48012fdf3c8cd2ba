//! When results were last used: noted in memory, written to the store now and then in one batch. A kill loses the notes of
//! the last minute, which makes some results look older than they are.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pcmcache_shared::{ActionKey, Scope, mutant};

use super::{Cache, CacheError};
use crate::clock::{Clock, Moment};
use crate::results::Use;

/// The most notes that are kept; beyond, what is used looks older than it is until they are written.
const MAX_NOTES: usize = 100_000;
/// So much older does each place further back in a set's results make an offer.
const RANK: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug)]
pub(crate) struct Uses {
    clock: Arc<dyn Clock>,
    notes: Mutex<HashMap<(Scope, ActionKey), Note>>,
    /// Locked before the notes.
    removal: Mutex<Removal>,
}

/// What an eviction is about to remove.
#[derive(Debug, Default)]
struct Removal {
    chosen: HashSet<(Scope, ActionKey)>,
    /// How often something was removed.
    done: u64,
}

#[derive(Debug, Clone, Copy)]
struct Note {
    noted: Moment,
    /// The use lay so long before that.
    before: Duration,
}

impl Uses {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, notes: Mutex::default(), removal: Mutex::default() }
    }

    fn notes(&self) -> MutexGuard<'_, HashMap<(Scope, ActionKey), Note>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn removal(&self) -> MutexGuard<'_, Removal> {
        self.removal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often something was removed: to be asked before a result is looked for that may be used.
    pub(crate) fn removals(&self) -> u64 {
        self.removal().done
    }

    /// It answers whoever asked for it, who looked for it when there had been so many `removals`. False, and nothing is noted,
    /// if it is about to go, or something has gone meanwhile: whoever wants to rest on it must write its use down, and look
    /// again.
    #[must_use]
    pub(crate) fn used(&self, scope: &Scope, action: ActionKey, removals: u64) -> bool {
        let removal = self.removal();
        if removal.done != removals || removal.chosen.contains(&(scope.clone(), action)) {
            return false;
        }
        self.note(scope, action, Duration::ZERO);
        true
    }

    /// Those of the results that may still go, since nobody used them meanwhile. No use of them is noted until they are
    /// [`Self::removed`].
    pub(crate) fn choose(&self, mut results: Vec<(Scope, ActionKey)>) -> Vec<(Scope, ActionKey)> {
        let mut removal = self.removal();
        results.retain(|(scope, action)| !self.has(scope, *action) || mutant!("used-and-evicted"));
        removal.chosen.extend(results.iter().cloned());
        results
    }

    /// Those that were chosen have gone, unless a use of them was written down.
    pub(crate) fn removed(&self) {
        let mut removal = self.removal();
        removal.chosen.clear();
        removal.done += 1;
    }

    /// It was offered to someone who may have a use for it, as the `rank`th of its set. Clients take the newest, mostly: if
    /// every offer were a use, what is out of date would look as fresh as what is not.
    pub(crate) fn offered(&self, scope: &Scope, action: ActionKey, rank: usize) {
        let rank = u32::try_from(rank).unwrap_or(u32::MAX);
        self.note(scope, action, RANK.saturating_mul(rank));
    }

    fn note(&self, scope: &Scope, action: ActionKey, before: Duration) {
        let noted = self.clock.now();
        let mut notes = self.notes();
        if notes.len() >= MAX_NOTES {
            return;
        }
        let note = notes.entry((scope.clone(), action)).or_insert(Note { noted, before });
        // The later of the two uses.
        if note.before >= before || note.noted + before < noted + note.before {
            *note = Note { noted, before };
        }
    }

    /// Whether it was used since the notes were last written.
    pub(crate) fn has(&self, scope: &Scope, action: ActionKey) -> bool {
        self.notes().get(&(scope.clone(), action)).is_some_and(|note| note.before.is_zero())
    }

    /// Whether it is time to write the notes, though not on the hour.
    pub(crate) fn are_many(&self) -> bool {
        self.notes().len() > MAX_NOTES / 2
    }

    fn take(&self) -> Vec<Use> {
        let now = self.clock.now();
        let notes = std::mem::take(&mut *self.notes());
        let to_use = |((scope, action), note): ((Scope, ActionKey), Note)| Use {
            scope,
            action,
            ago: now.since(note.noted).saturating_add(note.before),
        };
        notes.into_iter().map(to_use).collect()
    }
}

impl Cache {
    /// Writes the notes down. Those that could not be written are lost.
    pub(crate) async fn flush_uses(&self) -> Result<(), CacheError> {
        Ok(self.rooms.results.used(self.uses.take()).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn the_latest_use_counts_and_an_offer_counts_by_its_rank() {
        let clock = Arc::new(ManualClock::default());
        let uses = Uses::new(Arc::clone(&clock) as _);
        let (scope, action) = (Scope::default(), ActionKey::of("a"));
        let ago = || {
            let taken = uses.take();
            assert_eq!(taken.len(), 1);
            taken[0].ago
        };
        uses.offered(&scope, action, 2);
        assert!(!uses.has(&scope, action));
        assert_eq!(ago(), 2 * RANK);
        uses.offered(&scope, action, 1);
        assert!(uses.used(&scope, action, 0));
        uses.offered(&scope, action, 3);
        clock.advance(Duration::from_secs(5));
        assert!(uses.has(&scope, action));
        assert_eq!(ago(), Duration::from_secs(5));
        uses.offered(&scope, action, 2);
        clock.advance(3 * RANK);
        uses.offered(&scope, action, 1);
        assert_eq!(ago(), RANK);
    }

    #[test]
    fn what_an_eviction_has_chosen_is_not_used_and_what_was_used_is_not_chosen() {
        let uses = Uses::new(Arc::new(ManualClock::default()));
        let (used, idle) = ((Scope::default(), ActionKey::of("a")), (Scope::default(), ActionKey::of("b")));
        assert!(uses.used(&used.0, used.1, uses.removals()));
        let looked = uses.removals();
        assert_eq!(uses.choose(vec![used.clone(), idle.clone()]), std::slice::from_ref(&idle));
        assert!(uses.used(&used.0, used.1, looked));
        assert!(!uses.used(&idle.0, idle.1, looked) && !uses.has(&idle.0, idle.1));
        uses.removed();
        assert!(!uses.used(&idle.0, idle.1, looked), "it was seen before it went");
        assert!(uses.used(&idle.0, idle.1, uses.removals()) && uses.has(&idle.0, idle.1));
    }

    #[test]
    fn the_notes_are_bounded() {
        let uses = Uses::new(Arc::new(ManualClock::default()));
        for n in 0..=MAX_NOTES {
            assert!(uses.used(&Scope::default(), ActionKey::of(n.to_le_bytes()), 0));
        }
        assert!(uses.are_many());
        assert_eq!(uses.take().len(), MAX_NOTES);
    }
}
