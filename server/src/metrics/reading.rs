//! What the cache and the store count, at the moment of a scrape.

use std::fmt;
use std::path::Path;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::cache::{Cache, Snapshot};
use crate::seen::{Named, ScopeCounts};

/// Bytes of the disk on which the store lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Those that the store may still take.
    pub free: u64,
    /// All there are.
    pub total: u64,
}

impl Space {
    /// That of the disk on which this directory lies, if it says.
    pub fn of(directory: &Path) -> Option<Self> {
        let stat = rustix::fs::statvfs(directory).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Some(Self { free: bytes(stat.f_bavail), total: bytes(stat.f_blocks) })
    }
}

/// What there is to tell; what could not be had is told by its absence.
#[derive(Debug)]
pub struct Reading {
    /// The counts of all that happened.
    pub counts: Snapshot,
    /// The counts of each scope.
    pub scopes: Vec<(Named, ScopeCounts)>,
    /// Acquires that wait now.
    pub waiting: usize,
    /// Results that are there.
    pub results: Option<u64>,
    /// The disk.
    pub space: Option<Space>,
    pub(super) waits: Histogram,
    pub(super) woken: Histogram,
}

impl Default for Reading {
    fn default() -> Self {
        let none = || Histogram::new([]);
        Self {
            counts: Snapshot::default(),
            scopes: Vec::new(),
            waiting: 0,
            results: None,
            space: None,
            waits: none(),
            woken: none(),
        }
    }
}

impl Reading {
    /// Reads it all.
    pub async fn of(cache: &Cache, data_dir: Option<&Path>) -> Self {
        // A store that does not answer is told by what is missing here, and by /readyz.
        let results = cache.results().await.ok();
        Self {
            counts: cache.counters(),
            scopes: cache.seen().scopes(),
            waiting: cache.waiting(),
            results,
            space: data_dir.and_then(Space::of),
            waits: cache.seen().waits.clone(),
            woken: cache.seen().woken.clone(),
        }
    }
}

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let encoder = &mut encoder;
        for (name, help, value) in self.counts.table() {
            count(encoder, name, help, value)?;
        }
        let gauges = [
            ("results", "Results that are there.", self.results),
            ("waiting", "Acquires that wait for someone else's build now.", Some(self.waiting as u64)),
            ("disk_free_bytes", "Bytes of the disk that are free.", self.space.map(|space| space.free)),
            ("disk_bytes", "Bytes of the disk on which the store lies.", self.space.map(|space| space.total)),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                gauge(encoder, name, help, value)?;
            }
        }
        self.encode_scopes(encoder)?;
        let mut info = encoder.encode_descriptor(
            "build_info",
            "Which version this is; always 1.",
            None,
            MetricType::Gauge,
        )?;
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        ConstGauge::new(1).encode(info.encode_family(&version)?)
    }
}

impl Reading {
    fn encode_scopes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (index, (name, help, _)) in ScopeCounts::default().table().into_iter().enumerate() {
            let (name, divisor) = in_seconds(name);
            let name = format!("scope_{name}");
            let help = format!("In this scope: {help}");
            let mut family = encoder.encode_descriptor(&name, &help, None, MetricType::Counter)?;
            for (scope, counts) in &self.scopes {
                let value = counts.table().get(index).map_or(0, |(_, _, value)| *value);
                let labels = [("scope", scope.as_str())];
                let family = family.encode_family(&labels)?;
                match divisor {
                    Some(divisor) => ConstCounter::new(value as f64 / divisor).encode(family)?,
                    None => ConstCounter::new(value).encode(family)?,
                }
            }
        }
        Ok(())
    }
}

/// Prometheus counts time in seconds: the name without its unit of ours, and what to divide by.
fn in_seconds(name: &str) -> (String, Option<f64>) {
    match name.strip_suffix("_ms") {
        Some(name) => (format!("{name}_seconds"), Some(1000.0)),
        None => (name.to_owned(), None),
    }
}

fn count(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let (name, divisor) = in_seconds(name);
    let encoder = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
    match divisor {
        Some(divisor) => ConstCounter::new(value as f64 / divisor).encode(encoder),
        None => ConstCounter::new(value).encode(encoder),
    }
}

pub(super) fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> fmt::Result {
    ConstCounter::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
}

pub(super) fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}
