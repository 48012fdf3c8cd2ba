//! What the end-to-end tests are made of: servers and machines that are started, killed and looked at from
//! outside, small programs of C++ modules, and the liars that stand between.
//!
//! A test here does what a person at a terminal could do: it runs the two programs as processes, kills them by
//! their pid, reads the files they leave. Every wait is bounded and says what it waited for. A tool that is
//! missing is a failure, never a skip: `tests/run.sh` installs them all.

pub mod atlas;
pub mod authority;
pub mod browser;
pub mod chance;
pub mod counted;
pub mod deployed;
pub mod edits;
pub mod faithful;
pub mod harm;
pub mod history;
pub mod http;
pub mod hurry;
pub mod issuer;
pub mod liar;
pub mod link;
pub mod machine;
pub mod modules;
pub mod nginx;
pub mod patience;
pub mod process;
pub mod proxy;
pub mod scratch;
pub mod server;
pub mod sleepers;
pub mod soundness;
pub mod spoken;
pub mod tool;
pub mod turn;
pub mod unit;

pub use browser::Browser;
pub use chance::Chance;
pub use machine::{Machine, Stats};
pub use modules::Modules;
pub use patience::{until, within};
pub use process::{Finished, Process};
pub use scratch::Scratch;
pub use server::Server;
pub use unit::{Unit, Weight};
