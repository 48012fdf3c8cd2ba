//! One look of an acquire: what is there for the client now.

use std::sync::Arc;
use std::time::Duration;

use pcmcache_shared::api::acquire::{AcquireLine, AcquireMode, AcquireRequest, AloneReason};
use pcmcache_shared::api::limits;
use pcmcache_shared::{ActionKey, Claim, Fence, Scope, Secret};

use super::learnt::Learnt;
use super::lease::longest_hold;
use super::waiters::ScopedClaim;
use super::{Cache, CacheError};
use crate::leases::{Ask, Grant, Lease};
use crate::results::SetRow;
use crate::seen::Ended;
use crate::trust::{View, Writing};

/// What a look found.
#[derive(Debug)]
pub(super) enum Look {
    /// The last line of the answer.
    Answer(AcquireLine),
    /// The client has the lease.
    Granted(Granted),
    /// Someone else has it.
    Busy(ScopedClaim, Lease),
}

/// A lease to hand over.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) at: ScopedClaim,
    pub(super) lease: Lease,
    /// Whether this very request had it before.
    pub(super) is_resumed: bool,
}

impl Cache {
    /// What there is; if there is nothing, the lease; if someone has it, who.
    pub(super) async fn look(
        self: &Arc<Self>,
        view: &View,
        request: &AcquireRequest,
    ) -> Result<Look, CacheError> {
        if self.refuses(view) {
            return Err(CacheError::Revoked);
        }
        let writing = builder(view, request)?;
        if let Some(hit) = self.hit(view, request).await? {
            return Ok(self.answer(view.scope(), request, hit));
        }
        if writing.is_some()
            && let Some(granted) = self.resume(view.scope(), request).await?
        {
            return Ok(Look::Granted(granted));
        }
        let learnt = self.learnt(view, request.unit).await?;
        let rows = learnt.merged();
        if let Some(sets) = self.sets_to_learn(view, request, &rows).await? {
            return Ok(self.answer(view.scope(), request, sets));
        }
        let at = (view.scope().clone(), claim_of(request, &rows));
        if let Some(reason) = self.failures.reason(&at) {
            return Ok(self.alone(view.scope(), request, AloneReason::Released(reason)));
        }
        if let Some(lease) = self.rooms.leases.current(view.scope(), at.1).await? {
            return Ok(Look::Busy(at, lease));
        }
        if let Some((at, lease)) = self.under_way_beyond(request, &learnt).await? {
            return Ok(Look::Busy(at, lease));
        }
        match writing {
            Some(writing) => self.ask(&writing, at, request, &rows).await,
            // Who neither builds nor waits may come back to build: nothing was compiled for it yet.
            None if request.wait_ms == 0 => {
                Ok(Look::Answer(AcquireLine::Alone { reason: AloneReason::Nobody }))
            }
            None => Ok(self.alone(view.scope(), request, AloneReason::Nobody)),
        }
    }

    /// A build in a scope beside the first whose result the client would take.
    async fn under_way_beyond(
        &self,
        request: &AcquireRequest,
        learnt: &Learnt,
    ) -> Result<Option<(ScopedClaim, Lease)>, CacheError> {
        let known = || request.known.iter().filter_map(|known| known.action).map(Claim::from);
        for (scope, rows) in learnt.beyond() {
            for claim in [claim_of(request, rows), request.claim].into_iter().chain(known()) {
                if let Some(lease) = self.rooms.leases.current(scope, claim).await? {
                    return Ok(Some(((scope.clone(), claim), lease)));
                }
            }
        }
        Ok(None)
    }

    fn answer(&self, scope: &Scope, request: &AcquireRequest, line: AcquireLine) -> Look {
        match &line {
            AcquireLine::Hit(hit) => {
                self.counters.hit(hit.result.cost);
                self.seen.hit(scope, hit.result.cost);
            }
            AcquireLine::Sets { sets } => {
                self.counters.sets.one();
                if let Some(unit) = request.unit {
                    self.seen.offered(scope, unit, sets);
                }
            }
            AcquireLine::Alone { .. } => {
                self.counters.alone.one();
                self.missed(scope, request);
            }
            AcquireLine::Busy { .. } | AcquireLine::Granted { .. } => {}
        }
        Look::Answer(line)
    }

    fn alone(&self, scope: &Scope, request: &AcquireRequest, reason: AloneReason) -> Look {
        self.answer(scope, request, AcquireLine::Alone { reason })
    }

    /// There is nothing for the client, so it compiles.
    pub(super) fn missed(&self, scope: &Scope, request: &AcquireRequest) {
        self.counters.misses.one();
        self.seen.missed(scope, &request.subject);
    }

    /// A result of one of the actions that the client would take.
    async fn hit(
        self: &Arc<Self>,
        view: &View,
        request: &AcquireRequest,
    ) -> Result<Option<AcquireLine>, CacheError> {
        // A claim may be an action key; if it is a unit key, no result has it.
        let claimed = ActionKey::from_bytes(*request.claim.as_bytes());
        let known = request.known.iter().filter_map(|known| known.action).filter(|key| *key != claimed);
        for key in known.chain([claimed]) {
            if let Some(found) = self.hit_of(view, key).await? {
                return Ok(Some(AcquireLine::Hit(found)));
            }
        }
        Ok(None)
    }

