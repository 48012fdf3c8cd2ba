//! `GET /v1/scopes/{scope}/revocations`.

use axum::Json;
use axum::extract::State;
use pcmcache_shared::api::revocations::Revocations;

use super::App;
use super::path::Reading;

/// Whose results are taken back. Every answer under a scope has the epoch in `pcmcache-epoch`; where that differs from
/// what a client saw before, it asks here and forgets what these writers published.
#[utoipa::path(
    get,
    path = "/v1/scopes/{scope}/revocations",
    operation_id = "revocations",
    tag = "tokens",
    params(("scope" = pcmcache_shared::Scope, Path, description = "The scope.")),
    responses((status = 200, description = "The writers that were revoked.", body = Revocations)),
)]
pub(super) async fn revocations(State(app): State<App>, Reading(view): Reading) -> Json<Revocations> {
    Json(app.trust.revocations(&view))
}
