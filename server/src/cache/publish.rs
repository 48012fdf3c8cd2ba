//! Publish: a result becomes the one answer of its key.
//!
//! Invariants: a result is stored once per scope and key, and only where none of its key can be seen already; when it is, every blob it stands on is durable and pinned; its
//! include set, its references and the end of its lease are in the same transaction. Crash story: killed before the
//! transaction, there is no result and the holder publishes again; killed after it, the result is there, the lease is
//! not, and the publish that is sent again finds the same outputs.

use std::sync::Arc;
use std::time::Duration;

use pcmcache_shared::api::actions::PublishRequest;
use pcmcache_shared::{
    ActionKey, ActionResult, Claim, Digest, Fence, IncludeSet, Recipe, UnitKey, failpoint, recipe,
};

use super::lookup::Found;
use super::{Cache, CacheError, on_its_own};
use crate::blobs::Placed;
use crate::leases::Lease;
use crate::results::{Creation, Publication, StoredResult, Use};
use crate::seen::{Divergence, Ended};
use crate::trust::Writing;

/// How often a publish tries to take the place of what others take the place of meanwhile.
const CREATES: usize = 3;

/// What a publish did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// It is the result of its key now.
    Stored,
    /// The same outputs were there.
    Same,
}

impl Cache {
    /// Makes a result the one answer of its key, and wakes all who wait for it.
    pub async fn publish(
        self: &Arc<Self>,
        writing: &Writing,
        key: ActionKey,
        request: PublishRequest,
    ) -> Result<Published, CacheError> {
        let unit = check(key, &request)?;
        let (cache, writing) = (Arc::clone(self), writing.clone());
        let publishing = Publishing { cache, writing, key, unit, request };
        // To its end, also where the client goes away: once the result is stored its waiters must be woken.
        on_its_own("publish a result", publishing.run()).await
    }
}

/// One publish, of what does not contradict itself.
struct Publishing {
    cache: Arc<Cache>,
    writing: Writing,
    key: ActionKey,
    unit: UnitKey,
    request: PublishRequest,
}

impl Publishing {
    async fn run(self) -> Result<Published, CacheError> {
        let own = self.own_lease().await?;
        let (mut found, mut lost) = self.look().await?;
        if let Some(winner) = found {
            // Whoever is told that it is there can count on that. An eviction may have chosen it: either it has gone when the
            // use is noted, or it stays.
            let now = Use { scope: winner.scope, action: self.key, ago: Duration::ZERO };
            self.cache.rooms.results.used(vec![now]).await?;
            (found, lost) = self.look().await?;
        }
        if let Some(winner) = found {
            self.mend(&winner.stored.result).await?;
            return self.settle(own, winner).await;
        }
        if lost.is_some() {
            self.find_damage().await?;
        }
        self.require_blobs().await?;
        self.refuse_if_leased().await?;
        failpoint!("publish.checked");

        let texts = self.place_texts(false).await?;
        failpoint!("publish.blobs");

        // Both at once, so that they share a transaction; the texts first, so that no batch has the result without them.
        let set = texts.set;
        let (shown, created) = tokio::join!(biased; texts.show(&self.writing), self.create(set, lost, own));
        shown?;
        if let Some(winner) = created? {
            return self.settle(own, winner).await;
        }
        failpoint!("publish.committed");

        self.discharge(own).await?;
        failpoint!("publish.discharged");
        Ok(Published::Stored)
    }

    /// The result that is there and stands, if there is one; else the one of this scope that answers nobody, or not everybody.
    async fn look(&self) -> Result<(Option<Found>, Option<StoredResult>), CacheError> {
        let mut lost = None;
        for scope in self.writing.view().scopes() {
            let Some((stored, answers)) = self.cache.stored(scope, self.key).await? else { continue };
            if answers && !self.adds_a_signature_to(&stored.result) {
                return Ok((Some(Found { scope: scope.clone(), stored }), None));
            }
            if scope == self.writing.scope() {
                lost = Some(stored);
            }
            if answers {
                break;
            }
        }
        Ok((None, lost))
    }

    /// There is a result already: the publisher learns whether it is the same, and its lease ends all the same.
    async fn settle(&self, own: Option<(Claim, Fence)>, winner: Found) -> Result<Published, CacheError> {
        self.discharge(own).await?;
        if winner.stored.result.same_outputs(&self.request.result) {
            self.cache.counters.published_same.one();
            return Ok(Published::Same);
        }
        self.cache.counters.diverged.one();
        let (scope, key) = (&winner.scope, self.key);
        let (first, second) = (&winner.stored.result.builder, &self.request.result.builder);
        self.cache.seen.diverged(Divergence {
            scope: scope.clone(),
            action: key,
            subject: self.subject(),
            first: first.clone(),
            second: second.clone(),
            at: self.cache.rooms.clock.now(),
        });
        tracing::warn!(%scope, %key, first, second, "two builders made different outputs of one action");
        Err(CacheError::Winner(Box::new(winner)))
    }