    /// The grant that this very request got before: its answer was lost, or its stream, or the server was restarted.
    async fn resume(&self, scope: &Scope, request: &AcquireRequest) -> Result<Option<Granted>, CacheError> {
        let actions = request.known.iter().filter_map(|known| known.action).map(Claim::from);
        for claim in [request.claim].into_iter().chain(actions) {
            let Some(lease) = self.rooms.leases.current(scope, claim).await? else { continue };
            if lease.request_id != request.request_id {
                continue;
            }
            let extended = self.rooms.leases.extend(scope, claim, lease.fence, limits::LEASE_TTL).await?;
            if extended.is_some() {
                self.counters.resumed.one();
                let at = (scope.clone(), claim);
                self.seen.granted(&at, lease.fence, request);
                return Ok(Some(Granted { at, lease, is_resumed: true }));
            }
        }
        Ok(None)
    }

    async fn sets_to_learn(
        self: &Arc<Self>,
        view: &View,
        request: &AcquireRequest,
        rows: &[SetRow],
    ) -> Result<Option<AcquireLine>, CacheError> {
        let is_known = |set| request.known.iter().any(|known| known.set == set);
        let sets = self.unknown_sets(view, rows, is_known).await?;
        Ok(Some(sets).filter(|sets| !sets.is_empty()).map(|sets| AcquireLine::Sets { sets }))
    }

    /// Asks for the lease.
    async fn ask(
        self: &Arc<Self>,
        writing: &Writing,
        at: ScopedClaim,
        request: &AcquireRequest,
        rows: &[SetRow],
    ) -> Result<Look, CacheError> {
        let (scope, claim) = &at;
        let view = writing.view();
        let expected = self.expected(view, rows).await?;
        let secret = self.rooms.entropy.bytes();
        let ask = Ask {
            request_id: request.request_id.clone(),
            holder: request.holder.clone(),
            writers: writing.writers().to_vec(),
            secret: Secret::from_random(secret.map_err(|error| CacheError::io("make a secret", error))?),
            expected,
            ttl: limits::LEASE_TTL,
            at_most: longest_hold(expected),
        };
        let (lease, took_over) = match self.rooms.leases.grant(scope, *claim, ask).await {
            Ok(Grant::New { lease, took_over }) => (lease, took_over),
            Ok(Grant::Held(lease)) => return Ok(Look::Busy(at, lease)),
            Ok(Grant::Crowded) => return Ok(self.alone(scope, request, AloneReason::Crowded)),
            Err(fault) => {
                // Someone may have seen it held while it was being written.
                self.waiters.wake_one(&at);
                return Err(fault.into());
            }
        };
        // Between the look and the grant the last holder may have published: then there is nothing to build.
        if let Some(line) = self.appeared(view, request).await? {
            self.drop_lease(&at, lease.fence, Duration::ZERO).await?;
            return Ok(self.answer(scope, request, line));
        }
        self.counters.granted.one();
        self.missed(scope, request);
        self.seen.granted(&at, lease.fence, request);
        if took_over {
            self.counters.expired.one();
            self.counters.taken_over.one();
            tracing::info!(scope = %at.0, claim = %at.1, "a lease ran out and was granted to another");
        }
        Ok(Look::Granted(Granted { at, lease, is_resumed: false }))
    }

    async fn appeared(
        self: &Arc<Self>,
        view: &View,
        request: &AcquireRequest,
    ) -> Result<Option<AcquireLine>, CacheError> {
        if let Some(hit) = self.hit(view, request).await? {
            return Ok(Some(hit));
        }
        let rows = self.learnt(view, request.unit).await?.merged();
        self.sets_to_learn(view, request, &rows).await
    }

    /// Lets the lease live for `grace` at most, and has one of those who wait for it see that.
    pub(super) async fn drop_lease(
        &self,
        at: &ScopedClaim,
        fence: Fence,
        grace: Duration,
    ) -> Result<(), CacheError> {
        if grace.is_zero() {
            self.rooms.leases.end(&at.0, at.1, fence).await?;
            self.seen.ended(at, fence, Ended::Lost);
        } else {
            self.rooms.leases.shrink(&at.0, at.1, fence, grace).await?;
        }
        self.waiters.wake_one(at);
        Ok(())
    }
}

/// The right to build that the request needs: none where it only watches.
pub(super) fn builder(view: &View, request: &AcquireRequest) -> Result<Option<Writing>, CacheError> {
    match request.mode {
        AcquireMode::Watch => Ok(None),
        AcquireMode::Build => view.writing().map(Some).ok_or(CacheError::ReadOnly),
    }
}

/// What the lease is on: the action under the unit's newest set, so that all who know it compete for one claim.
fn claim_of(request: &AcquireRequest, rows: &[SetRow]) -> Claim {
    let newest = rows.first().and_then(|row| request.known.iter().find(|known| known.set == row.set));
    newest.and_then(|known| known.action).map_or(request.claim, Claim::from)
}
