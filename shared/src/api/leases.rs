//! `POST|DELETE /v1/scopes/{scope}/leases/{claim}`: renew, release.

use serde::{Deserialize, Serialize};

use crate::{Claim, Fence, ReleaseReason, Scope, Secret};

/// The endpoint's path.
pub fn path(scope: &Scope, claim: Claim) -> String {
    format!("/v1/scopes/{scope}/leases/{claim}")
}

/// What proves that a request is the holder's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Hold {
    /// The number of the grant.
    pub fence: Fence,
    /// The secret that came with it.
    pub secret: Secret,
}

/// `POST`: the holder is alive. 200 with [`Renewed`], or a problem if the lease is gone or another's.
pub type RenewRequest = Hold;

/// The lease lives on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Renewed {
    /// How long it lives without another renewal, in milliseconds.
    pub ttl_ms: u64,
}

/// `DELETE`: the holder gives the lease back without a result. 204.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReleaseRequest {
    /// The number of the grant.
    pub fence: Fence,
    /// The secret that came with it.
    pub secret: Secret,
    /// Why.
    pub reason: ReleaseReason,
}
