//! What is not the cache: `/healthz`, `/readyz`, `/metrics`, `/openapi.json`.

use axum::Extension;
use axum::extract::State;
use axum::response::IntoResponse;
use bytes::Bytes;
use http::{HeaderMap, header};
use pcmcache_shared::api::problem::Code;

use super::App;
use super::path::Observer;
use super::problem::Refused;
use crate::metrics::{Format, Reading};

pub(super) const READY_PROBLEMS: &[Code] = &[Code::Unavailable];

/// The OpenAPI document, rendered once.
#[derive(Debug, Clone)]
pub(super) struct Document(pub(super) Bytes);

/// The process lives.
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "healthz",
    tag = "server",
    responses((status = 200, description = "It does.", content_type = "text/plain", body = String)),
)]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// The store answers.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "readyz",
    tag = "server",
    responses((status = 200, description = "It does.", content_type = "text/plain", body = String)),
)]
pub(super) async fn readyz(State(app): State<App>) -> Result<&'static str, Refused> {
    if app.stop.is_cancelled() {
        return Err(Refused::new(Code::Unavailable, "the server is going down"));
    }
    match app.cache.results().await {
        Ok(_) => Ok("ok\n"),
        Err(error) => Err(Refused::new(Code::Unavailable, format!("the store does not answer: {error}"))),
    }
}

/// The counts, for Prometheus.
///
/// OpenMetrics 1.0 to whoever accepts `application/openmetrics-text`, else Prometheus' text 0.0.4.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "server",
    responses((status = 200, description = "The counts.", content_type = "text/plain", body = String)),
)]
pub(super) async fn metrics(_: Observer, State(app): State<App>, headers: HeaderMap) -> impl IntoResponse {
    let format = Format::wanted(&headers);
    let reading = Reading::of(&app.cache).await;
    ([(header::CONTENT_TYPE, format.content_type())], app.metrics.render(reading, format))
}

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "openapi",
    tag = "server",
    responses((status = 200, description = "The OpenAPI document.", content_type = "application/json", body = serde_json::Value)),
)]
pub(super) async fn openapi(Extension(document): Extension<Document>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, pcmcache_shared::api::JSON)], document.0)
}
