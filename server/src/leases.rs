//! The contract of a lease store: at most one live lease per scope and claim.
//!
//! - **The fence rises with each grant**, over all claims and over restarts.
//! - **A grant that was answered is durable**: a restarted store knows it, and lets it live for [`RESTART_GRACE`]
//!   so that its holder can resume. Renewals and the end of a lease by time are not written anywhere.
//! - A lease whose deadline has passed is gone, whether or not its row is still stored.
//! - Safety never rests on a lease. Losing one, or granting one too many, costs a compile and nothing else.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use pcmcache_shared::api::limits::RENEW_EVERY;
use pcmcache_shared::{Claim, Fence, Scope, Secret, Writer};

use crate::fault::Fault;
use crate::trust::WriterSet;

/// How long a stored lease lives after a restart for its holder to come back: one renewal that comes when it would have come
/// anyway, and time to connect. The grace of a dropped stream would end the leases of all who still try to connect.
pub const RESTART_GRACE: Duration = RENEW_EVERY.saturating_add(Duration::from_secs(2));

/// The most leases a store keeps at once, of one scope half of that: far beyond any fleet, and a bound on what a flood can
/// take.
pub const MAX_LEASES: usize = 200_000;

/// What is asked for with a grant.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The client's name for its request: the same one gets the same grant again.
    pub request_id: String,
    /// Who asks, for people.
    pub holder: String,
    /// The names under which the asker can be revoked.
    pub writers: Vec<Writer>,
    /// What will prove that a renewal is the holder's.
    pub secret: Secret,
    /// What the build is expected to cost, where that is known.
    pub expected: Option<Duration>,
    /// How long it lives without a renewal.
    pub ttl: Duration,
    /// How long it lives at most, however often it is renewed.
    pub at_most: Duration,
}

/// A live lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The number of its grant.
    pub fence: Fence,
    /// What proves that a renewal is the holder's.
    pub secret: Secret,
    /// The request that got it.
    pub request_id: String,
    /// Who holds it, for people.
    pub holder: String,
    /// What the build is expected to cost, where that is known.
    pub expected: Option<Duration>,
    /// How long it still lives if nobody renews it; never zero.
    pub expires_in: Duration,
}

/// What asking for a grant brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// The lease is the asker's.
    New {
        /// It.
        lease: Lease,
        /// Whether it takes over from one that ran out.
        took_over: bool,
    },
    /// Someone has it.
    Held(Lease),
    /// There are too many leases.
    Crowded,
}

/// A set of leases. See the module for what every store promises.
#[async_trait]
pub trait Leases: Send + Sync + fmt::Debug {
    /// Grants the claim if no lease on it lives. Returns once the grant is durable.
    async fn grant(&self, scope: &Scope, claim: Claim, ask: Ask) -> Result<Grant, Fault>;

    /// The live lease on the claim, if there is one.
    async fn current(&self, scope: &Scope, claim: Claim) -> Result<Option<Lease>, Fault>;

    /// Lets the lease live for `ttl` from now, though not beyond what it was granted for at most. Says how long it now
    /// lives, or `None` if this grant lives no more, or is not durable yet.
    async fn extend(
        &self,
        scope: &Scope,
        claim: Claim,
        fence: Fence,
        ttl: Duration,
    ) -> Result<Option<Duration>, Fault>;

    /// Lets the lease live for `to` from now at most; never longer than it would have.
    async fn shrink(&self, scope: &Scope, claim: Claim, fence: Fence, to: Duration) -> Result<(), Fault>;

    /// Ends the lease if it is this grant, and says whether it lived.
    async fn end(&self, scope: &Scope, claim: Claim, fence: Fence) -> Result<bool, Fault>;

    /// The leases, live or not, of those who were revoked.
    async fn held_by(&self, revoked: &WriterSet) -> Result<Vec<(Scope, Claim, Fence)>, Fault>;

    /// Forgets the leases that ran out, and says how many.
    async fn forget_expired(&self) -> Result<usize, Fault>;
}
