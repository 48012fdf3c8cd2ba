//! All cases for one contestant, and what they came to.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::contestant::Training;
use super::{Case, Contestant, Outcome, trial};

/// What the cases came to.
#[derive(Debug, Default)]
pub struct Tally {
    /// How many cases were tried.
    pub cases: u64,
    /// What came of them together; what was wrong and missed with the cases' names.
    pub all: Outcome,
}

impl Tally {
    /// Tries every case, on as many threads as the gate's machine has cores.
    pub fn of(cases: &[Case], contestant: Contestant) -> Self {
        let next = AtomicUsize::new(0);
        let training = Training::of(contestant);
        let tally = Mutex::new(Self::default());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let outcome = trial::run(case, &training);
                        tally.lock().expect("a tally").add(case, contestant, outcome);
                    }
                });
            }
        });
        tally.into_inner().expect("a tally")
    }

    fn add(&mut self, case: &Case, contestant: Contestant, outcome: Outcome) {
        let verdict = match (outcome.wrong.is_empty(), outcome.missed.is_empty()) {
            (false, _) => "WRONG",
            (true, false) => "no hit",
            (true, true) => "right",
        };
        let reasons: Vec<_> = outcome.bypassed.keys().map(String::as_str).collect();
        let Outcome { second_hits, seconds, repeat_hits, repeats, .. } = outcome;
        println!(
            "{verdict:>7} {second_hits:>2}/{seconds:<2} {repeat_hits:>2}/{repeats:<2} {} {case} {}",
            contestant.name(),
            reasons.join(" ")
        );
        self.cases += 1;
        self.all.add(case, outcome);
    }

    /// The head of a table of [`Tally::row`]s.
    pub fn head() -> String {
        format!(
            "{:<10} {:>6} {:>16} {:>6} {:>9} {:>6} {:>6}",
            "", "cases", "second compiles", "hits", "repeats", "hits", "wrong"
        )
    }

    /// One line of that table.
    pub fn row(&self, name: &str) -> String {
        format!(
            "{name:<10} {:>6} {:>16} {:>6} {:>9} {:>6} {:>6}",
            self.cases,
            self.all.seconds,
            self.all.second_hits,
            self.all.repeats,
            self.all.repeat_hits,
            self.all.wrong.len()
        )
    }
}
