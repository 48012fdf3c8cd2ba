//! The contract of a store of profiles: named sets of results, by scope and name.
//!
//! - **All or nothing.** A profile takes the place of the one of its name as a whole, and what is acknowledged survives a kill
//!   and a power cut.
//! - **Bounded.** A scope has at most [`MAX_PROFILES`], with [`MAX_KEYS`] keys in all, and none that nobody used for
//!   [`FORGOTTEN_AFTER`]: what was used least recently goes. Time is the store's own, in which it was open.
//!
//! A store holds what it is given; who may see what is not its business.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use pcmcache_shared::{ActionKey, ProfileName, Scope, Writer};
use serde::{Deserialize, Serialize};

use crate::fault::Fault;

/// The most profiles of a scope.
pub const MAX_PROFILES: usize = 256;
/// The most keys of all of them.
pub const MAX_KEYS: u64 = 1_000_000;
/// A profile that nobody pushed or fetched for so long goes with the next push.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// A use is noted when the last one lies so far back.
pub const NOTED_AFTER: Duration = Duration::from_secs(60 * 60);

/// A profile as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredProfile {
    /// Profiles whose results come after its own.
    pub inherits: Vec<ProfileName>,
    /// Who pushed it: where one of them is revoked, it is as if it were not there.
    pub writers: Vec<Writer>,
    /// What it names, the most urgent first.
    #[serde(skip)]
    pub actions: Vec<ActionKey>,
}

/// A set of profiles. See the module for what every store promises.
#[async_trait]
pub trait Profiles: Send + Sync + fmt::Debug {
    /// Puts the profile in the place of the one of that name.
    async fn put(&self, scope: &Scope, name: &ProfileName, profile: StoredProfile) -> Result<(), Fault>;

    /// The profile of that name, if there is one.
    async fn profile(&self, scope: &Scope, name: &ProfileName) -> Result<Option<StoredProfile>, Fault>;

    /// Notes that it was used. One that is not there is none that fails.
    async fn touch(&self, scope: &Scope, name: &ProfileName) -> Result<(), Fault>;

    /// The profiles that were put or used within that time, the last used one first.
    async fn recent(&self, within: Duration) -> Result<Vec<(Scope, ProfileName)>, Fault>;
}
