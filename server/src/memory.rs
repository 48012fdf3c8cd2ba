//! The stores in memory: the reference that says what the contracts mean, for the conformance suite and for
//! tests of the rules above. Nothing survives the process.

mod blobs;
mod leases;
mod profiles;
mod results;

pub use self::blobs::MemoryBlobs;
pub use self::leases::MemoryLeases;
pub use self::profiles::MemoryProfiles;
pub use self::results::MemoryResults;
