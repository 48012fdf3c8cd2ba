//! Around every request: a path that can be read, a panic that stays its own, a line in the log.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use http::{HeaderValue, Method, StatusCode, Version, header};
use pcmcache_shared::api::problem::Code;
use tokio::time::Instant;

use super::path::is_readable;
use super::problem::Refused;
use crate::metrics::{Asked, Metrics};

pub(super) async fn oversee(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let (method, uri, version) = (request.method().clone(), request.uri().clone(), request.version());
    let route = route(&request);
    let mut response = if is_readable(uri.path()) {
        answer(request, next).await
    } else {
        Refused::new(Code::BadRequest, "the path's percent escapes are not those of UTF-8").into_response()
    };
    let status = response.status();
    // Most of the body is still to come, and nobody will read it: the connection is of no further use.
    let unread = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::LENGTH_REQUIRED,
        StatusCode::PAYLOAD_TOO_LARGE,
        StatusCode::INSUFFICIENT_STORAGE,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    if version <= Version::HTTP_11 && unread.contains(&status) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let took = start.elapsed();
    metrics.answered(&Asked { method: known(&method), route, status: class(status) }, took);
    let took_ms = took.as_millis();
    tracing::debug!(?version, %method, path = uri.path(), status = status.as_u16(), took_ms, "answered");
    response
}

/// The pattern of the path: as many as the route table has.
fn route(request: &Request) -> String {
    request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned()
}

/// A method that some route has; a client can make up others.
fn known(method: &Method) -> String {
    let known = [Method::GET, Method::HEAD, Method::PUT, Method::POST, Method::DELETE];
    if known.contains(method) { method.to_string() } else { "other".to_owned() }
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

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use axum::{Router, middleware};
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_500_of_its_own_request() {
        let router: Router = Router::new()
            .route("/panic", get(|| async { panic!("on purpose") as () }))
            .route("/well", get(|| async { "well" }))
            .layer(middleware::from_fn_with_state(Arc::<Metrics>::default(), oversee));
        for (path, status) in [("/panic", 500), ("/well", 200), ("/panic", 500)] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status().as_u16(), status, "{path}");
        }
    }
}
