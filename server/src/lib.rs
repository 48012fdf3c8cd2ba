//! The server of pcmcache: it hands out build leases, takes complete uploads only, and serves verified blobs.
//!
//! `http -> cache -> {leases, results, blobs}`: a request is parsed in `http`, who sent it is found in `trust`, every rule
//! is kept in `cache`, and a back end knows none of these.

pub mod blobs;
pub mod cache;
pub mod clock;
pub mod config;
pub mod connection;
pub mod dashboard;
pub mod embedded;
pub mod fault;
pub mod history;
pub mod http;
pub mod leases;
pub mod limits;
pub mod log;
pub mod maintenance;
pub mod memory;
pub mod metrics;
pub mod outward;
pub mod profiles;
mod redb_file;
pub mod results;
pub mod scrub;
pub mod seen;
pub mod server;
mod share;
pub mod space;
pub mod tls;
pub mod traces;
pub mod trust;
pub mod upkeep;

pub use config::Config;
pub use server::{Server, main, serve};
