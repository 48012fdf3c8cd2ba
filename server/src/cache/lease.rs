//! Renew and release: what a holder does with its lease short of publishing.

use std::sync::Arc;
use std::time::Duration;

use pcmcache_shared::api::leases::{Hold, ReleaseRequest, Renewed};
use pcmcache_shared::api::limits;
use pcmcache_shared::{Claim, ReleaseReason, Scope};

use super::waiters::ScopedClaim;
use super::{Cache, CacheError, on_its_own};
use crate::seen::Ended;
use crate::trust::Writing;

/// How long anyone may hold a claim whose cost is unknown, and at most where it is known.
pub const MAX_HOLD: Duration = Duration::from_secs(30 * 60);
/// How long one may hold a claim that is expected to be cheap.
pub const MIN_HOLD: Duration = Duration::from_secs(60);

/// How long a lease is granted for at most, however often it is renewed: a holder that hangs but renews is replaced then.
pub(super) fn longest_hold(expected: Option<Duration>) -> Duration {
    expected.map_or(MAX_HOLD, |expected| expected.saturating_mul(10).clamp(MIN_HOLD, MAX_HOLD))
}

impl Cache {
    /// The holder is alive: its lease lives for another [`limits::LEASE_TTL`].
    pub async fn renew(&self, writing: &Writing, claim: Claim, hold: &Hold) -> Result<Renewed, CacheError> {
        let scope = writing.scope();
        self.require_hold(scope, claim, hold).await?;
        let left = self.rooms.leases.extend(scope, claim, hold.fence, limits::LEASE_TTL).await?;
        let left = left.ok_or(CacheError::NoLease)?;
        Ok(Renewed { ttl_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX) })
    }

    /// The holder gives the lease back without a result. With a reason that concerns everyone, all who wait are told to
    /// compile alone, and so is who comes within [`limits::ALONE_FOR`]; else one of them takes over.
    pub async fn release(
        self: &Arc<Self>,
        writing: &Writing,
        claim: Claim,
        request: &ReleaseRequest,
    ) -> Result<(), CacheError> {
        let hold = Hold { fence: request.fence, secret: request.secret.clone() };
        let (cache, scope, reason) = (Arc::clone(self), writing.scope().clone(), request.reason);
        let release = async move { cache.release_to_the_end((scope, claim), hold, reason).await };
        // To its end, also where the client goes away: who waits must be woken.
        on_its_own("release a lease", release).await
    }

    async fn release_to_the_end(
        &self,
        at: ScopedClaim,
        hold: Hold,
        reason: ReleaseReason,
    ) -> Result<(), CacheError> {
        let (scope, claim) = &at;
        self.require_hold(scope, *claim, &hold).await?;
        self.counters.released.one();
        if reason.wakes_all() {
            self.failures.note(&at, reason);
        }
        self.rooms.leases.end(scope, *claim, hold.fence).await?;
        self.holds.end(&at, hold.fence);
        self.seen.ended(&at, hold.fence, Ended::Released(reason));
        match reason.wakes_all() {
            true => self.waiters.wake_all(&at, self.rooms.clock.now()),
            false => self.waiters.wake_one(&at),
        }
        Ok(())
    }

    async fn require_hold(&self, scope: &Scope, claim: Claim, hold: &Hold) -> Result<(), CacheError> {
        match self.rooms.leases.current(scope, claim).await? {
            Some(lease) if lease.fence == hold.fence && lease.secret.matches(&hold.secret) => Ok(()),
            Some(_) | None => Err(CacheError::NoLease),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_hold_follows_the_cost_within_bounds() {
        let hold = |secs| longest_hold(Some(Duration::from_secs(secs))).as_secs();
        assert_eq!((hold(0), hold(6), hold(7), hold(180), hold(181)), (60, 60, 70, 1800, 1800));
        assert_eq!(longest_hold(Some(Duration::MAX)), MAX_HOLD);
        assert_eq!(longest_hold(None), MAX_HOLD);
    }
}
