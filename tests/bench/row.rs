//! A row of the table: a time of ours, and those of others for the same.

use serde_json::{Map, Value, json};

use crate::sample::Sample;

/// Median and spread, in milliseconds (or in another unit, where the row says so).
#[derive(Debug, Clone)]
pub(crate) struct Times {
    median: f64,
    p10: f64,
    p90: f64,
    runs: u64,
}

impl Times {
    pub(crate) fn of(sample: &Sample) -> Self {
        Self::parse(&sample.json()).expect("what a sample says of itself")
    }

    /// One value that does not vary.
    pub(crate) fn exactly(value: f64) -> Self {
        Self { median: value, p10: value, p90: value, runs: 1 }
    }

    /// What the bench of the server says of figures of one kind, which need not be times.
    pub(crate) fn of_figures(value: &Value) -> Option<Self> {
        let number = |name: &str| value.get(name)?.as_f64();
        let runs = value.get("runs")?.as_u64()?;
        Some(Self { median: number("median")?, p10: number("least")?, p90: number("most")?, runs })
    }

    pub(crate) fn parse(value: &Value) -> Option<Self> {
        let number = |name: &str| value.get(name)?.as_f64();
        let runs = value.get("runs")?.as_u64()?;
        Some(Self { median: number("median_ms")?, p10: number("p10_ms")?, p90: number("p90_ms")?, runs })
    }

    fn text(&self) -> String {
        if self.runs == 1 {
            return format!("{:.2}", self.median);
        }
        format!("{:.2} [{:.2}-{:.2}]", self.median, self.p10, self.p90)
    }

    fn json(&self) -> Value {
        json!({ "median_ms": self.median, "p10_ms": self.p10, "p90_ms": self.p90, "runs": self.runs })
    }
}

#[derive(Debug)]
pub(crate) struct Row {
    what: String,
    ours: Option<Times>,
    others: Vec<(String, Times)>,
    /// What there is no number for.
    notes: Vec<String>,
}

impl Row {
    pub(crate) fn new(what: &str, ours: Times) -> Self {
        Self { what: what.to_owned(), ours: Some(ours), others: Vec::new(), notes: Vec::new() }
    }

    pub(crate) fn skipped(what: &str, why: &str) -> Self {
        Self { what: what.to_owned(), ours: None, others: Vec::new(), notes: vec![format!("skipped: {why}")] }
    }

    pub(crate) fn against(mut self, others: impl IntoIterator<Item = (String, Times)>) -> Self {
        self.others.extend(others);
        self
    }

    pub(crate) fn noting(mut self, note: String) -> Self {
        self.notes.push(note);
        self
    }

    fn ratios(&self) -> Vec<(&str, f64)> {
        let ours = self.ours.as_ref().map_or(f64::NAN, |ours| ours.median);
        self.others.iter().map(|(who, times)| (who.as_str(), ours / times.median)).collect()
    }

    pub(crate) fn print(&self) {
        println!("\n{}", self.what);
        if let Some(ours) = &self.ours {
            println!("  {:<26} {}", "pcmcache", ours.text());
        }
        for ((who, times), (_, ratio)) in self.others.iter().zip(self.ratios()) {
            println!("  {who:<26} {:<32} pcmcache is {ratio:.3} of it", times.text());
        }
        self.notes.iter().for_each(|note| println!("  {note}"));
    }

    /// A line of a table in Markdown, for the README.
    pub(crate) fn markdown(&self) -> String {
        let ratio = |(who, ratio): (&str, f64)| format!("{ratio:.2} of {who}");
        let ratios: Vec<_> = self.ratios().into_iter().map(ratio).collect();
        let ours = self.ours.as_ref().map_or_else(|| self.notes.join("; "), Times::text);
        format!("| {} | {ours} | {} |\n", self.what, ratios.join(", "))
    }

    pub(crate) fn json(&self) -> Value {
        let others: Map<_, _> = self.others.iter().map(|(who, times)| (who.clone(), times.json())).collect();
        let ratios: Map<_, _> =
            self.ratios().into_iter().map(|(who, ratio)| (who.to_owned(), json!(ratio))).collect();
        let ours = self.ours.as_ref().map(Times::json);
        json!({ "what": self.what, "pcmcache": ours, "others": others, "ratio_to": ratios, "notes": self.notes })
    }
}
