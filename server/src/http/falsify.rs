//! Requests and answers as failpoints (`http.post-acquire`, `http.post-acquire.done`), so that a test may lose, delay or falsify
//! them. Not in what users get.

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::StatusCode;
use http_body_util::BodyExt as _;
use pcmcache_shared::failpoint::{Outcome, passed, turn_a_bit};

/// Lets the request in, and its answer out, as the plan has it.
pub(super) async fn falsify(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
    let point = point(request.method().as_str(), route);
    if passed(&point) != Outcome::Whole {
        return lost();
    }
    let answer = next.run(request).await;
    match passed(&format!("{point}.done")) {
        Outcome::Whole => answer,
        Outcome::Corrupt => answer.map(|body| {
            axum::body::Body::new(body.map_frame(|frame| {
                frame.map_data(|data| {
                    let mut data = data.to_vec();
                    turn_a_bit(&mut data);
                    Bytes::from(data)
                })
            }))
        }),
        Outcome::Failed(_) | Outcome::Short => lost(),
    }
}

/// `POST /v1/scopes/{scope}/acquire` is `http.post-acquire`.
fn point(method: &str, route: &str) -> String {
    let what = route.split('/').rfind(|part| !part.is_empty() && !part.starts_with('{')).unwrap_or("index");
    format!("http.{}-{what}", method.to_lowercase())
}

/// The connection breaks behind the head.
fn lost() -> Response {
    let cut = stream::once(async { Err::<Bytes, _>(std::io::Error::other("a failpoint")) });
    let mut answer = Response::new(axum::body::Body::from_stream(cut));
    *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    answer
}
