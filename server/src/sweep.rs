//! (being written)
use std::sync::Arc;

use crate::cache::Cache;

/// Sweeps for ever: run it as a task beside the server, abort it at the end.
pub async fn run(cache: Arc<Cache>) {
    drop(cache);
}
