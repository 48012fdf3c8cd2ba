//! Around every request: a name, a head that can be trusted, a path that can be read, a panic that stays its own, a line in
//! the log, a count.
//!
//! A request's name is on every line that is logged on its behalf, also by the tasks it starts and while its body is
//! sent; it comes from the client if that is a sensible one, and goes back with the answer.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use http_body::{Frame, SizeHint};
use pcmcache_shared::api::problem::Code;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use super::framing;
use super::path::is_readable;
use super::problem::Refused;
use crate::clock::Entropy;
use crate::metrics::{Asked, Metrics};
use crate::traces::{RequestSpan, Traces};

const REQUEST_ID: &str = "x-request-id";
const MAX_REQUEST_ID: usize = 64;

/// What all requests share.
#[derive(Debug)]
pub(super) struct Overseer {
    metrics: Arc<Metrics>,
    traces: Option<Arc<Traces>>,
    /// Tells the names this process gives from those that others give.
    prefix: String,
    named: AtomicU64,
}

/// A request's name, among its extensions.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) String);

impl Overseer {
    pub(super) fn new(
        metrics: Arc<Metrics>,
        traces: Option<Arc<Traces>>,
        entropy: &dyn Entropy,
    ) -> Arc<Self> {
        let random = entropy.bytes().unwrap_or_default();
        let prefix = format!("{:08x}", u128::from_be_bytes(random) >> 96);
        Arc::new(Self { metrics, traces, prefix, named: AtomicU64::new(1) })
    }

    fn name(&self, headers: &HeaderMap) -> String {
        given(headers)
            .unwrap_or_else(|| format!("{}-{}", self.prefix, self.named.fetch_add(1, Ordering::Relaxed)))
    }
}

/// The name that the client gave: its own, or that of the trace its request is part of (W3C Trace Context).
fn given(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let is_good = |id: &&str| !id.is_empty() && id.len() <= MAX_REQUEST_ID && id.bytes().all(plain);
    let traced = || {
        let trace = text("traceparent")?.split('-').nth(1)?;
        Some(trace).filter(|trace| trace.len() == 32 && trace.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    text(REQUEST_ID).filter(is_good).or_else(traced).map(str::to_owned)
}

pub(super) async fn oversee(
    State(overseer): State<Arc<Overseer>>,
    mut request: Request,
    next: Next,
) -> Response {
    let start = Instant::now();
    let id = overseer.name(request.headers());
    request.extensions_mut().insert(RequestId(id.clone()));
    let (method, version, route) = (request.method().clone(), request.version(), route(&request));
    let traced = overseer.traces.as_ref();
    let mut traced = traced.map(|traces| traces.begin(&request, known(&method), &route, &id));
    // Without the query, which nobody reads here and which may hold what is nobody's business.
    let path = request.uri().path().to_owned();
    let span = tracing::info_span!("request", id, %method, path);
    let doubt = doubt(&request);
    let is_last = framing::is_last(&request) || doubt.is_some();
    let answering = async {
        match doubt {
            None => answer(request, next).await,
            Some(doubt) => Refused::new(Code::BadRequest, doubt).into_response(),
        }
    };
    let mut response = answering.instrument(span.clone()).await;
    let (status, took) = (response.status(), start.elapsed());
    if let Some(traced) = &mut traced {
        traced.answered(status);
    }
    // Most of the body is still to come, and nobody will read it: the connection is of no further use.
    let unread = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::LENGTH_REQUIRED,
        StatusCode::PAYLOAD_TOO_LARGE,
        StatusCode::INSUFFICIENT_STORAGE,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    if version <= Version::HTTP_11 && (is_last || unread.contains(&status)) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    overseer.metrics.answered(&Asked { method: known(&method), route, status: class(status) }, took);
    let _line = span.enter();
    tracing::debug!(?version, status = status.as_u16(), took_ms = took.as_millis(), "answered");
    response.map(|body| Body::new(InSpan { body, span: span.clone(), _traced: traced }))
}

/// What is wrong with a request before anyone looks at what it asks for.
fn doubt(request: &Request) -> Option<&'static str> {
    let unreadable = || {
        (!is_readable(request.uri().path())).then_some("the path's percent escapes are not those of UTF-8")
    };
    framing::doubt(request).or_else(unreadable)
}

/// The pattern of the path: as many as the route table has.
fn route(request: &Request) -> String {
    request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned()
}

/// A method that some route has; a client can make up others.
fn known(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "PUT", "POST", "DELETE"];
    known.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

/// The answer; a handler that panics takes its own request down and nothing else.
async fn answer(request: Request, next: Next) -> Response {
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            tracing::error!("a handler panicked");
            Refused::new(Code::Internal, "the server failed at this request").into_response()
        }
    }
}

/// A body whose lines in the log are those of its request, which ends with it.
struct InSpan {
    body: Body,
    span: Span,
    _traced: Option<RequestSpan>,
}

impl http_body::Body for InSpan {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let _line = this.span.enter();
        Pin::new(&mut this.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use axum::{Router, middleware};
    use tower::ServiceExt as _;

    use super::*;
    use crate::clock::CountedEntropy;

    fn router() -> Router {
        let overseer = Overseer::new(Arc::default(), None, &CountedEntropy::default());
        Router::new()
            .route("/panic", get(|| async { panic!("on purpose") as () }))
            .route("/well", get(|| async { "well" }))
            .layer(middleware::from_fn_with_state(overseer, oversee))
    }

    #[tokio::test]
    async fn a_panic_is_a_500_of_its_own_request() {
        let router = router();
        for (path, status) in [("/panic", 500), ("/well", 200), ("/panic", 500)] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status().as_u16(), status, "{path}");
        }
    }

    #[tokio::test]
    async fn a_sensible_name_is_kept_and_any_other_is_replaced() {
        let router = router();
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let parent = format!("00-{trace}-00f067aa0ba902b7-01");
        let named = async |name: &'static str, value: &str| {
            let request = Request::get("/well").header(name, value).body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            response.headers()[REQUEST_ID].to_str().unwrap().to_owned()
        };
        assert_eq!(named(REQUEST_ID, "ci-17.step_3").await, "ci-17.step_3");
        assert_eq!(named("traceparent", &parent).await, trace);
        let long = "a".repeat(MAX_REQUEST_ID + 1);
        let mut made = Vec::new();
        for (name, bad) in
            [(REQUEST_ID, ""), (REQUEST_ID, "a b"), (REQUEST_ID, &long), ("traceparent", "00-zz-1-01")]
        {
            made.push(named(name, bad).await);
        }
        assert!(
            made.iter().all(|name| name.len() > 8 && name.contains('-') && !name.contains(' ')),
            "{made:?}"
        );
        made.sort();
        made.dedup();
        assert_eq!(made.len(), 4, "each request has a name of its own");
    }
}
