//! `GET|PUT /v1/scopes/{scope}/profiles/{name}`: the named sets of results that machines fetch before they build.
//!
//! `GET`: 200 with a [`Profile`], of the scope or else of the first readable beside it that has one, or 404. `PUT`: 200 with
//! a [`Pushed`] once it is durable; it takes the place of the one of that name. What a profile names is asked for like
//! anything else, by [`super::lookup`] and as blobs: a profile gives no right to see a result.

use serde::{Deserialize, Serialize};

use crate::{ActionKey, ProfileName, Scope};

/// The endpoint's path.
pub fn path(scope: &Scope, name: &ProfileName) -> String {
    format!("/v1/scopes/{scope}/profiles/{name}")
}

/// What a build used.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PushRequest {
    /// Profiles whose results are fetched after those of this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(max_items = 8))]
    pub inherits: Vec<ProfileName>,
    /// The keys of the results, the most urgent first; at most [`super::limits::MAX_PROFILE`]. What is no result that the
    /// client may see is left out.
    #[cfg_attr(feature = "openapi", schema(max_items = 100000))]
    pub actions: Vec<ActionKey>,
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Pushed {
    /// How many results the profile has now.
    pub kept: u64,
    /// How many keys were left out, being of no result.
    pub unknown: u64,
}

/// A profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Profile {
    /// The scope it was found in: the one that was asked, or one that is readable beside it.
    pub scope: Scope,
    /// Profiles whose results are fetched after those of this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inherits: Vec<ProfileName>,
    /// The keys of the results, the most urgent first. Some may be gone since.
    pub actions: Vec<ActionKey>,
}
