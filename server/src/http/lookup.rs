//! `POST /v1/scopes/{scope}/lookup`.

use axum::Json;
use axum::extract::State;
use pcmcache_shared::api::lookup::{LookupAnswer, LookupRequest};

use super::App;
use super::body::JsonBody;
use super::path::Reading;
use super::problem::Refused;

/// Look up many units and actions at once; what is not known is left out.
#[utoipa::path(
    post,
    path = "/v1/scopes/{scope}/lookup",
    operation_id = "lookup",
    tag = "results",
    params(("scope" = pcmcache_shared::Scope, Path, description = "The scope.")),
    request_body(content = LookupRequest, content_type = "application/json"),
    responses((status = 200, description = "What there is of it.", body = LookupAnswer)),
)]
pub(super) async fn lookup(
    State(app): State<App>,
    Reading(view): Reading,
    JsonBody(request): JsonBody<LookupRequest>,
) -> Result<Json<LookupAnswer>, Refused> {
    Ok(Json(app.cache.lookup(&view, &request).await?))
}
