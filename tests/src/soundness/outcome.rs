//! What came of a case, or of many.

use std::collections::BTreeMap;

use super::Case;

/// What came of a case, or of many.
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

impl Outcome {
    /// Adds what came of this case.
    pub fn add(&mut self, case: &Case, outcome: Self) {
        self.seconds += outcome.seconds;
        self.second_hits += outcome.second_hits;
        self.repeats += outcome.repeats;
        self.repeat_hits += outcome.repeat_hits;
        self.wrong.extend(outcome.wrong.iter().map(|what| format!("{case}\n  {what}")));
        self.missed.extend(outcome.missed);
        for (reason, count) in outcome.bypassed {
            *self.bypassed.entry(reason).or_default() += count;
        }
    }
}
