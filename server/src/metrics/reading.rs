//! What the cache and the store count, at the moment of a scrape.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::cache::{Cache, Snapshot};
use crate::seen::{Named, ScopeCounts};
use crate::space::Usage;

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
    /// What the store takes.
    pub usage: Usage,
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
            usage: Usage::default(),
            waits: none(),
            woken: none(),
        }
    }
}

impl Reading {
    /// Reads it all.
    pub async fn of(cache: &Cache) -> Self {
        // A store that does not answer is told by what is missing here, and by /readyz.
        let results = cache.results().await.ok();
        Self {
            counts: cache.counters(),
            scopes: cache.seen().scopes(),
            waiting: cache.waiting(),
            results,
            usage: cache.usage(),
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
            ("blobs", "Blobs that are stored.", self.usage.counted.then_some(self.usage.blobs)),
            ("store_limit_bytes", "What the store may take (--max-size).", self.usage.max_size),
            ("disk_free_bytes", "What is free on the store's disk.", self.usage.disk_free),
            ("disk_keep_free_bytes", "What stays free there.", Some(self.usage.keep_free)),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                gauge(encoder, name, help, value)?;
            }
        }
        self.encode_store(encoder)?;
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
    fn encode_store(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "What the store takes: blobs, room reserved by uploads, what was moved aside being damaged, and what \
                    was removed while downloads have it open.";
        let mut family = encoder.encode_descriptor("store_bytes", help, None, MetricType::Gauge)?;
        let usage = &self.usage;
        for (kind, bytes) in [
            ("blobs", usage.blob_bytes),
            ("reserved", usage.reserved_bytes),
            ("damaged", usage.damaged_bytes),
            ("unlinked_open", usage.unlinked_open_bytes),
        ] {
            ConstGauge::new(bytes).encode(family.encode_family(&[("kind", kind)])?)?;
        }
        Ok(())
    }

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
