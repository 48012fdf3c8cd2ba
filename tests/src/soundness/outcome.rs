//! What came of a case.

use std::collections::BTreeMap;

/// What came of a case.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Compiles after the first that followed a change.
    pub seconds: u64,
    /// Those of them that were hits.
    pub second_hits: u64,
    /// Compiles that repeated the one before.
    pub repeats: u64,
    /// Those of them that were hits.
    pub repeat_hits: u64,
    /// What was not what the compiler does; the case ends there.
    pub wrong: Vec<String>,
    /// Hits that the case promises, and that were none.
    pub missed: Vec<String>,
    /// Why commands were not cached: reason and count.
    pub bypassed: BTreeMap<String, u64>,
}
