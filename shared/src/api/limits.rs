//! The limits both sides keep to, so that a client never sends what a server must refuse.

use std::time::Duration;

/// The largest blob that rides inside JSON, in bytes.
pub const MAX_INLINE_BLOB: u64 = 16 * 1024;
/// The largest JSON body of a request, publish excepted, in bytes.
pub const MAX_JSON: usize = 256 * 1024;
/// The largest JSON body of a publish (it holds a recipe and an include set), in bytes.
pub const MAX_PUBLISH_JSON: usize = 10 * 1024 * 1024;
/// The largest JSON answer a client reads, in bytes.
pub const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// The include sets that a server keeps of one unit, and that a client offers to know.
pub const MAX_SETS: usize = 8;
/// The results that ride with one offered include set.
pub const MAX_RESULTS_PER_SET: usize = 4;
/// The keys in one lookup.
pub const MAX_LOOKUP: usize = 1000;
/// The results of one profile.
pub const MAX_PROFILE: usize = 100_000;
/// The largest JSON body of a profile, in bytes: 67 for each result.
pub const MAX_PROFILE_JSON: usize = 7 * 1024 * 1024;
/// The profiles that one inherits directly.
pub const MAX_INHERITED: usize = 8;
/// The longest name of a holder or builder, and of a request id, in bytes.
pub const MAX_NAME: usize = 128;
/// The longest token that a request carries, in bytes: that of a CI job holds many claims.
pub const MAX_TOKEN: usize = 16 * 1024;
/// The writers that a result names.
pub const MAX_WRITERS: usize = 8;
/// The revoked writers that one answer names.
pub const MAX_REVOCATIONS: usize = 1000;

/// How long a lease lives without a renewal.
pub const LEASE_TTL: Duration = Duration::from_secs(15);
/// How often a holder renews.
pub const RENEW_EVERY: Duration = Duration::from_secs(5);
/// How long a lease outlives the stream that held it.
pub const GRACE: Duration = Duration::from_secs(1);
/// How often a busy stream says that it is still there.
pub const BUSY_EVERY: Duration = Duration::from_secs(2);
/// How long a claim answers `alone` after its holder reported a failure.
pub const ALONE_FOR: Duration = Duration::from_secs(60);
/// The longest wait that a client may ask for.
pub const MAX_WAIT: Duration = Duration::from_secs(30 * 60);
