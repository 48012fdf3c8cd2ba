//! Profiles, and what a warm start asks for: many results at once, and the texts they are of.

use pcmcache_shared::api::limits;
use pcmcache_shared::api::lookup::{self, LookupAnswer, LookupRequest};
use pcmcache_shared::api::problem::Code;
use pcmcache_shared::api::profiles::{self, Profile, PushRequest, Pushed};
use pcmcache_shared::api::{JSON, KeyedResult};
use pcmcache_shared::{ActionKey, ProfileName};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;

use super::RemoteError;
use super::acquire::verified;
use super::server::Server;

const PUSH: &str = "push";
const READ: &str = "profile";
const LOOK_UP: &str = "lookup";

/// The profile of that name, if there is one.
pub(super) async fn read(server: &Server, name: &ProfileName) -> Result<Option<Profile>, RemoteError> {
    let request = server.request(Method::GET, &profiles::path(&server.scope, name));
    let answer = server.send(READ, request, server.deadlines.answer).await?;
    if answer.status() == 200 {
        let profile: Profile = answer.json().await?;
        let too_much =
            profile.actions.len() > limits::MAX_PROFILE || profile.inherits.len() > limits::MAX_INHERITED;
        return match too_much {
            true => Err(RemoteError::damaged(READ, format!("{name} names more than a profile may"))),
            false => Ok(Some(profile)),
        };
    }
    let error = RemoteError::from(answer.refusal().await?);
    if matches!(error, RemoteError::Refused { code: Some(Code::NoProfile), .. }) {
        Ok(None)
    } else {
        Err(error)
    }
}

/// Puts a profile in the place of the one of that name.
pub(super) async fn push(
    server: &Server,
    name: &ProfileName,
    request: &PushRequest,
) -> Result<Pushed, RemoteError> {
    let body = serde_json::to_vec(request).map_err(|error| RemoteError::Local(error.into()))?;
    // Each key is looked up before the answer comes.
    let within = server.deadlines.transfer(16 * body.len() as u64);
    let request = server
        .request(Method::PUT, &profiles::path(&server.scope, name))
        .header(CONTENT_TYPE, JSON)
        .body(body);
    let answer = server.send(PUSH, request, within).await?;
    match answer.status() {
        200 => answer.small_json().await,
        _ => Err(answer.refusal().await?.into()),
    }
}

/// The results of these actions that there are, in any order. Inline blobs were verified.
pub(super) async fn look_up(server: &Server, actions: &[ActionKey]) -> Result<Vec<KeyedResult>, RemoteError> {
    let body = LookupRequest { units: Vec::new(), actions: actions.to_vec() };
    let request = server.request(Method::POST, &lookup::path(&server.scope)).json(&body);
    let answer = server.send(LOOK_UP, request, server.deadlines.answer).await?;
    match answer.status() {
        200 => {
            let LookupAnswer { results, .. } = answer.json().await?;
            results.into_iter().filter(|keyed| actions.contains(&keyed.action)).map(verified).collect()
        }
        _ => Err(answer.refusal().await?.into()),
    }
}
