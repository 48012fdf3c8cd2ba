//! `GET|PUT /v1/scopes/{scope}/profiles/{name}`.

use axum::Json;
use axum::extract::{FromRequestParts, State};
use http::request::Parts;
use pcmcache_shared::ProfileName;
use pcmcache_shared::api::limits::MAX_PROFILE_JSON;
use pcmcache_shared::api::problem::Code;
use pcmcache_shared::api::profiles::{Profile, PushRequest, Pushed};

use super::App;
use super::body::JsonBody;
use super::path::{Reading, Write, segments};
use super::problem::Refused;

pub(super) const READ_PROBLEMS: &[Code] = &[Code::NoProfile];

/// `{name}`, of a profile.
#[derive(Debug)]
pub(super) struct OfProfile(ProfileName);

impl<S: Send + Sync> FromRequestParts<S> for OfProfile {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let text = segments(parts, state, |name, value| (name == "name").then(|| value.to_owned())).await?;
        let name =
            text.parse().map_err(|error| Refused::new(Code::BadRequest, format!("'{text}': {error}")))?;
        Ok(Self(name))
    }
}

/// Read a profile, of the scope or of the first readable beside it that has one.
#[utoipa::path(
    get,
    path = "/v1/scopes/{scope}/profiles/{name}",
    operation_id = "read_profile",
    tag = "profiles",
    params(
        ("scope" = pcmcache_shared::Scope, Path, description = "The scope."),
        ("name" = ProfileName, Path, description = "The profile's name."),
    ),
    responses((status = 200, description = "The profile.", body = Profile)),
)]
pub(super) async fn read(
    State(app): State<App>,
    Reading(view): Reading,
    OfProfile(name): OfProfile,
) -> Result<Json<Profile>, Refused> {
    let profile = app.cache.profile(&view, &name).await?;
    profile.map(Json).ok_or_else(|| Refused::new(Code::NoProfile, format!("there is no profile '{name}'")))
}

/// Put a profile in the place of the one of that name. What is no result that the client may see is left out. The answer
/// comes once it is durable.
#[utoipa::path(
    put,
    path = "/v1/scopes/{scope}/profiles/{name}",
    operation_id = "push_profile",
    tag = "profiles",
    params(
        ("scope" = pcmcache_shared::Scope, Path, description = "The scope."),
        ("name" = ProfileName, Path, description = "The profile's name."),
    ),
    request_body(content = PushRequest, content_type = "application/json"),
    responses((status = 200, description = "It is the profile of that name now.", body = Pushed)),
)]
pub(super) async fn push(
    State(app): State<App>,
    Write(writing): Write,
    OfProfile(name): OfProfile,
    JsonBody(request): JsonBody<PushRequest, MAX_PROFILE_JSON>,
) -> Result<Json<Pushed>, Refused> {
    Ok(Json(app.cache.push_profile(&writing, &name, request).await?))
}
