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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pcmcache_shared::api::Inline;
    use pcmcache_shared::api::problem::Problem;
    use pcmcache_shared::{ActionResult, Cost, Digest, Output, Role, Scope};

    use super::super::fake::{Fake, is_silent, never};
    use super::*;

    const PROFILE: &str = "/v1/scopes/main/profiles/ci";

    fn name() -> ProfileName {
        "ci".parse().unwrap()
    }

    fn found(fake: &Fake) -> Result<Option<Profile>, RemoteError> {
        fake.remote().profile(&name(), &never)
    }

    #[test]
    fn a_profile_is_there_or_not_or_the_server_says_why_not() {
        let profile = Profile {
            scope: Scope::default(),
            inherits: vec!["main".parse().unwrap()],
            actions: vec![ActionKey::of("a")],
        };
        let sent = profile.clone();
        let fake = Fake::start(move |_, peer| peer.json(200, &sent));
        assert_eq!(found(&fake).unwrap(), Some(profile));
        assert_eq!(fake.seen("")[0].line, format!("GET {PROFILE}"));
        let fake = Fake::start(|_, peer| peer.problem(&Problem::new(Code::NoProfile, "")));
        assert_eq!(found(&fake).unwrap(), None);
        let fake = Fake::start(|_, peer| peer.problem(&Problem::new(Code::UnknownScope, "")));
        assert!(matches!(found(&fake), Err(RemoteError::Refused { code: Some(Code::UnknownScope), .. })));
        // A server of before has no such route, which is not the same as to have no such profile.
        let fake = Fake::start(|_, peer| peer.problem(&Problem::new(Code::NoRoute, "")));
        assert!(matches!(found(&fake), Err(RemoteError::Refused { code: Some(Code::NoRoute), .. })));
        let fake = Fake::start(|_, peer| peer.hang());
        assert!(is_silent(&found(&fake).unwrap_err()));
    }

    #[test]
    fn what_names_more_than_a_profile_may_is_damaged() {
        let named = format!("[{}\"main\"]", "\"main\",".repeat(limits::MAX_INHERITED));
        for body in [
            format!("{{\"scope\":\"main\",\"inherits\":{named},\"actions\":[]}}"),
            "{\"scope\":\"main\",\"actions\":[\"x\"]}".to_owned(),
            format!("{{\"scope\":\"main\",\"actions\":[],\"more\":\"{}\"}}", "x".repeat(2 << 20)),
            "nonsense".to_owned(),
        ] {
            let fake = Fake::start(move |_, peer| peer.body(200, &body));
            assert!(matches!(found(&fake), Err(RemoteError::Damaged { .. })));
        }
    }

    #[test]
    fn a_push_says_what_was_kept() {
        let fake = Fake::start(|_, peer| peer.json(200, &Pushed { kept: 1, unknown: 2 }));
        let request = PushRequest { inherits: Vec::new(), actions: vec![ActionKey::of("a")] };
        let pushed = fake.remote().push_profile(&name(), &request, &never).unwrap();
        assert_eq!(pushed, Pushed { kept: 1, unknown: 2 });
        let sent = &fake.seen("")[0];
        assert_eq!((sent.line.as_str(), sent.json::<PushRequest>()), (&*format!("PUT {PROFILE}"), request));
        let fake = Fake::start(|_, peer| peer.problem(&Problem::new(Code::ReadOnly, "")));
        let request = PushRequest::default();
        assert!(fake.remote().push_profile(&name(), &request, &never).unwrap_err().is_read_only());
    }

    #[test]
    fn only_what_was_asked_for_is_looked_up_and_inline_blobs_are_verified() {
        let keyed = |action: ActionKey| {
            let outputs = vec![Output { role: Role::Object, digest: Digest::of("object"), size: 6 }];
            let blobs = BTreeMap::from([
                (Digest::of("object"), Inline(b"object".to_vec())),
                (action.recipe(), Inline(b"not the recipe".to_vec())),
            ]);
            let result =
                ActionResult { outputs, cost: Cost::default(), builder: String::new(), signature: None };
            KeyedResult { action, result, scope: Scope::default(), writers: Vec::new(), blobs }
        };
        let [asked, other] = ["asked", "other"].map(ActionKey::of);
        let results = vec![keyed(other), keyed(asked)];
        let fake = Fake::start(move |_, peer| {
            let results = results.clone();
            peer.json(200, &LookupAnswer { units: Vec::new(), results });
        });
        let found = fake.remote().look_up(&[asked], &never).unwrap();
        assert_eq!(found.iter().map(|keyed| keyed.action).collect::<Vec<_>>(), [asked]);
        assert_eq!(found[0].blobs.keys().copied().collect::<Vec<_>>(), [Digest::of("object")]);
    }

    #[test]
    fn a_text_is_whole_and_within_its_bound_or_an_error() {
        let fetched = |body: &'static str, at_most: u64| {
            let fake = Fake::start(move |_, peer| peer.body(200, body));
            fake.remote().fetch_text(Digest::of("schema 1\n\n"), at_most, &never)
        };
        assert_eq!(fetched("schema 1\n\n", 10).unwrap(), b"schema 1\n\n");
        for (body, at_most) in [("schema 1\n\n", 9), ("schema 1\n", 10), ("", 10), ("schema 2\n\n", 10)] {
            assert!(matches!(fetched(body, at_most), Err(RemoteError::Damaged { .. })), "{body:?} {at_most}");
        }
        let fake = Fake::start(|_, peer| peer.problem(&Problem::new(Code::NoBlob, "")));
        let gone = fake.remote().fetch_text(Digest::of("x"), 10, &never);
        assert!(matches!(gone, Err(RemoteError::Gone)));
    }
}
