//! Results in memory.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pcmcache_shared::api::limits::{MAX_RESULTS_PER_SET, MAX_SETS};
use pcmcache_shared::{ActionKey, Digest, Scope, UnitKey};

use crate::clock::{Clock, Moment};
use crate::fault::Fault;
use crate::results::{
    Creation, MAX_NAMING, Overdue, Pinned, Publication, Removed, Results, SetRow, Standing, StoredResult, Use,
};
use crate::trust::WriterSet;

/// Results in memory.
#[derive(Debug)]
pub struct MemoryResults {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    results: HashMap<(Scope, ActionKey), StoredResult>,
    sets: HashMap<(Scope, UnitKey), Vec<SetRow>>,
    /// When each was used: so long before that moment.
    used: HashMap<(Scope, ActionKey), (Moment, Duration)>,
    kept: HashSet<(Scope, ActionKey)>,
}

impl MemoryResults {
    /// None yet; the clock says how long one was not used.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Results for MemoryResults {
    async fn get(&self, scope: &Scope, action: ActionKey) -> Result<Option<StoredResult>, Fault> {
        Ok(self.state().results.get(&(scope.clone(), action)).cloned())
    }

    async fn create(&self, scope: &Scope, publication: Publication) -> Result<Creation, Fault> {
        let mut state = self.state();
        let Publication { action, stored, instead_of, ends: _ } = publication;
        match state.results.get(&(scope.clone(), action)) {
            Some(there) if instead_of.as_ref() != Some(there) => {
                return Ok(Creation::Exists(Box::new(there.clone())));
            }
            Some(_) | None => {}
        }
        let sets = state.sets.entry((scope.clone(), stored.unit)).or_default();
        if !sets.iter().any(|row| row.set == stored.set) {
            sets.insert(0, SetRow { set: stored.set, actions: Vec::new() });
            sets.truncate(MAX_SETS);
        }
        if let Some(row) = sets.iter_mut().find(|row| row.set == stored.set) {
            row.actions.retain(|known| *known != action);
            row.actions.insert(0, action);
            row.actions.truncate(MAX_RESULTS_PER_SET);
        }
        state.used.insert((scope.clone(), action), (self.clock.now(), Duration::ZERO));
        state.results.insert((scope.clone(), action), stored);
        Ok(Creation::Created)
    }

    async fn sets(&self, scope: &Scope, unit: UnitKey) -> Result<Vec<SetRow>, Fault> {
        Ok(self.state().sets.get(&(scope.clone(), unit)).cloned().unwrap_or_default())
    }

    async fn names(&self, scopes: &[Scope], digest: Digest, hidden: &WriterSet) -> Result<bool, Fault> {
        let state = self.state();
        let naming = |scope: &Scope| {
            let stored = state.results.iter().filter(|((of, _), _)| of == scope);
            let mut naming =
                stored.filter(|((_, key), stored)| stored.references(*key).any(|named| named == digest));
            naming.by_ref().take(MAX_NAMING).any(|(_, stored)| !hidden.has_any(&stored.writers))
        };
        Ok(scopes.iter().any(naming))
    }

    async fn named_in(&self, digests: Vec<Digest>) -> Result<Vec<(Digest, Vec<Scope>)>, Fault> {
        let state = self.state();
        let scopes = |digest| {
            let names = |(_, key): &(Scope, ActionKey), stored: &StoredResult| {
                stored.references(*key).any(|named| named == digest)
            };
            let scopes = state.results.iter().filter(|(key, stored)| names(key, stored));
            scopes.map(|((scope, _), _)| scope.clone()).collect::<BTreeSet<_>>()
        };
        Ok(digests.into_iter().map(|digest| (digest, scopes(digest).into_iter().collect())).collect())
    }

    async fn count(&self) -> Result<u64, Fault> {
        Ok(self.state().results.len() as u64)
    }

    async fn used(&self, uses: Vec<Use>) -> Result<(), Fault> {
        let now = self.clock.now();
        let mut state = self.state();
        for Use { scope, action, ago } in uses {
            if let Some((noted, before)) = state.used.get_mut(&(scope, action))
                && now.since(*noted).saturating_add(*before) > ago
            {
                (*noted, *before) = (now, ago);
            }
        }
        Ok(())
    }

    async fn coldest(
        &self,
        scope: Option<&Scope>,
        at_most: usize,
        idle: Duration,
        overdue: Overdue,
        pinned: &Pinned,
    ) -> Result<Vec<Standing>, Fault> {
        let now = self.clock.now();
        let state = self.state();
        let of_scope = |key: &&(Scope, ActionKey)| scope.is_none_or(|scope| *scope == key.0);
        let standing = |key: &(Scope, ActionKey)| {
            let ((noted, before), stored) = (state.used.get(key)?, state.results.get(key)?);
            Some(Standing {
                scope: key.0.clone(),
                action: key.1,
                idle: now.since(*noted).saturating_add(*before),
                cost_ms: stored.result.cost.wall_ms,
                bytes: stored.result.outputs.iter().map(|output| output.size).sum(),
            })
        };
        let mut all: Vec<Standing> = state
            .results
            .keys()
            .filter(of_scope)
            .filter(|key| !state.kept.contains(*key) && !pinned.has(key.0.as_str(), key.1))
            .filter_map(standing)
            .filter(|standing| standing.idle >= idle)
            .collect();
        all.sort_by_key(|standing| Reverse(overdue(standing)));
        all.truncate(at_most);
        Ok(all)
    }

    async fn remove(&self, results: Vec<(Scope, ActionKey)>, idle: Duration) -> Result<Removed, Fault> {
        let mut state = self.state();
        let mut removed = Removed::default();
        let now = self.clock.now();
        for key in results {
            let used = state.used.get(&key);
            if used.is_some_and(|(noted, before)| now.since(*noted).saturating_add(*before) < idle) {
                continue;
            }
            let Some(stored) = state.results.remove(&key) else { continue };
            state.used.remove(&key);
            removed.results += 1;
            removed.named.extend(stored.references(key.1));
            if let Some(rows) = state.sets.get_mut(&(key.0, stored.unit)) {
                rows.iter_mut().for_each(|row| row.actions.retain(|action| *action != key.1));
                rows.retain(|row| !row.actions.is_empty());
            }
        }
        Ok(removed)
    }

    async fn keep(&self, scope: &Scope, action: ActionKey, kept: bool) -> Result<(), Fault> {
        let mut state = self.state();
        match kept {
            true => state.kept.insert((scope.clone(), action)),
            false => state.kept.remove(&(scope.clone(), action)),
        };
        Ok(())
    }
}
