//! `GET|PUT /v1/scopes/{scope}/actions/{key}`.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use pcmcache_shared::ActionKey;
use pcmcache_shared::api::KeyedResult;
use pcmcache_shared::api::actions::PublishRequest;
use pcmcache_shared::api::limits::MAX_PUBLISH_JSON;
use pcmcache_shared::api::problem::Code;

use super::App;
use super::body::JsonBody;
use super::path::{Named, Reading, Write};
use super::problem::Refused;
use crate::cache::Published;

pub(super) const READ_PROBLEMS: &[Code] = &[Code::BadDigest, Code::NoResult];
pub(super) const PUBLISH_PROBLEMS: &[Code] =
    &[Code::BadDigest, Code::Winner, Code::LeaseHeld, Code::MissingBlobs, Code::BadResult, Code::StoreFull];

/// Read a result.
#[utoipa::path(
    get,
    path = "/v1/scopes/{scope}/actions/{key}",
    operation_id = "read_result",
    tag = "results",
    params(
        ("scope" = pcmcache_shared::Scope, Path, description = "The scope."),
        ("key" = ActionKey, Path, description = "The action's key."),
    ),
    responses((status = 200, description = "The result.", body = KeyedResult)),
)]
pub(super) async fn read(
    State(app): State<App>,
    Reading(view): Reading,
    Named(key): Named<ActionKey>,
) -> Result<Json<KeyedResult>, Refused> {
    let result = app.cache.result(&view, key).await?;
    result.map(Json).ok_or_else(|| Refused::new(Code::NoResult, format!("there is no result of {key}")))
}

/// Publish a result. The answer comes once all of it is durable.
#[utoipa::path(
    put,
    path = "/v1/scopes/{scope}/actions/{key}",
    operation_id = "publish",
    tag = "results",
    params(
        ("scope" = pcmcache_shared::Scope, Path, description = "The scope."),
        ("key" = ActionKey, Path, description = "The action's key: the SHA-256 of the recipe."),
    ),
    request_body(content = PublishRequest, content_type = "application/json"),
    responses(
        (status = 201, description = "It is the result of this action now."),
        (status = 200, description = "The same outputs had been published before."),
    ),
)]
pub(super) async fn publish(
    State(app): State<App>,
    Write(writing): Write,
    Named(key): Named<ActionKey>,
    JsonBody(request): JsonBody<PublishRequest, MAX_PUBLISH_JSON>,
) -> Result<StatusCode, Refused> {
    Ok(match app.cache.publish(&writing, key, request).await? {
        Published::Stored => StatusCode::CREATED,
        Published::Same => StatusCode::OK,
    })
}
