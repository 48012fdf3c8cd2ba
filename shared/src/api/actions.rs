//! `GET|PUT /v1/scopes/{scope}/actions/{key}`: read a result, publish one.
//!
//! `GET`: 200 with a [`super::KeyedResult`], or 404. `PUT`: 201 stored, 200 the same was there, 409 another was there (the
//! problem holds the winner), 422 blobs are missing (the problem names them). The answer comes once all is durable.

use serde::{Deserialize, Serialize};

use super::leases::Hold;
use crate::{ActionKey, ActionResult, Claim, Scope};

/// The endpoint's path.
pub fn path(scope: &Scope, key: ActionKey) -> String {
    format!("/v1/scopes/{scope}/actions/{key}")
}

/// A result to publish under the action key in the path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PublishRequest {
    /// The result; its blobs must be there.
    pub result: ActionResult,
    /// The recipe's text: its hash is the action key, the hash of its first part is the unit key.
    #[cfg_attr(feature = "openapi", schema(max_length = 4194304))]
    pub recipe: String,
    /// The canonical text of the include set the recipe was made under.
    #[cfg_attr(feature = "openapi", schema(max_length = 4194304))]
    pub include_set: String,
    /// What this build had, or would have had, its lease on.
    pub claim: Claim,
    /// The lease, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Hold>,
}
