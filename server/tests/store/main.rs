//! The inside of the server: the contracts of the back ends, held by each of them, and the rules of the cache, held with a
//! clock that stands still until a test moves it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::print_stdout,
    reason = "a test that cannot go on says so by panicking, and prints how to get there again"
)]

mod bench;
mod conformance;
mod rules;
