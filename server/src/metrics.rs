//! What the server counts, as Prometheus reads it.
//!
//! Invariant: the number of series is bounded whatever clients send. A route is one of the route table's, a method one that
//! it has, a status its class, a scope one of those that have a name of their own (see [`crate::seen`]).

mod connections;
mod process;
mod reading;
mod text;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

pub use self::connections::{Connections, Open};
pub use self::reading::Reading;
pub use self::text::Format;
use crate::seen::SECONDS;
use crate::tls::Tls;

/// A kind of request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Asked {
    /// The method, in capitals.
    pub method: &'static str,
    /// The path's pattern, or `none`.
    pub route: String,
    /// The class of the answer's status: `2xx`.
    pub status: &'static str,
}

/// What is counted beside the cache: requests and connections.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Connections.
    pub connections: Arc<Connections>,
    requests: Requests,
    tls: Option<Arc<Tls>>,
}

/// How long requests took. The bounds of the buckets are those of all short times.
#[derive(Debug)]
struct Requests(Family<Asked, Histogram>);

impl Default for Requests {
    fn default() -> Self {
        Self(Family::new_with_constructor(|| Histogram::new(SECONDS)))
    }
}

impl Metrics {
    /// Of a server that shows these certificates, if it speaks TLS.
    pub fn of(tls: Option<Arc<Tls>>) -> Self {
        Self { tls, ..Self::default() }
    }

    /// A request was answered, as far as the answer's first byte.
    pub fn answered(&self, asked: &Asked, after: Duration) {
        self.requests.0.get_or_create(asked).observe(after.as_secs_f64());
    }

    /// All of it as text.
    pub fn render(&self, reading: Reading, format: Format) -> String {
        let mut ours = Registry::with_prefix("pcmcache");
        let waits = [
            ("wait", "How long acquires waited for someone else's build", &reading.waits),
            ("wake", "From a publish to the answer of one who waited for it", &reading.woken),
        ];
        for (name, help, histogram) in waits {
            ours.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
        let help = "From the end of a request's head to the first byte of its answer";
        ours.register_with_unit("request_duration", help, Unit::Seconds, self.requests.0.clone());
        ours.register_collector(Box::new(Arc::clone(&self.connections)));
        ours.register_collector(Box::new(reading));
        if let Some(expires_s) = self.tls.as_ref().and_then(|tls| tls.expires_s()) {
            let ends = ConstGauge::new(expires_s);
            let help = "When the certificate that is shown ends, in seconds since 1970";
            ours.register_with_unit("tls_certificate_expiry", help, Unit::Seconds, ends);
        }
        let mut process = Registry::with_prefix("process");
        process.register_collector(Box::new(process::Process::read()));
        text::render(&[ours, process], format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Snapshot;

    fn rendered(metrics: &Metrics, format: Format) -> String {
        let counts = Snapshot { damaged_blobs: 3, saved_ms: 1500, ..Snapshot::default() };
        metrics.render(Reading { counts, results: Some(7), ..Reading::default() }, format)
    }

    fn assert_has(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|l| l == *line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn every_count_has_its_help_type_and_value() {
        let metrics = Metrics::default();
        let open = metrics.connections.opened();
        open.cut();
        let asked = Asked { method: "GET", route: "/metrics".to_owned(), status: "2xx" };
        metrics.answered(&asked, Duration::from_millis(3));
        let text = rendered(&metrics, Format::Prometheus);
        let labels = "method=\"GET\",route=\"/metrics\",status=\"2xx\"";
        assert_has(
            &text,
            &[
                "# TYPE pcmcache_damaged_blobs_total counter",
                "pcmcache_damaged_blobs_total 3",
                "pcmcache_diverged_total 0",
                "pcmcache_saved_seconds_total 1.5",
                "# TYPE pcmcache_results gauge",
                "pcmcache_results 7",
                "pcmcache_connections 1",
                "pcmcache_connections_cut_total 1",
                &format!("pcmcache_request_duration_seconds_bucket{{le=\"0.0025\",{labels}}} 0"),
                &format!("pcmcache_request_duration_seconds_bucket{{le=\"0.005\",{labels}}} 1"),
                &format!("pcmcache_request_duration_seconds_count{{{labels}}} 1"),
            ],
        );
        assert!(text.lines().any(|line| line.starts_with("process_resident_memory_bytes ")), "{text}");
        drop(open);
        assert_has(&rendered(&metrics, Format::Prometheus), &["pcmcache_connections 0"]);
    }

    #[test]
    fn open_metrics_is_spoken_to_who_asks_for_it() {
        let text = rendered(&Metrics::default(), Format::OpenMetrics);
        assert_has(&text, &["# TYPE pcmcache_damaged_blobs counter", "pcmcache_damaged_blobs_total 3"]);
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
