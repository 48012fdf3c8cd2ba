//! `/` and what the page loads; `GET /v1/dashboard`.
//!
//! The page is for anyone, for it says nothing; what it shows is for who may see it.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, StatusCode, Uri, header};
use pcmcache_shared::api::problem::Code;
use serde::Deserialize;

use super::App;
use super::path::Anyone;
use super::problem::Refused;
use super::range;
use crate::dashboard::{Asset, Dashboard, PAGE, POLICY, Sight, asset};
use crate::history::Span;
use crate::trust::Principal;

pub(super) const PROBLEMS: &[Code] =
    &[Code::BadRequest, Code::WireVersion, Code::Unauthorized, Code::Internal, Code::Unavailable];

/// The dashboard, for browsers; for others a pointer, where to go from here.
#[utoipa::path(
    get,
    path = "/",
    operation_id = "index",
    tag = "server",
    responses(
        (status = 200, description = "The page for who accepts `text/html`, else a text.", content(
            (String = "text/html"),
            (String = "text/plain"),
        )),
        (status = 304, description = "The browser has the page."),
    ),
)]
pub(super) async fn index(headers: HeaderMap) -> Response {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut response = if accepted.into_iter().any(|types| types.contains("text/html")) {
        served(&PAGE, &headers)
    } else {
        let version = env!("CARGO_PKG_VERSION");
        let text = "/             the dashboard, in a browser\n/openapi.json\n/metrics\n/healthz\n/readyz\n";
        format!("pcmcache-server {version}\n{text}").into_response()
    };
    response.headers_mut().insert(header::VARY, header::HeaderValue::from_static("accept"));
    response
}

/// A file that the page loads.
#[utoipa::path(
    get,
    path = "/dashboard/{file}",
    operation_id = "dashboard_file",
    tag = "server",
    params(("file" = String, Path, description = "Its name.")),
    responses(
        (status = 200, description = "The file.", content((String = "text/javascript"), (String = "text/css"))),
        (status = 304, description = "The browser has it."),
        (
            status = 404,
            description = "There is none of this name.",
            content_type = "application/problem+json",
            body = pcmcache_shared::api::problem::Problem,
        ),
    ),
)]
pub(super) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Refused> {
    match asset(&name) {
        Some(asset) => Ok(served(asset, &headers)),
        None => Err(Refused::new(Code::NoRoute, "the dashboard has no such file")),
    }
}

fn served(asset: &Asset, headers: &HeaderMap) -> Response {
    let etag = asset.etag();
    let (status, body) = match range::is_known(headers, &etag) {
        true => (StatusCode::NOT_MODIFIED, Body::empty()),
        false => (StatusCode::OK, Body::from(asset.bytes)),
    };
    let said: [(HeaderName, &str); 6] = [
        (header::CONTENT_TYPE, asset.content_type),
        (header::ETAG, &etag),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (status, said, body).into_response()
}

/// Which span of time.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// How far back: `hour`, `day` (the default), `month` or `year`.
    #[serde(default)]
    #[param(required = false)]
    span: Span,
}

/// The state of the server, as far as whoever asks may see it.
///
/// Who observes sees all; who reads scopes sees what goes on in those, without the counts over time and the store.
#[utoipa::path(
    get,
    path = "/v1/dashboard",
    operation_id = "dashboard",
    tag = "server",
    params(Wanted),
    responses((status = 200, description = "The state.", body = Dashboard)),
)]
pub(super) async fn dashboard(
    State(app): State<App>,
    Anyone(principal): Anyone,
    uri: Uri,
) -> Result<Response, Refused> {
    let Query(Wanted { span }) =
        Query::try_from_uri(&uri).map_err(|error| Refused::new(Code::BadRequest, error.body_text()))?;
    let sight = sight(&principal).ok_or_else(|| {
        let detail = "the dashboard is for who may read a scope, or observe: send a token";
        Refused::new(Code::Unauthorized, detail)
    })?;
    let state = Dashboard::of(&app.cache, &app.history, &sight, span).await?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(state)).into_response())
}

/// What they may see; `None` for who would have to say first who they are.
fn sight(principal: &Principal) -> Option<Sight> {
    if principal.admin || principal.observes {
        return Some(Sight::All);
    }
    let scopes: Vec<_> = principal.writes.iter().chain(&principal.reads).cloned().collect();
    (!scopes.is_empty() || !principal.is_anonymous()).then_some(Sight::Scopes(scopes))
}
