//! The contract of a result store: results by action key, created once, and what was learnt about units.
//!
//! - **Create-once.** Of any number of racing creates of one key in one scope exactly one wins, and all others get the
//!   winner. A result is replaced only by naming the very one to replace ([`Publication::instead_of`]).
//! - **All or nothing.** A result, its place under its include set, and the references to its blobs become visible and
//!   durable together.
//! - What is acknowledged survives a kill and a power cut.
//!
//! A store holds what it is given; which results may answer, and who may publish, is not its business.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pcmcache_shared::{ActionKey, ActionResult, Claim, Digest, Fence, Scope, UnitKey, Writer};
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::trust::WriterSet;

/// The most results of a scope that are looked at to find one that names a blob and is not hidden. Past these it is as if
/// there were none: a bound on what a read may cost, not a rule.
pub const MAX_NAMING: usize = 1000;

/// A result as it is kept: what the builder sent, and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredResult {
    /// The result.
    pub result: ActionResult,
    /// The unit whose result it is.
    pub unit: UnitKey,
    /// The include set it was made under.
    pub set: Digest,
    /// Who published it: where one of them is revoked, it is as if it were not there.
    pub writers: Vec<Writer>,
    /// When, in seconds since 1970.
    pub published_s: u64,
}

impl StoredResult {
    /// The blobs it stands on beside its outputs: the recipe, which its key names, and the include set.
    pub fn references(&self, key: ActionKey) -> impl Iterator<Item = Digest> {
        self.result.outputs.iter().map(|output| output.digest).chain([key.recipe(), self.set])
    }
}

/// What is to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Under which key.
    pub action: ActionKey,
    /// What.
    pub stored: StoredResult,
    /// The result to take the place of, if it is still this one: its blobs are lost, so it answers nobody.
    pub instead_of: Option<StoredResult>,
    /// The lease that ends with it. A store that keeps leases too ends it in the same transaction; for others,
    /// [`crate::leases::Leases::end`] follows.
    pub ends: Option<(Claim, Fence)>,
}

/// What a create did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Creation {
    /// It is the result of its key now.
    Created,
    /// This one was there first.
    Exists(Box<StoredResult>),
}

/// An include set of a unit, and the newest results under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetRow {
    /// The digest of the set's text, which is a blob.
    pub set: Digest,
    /// The newest results whose recipe is the unit over this set, newest first; at most
    /// [`limits::MAX_RESULTS_PER_SET`](pcmcache_shared::api::limits::MAX_RESULTS_PER_SET).
    pub actions: Vec<ActionKey>,
}

/// A use of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// In which scope.
    pub scope: Scope,
    /// Of which.
    pub action: ActionKey,
    /// How long ago.
    pub ago: Duration,
}

/// A result as eviction sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its scope.
    pub scope: Scope,
    /// Its key.
    pub action: ActionKey,
    /// How long it has not been used, while the store was open.
    pub idle: Duration,
    /// What it took to make, in milliseconds.
    pub cost_ms: u64,
    /// What its outputs take.
    pub bytes: u64,
}

/// Results that nothing takes the place of. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Pinned(Arc<HashMap<String, HashSet<ActionKey>>>);

impl Pinned {
    /// Whether this one is among them.
    pub fn has(&self, scope: &str, action: ActionKey) -> bool {
        self.0.get(scope).is_some_and(|pinned| pinned.contains(&action))
    }
}

impl FromIterator<(Scope, ActionKey)> for Pinned {
    fn from_iter<T: IntoIterator<Item = (Scope, ActionKey)>>(results: T) -> Self {
        let mut pinned = HashMap::<String, HashSet<ActionKey>>::new();
        for (scope, action) in results {
            pinned.entry(scope.into()).or_default().insert(action);
        }
        Self(Arc::new(pinned))
    }
}

/// How overdue a result is: the largest goes first.
pub type Overdue = fn(&Standing) -> i64;

/// What removing results did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Removed {
    /// How many there were.
    pub results: u64,
    /// The blobs that they named; others may name them too.
    pub named: Vec<Digest>,
}

/// A set of results. See the module for what every store promises.
#[async_trait]
pub trait Results: Send + Sync + fmt::Debug {
    /// The result of the key, if there is one.
    async fn get(&self, scope: &Scope, action: ActionKey) -> Result<Option<StoredResult>, Fault>;

    /// Creates the result of a key, once. A set that is new to the unit becomes its newest, and only the newest
    /// [`limits::MAX_SETS`](pcmcache_shared::api::limits::MAX_SETS) are kept.
    async fn create(&self, scope: &Scope, publication: Publication) -> Result<Creation, Fault>;

    /// The include sets of the unit, the last learnt one first.
    async fn sets(&self, scope: &Scope, unit: UnitKey) -> Result<Vec<SetRow>, Fault>;

    /// Whether a result in one of these scopes stands on the blob, other than hidden ones; of each scope at most
    /// [`MAX_NAMING`] are looked at.
    async fn names(&self, scopes: &[Scope], digest: Digest, hidden: &WriterSet) -> Result<bool, Fault>;

    /// Each of the digests with the scopes that have a result which names it.
    async fn named_in(&self, digests: Vec<Digest>) -> Result<Vec<(Digest, Vec<Scope>)>, Fault>;

    /// How many results there are, over all scopes, but for those that stand on a blob known to be lost.
    async fn count(&self) -> Result<u64, Fault>;

    /// Notes when results were used. A use that lies before a known one says nothing new; one of a result that is not
    /// there says nothing.
    async fn used(&self, uses: Vec<Use>) -> Result<(), Fault>;

    /// Those results of the scope, or of all, that nobody used for `idle`, that are not marked to be kept and not `pinned`:
    /// the `at_most` that are most `overdue`, the most overdue first.
    async fn coldest(
        &self,
        scope: Option<&Scope>,
        at_most: usize,
        idle: Duration,
        overdue: Overdue,
        pinned: &Pinned,
    ) -> Result<Vec<Standing>, Fault>;

    /// Removes those of the results that nobody used for `idle`, their places under their sets, and the sets that no result
    /// is left under. What was used since it was chosen stays: no use comes between the look and the removal. One that is
    /// not there is none that fails.
    async fn remove(&self, results: Vec<(Scope, ActionKey)>, idle: Duration) -> Result<Removed, Fault>;

    /// Tidies up what is kept beside the rows. It may take long; call it now and then.
    async fn tidy(&self) -> Result<(), Fault> {
        Ok(())
    }

    /// Marks a result to be kept, or no longer: eviction passes over it. One that is not there yet is kept once it is.
    async fn keep(&self, scope: &Scope, action: ActionKey, kept: bool) -> Result<(), Fault>;
}
