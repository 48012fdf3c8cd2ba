//! What there is: results that may answer, and include sets to learn.
//!
//! Invariant: a result answers only while every blob it stands on is there, with the size it names. Blobs are pinned
//! before they are looked at, so what was answered can be fetched.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pcmcache_shared::api::lookup::{LookupAnswer, LookupRequest, UnitSets};
use pcmcache_shared::api::{Inline, KeyedResult, OfferedSet, limits};
use pcmcache_shared::{ActionKey, Digest, Scope, recipe};

use super::{Cache, CacheError};
use crate::results::{SetRow, StoredResult, Use};
use crate::trust::View;

/// What one answer holds at most, in bytes of texts and inlined blobs: JSON may double it, and a client reads no more
/// than [`limits::MAX_ANSWER`]. What does not fit is left out, as if it were not there.
const ANSWER_BYTES: usize = limits::MAX_ANSWER / 3;

impl Cache {
    /// The result of a key, if there is one that may answer.
    pub async fn result(
        self: &Arc<Self>,
        view: &View,
        key: ActionKey,
    ) -> Result<Option<KeyedResult>, CacheError> {
        let found = self.hit_of(view, key).await?;
        match &found {
            Some(found) => {
                self.counters.hit(found.result.cost);
                self.seen.hit(&found.scope, found.result.cost);
            }
            None => {
                self.counters.misses.one();
                self.seen.missed(view.scope(), "");
            }
        }
        Ok(found)
    }

    /// What there is of many units and actions.
    pub async fn lookup(
        self: &Arc<Self>,
        view: &View,
        request: &LookupRequest,
    ) -> Result<LookupAnswer, CacheError> {
        if request.units.len() + request.actions.len() > limits::MAX_LOOKUP {
            let limit = limits::MAX_LOOKUP;
            return Err(CacheError::BadRequest(format!("a lookup has at most {limit} keys")));
        }
        let mut room = Room::default();
        let mut answer = LookupAnswer::default();
        for key in &request.actions {
            let Some(mut found) = self.hit_of(view, *key).await? else { continue };
            // Who asks by the key alone has the recipe still to come by.
            if let Some(recipe) = self.bytes(key.recipe(), limits::MAX_INLINE_BLOB).await? {
                found.blobs.insert(key.recipe(), Inline(recipe));
            }
            answer.results.extend(Some(found).filter(|found| room.takes_result(found)));
        }
        for unit in &request.units {
            let rows = self.learnt(view, Some(*unit)).await?.merged();
            let sets = self.offer(view, rows, &mut room).await?;
            if !sets.is_empty() {
                answer.units.push(UnitSets { unit: *unit, sets });
            }
        }
        Ok(answer)
    }

    /// The stored result of a key and whether it may answer: it is not hidden, and everything that it stands on is there.
    pub(super) async fn stored(
        &self,
        scope: &Scope,
        key: ActionKey,
    ) -> Result<Option<(StoredResult, bool)>, CacheError> {
        let Some(stored) = self.rooms.results.get(scope, key).await? else { return Ok(None) };
        // What it names may be seen because it may, and only then.
        let answers = !self.hides(&stored) && self.stands(&stored, key).await?;
        Ok(Some((stored, answers)))
    }

    /// Whether all that the result stands on is there, with the size it names.
    async fn stands(&self, stored: &StoredResult, key: ActionKey) -> Result<bool, CacheError> {
        let outputs = &stored.result.outputs;
        let digests = outputs.iter().map(|output| output.digest).chain([key.recipe()]).collect();
        let sizes = self.have_seen(digests).await?;
        let named = outputs.iter().map(|output| Some(output.size));
        // Of the recipe it names no size.
        Ok(sizes.last().is_some_and(Option::is_some) && sizes.iter().copied().zip(named).all(|(a, b)| a == b))
    }

