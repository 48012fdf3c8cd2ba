//! `POST /v1/scopes/{scope}/acquire`.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt as _;
use http::header;
use pcmcache_shared::api::NDJSON;
use pcmcache_shared::api::acquire::{AcquireLine, AcquireRequest};
use pcmcache_shared::api::problem::Code;

use super::App;
use super::body::JsonBody;
use super::path::Reading;
use super::problem::Refused;

/// Look, and if nothing is there, get the right to build it or wait for who has.
///
/// A stream of lines, each a JSON object, the first within a second: any number of `busy`, then one of `hit`, `sets`,
/// `alone`, `granted`. A stream that ends after `busy` ran out of `wait_ms`. After `granted` with `hold`, the open stream
/// is the hold. A client that closes its side of the connection is taken to be gone.
#[utoipa::path(
    post,
    path = "/v1/scopes/{scope}/acquire",
    operation_id = "acquire",
    tag = "leases",
    params(("scope" = pcmcache_shared::Scope, Path, description = "The scope.")),
    request_body(content = AcquireRequest, content_type = "application/json"),
    responses((
        status = 200,
        description = "The stream; the schema is that of a line.",
        content_type = "application/x-ndjson",
        body = AcquireLine,
    )),
)]
pub(super) async fn acquire(
    State(app): State<App>,
    Reading(view): Reading,
    JsonBody(request): JsonBody<AcquireRequest>,
) -> Result<Response, Refused> {
    if app.stop.is_cancelled() {
        return Err(Refused::new(Code::Unavailable, "the server is going down"));
    }
    let lines = app.cache.acquire(&view, request).await?;
    // A stop ends what waits and what is held at once: a lease outlives its stream by the grace, and a restart.
    let lines = lines.take_until(app.stop.cancelled_owned()).map(|line| to_bytes(&line));
    let headers = [
        (header::CONTENT_TYPE.as_str(), NDJSON),
        (header::CACHE_CONTROL.as_str(), "no-store"),
        ("x-accel-buffering", "no"), // nginx would keep the lines back until it has a buffer full
    ];
    Ok((headers, Body::from_stream(lines)).into_response())
}

fn to_bytes(line: &AcquireLine) -> Result<Bytes, serde_json::Error> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text.into())
}
