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
pub mod profiles;
pub mod revocations;
pub mod token;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{ActionKey, ActionResult, Digest, Scope, Writer};

/// The content type of JSON bodies.
pub const JSON: &str = "application/json";
/// The content type of the acquire stream: a JSON value a line.
pub const NDJSON: &str = "application/x-ndjson";
/// The content type of blobs.
pub const OCTETS: &str = "application/octet-stream";
/// The content type of errors (RFC 9457).
pub const PROBLEM_JSON: &str = "application/problem+json";

/// The header by which each side says which wire it speaks, as a decimal number. A request without it speaks the oldest.
pub const WIRE_HEADER: &str = "pcmcache-wire";
/// The wire that this version speaks: 1 knew neither tokens nor scopes beside `main`.
pub const WIRE: u32 = 2;
/// The oldest wire that a server still answers.
pub const OLDEST_WIRE: u32 = 1;
/// The header of every answer under a scope: how often results were taken back so far. Where it differs from what a client
/// saw before, [`revocations`] says whose.
pub const EPOCH_HEADER: &str = "pcmcache-epoch";
/// The header of an upload that comes packed: how many bytes the blob has, as a decimal number.
pub const LENGTH_HEADER: &str = "pcmcache-length";

/// A result as it travels: with its key, and with the small ones of the blobs it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyedResult {
    /// The result's key.
    pub action: ActionKey,
    /// The result.
    pub result: ActionResult,
    /// The scope it was found in: the one that was asked, or one that is readable beside it.
    #[serde(default)]
    pub scope: Scope,
    /// Who published it. Where one of these is revoked, the result is to be forgotten.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "crate::writer::few")]
    #[cfg_attr(feature = "openapi", schema(max_items = 8))]
    pub writers: Vec<Writer>,
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
