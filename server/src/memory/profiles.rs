//! Profiles in memory.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pcmcache_shared::{ProfileName, Scope};

use crate::clock::{Clock, Moment};
use crate::fault::Fault;
use crate::profiles::{FORGOTTEN_AFTER, MAX_KEYS, MAX_PROFILES, NOTED_AFTER, Profiles, StoredProfile};

/// Profiles in memory.
#[derive(Debug)]
pub struct MemoryProfiles {
    clock: Arc<dyn Clock>,
    profiles: Mutex<BTreeMap<(Scope, ProfileName), (Moment, StoredProfile)>>,
}

impl MemoryProfiles {
    /// None yet; the clock says when one was used.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, profiles: Mutex::default() }
    }

    fn profiles(&self) -> MutexGuard<'_, BTreeMap<(Scope, ProfileName), (Moment, StoredProfile)>> {
        self.profiles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Profiles for MemoryProfiles {
    async fn put(&self, scope: &Scope, name: &ProfileName, profile: StoredProfile) -> Result<(), Fault> {
        let now = self.clock.now();
        let mut profiles = self.profiles();
        let new = (scope.clone(), name.clone());
        profiles.retain(|_, (used, _)| now.since(*used) < FORGOTTEN_AFTER);
        profiles.insert(new.clone(), (now, profile));
        let mut order: Vec<_> = profiles.iter().filter(|((of, _), _)| of == scope).collect();
        order.sort_by_key(|(key, (used, _))| (**key != new, Reverse(*used)));
        let (mut count, mut keys, mut going) = (0, 0, Vec::new());
        for (key, (_, profile)) in order {
            count += 1;
            keys += profile.actions.len() as u64;
            if count > MAX_PROFILES || keys > MAX_KEYS {
                going.push(key.clone());
            }
        }
        going.iter().for_each(|key| drop(profiles.remove(key)));
        Ok(())
    }

    async fn profile(&self, scope: &Scope, name: &ProfileName) -> Result<Option<StoredProfile>, Fault> {
        let key = (scope.clone(), name.clone());
        Ok(self.profiles().get(&key).map(|(_, profile)| profile.clone()))
    }

    async fn touch(&self, scope: &Scope, name: &ProfileName) -> Result<(), Fault> {
        let now = self.clock.now();
        if let Some((used, _)) = self.profiles().get_mut(&(scope.clone(), name.clone()))
            && now.since(*used) >= NOTED_AFTER
        {
            *used = now;
        }
        Ok(())
    }

    async fn recent(&self, within: Duration) -> Result<Vec<(Scope, ProfileName)>, Fault> {
        let now = self.clock.now();
        let profiles = self.profiles();
        let recent = profiles.iter().filter(|(_, (used, _))| now.since(*used) <= within);
        let mut recent: Vec<_> = recent.map(|(key, (used, _))| (Reverse(*used), key.clone())).collect();
        recent.sort();
        Ok(recent.into_iter().map(|(_, key)| key).collect())
    }
}
