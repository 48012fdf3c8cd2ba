//! Results in memory.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use pcmcache_shared::api::limits::{MAX_RESULTS_PER_SET, MAX_SETS};
use pcmcache_shared::{ActionKey, Digest, Scope, UnitKey};

use crate::fault::Fault;
use crate::results::{Creation, MAX_NAMING, Publication, Results, SetRow, StoredResult};
use crate::trust::WriterSet;

/// Results in memory.
#[derive(Debug, Default)]
pub struct MemoryResults {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    results: HashMap<(Scope, ActionKey), StoredResult>,
    sets: HashMap<(Scope, UnitKey), Vec<SetRow>>,
}

impl MemoryResults {
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

    async fn unreferenced(&self, digests: Vec<Digest>) -> Result<Vec<Digest>, Fault> {
        let state = self.state();
        let referenced = |digest: &Digest| {
            state.results.iter().any(|((_, key), stored)| stored.references(*key).any(|r| r == *digest))
        };
        Ok(digests.into_iter().filter(|digest| !referenced(digest)).collect())
    }

    async fn count(&self) -> Result<u64, Fault> {
        Ok(self.state().results.len() as u64)
    }
}
