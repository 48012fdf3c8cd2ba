//! The wire: one file per endpoint with its path, request, response; the problem codes; the limits.
//!
//! JSON over HTTP, blobs raw, errors as [`problem::Problem`]. Durations travel, timestamps never. Unknown fields
//! of a request are refused, unknown fields of a response are passed over.

pub mod acquire;
pub mod actions;
pub mod blobs;
pub mod leases;
pub mod limits;
pub mod lookup;
pub mod problem;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{ActionKey, ActionResult, Digest};

/// The content type of JSON bodies.
pub const JSON: &str = "application/json";
/// The content type of the acquire stream: a JSON value a line.
pub const NDJSON: &str = "application/x-ndjson";
/// The content type of blobs.
pub const OCTETS: &str = "application/octet-stream";
/// The content type of errors (RFC 9457).
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A result as it travels: with its key, and with the small ones of the blobs it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyedResult {
    /// The result's key.
    pub action: ActionKey,
    /// The result.
    pub result: ActionResult,
    /// Blobs of at most [`limits::MAX_INLINE_BLOB`] bytes, by digest: a convenience, the receiver verifies them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub blobs: BTreeMap<Digest, Inline>,
}

/// An include set as it travels: its text, with the results that are known under it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OfferedSet {
    /// The digest of the text.
    pub set: Digest,
    /// The canonical text of the include set.
    pub text: String,
    /// The newest results whose recipe is the unit over this set.
    pub results: Vec<KeyedResult>,
}

/// A small blob's bytes, in base64 on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String))]
pub struct Inline(pub Vec<u8>);

impl Serialize for Inline {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Inline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map(Self).map_err(D::Error::custom)
    }
}