    /// What people call it.
    fn subject(&self) -> String {
        recipe::subject(&self.request.recipe).unwrap_or_default()
    }

    /// Whether the same is there unsigned, and those who ask for a signature would never get it.
    fn adds_a_signature_to(&self, there: &ActionResult) -> bool {
        let mine = &self.request.result;
        mine.signature.is_some() && there.signature.is_none() && there.same_outputs(mine)
    }

    /// The publisher's own lease, if it still lives.
    async fn own_lease(&self) -> Result<Option<(Claim, Fence)>, CacheError> {
        let claim = self.request.claim;
        let current = self.cache.rooms.leases.current(self.writing.scope(), claim).await?;
        Ok(current.filter(|lease| self.holds(lease)).map(|lease| (claim, lease.fence)))
    }

    fn holds(&self, lease: &Lease) -> bool {
        let hold = self.request.lease.as_ref();
        hold.is_some_and(|hold| hold.fence == lease.fence && lease.secret.matches(&hold.secret))
    }

    /// Every output is there, with the size the result names, and stays.
    async fn require_blobs(&self) -> Result<(), CacheError> {
        let (mut seen, mut missing) = (Vec::new(), Vec::new());
        for output in &self.request.result.outputs {
            match self.cache.sees(self.writing.view(), output.digest).await? {
                true => seen.push(*output),
                false => missing.push(output.digest),
            }
        }
        let sizes = self.cache.have_seen(seen.iter().map(|output| output.digest).collect()).await?;
        for (output, size) in seen.into_iter().zip(sizes) {
            match size {
                Some(size) if size == output.size => {}
                Some(size) => {
                    let (role, named) = (output.role, output.size);
                    let detail = format!("the {role} has {size} bytes, the result says {named}");
                    return Err(CacheError::BadResult(detail));
                }
                None => missing.push(output.digest),
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(CacheError::Missing(missing)) }
    }

    /// While a lease lives only its holder publishes: it may have placed its outputs already.
    async fn refuse_if_leased(&self) -> Result<(), CacheError> {
        for claim in [self.request.claim, self.key.into()] {
            match self.cache.rooms.leases.current(self.writing.scope(), claim).await? {
                Some(lease) if !self.holds(&lease) => {
                    self.cache.counters.lease_held.one();
                    return Err(CacheError::LeaseHeld { holder: lease.holder });
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    /// Someone built what is stored already, so it may be that they could not read it: while all its bytes are at hand,
    /// what is damaged of it is replaced or asked for.
    async fn mend(&self, stored: &ActionResult) -> Result<(), CacheError> {
        if !stored.same_outputs(&self.request.result) {
            return Ok(());
        }
        self.place_texts(true).await?.show(&self.writing).await?;
        self.find_damage().await?;
        self.require_blobs().await
    }

    /// Reads every output once, unless this very copy was lately; a damaged one is moved aside.
    async fn find_damage(&self) -> Result<(), CacheError> {
        for output in &self.request.result.outputs {
            if self.cache.sees(self.writing.view(), output.digest).await? {
                self.cache.is_sound(output.digest).await?;
            }
        }
        Ok(())
    }

    /// Stores the recipe and the include set as blobs; nobody sees them before they are shown. The recipe of an action that has
    /// no result is hardly there yet, so nobody asks.
    async fn place_texts(&self, has_result: bool) -> Result<Texts, CacheError> {
        let Self { cache, writing, key, request, .. } = self;
        let (recipe, set) = (key.recipe(), Digest::of(&request.include_set));
        let place_recipe = async {
            match has_result && cache.has_text(writing, recipe).await? {
                true => Ok(None),
                false => cache.place_text(writing, recipe, &request.recipe).await.map(Some),
            }
        };
        let place_set = async {
            match cache.has_text(writing, set).await? {
                true => Ok(None),
                false => cache.place_text(writing, set, &request.include_set).await.map(Some),
            }
        };
        let (placed_recipe, placed_set) = tokio::try_join!(place_recipe, place_set)?;
        Ok(Texts { set, placed: [placed_recipe, placed_set] })
    }

    /// One transaction: the result, its set, its references, the end of its lease. Gives the result that was there first, if
    /// one was.
    async fn create(
        &self,
        set: Digest,
        mut lost: Option<StoredResult>,
        own: Option<(Claim, Fence)>,
    ) -> Result<Option<Found>, CacheError> {
        let (cache, scope, key) = (&self.cache, self.writing.scope(), self.key);
        for _ in 0..CREATES {
            let stored = StoredResult {
                result: self.request.result.clone(),
                unit: self.unit,
                set,
                writers: self.writing.writers().to_vec(),
                published_s: cache.rooms.clock.unix_s(),
            };
            let replaces = lost.is_some();
            let publication = Publication { action: key, stored, instead_of: lost, ends: own };
            let created = cache.rooms.results.create(scope, publication).await;
            if replaces {
                // What only the lost one named is nobody's now.
                cache.near.forget([]);
            }
            match created? {
                Creation::Created => {
                    let cost = self.request.result.cost;
                    cache.counters.published.one();
                    cache.counters.built_ms.add(cost.wall_ms);
                    cache.seen.published(scope, &self.subject(), cost);
                    if replaces {
                        cache.counters.replaced.one();
                        tracing::warn!(%scope, %key, "a result that was lost, taken back or unsigned was replaced");
                    }
                    return Ok(None);
                }
                // It was taken back in this very moment.
                Creation::Exists(there) if cache.hides(&there) => lost = Some(*there),
                Creation::Exists(there) => {
                    return Ok(Some(Found { scope: scope.clone(), stored: *there }));
                }
            }
        }
        Err(CacheError::Unavailable { operation: "store a result" })
    }

    /// Ends the lease, and wakes all whom the result concerns: who waits for the claim it was built under, for its action,
    /// for its unit. Each looks again, for a set that it did not know may give it another key.
    async fn discharge(&self, own: Option<(Claim, Fence)>) -> Result<(), CacheError> {
        let (cache, scope) = (&self.cache, self.writing.scope());
        if let Some((claim, fence)) = own {
            cache.rooms.leases.end(scope, claim, fence).await?;
            let at = (scope.clone(), claim);
            cache.holds.end(&at, fence);
            cache.seen.ended(&at, fence, Ended::Published);
        }
        let now = cache.rooms.clock.now();
        for claim in [self.request.claim, self.key.into(), self.unit.into()] {
            let at = (scope.clone(), claim);
            cache.failures.forget(&at);
            cache.waiters.wake_all(&at, now);
        }
        Ok(())
    }
}

impl Cache {
    /// Whether the text is there as a blob. Read, not looked at: a damaged copy is replaced, while the bytes are at hand. What may
    /// not be seen is not there, and is stored again, so that the time it takes does not tell.
    async fn has_text(self: &Arc<Self>, writing: &Writing, digest: Digest) -> Result<bool, CacheError> {
        self.pins.pin([digest]).await;
        Ok(self.sees(writing.view(), digest).await? && self.is_sound(digest).await?)
    }

    /// Stores the text as a blob.
    async fn place_text(
        self: &Arc<Self>,
        writing: &Writing,
        digest: Digest,
        text: &str,
    ) -> Result<Box<dyn Placed>, CacheError> {
        self.pins.pin([digest]).await;
        let mut stage = self.stage(writing.scope(), text.len() as u64).await?;
        stage.write(text.to_owned().into()).await?;
        Ok(stage.seal().await?.place().await?)
    }
}

/// The texts of a publish, as far as they were not there.
struct Texts {
    set: Digest,
    placed: [Option<Box<dyn Placed>>; 2],
}

impl Texts {
    /// Notes who put them, which the result needs to answer.
    async fn show(self, writing: &Writing) -> Result<(), CacheError> {
        let show = async |placed: Option<Box<dyn Placed>>| match placed {
            Some(placed) => placed.show(writing.scope(), writing.uploader()).await.map(drop),
            None => Ok(()),
        };
        let [recipe, set] = self.placed;
        tokio::try_join!(show(recipe), show(set))?;
        Ok(())
    }
}

/// Refuses what contradicts its key or itself; gives the unit of what does not.
fn check(key: ActionKey, request: &PublishRequest) -> Result<UnitKey, CacheError> {
    fn bad(error: impl std::fmt::Display) -> CacheError {
        CacheError::BadResult(error.to_string())
    }
    request.result.check().map_err(bad)?;
    let recipe = Recipe::parse(request.recipe.clone()).map_err(bad)?;
    if recipe.action_key() != key {
        return Err(bad("the recipe's hash is not the action key"));
    }
    IncludeSet::parse(&request.include_set).map_err(bad)?;
    if !is_recipe_over(recipe.text(), &request.include_set) {
        return Err(bad("the recipe is not one over the include set"));
    }
    Ok(recipe.unit_key())
}

/// Whether what the recipe learnt is what the set names: the set's lines, in the set's order, with digests.
fn is_recipe_over(recipe: &str, set: &str) -> bool {
    let learnt = recipe.split_once("\n\n").map_or("", |(_, learnt)| learnt);
    let named = learnt.lines().map(|line| match line.split_once(' ') {
        Some(("absent" | "passed" | "present", _)) => Some(line.to_owned()),
        Some((kind, rest)) => rest.split_once(' ').map(|(_, name)| format!("{kind} {name}")),
        None => None,
    });
    named.eq(set.lines().map(|line| Some(line.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_is_over_its_own_set_only() {
        let (d, set) = (Digest::of("d"), "absent /a\nbmi m\nfile /b c\n");
        let recipe = format!("schema 1\narg x\n\nabsent /a\nbmi {d} m\nfile {d} /b c\n");
        assert!(is_recipe_over(&recipe, set));
        assert!(is_recipe_over("schema 1\n\n", ""));
        for other in ["", "absent /a\n", "absent /a\nbmi n\nfile /b c\n", "bmi m\nfile /b c\nfile /d\n"] {
            assert!(!is_recipe_over(&recipe, other), "{other}");
        }
    }
}
