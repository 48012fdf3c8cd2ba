//! `GET /v1/token`.

use axum::Json;
use axum::extract::State;
use pcmcache_shared::api::problem::Code;
use pcmcache_shared::api::token::WhoAmI;

use super::App;
use super::path::Anyone;

pub(super) const PROBLEMS: &[Code] =
    &[Code::WireVersion, Code::Unauthorized, Code::TooManyRequests, Code::Unavailable];

/// Ask what the request's credential allows; without one, what anyone may do.
#[utoipa::path(
    get,
    path = "/v1/token",
    operation_id = "who_am_i",
    tag = "tokens",
    responses((status = 200, description = "Who the server takes the client for.", body = WhoAmI)),
)]
pub(super) async fn who_am_i(State(app): State<App>, Anyone(principal): Anyone) -> Json<WhoAmI> {
    let now = app.cache.now();
    Json(WhoAmI {
        id: principal.id.clone(),
        reads: principal.reads.clone(),
        writes: principal.writes.clone(),
        admin: principal.admin,
        observes: principal.observes,
        expires_in_s: principal.until.map(|until| until.since(now).as_secs()),
    })
}
