//! The vocabulary and the wire of pcmcache: what the launcher and the server must agree on, and nothing else.
//!
//! `client -> shared <- server`: neither program knows the other, both know this crate.

pub mod api;
pub mod causes;
pub mod digest;
pub mod disk;
#[cfg(feature = "failpoints")]
pub mod failpoint;
pub mod lease;
pub mod packed;
pub mod profile;
pub mod recipe;
pub mod result;
pub mod scope;
pub mod signature;
pub mod staged;
#[cfg(feature = "failpoints")]
pub mod wall;
pub mod writer;

pub use digest::{ActionKey, Claim, Digest, UnitKey};
pub use lease::{Fence, ReleaseReason, Secret};
pub use profile::ProfileName;
pub use recipe::{IncludeSet, Recipe};
pub use result::{ActionResult, Cost, Output, Role};
pub use scope::Scope;
pub use signature::{PublicKey, Signature};
pub use writer::Writer;

/// Marks a place at which a test may kill or pause this process; see [`failpoint`]. Compiles to nothing without the
/// `failpoints` feature of the crate that uses it.
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        $crate::failpoint::reached($name);
    };
}

/// Whether this process breaks the promise that is kept here, as `tests/mutants.sh` asks it to; see
/// [`mutant`](failpoint::mutant). Without the `failpoints` feature of the crate that uses it, it is `false` and nothing else.
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {{
        #[cfg(feature = "failpoints")]
        let is_on = $crate::failpoint::mutant($name);
        #[cfg(not(feature = "failpoints"))]
        let is_on = false;
        is_on
    }};
}
