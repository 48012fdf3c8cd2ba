//! A span for each request, for whoever collects traces (OpenTelemetry), if the server is asked to export them.
//!
//! A span begins with the request's head and ends with the last byte of the answer, so that of a launcher that waits is as
//! long as the wait. It is part of the client's trace if the request names one. The spans lie in a bounded queue that a
//! thread of its own empties: a collector that is slow or away costs spans, and never a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::extract::Request;
use bytes::Bytes;
use http::{Response, StatusCode, Version};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use pcmcache_shared::causes::causes;
use reqwest::{Client, Url};
use tokio::runtime::Handle;

use crate::outward;

/// How long the collector may take over one batch.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the last batch may take when the server goes down.
const LAST_BATCH: Duration = Duration::from_secs(2);

/// Spans cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum NoTraces {
    /// There is nothing to send them with.
    #[error("{0}")]
    Client(String),
    /// What the environment says cannot be done.
    #[error(transparent)]
    Setting(#[from] ExporterBuildError),
    /// Another protocol is asked for.
    #[error("OTEL_EXPORTER_OTLP_PROTOCOL is '{0}', and only http/protobuf is spoken (usually on port 4318)")]
    Protocol(String),
}

/// Where spans go.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// The span of one request. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct RequestSpan(opentelemetry_sdk::trace::Span);

impl Traces {
    /// Begins to export to the collector at `endpoint`.
    ///
    /// # Errors
    /// What the environment asks for cannot be done.
    pub fn open(endpoint: &Url) -> Result<Self, NoTraces> {
        if let Some(other) = environment("PROTOCOL").filter(|protocol| protocol != "http/protobuf") {
            return Err(NoTraces::Protocol(other));
        }
        let http = outward::client(PATIENCE).map_err(NoTraces::Client)?;
        let collector = Collector { http, runtime: Handle::current(), is_away: AtomicBool::new(false) };
        // A place for traces alone is said as it is, that for everything without the path.
        let url = environment("TRACES_ENDPOINT")
            .unwrap_or_else(|| format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/')));
        let exporter = SpanExporter::builder().with_http().with_http_client(collector).with_endpoint(url);
        let mut about = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            about = about.with_service_name(env!("CARGO_PKG_NAME"));
        }
        let about = about.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        let provider = SdkTracerProvider::builder().with_resource(about.build());
        let provider = provider.with_batch_exporter(exporter.build()?).build();
        let tracer = provider.tracer(env!("CARGO_PKG_NAME"));
        Ok(Self { provider, tracer })
    }

    /// The span of a request that has just come.
    pub(crate) fn begin(&self, request: &Request, method: &str, route: &str, id: &str) -> RequestSpan {
        let name = if route == "none" { method.to_owned() } else { format!("{method} {route}") };
        let version = match request.version() {
            Version::HTTP_2 => "2",
            Version::HTTP_10 => "1.0",
            _ => "1.1",
        };
        let attributes = [
            KeyValue::new("http.request.method", method.to_owned()),
            KeyValue::new("http.route", route.to_owned()),
            KeyValue::new("url.path", request.uri().path().to_owned()),
            KeyValue::new("network.protocol.version", version),
            KeyValue::new("pcmcache.request_id", id.to_owned()),
        ];
        let of_client = TraceContextPropagator::new()
            .extract_with_context(&Context::new(), &HeaderExtractor(request.headers()));
        let span = self.tracer.span_builder(name).with_kind(SpanKind::Server).with_attributes(attributes);
        RequestSpan(span.start_with_context(&self.tracer, &of_client))
    }

    /// Sends what is left, and ends.
    pub async fn finish(self: Arc<Self>) {
        let sending = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(LAST_BATCH));
        if let Ok(Err(error)) = sending.await {
            tracing::warn!(%error, "the last spans could not be exported");
        }
    }
}

impl RequestSpan {
    /// Notes how the answer begins.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.0.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
        if status.is_server_error() {
            self.0.set_attribute(KeyValue::new("error.type", status.as_u16().to_string()));
            self.0.set_status(Status::error(""));
        }
    }
}

/// Whether the environment ends all exporting, as every program that exports heeds it.
pub fn are_disabled() -> bool {
    let says =
        |name: &str, word: &str| std::env::var(name).is_ok_and(|value| value.eq_ignore_ascii_case(word));
    says("OTEL_SDK_DISABLED", "true") || says("OTEL_TRACES_EXPORTER", "none")
}

/// What is said for traces alone, else what is said for all; nothing said is an empty value too.
fn environment(name: &str) -> Option<String> {
    std::env::var(format!("OTEL_EXPORTER_OTLP_{name}")).ok().filter(|value| !value.is_empty())
}

/// Sends batches on the server's own runtime, and says once when the collector goes away and once when it is back.
#[derive(Debug)]
struct Collector {
    http: Client,
    runtime: Handle,
    is_away: AtomicBool,
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: http::Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let http = self.http.clone();
        let url = request.uri().to_string();
        // The thread that asks has no runtime.
        let answer = self.runtime.spawn(async move { http.send_bytes(request).await }).await?;
        let trouble = match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answers {}", answer.status())),
            Err(error) => Some(causes(error.as_ref())),
        };
        let was_away = self.is_away.swap(trouble.is_some(), Ordering::Relaxed);
        match trouble {
            Some(trouble) if !was_away => {
                tracing::warn!(
                    url,
                    trouble,
                    "the collector of traces takes no spans; until it does they are lost"
                );
            }
            None if was_away => tracing::info!(url, "the collector of traces takes spans again"),
            Some(_) | None => {}
        }
        answer
    }
}
