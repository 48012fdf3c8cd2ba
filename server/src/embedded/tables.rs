//! The tables of the index, and how rows become bytes.
//!
//! Everything that a scope owns has the scope in its key, so that no query can forget it.

use pcmcache_shared::{Claim, Digest, Fence, Scope, Secret, Writer};
use redb::TableDefinition;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::ops::Range;

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
/// (digest, scope, action key) -> who published it, as [`spell_writers`] has it: the result stands on the blob.
pub(super) const REFERENCES: TableDefinition<(Name, &str, Name), &str> = TableDefinition::new("references");
/// (digest, scope, writer) -> size in bytes: the writer put all of the blob's bytes in the scope.
pub(super) const UPLOADS: TableDefinition<(Name, &str, &str), u64> = TableDefinition::new("uploads");
/// (scope, claim) -> [`LeaseRow`] as JSON.
pub(super) const LEASES: TableDefinition<(&str, Name), &[u8]> = TableDefinition::new("leases");

/// (when it may be forgotten, name of an exchanged token).
pub(super) const SPENT: TableDefinition<(u64, Name), ()> = TableDefinition::new("spent");

/// After every scope's name, which is ASCII.
pub(super) const AFTER_SCOPES: &str = "\u{7f}";

/// A grant as it is kept. Its deadline is not: after a restart it lives for a grace.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LeaseRow {
    pub(super) fence: Fence,
    pub(super) secret: Secret,
    pub(super) request_id: String,
    pub(super) holder: String,
    #[serde(default)]
    pub(super) writers: Vec<Writer>,
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

/// The keys of a digest's uploads, over all scopes and writers.
pub(super) fn all_uploads(digest: &Digest) -> Range<(&[u8; 32], &'static str, &'static str)> {
    (digest.as_bytes(), "", "")..(digest.as_bytes(), AFTER_SCOPES, "")
}

/// The keys of a digest's uploads in a scope.
pub(super) fn uploads_in<'a>(
    digest: &'a Digest,
    scope: &'a str,
) -> Range<(&'a [u8; 32], &'a str, &'static str)> {
    (digest.as_bytes(), scope, "")..(digest.as_bytes(), scope, AFTER_SCOPES)
}

/// The keys of the results in a scope that stand on a blob: all but the very last there could be, which no SHA-256 is.
pub(super) fn naming<'a>(
    digest: &'a Digest,
    scope: &'a str,
) -> Range<(&'a [u8; 32], &'a str, &'static [u8; 32])> {
    (digest.as_bytes(), scope, &[0; 32])..(digest.as_bytes(), scope, &[0xff; 32])
}

/// The keys of a scope's rows, where a name follows the scope.
pub(super) fn of_scope(scope: &Scope) -> std::ops::RangeInclusive<(&str, &[u8; 32])> {
    (scope.as_str(), &[0; 32])..=(scope.as_str(), &[u8::MAX; 32])
}

/// The writers in a row: no name has a space in it.
pub(super) fn spell_writers(writers: &[Writer]) -> String {
    writers.iter().map(Writer::as_str).collect::<Vec<_>>().join(" ")
}

/// The writers of a row again; what is none was not written by us, and nothing is known of it.
pub(super) fn read_writers(row: &str) -> Vec<Writer> {
    row.split(' ').filter_map(|name| name.parse().ok()).collect()
}
