//! The server over real sockets: what it answers, whom it cuts, how it stops.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, also in its helpers, and measures real time"
)]

#[path = "http/authority.rs"]
mod authority;
#[path = "http/blobs.rs"]
mod blobs;
#[path = "http/dashboard.rs"]
mod dashboard;
#[path = "http/document.rs"]
mod document;
#[path = "http/drain.rs"]
mod drain;
#[path = "http/errors.rs"]
mod errors;
#[path = "http/forged.rs"]
mod forged;
#[path = "http/hold.rs"]
mod hold;
#[path = "http/issuer.rs"]
mod issuer;
#[path = "http/limits.rs"]
mod limits;
#[path = "http/log.rs"]
mod log;
#[path = "http/maintenance.rs"]
mod maintenance;
#[path = "http/matrix.rs"]
mod matrix;
#[path = "http/packing.rs"]
mod packing;
#[path = "http/poison.rs"]
mod poison;
#[path = "http/process.rs"]
mod process;
#[path = "http/quotas.rs"]
mod quotas;
#[path = "http/shapes.rs"]
mod shapes;
#[path = "http/smuggling.rs"]
mod smuggling;
#[path = "http/team.rs"]
mod team;
#[path = "http/tls.rs"]
mod tls;
#[path = "http/tokens.rs"]
mod tokens;
#[path = "http/traces.rs"]
mod traces;
#[path = "http/wire.rs"]
mod wire;
