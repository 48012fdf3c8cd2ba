//! What must hold of every history. Each rule reads the whole history and names the lines that break it.
//!
//! | rule | demands |
//! |---|---|
//! | `register` | each key of a scope holds at most one result at a time, which stays: an order of events exists in which every read is right |
//! | `bytes` | what is read is what its publisher sent, under that scope and key; what was answered or acknowledged can be fetched |
//! | `leases` | fences rise; nobody is granted what another still holds; while a lease lives only its holder publishes |
//! | `trust` | nobody sees, or changes, what is not theirs |
//! | `ends` | every operation ends in time, with an answer that may be given |
//! | `settled` | once all faults are over each key has a result, or gets one |

mod bytes;
mod ends;
mod known;
mod leases;
mod register;
mod settled;
mod trust;

use std::fmt;

use super::line::Line;
use known::History;

/// A line, or some that cannot stand together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule's name.
    pub rule: &'static str,
    /// What is wrong.
    pub what: String,
    /// The lines concerned, counted from 1 as editors do.
    pub lines: Vec<usize>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (lines {:?})", self.rule, self.what, self.lines)
    }
}

/// All that is wrong with a history.
pub fn check(lines: &[Line]) -> Vec<Violation> {
    let history = History::of(lines);
    let rules = [register::rule, bytes::rule, leases::rule, trust::rule, ends::rule, settled::rule];
    rules.iter().flat_map(|rule| rule(&history)).collect()
}

#[cfg(test)]
mod tests;
