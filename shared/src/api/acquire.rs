//! `POST /v1/scopes/{scope}/acquire`: look, and if nothing is there, get the right to build it or wait for who has.
//!
//! The answer is a stream of [`AcquireLine`]s, a JSON object a line, the first within a second: any number of `busy`,
//! then one of `hit`, `sets`, `alone`, `granted`. A stream that ends after `busy` ran out of `wait_ms`. After `granted`
//! with `hold`, the open stream is the hold; without, the lease lives by renewals alone.

use serde::{Deserialize, Serialize};

use super::{KeyedResult, OfferedSet};
use crate::{ActionKey, Claim, Digest, Fence, ReleaseReason, Scope, Secret, UnitKey};

/// The endpoint's path.
pub fn path(scope: &Scope) -> String {
    format!("/v1/scopes/{scope}/acquire")
}

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AcquireRequest {
    /// What the client would build. Where the server's newest include set of `unit` is in `known`, the server puts
    /// the lease on that set's action key instead, so that all who know the set compete for one claim.
    pub claim: Claim,
    /// The unit, if the client wants to learn include sets it does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitKey>,
    /// The include sets that the client knows for the unit, with the action keys they give it; at most
    /// [`super::limits::MAX_SETS`]. A result of any of these actions is a hit.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 8))]
    pub known: Vec<KnownSet>,
    /// 1 to 128 letters, digits and `-`. The same id on the same claim gets the same grant again.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[A-Za-z0-9-]{1,128}$"))]
    pub request_id: String,
    /// Who asks: a host's name and a process, for people only.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_length = 128))]
    pub holder: String,
    /// What it is about ([`crate::recipe::subject`]), for people only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[cfg_attr(feature = "openapi", schema(max_length = 200))]
    pub subject: String,
    /// Whether the client would build.
    #[serde(default)]
    pub mode: AcquireMode,
    /// How long the client will wait while someone else builds, in milliseconds; 0 answers at once.
    #[serde(default)]
    pub wait_ms: u64,
    /// Whether the open stream shall be the hold after a grant.
    #[serde(default)]
    pub hold: bool,
}

/// An include set the client knows, and the action key it gives the client's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KnownSet {
    /// The set.
    pub set: Digest,
    /// The action key under it; none where a file of the set is missing here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<ActionKey>,
}

/// Whether the client would build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum AcquireMode {
    /// It would: grant it a lease if there is nothing to wait for.
    #[default]
    Build,
    /// It may only read: never grant, answer `alone` if there is nothing to wait for.
    Watch,
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum AcquireLine {
    /// Someone else builds it; the stream goes on, or ends here if the wait is over.
    Busy {
        /// What it is expected to cost, in milliseconds, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expected_ms: Option<u64>,
        /// Who builds it, for people only.
        #[serde(default)]
        holder: String,
    },
    /// Here it is.
    Hit(KeyedResult),
    /// There are include sets of this unit that the client did not know, newest first. It computes its action keys
    /// under them, and if no result that came along has one of those, asks again.
    Sets {
        /// The sets.
        sets: Vec<OfferedSet>,
    },
    /// Compile for yourself, without a lease; others do the same.
    Alone {
        /// Why.
        reason: AloneReason,
    },
    /// Build it: the lease is yours.
    Granted {
        /// What the lease is on.
        claim: Claim,
        /// The number of this grant.
        fence: Fence,
        /// What proves that a renewal, a release or a publish is the holder's.
        secret: Secret,
        /// How long the lease lives without a renewal, in milliseconds.
        ttl_ms: u64,
        /// What it is expected to cost, in milliseconds, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expected_ms: Option<u64>,
    },
}

/// Why a client shall compile for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum AloneReason {
    /// A holder released the claim with this reason a short while ago.
    Released(ReleaseReason),
    /// The client only watches, and nobody builds it.
    Nobody,
    /// The server has too many waiters.
    Crowded,
}
