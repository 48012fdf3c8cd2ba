//! `POST /v1/scopes/{scope}/lookup`: many unit or action keys at once.

use serde::{Deserialize, Serialize};

use super::{KeyedResult, OfferedSet};
use crate::{ActionKey, Scope, UnitKey};

/// The endpoint's path.
pub fn path(scope: &Scope) -> String {
    format!("/v1/scopes/{scope}/lookup")
}

/// The keys to look up: at most [`super::limits::MAX_LOOKUP`] in all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LookupRequest {
    /// Units whose include sets are asked for.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 1000))]
    pub units: Vec<UnitKey>,
    /// Actions whose results are asked for.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 1000))]
    pub actions: Vec<ActionKey>,
}

/// What there is of it; keys that are unknown are left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LookupAnswer {
    /// The known units.
    pub units: Vec<UnitSets>,
    /// The known results.
    pub results: Vec<KeyedResult>,
}

/// A unit's include sets, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UnitSets {
    /// The unit.
    pub unit: UnitKey,
    /// Its sets.
    pub sets: Vec<OfferedSet>,
}
