//! Numbers of one kind, and what to say of them.

use serde_json::{Map, Value, json};

/// Measurements of one thing, sorted.
#[derive(Debug, Clone)]
pub(crate) struct Figures(Vec<f64>);

impl Figures {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// The value that this share of them does not exceed.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get((share * last as f64).round() as usize).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    fn text(&self) -> String {
        let digits = if self.median() < 100.0 { 2 } else { 0 };
        let [low, median, high] = [0.0, 0.5, 1.0].map(|share| format!("{:.digits$}", self.quantile(share)));
        if self.0.len() == 1 { median } else { format!("{median} [{low}-{high}]") }
    }

    fn json(&self) -> Value {
        json!({ "median": self.median(), "least": self.quantile(0.0), "most": self.quantile(1.0), "runs": self.0.len() })
    }
}

/// The rows of the table, shown as they come.
#[derive(Debug, Default)]
pub(crate) struct Report(Map<String, Value>);

impl Report {
    /// A figure of ours beside one of a peer's.
    pub(crate) fn compare(&mut self, name: &str, unit: &str, ours: &Figures, peer: (&str, &Figures)) {
        let ratio = ours.median() / peer.1.median();
        println!(
            "{name:<44} {unit:<10} {:>26}   {:>26} {}: {ratio:.2} of it",
            ours.text(),
            peer.1.text(),
            peer.0
        );
        let row = json!({ "unit": unit, "ours": ours.json(), "peer": peer.0, "theirs": peer.1.json(), "ratio": ratio });
        self.0.insert(name.to_owned(), row);
    }

    /// A figure that stands alone.
    pub(crate) fn say(&mut self, name: &str, unit: &str, ours: &Figures) {
        println!("{name:<44} {unit:<10} {:>26}", ours.text());
        self.0.insert(name.to_owned(), json!({ "unit": unit, "ours": ours.json() }));
    }

    pub(crate) fn json(self) -> Value {
        self.0.into()
    }
}
