//! Profiles: what a build used, so that another machine fetches it before it builds.
//!
//! A profile lies in a scope and is found like a result: in the scope, then in those that are readable beside it; one whose
//! writer is revoked is as if it were not there. It names, and gives no right: what it names is asked for like anything else.
//!
//! What a profile in use names stays: eviction and aging pass over results of its own scope, the most urgent of those that
//! were used last first, as far as they take half of the store and half of their scope's quota. So there is always
//! something that can go.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use pcmcache_shared::api::limits;
use pcmcache_shared::api::profiles::{Profile, PushRequest, Pushed};
use pcmcache_shared::{ActionKey, ProfileName, Scope};
use tokio::sync::Mutex;

use super::{Cache, CacheError};
use crate::clock::Moment;
use crate::profiles::StoredProfile;
use crate::results::Pinned;
use crate::space::Usage;
use crate::trust::{View, Writing};

/// A profile that was pushed or fetched within this time is in use.
const IN_USE: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// What profiles name is found out anew so often, when room is needed.
const FRESH: Duration = Duration::from_secs(10 * 60);
/// The most results that stay because of profiles: they are kept in memory.
const MAX_NAMED: usize = 250_000;
/// How many keys are looked up at once.
const AT_ONCE: usize = 16;

/// What profiles in use name, as of when.
#[derive(Debug, Default)]
pub(super) struct Named(Mutex<Option<(Moment, Pinned)>>);

impl Cache {
    /// Puts a profile in the place of the one of that name. What is no result that its writer may see is left out.
    pub async fn push_profile(
        &self,
        writing: &Writing,
        name: &ProfileName,
        request: PushRequest,
    ) -> Result<Pushed, CacheError> {
        let PushRequest { inherits, actions } = request;
        for (what, count, limit) in
            [("keys", actions.len(), limits::MAX_PROFILE), ("parents", inherits.len(), limits::MAX_INHERITED)]
        {
            if count > limit {
                return Err(CacheError::BadRequest(format!("a profile has at most {limit} {what}")));
            }
        }
        let mut seen = HashSet::new();
        let distinct = actions.into_iter().filter(|action| seen.insert(*action));
        let looks = stream::iter(distinct).map(|action| async move {
            Ok::<_, CacheError>((action, self.may_name(writing.view(), action).await?))
        });
        let looked: Vec<(ActionKey, bool)> = looks.buffered(AT_ONCE).try_collect().await?;
        let asked = looked.len();
        let actions: Vec<_> =
            looked.into_iter().filter_map(|(action, known)| known.then_some(action)).collect();
        let pushed = Pushed { kept: actions.len() as u64, unknown: (asked - actions.len()) as u64 };
        // That may have taken a while.
        if self.refuses(writing.view()) {
            return Err(CacheError::Revoked);
        }
        let stored = StoredProfile { inherits, writers: writing.writers().to_vec(), actions };
        self.rooms.profiles.put(writing.scope(), name, stored).await?;
        *self.named.0.lock().await = None;
        Ok(pushed)
    }

    async fn may_name(&self, view: &View, action: ActionKey) -> Result<bool, CacheError> {
        for scope in view.scopes() {
            let stored = self.rooms.results.get(scope, action).await?;
            if stored.is_some_and(|stored| !self.hides(&stored)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The profile of that name, of the first scope that has one.
    pub async fn profile(&self, view: &View, name: &ProfileName) -> Result<Option<Profile>, CacheError> {
        for scope in view.scopes() {
            let stored = self.rooms.profiles.profile(scope, name).await?;
            if let Some(stored) = stored.filter(|stored| !self.hidden().has_any(&stored.writers)) {
                self.rooms.profiles.touch(scope, name).await?;
                let StoredProfile { inherits, actions, .. } = stored;
                return Ok(Some(Profile { scope: scope.clone(), inherits, actions }));
            }
        }
        Ok(None)
    }

    /// The results that stay because a profile in use names them.
    pub(super) async fn named_by_profiles(&self) -> Result<Pinned, CacheError> {
        let mut named = self.named.0.lock().await;
        let now = self.rooms.clock.now();
        match &*named {
            Some((since, pinned)) if now.since(*since) < FRESH => Ok(pinned.clone()),
            Some(_) | None => {
                let pinned = self.look_what_is_named().await?;
                *named = Some((now, pinned.clone()));
                Ok(pinned)
            }
        }
    }

    async fn look_what_is_named(&self) -> Result<Pinned, CacheError> {
        let mut budget = Budget::half_of(&self.usage());
        let mut pinned = HashSet::new();
        for (scope, name) in self.rooms.profiles.recent(IN_USE).await? {
            let profile = self.rooms.profiles.profile(&scope, &name).await?;
            let profile = profile.filter(|profile| !self.hidden().has_any(&profile.writers));
            for action in profile.into_iter().flat_map(|profile| profile.actions) {
                if pinned.len() >= MAX_NAMED {
                    return Ok(pinned.into_iter().collect());
                }
                let named = (scope.clone(), action);
                if pinned.contains(&named) {
                    continue;
                }
                let stored = self.rooms.results.get(&scope, action).await?;
                let Some(stored) = stored.filter(|stored| !self.hides(stored)) else { continue };
                let bytes = stored.result.outputs.iter().fold(0, |sum: u64, o| sum.saturating_add(o.size));
                if budget.takes(&scope, bytes) {
                    pinned.insert(named);
                }
            }
        }
        Ok(pinned.into_iter().collect())
    }
}

/// What may stay because of profiles, in bytes: of all, and in scopes with a quota. Blobs that results share count for each.
struct Budget {
    left: u64,
    of_scopes: BTreeMap<Scope, u64>,
}

impl Budget {
    fn half_of(usage: &Usage) -> Self {
        let quotas = usage.scopes.iter().filter_map(|(scope, of)| Some((scope.clone(), of.quota? / 2)));
        Self { left: usage.max_size.unwrap_or(usage.blob_bytes) / 2, of_scopes: quotas.collect() }
    }

    fn takes(&mut self, scope: &Scope, bytes: u64) -> bool {
        let of_scope = self.of_scopes.get_mut(scope);
        if bytes > self.left || of_scope.as_ref().is_some_and(|left| bytes > **left) {
            return false;
        }
        self.left -= bytes;
        if let Some(left) = of_scope {
            *left -= bytes;
        }
        true
    }
}