    /// The result of a key that answers, of the first scope that has one.
    pub(super) async fn found(&self, view: &View, action: ActionKey) -> Result<Option<Found>, CacheError> {
        for scope in view.scopes() {
            if let Some((stored, true)) = self.stored(scope, action).await? {
                return Ok(Some(Found { scope: scope.clone(), stored }));
            }
        }
        Ok(None)
    }

    /// The result of a key if there is one that answers, which is a use of it.
    pub(super) async fn hit_of(
        self: &Arc<Self>,
        view: &View,
        action: ActionKey,
    ) -> Result<Option<KeyedResult>, CacheError> {
        let removals = self.uses.removals();
        let Some(found) = self.keyed(view, action).await? else { return Ok(None) };
        if self.uses.used(&found.scope, action, removals) {
            return Ok(Some(found));
        }
        // Either it has gone once the use is written, or it stays.
        let now = Use { scope: found.scope, action, ago: Duration::ZERO };
        self.rooms.results.used(vec![now]).await?;
        self.keyed(view, action).await
    }

    /// The result of a key if there is one that answers, with its small blobs.
    pub(super) async fn keyed(
        self: &Arc<Self>,
        view: &View,
        action: ActionKey,
    ) -> Result<Option<KeyedResult>, CacheError> {
        let Some(Found { scope, stored }) = self.found(view, action).await? else { return Ok(None) };
        let mut blobs = BTreeMap::new();
        for output in &stored.result.outputs {
            if output.size <= limits::MAX_INLINE_BLOB {
                // It may turn out to be damaged only now.
                let bytes = self.bytes(output.digest, limits::MAX_INLINE_BLOB).await?;
                let Some(bytes) = bytes else { return Ok(None) };
                blobs.insert(output.digest, Inline(bytes));
            }
        }
        let StoredResult { result, writers, .. } = stored;
        Ok(Some(KeyedResult { action, result, scope, writers, blobs }))
    }

    /// The sets of the unit that are not `known`, newest first, with the results under them.
    pub(super) async fn unknown_sets(
        self: &Arc<Self>,
        view: &View,
        rows: &[SetRow],
        known: impl Fn(Digest) -> bool,
    ) -> Result<Vec<OfferedSet>, CacheError> {
        let unknown = rows.iter().filter(|row| !known(row.set)).cloned().collect();
        self.offer(view, unknown, &mut Room::default()).await
    }

    async fn offer(
        self: &Arc<Self>,
        view: &View,
        rows: Vec<SetRow>,
        room: &mut Room,
    ) -> Result<Vec<OfferedSet>, CacheError> {
        let mut sets = Vec::new();
        for SetRow { set, actions } in rows {
            // A set whose text is lost is one nobody knows; the next publish under it stores it again.
            let Some(bytes) = self.bytes(set, recipe::MAX_TEXT as u64).await? else { continue };
            let Ok(text) = String::from_utf8(bytes) else { continue };
            if !room.takes(text.len()) {
                break;
            }
            let mut results = Vec::new();
            for (rank, action) in actions.into_iter().enumerate() {
                if let Some(found) = self.keyed(view, action).await?.filter(|found| room.takes_result(found))
                {
                    self.uses.offered(&found.scope, action, rank);
                    results.push(found);
                }
            }
            sets.push(OfferedSet { set, text, results });
        }
        Ok(sets)
    }
}

/// A result that answers, and where it was found.
#[derive(Debug)]
pub struct Found {
    /// The scope.
    pub scope: Scope,
    /// The result.
    pub stored: StoredResult,
}

/// What an answer still has room for.
struct Room {
    left: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { left: ANSWER_BYTES }
    }
}

impl Room {
    fn takes(&mut self, bytes: usize) -> bool {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    fn takes_result(&mut self, found: &KeyedResult) -> bool {
        // The result itself is some hundred bytes.
        self.takes(1024 + found.blobs.values().map(|blob| blob.0.len() * 4 / 3).sum::<usize>())
    }
}
