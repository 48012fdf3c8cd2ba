//! Times of one kind, and what to say of them.

use std::time::Duration;

use serde_json::{Value, json};

/// Wall times in milliseconds, sorted.
#[derive(Debug, Default, Clone)]
pub(crate) struct Sample(Vec<f64>);

impl Sample {
    pub(crate) fn of(times: impl IntoIterator<Item = Duration>) -> Self {
        let mut times: Vec<f64> = times.into_iter().map(|time| time.as_secs_f64() * 1e3).collect();
        times.sort_by(f64::total_cmp);
        Self(times)
    }

    /// The value that this share of the sample does not exceed.
    fn quantile(&self, share: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get((share * last as f64).round() as usize).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Median, and between which values four of five lie.
    pub(crate) fn text(&self) -> String {
        format!("{:.2} [{:.2}-{:.2}]", self.median(), self.quantile(0.1), self.quantile(0.9))
    }

    pub(crate) fn json(&self) -> Value {
        let [median, p10, p90, min] = [0.5, 0.1, 0.9, 0.0].map(|share| self.quantile(share));
        json!({ "median_ms": median, "p10_ms": p10, "p90_ms": p90, "min_ms": min, "runs": self.0.len() })
    }
}
