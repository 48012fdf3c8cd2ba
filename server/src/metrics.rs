//! What the server counts, as Prometheus' text (version 0.0.4).

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cache::Snapshot;

/// Connections: how many are open, came, were refused, were cut.
#[derive(Debug, Default)]
pub struct Connections {
    open: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    cut: AtomicU64,
}

impl Connections {
    /// One more than fits.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection is there until what this returns is dropped.
    pub fn opened(self: &Arc<Self>) -> Open {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(self))
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Open(Arc<Connections>);

impl Open {
    /// It was cut by a limit.
    pub fn cut(&self) {
        self.0.cut.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All counts as text: each with its help and type, named `pcmcache_*`. `results` is how many there are, where the store
/// said.
pub fn render(cache: &Snapshot, results: Option<u64>, connections: &Connections) -> String {
    let mut text = String::new();
    for (name, help, value) in cache.table() {
        metric(&mut text, &format!("{name}_total"), "counter", help, value);
    }
    if let Some(results) = results {
        metric(&mut text, "results", "gauge", "Results that are there.", results);
    }
    let rows = [
        ("connections", "gauge", "Connections that are open.", &connections.open),
        ("connections_accepted_total", "counter", "Connections accepted.", &connections.accepted),
        (
            "connections_refused_total",
            "counter",
            "Connections refused, being too many.",
            &connections.refused,
        ),
        ("connections_cut_total", "counter", "Connections cut: too slow, idle or stuck.", &connections.cut),
    ];
    for (name, kind, help, value) in rows {
        metric(&mut text, name, kind, help, value.load(Ordering::Relaxed));
    }
    text
}

fn metric(text: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    let name = format!("pcmcache_{name}");
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_has_its_help_type_and_value() {
        let connections = Arc::new(Connections::default());
        let open = connections.opened();
        open.cut();
        let snapshot = Snapshot { damaged_blobs: 3, ..Snapshot::default() };
        let text = render(&snapshot, Some(7), &connections);
        for line in [
            "# TYPE pcmcache_damaged_blobs_total counter",
            "pcmcache_damaged_blobs_total 3",
            "pcmcache_diverged_total 0",
            "pcmcache_results 7",
            "pcmcache_connections 1",
            "pcmcache_connections_cut_total 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        drop(open);
        assert!(render(&snapshot, None, &connections).contains("pcmcache_connections 0\n"));
    }
}
