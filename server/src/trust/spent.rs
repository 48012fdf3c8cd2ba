//! The tokens of CI systems that were exchanged: each is good once.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use pcmcache_shared::Digest;

use crate::fault::Fault;

/// The most that are kept at once; a token is kept for as long as it could be exchanged.
pub const MAX_SPENT: u64 = 200_000;

/// What was exchanged.
///
/// - **Of any number of racing [`Spent::spend`]s of one name exactly one is the first**, and that is durable before anyone is told.
/// - A name may be forgotten once its time is over. It is never forgotten to make room for another.
#[async_trait]
pub trait Spent: Send + Sync + fmt::Debug {
    /// Spends the name, and says whether this was the first time. It is remembered until `until_s`.
    async fn spend(&self, name: Digest, until_s: u64, now_s: u64) -> Result<bool, Fault>;
}

/// In memory: the reference for the conformance suite.
#[derive(Debug, Default)]
pub struct MemorySpent {
    until: Mutex<HashMap<Digest, u64>>,
}

#[async_trait]
impl Spent for MemorySpent {
    async fn spend(&self, name: Digest, until_s: u64, now_s: u64) -> Result<bool, Fault> {
        let mut spent = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        spent.retain(|_, until| *until > now_s);
        if spent.contains_key(&name) {
            return Ok(false);
        }
        if spent.len() as u64 >= MAX_SPENT {
            return Err(Fault::Unavailable { operation: "remember a token" });
        }
        spent.insert(name, until_s);
        Ok(true)
    }
}
