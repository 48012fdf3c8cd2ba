//! Compile, change one thing, compile again, and compare with the bare compiler: cases as transcripts of a terminal,
//! two worlds that take turns at one path, and whoever is on trial.
//!
//! Invariant: a launcher is judged by nothing but what a user could see: exit status, standard output, standard error,
//! and every file below the project's root with its mode and its bytes.

pub mod contestant;
pub mod outcome;
pub mod script;
pub mod tally;
pub mod traits;
pub mod trial;
pub mod worlds;

pub use contestant::Contestant;
pub use outcome::Outcome;
pub use script::Case;
pub use tally::Tally;
pub use traits::Traits;
pub use worlds::{Side, Worlds};
