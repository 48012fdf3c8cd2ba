//! `POST|DELETE /v1/scopes/{scope}/leases/{claim}`.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use pcmcache_shared::Claim;
use pcmcache_shared::api::leases::{Hold, ReleaseRequest, Renewed};
use pcmcache_shared::api::problem::Code;

use super::App;
use super::body::JsonBody;
use super::path::{Named, Write};
use super::problem::Refused;

pub(super) const PROBLEMS: &[Code] = &[Code::BadDigest, Code::NoLease];

/// The holder is alive.
#[utoipa::path(
    post,
    path = "/v1/scopes/{scope}/leases/{claim}",
    operation_id = "renew",
    tag = "leases",
    params(
        ("scope" = pcmcache_shared::Scope, Path, description = "The scope."),
        ("claim" = Claim, Path, description = "What the lease is on."),
    ),
    request_body(content = Hold, content_type = "application/json"),
    responses((status = 200, description = "The lease lives on.", body = Renewed)),
)]
pub(super) async fn renew(
    State(app): State<App>,
    Write(writing): Write,
    Named(claim): Named<Claim>,
    JsonBody(hold): JsonBody<Hold>,
) -> Result<Json<Renewed>, Refused> {
    Ok(Json(app.cache.renew(&writing, claim, &hold).await?))
}

/// The holder gives the lease back without a result.
#[utoipa::path(
    delete,
    path = "/v1/scopes/{scope}/leases/{claim}",
    operation_id = "release",
    tag = "leases",
    params(
        ("scope" = pcmcache_shared::Scope, Path, description = "The scope."),
        ("claim" = Claim, Path, description = "What the lease is on."),
    ),
    request_body(content = ReleaseRequest, content_type = "application/json"),
    responses((status = 204, description = "The lease is gone, and who waits for it is told.")),
)]
pub(super) async fn release(
    State(app): State<App>,
    Write(writing): Write,
    Named(claim): Named<Claim>,
    JsonBody(request): JsonBody<ReleaseRequest>,
) -> Result<StatusCode, Refused> {
    app.cache.release(&writing, claim, &request).await?;
    Ok(StatusCode::NO_CONTENT)
}
