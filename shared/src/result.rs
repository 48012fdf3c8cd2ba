//! What an action made.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Digest, Signature};

/// What an output is to the compile that made it; how it is placed follows from this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Role {
    /// What the compiler wrote to its standard output.
    Stdout,
    /// Diagnostics: what the compiler wrote to its standard error.
    Stderr,
    /// The make rule that names what was read.
    Depfile,
    /// The object file.
    Object,
    /// The built module interface (`.pcm`).
    Bmi,
    /// Debug information that was split off (`.dwo`).
    SplitDwarf,
    /// What a coverage report needs to know of the source (`.gcno`).
    CoverageNotes,
    /// What the optimiser did (`.opt.yaml`).
    OptimizationRecord,
    /// Sizes of stack frames (`.su`).
    StackUsage,
    /// Diagnostics for a program (`.dia`).
    SerializedDiagnostics,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Depfile => "depfile",
            Self::Object => "object",
            Self::Bmi => "bmi",
            Self::SplitDwarf => "split_dwarf",
            Self::CoverageNotes => "coverage_notes",
            Self::OptimizationRecord => "optimization_record",
            Self::StackUsage => "stack_usage",
            Self::SerializedDiagnostics => "serialized_diagnostics",
        })
    }
}

/// One output: its role, the digest of its bytes, its size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Output {
    /// What it is.
    pub role: Role,
    /// The name of its bytes.
    pub digest: Digest,
    /// How many bytes.
    pub size: u64,
}

/// What making it cost, in milliseconds of wall time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Cost {
    /// Wall time of the compiler.
    pub wall_ms: u64,
}

/// What an action made (REAPI calls this an ActionResult). Immutable; created once per scope and action
/// key. Its recipe is the blob whose digest is the action key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ActionResult {
    /// At most one of each role.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 10))]
    pub outputs: Vec<Output>,
    /// What it cost to make.
    #[serde(default)]
    pub cost: Cost,
    /// Who made it: a host's name, at most 128 bytes; for people only.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_length = 128))]
    pub builder: String,
    /// The builder's word for it, over the scope, the key and the outputs (see [`crate::signature`]). The server keeps it
    /// and does not judge it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

/// A result no builder makes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadResult {
    /// No outputs at all.
    #[error("a result has at least one output")]
    Empty,
    /// Two outputs of one role.
    #[error("a result has at most one output of each role, this one has two of {0}")]
    Twice(Role),
    /// The builder's name is too long.
    #[error("a builder's name has at most 128 bytes")]
    BuilderTooLong,
}

impl ActionResult {
    /// Refuses what no builder makes.
    pub fn check(&self) -> Result<(), BadResult> {
        if self.outputs.is_empty() {
            return Err(BadResult::Empty);
        }
        if self.builder.len() > 128 {
            return Err(BadResult::BuilderTooLong);
        }
        let mut roles = BTreeSet::new();
        match self.outputs.iter().find(|output| !roles.insert(output.role)) {
            Some(twice) => Err(BadResult::Twice(twice.role)),
            None => Ok(()),
        }
    }

    /// The output of this role, if there is one.
    pub fn output(&self, role: Role) -> Option<&Output> {
        self.outputs.iter().find(|output| output.role == role)
    }

    /// Whether both made the same bytes; who made them, at what cost and signed by whom does not matter.
    pub fn same_outputs(&self, other: &Self) -> bool {
        let set = |result: &Self| result.outputs.iter().copied().collect::<BTreeSet<_>>();
        set(self) == set(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(outputs: &[(Role, &str)]) -> ActionResult {
        let outputs = outputs
            .iter()
            .map(|(role, bytes)| Output { role: *role, digest: Digest::of(bytes), size: bytes.len() as u64 })
            .collect();
        ActionResult { outputs, cost: Cost::default(), builder: String::new(), signature: None }
    }

    #[test]
    fn order_builder_and_cost_do_not_make_a_difference() {
        let a = result(&[(Role::Bmi, "b"), (Role::Object, "o")]);
        let mut b = result(&[(Role::Object, "o"), (Role::Bmi, "b")]);
        b.builder = "elsewhere".to_owned();
        b.cost.wall_ms = 9;
        assert!(a.same_outputs(&b));
        assert!(!a.same_outputs(&result(&[(Role::Object, "o")])));
        assert!(!a.same_outputs(&result(&[(Role::Bmi, "b"), (Role::Object, "other")])));
    }

    #[test]
    fn what_no_builder_makes_is_refused() {
        assert_eq!(result(&[]).check(), Err(BadResult::Empty));
        assert_eq!(result(&[(Role::Bmi, "b"), (Role::Bmi, "c")]).check(), Err(BadResult::Twice(Role::Bmi)));
        assert_eq!(result(&[(Role::Bmi, "b")]).check(), Ok(()));
    }
}
