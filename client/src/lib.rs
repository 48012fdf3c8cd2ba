//! client

pub mod remote;
