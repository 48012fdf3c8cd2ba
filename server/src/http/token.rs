//! `GET|POST /v1/token`.

use axum::Json;
use axum::extract::State;
use pcmcache_shared::api::problem::Code;
use pcmcache_shared::api::token::{ExchangeRequest, Session, WhoAmI};

use super::App;
use super::body::JsonBody;
use super::path::Anyone;
use super::problem::Refused;
use crate::trust::{NoSession, NotAdmitted};

pub(super) const EXCHANGE_PROBLEMS: &[Code] = &[Code::Forbidden, Code::Internal];
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

/// Exchange the OIDC token of a CI job for a session of this server; each is good once.
#[utoipa::path(
    post,
    path = "/v1/token",
    operation_id = "exchange_token",
    tag = "tokens",
    request_body(content = ExchangeRequest, content_type = "application/json"),
    responses((status = 200, description = "A session.", body = Session)),
)]
pub(super) async fn exchange(
    State(app): State<App>,
    JsonBody(request): JsonBody<ExchangeRequest>,
) -> Result<Json<Session>, Refused> {
    match app.trust.exchange(&request.token).await {
        Ok(session) => Ok(Json(session)),
        Err(no_session) => {
            tracing::info!(%no_session, "a CI job gets no session");
            Err(Refused::new(code(&no_session), no_session.to_string()))
        }
    }
}

fn code(no_session: &NoSession) -> Code {
    match no_session {
        NoSession::NotAdmitted(NotAdmitted::Token(_)) | NoSession::Spent | NoSession::Revoked => {
            Code::Unauthorized
        }
        NoSession::NotAdmitted(NotAdmitted::Job(_)) | NoSession::NotTaken => Code::Forbidden,
        NoSession::NotAdmitted(NotAdmitted::Unavailable(_)) | NoSession::Fault(_) => Code::Unavailable,
        NoSession::Unsigned => Code::Internal,
    }
}
