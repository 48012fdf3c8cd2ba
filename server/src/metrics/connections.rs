//! Connections: how many are open, came, were refused, were cut.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::reading::{counter, gauge};

/// The counts.
#[derive(Debug, Default)]
pub struct Connections {
    open: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    cut: AtomicU64,
    limited: AtomicU64,
}

impl Connections {
    /// One more than fits.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A request that was too much of its client.
    pub fn limited(&self) {
        self.limited.fetch_add(1, Ordering::Relaxed);
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

impl Collector for Connections {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
        gauge(&mut encoder, "connections", "Connections that are open.", now(&self.open))?;
        counter(&mut encoder, "connections_accepted", "Connections accepted.", now(&self.accepted))?;
        let refused = now(&self.refused);
        counter(
            &mut encoder,
            "connections_refused",
            "Connections refused, being too many, or too many from one address.",
            refused,
        )?;
        counter(
            &mut encoder,
            "connections_cut",
            "Connections cut: too slow, idle or stuck.",
            now(&self.cut),
        )?;
        let limited = now(&self.limited);
        let help = "Requests refused, their client having asked for too much.";
        counter(&mut encoder, "requests_limited", help, limited)
    }
}
