//! The tables of the index, and how rows become bytes.
//!
//! Everything that a scope owns has the scope in its key, so that no query can forget it.

use pcmcache_shared::{Claim, Digest, Fence, Secret};
use redb::TableDefinition;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(super) type Name = &'static [u8; 32];

/// `format` and `fence` (the last one that was granted).
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// (scope, action key) -> [`StoredResult`](crate::results::StoredResult) as JSON.
pub(super) const RESULTS: TableDefinition<(&str, Name), &[u8]> = TableDefinition::new("results");
/// (scope, unit key) -> digests of the unit's include sets, the last learnt one first.
pub(super) const SETS: TableDefinition<(&str, Name), &[u8]> = TableDefinition::new("sets");
/// (scope, unit key, set) -> action keys of the newest results under the set, newest first.
pub(super) const SET_RESULTS: TableDefinition<(&str, Name, Name), &[u8]> =
    TableDefinition::new("set-results");
/// (digest, scope, action key): the result stands on the blob.
pub(super) const REFERENCES: TableDefinition<(Name, &str, Name), ()> = TableDefinition::new("references");
/// (digest, scope) -> size in bytes: all of the blob's bytes were put in the scope.
pub(super) const VISIBLE: TableDefinition<(Name, &str), u64> = TableDefinition::new("visible");
/// (scope, claim) -> [`LeaseRow`] as JSON.
pub(super) const LEASES: TableDefinition<(&str, Name), &[u8]> = TableDefinition::new("leases");

/// After every scope's name, which is ASCII.
pub(super) const AFTER_SCOPES: &str = "\u{7f}";

/// A grant as it is kept. Its deadline is not: after a restart it lives for a grace.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LeaseRow {
    pub(super) fence: Fence,
    pub(super) secret: Secret,
    pub(super) request_id: String,
    pub(super) holder: String,
    pub(super) expected_ms: Option<u64>,
    pub(super) at_most_ms: u64,
}

/// A row as JSON.
pub(super) fn encode(row: &impl Serialize) -> Result<Vec<u8>, redb::Error> {
    serde_json::to_vec(row).map_err(|error| redb::Error::Corrupted(error.to_string()))
}

/// A row from JSON; what cannot be read was not written by us.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, redb::Error> {
    serde_json::from_slice(bytes).map_err(|error| redb::Error::Corrupted(error.to_string()))
}

/// The 32-byte names in a row.
pub(super) fn names(row: &[u8]) -> Vec<[u8; 32]> {
    let (names, _) = row.as_chunks::<32>();
    names.to_vec()
}

/// The key of a lease's row.
pub(super) fn lease_key<'a>(scope: &'a str, claim: &'a Claim) -> (&'a str, &'a [u8; 32]) {
    (scope, claim.as_bytes())
}

/// The keys of a digest's rows, over all scopes.
pub(super) fn all_scopes(digest: &Digest) -> std::ops::Range<(&[u8; 32], &'static str)> {
    (digest.as_bytes(), "")..(digest.as_bytes(), AFTER_SCOPES)
}
