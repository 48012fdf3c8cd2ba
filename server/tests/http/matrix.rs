//! Every route, asked by everyone there can be. The routes are those of the document that the server serves: one that is
//! added without a word here on who may ask it fails.
//!
//! What a principal may not read is asked for twice, as a scope that is full and as one that never was, and the two answers
//! are the same but for the names that were asked for.

use std::collections::BTreeSet;

use http::StatusCode;
use pcmcache_shared::api::problem::Code;
use pcmcache_shared::{Claim, Digest};
use serde_json::{Value, json};

use super::forged::{session, team_of};
use super::issuer::Issuer;
use super::team::{Module, Team};
use super::wire::{Reply, Scratch};

/// What a principal may do with a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum May {
    /// Read and write it.
    Write,
    /// Read it.
    Read,
    /// Nothing: and it cannot tell whether the scope is there.
    Nothing,
    /// Nothing anywhere: whoever it is, it has no good credential.
    NotEnter,
}

/// What a route under a scope asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// To read the scope.
    Read,
    /// To write it.
    Write,
}

/// The routes under a scope: what they need, and how to ask.
const SCOPED: &[(&str, Needs)] = &[
    ("acquire", Needs::Write),
    ("renew", Needs::Write),
    ("release", Needs::Write),
    ("read_result", Needs::Read),
    ("publish", Needs::Write),
    ("lookup", Needs::Read),
    ("read_blob", Needs::Read),
    ("has_blob", Needs::Read),
    ("upload_blob", Needs::Write),
    ("read_profile", Needs::Read),
    ("push_profile", Needs::Write),
    ("revocations", Needs::Read),
];
/// The routes that show what goes on in all scopes: for observers.
const OBSERVED: &[&str] = &["metrics"];
/// The routes that anyone may ask.
const OPEN: &[&str] = &["index", "dashboard_file", "healthz", "readyz", "openapi"];
/// The routes that tell anyone but a bad credential.
const TELLING: &[&str] = &["who_am_i", "exchange_token", "dashboard"];

/// Someone who asks.
struct Who {
    name: &'static str,
    token: String,
    /// What they may do with `main`, `pr-12-7`, `team-b`, `public`, and a scope that nobody ever named.
    scopes: [May; 5],
    observes: bool,
    /// Whether their credential is one.
    is_good: bool,
}

const SCOPES: [&str; 5] = ["main", "pr-12-7", "team-b", "public", "never-named"];

struct Stage {
    team: Team,
    everyone: Vec<Who>,
    _rules: Scratch,
    _issuer: Issuer,
}

impl Stage {
    async fn set() -> Self {
        use May::{NotEnter, Nothing, Read, Write};
        let issuer = Issuer::start().await;
        let (team, rules) = with_public(&issuer).await;
        let main = team.create("main", &["--write", "main"]);
        let team_b = team.create("b", &["--write", "team-b"]);
        let public = team.create("publisher", &["--write", "public"]);
        let reader = team.create("reader", &["--read", "main"]);
        let observer = team.create("observer", &["--observe"]);
        let admin = team.create("boss", &["--admin"]);
        let revoked = team.create("revoked", &["--write", "main", "--admin"]);
        team.token(&["revoke", "revoked"]);
        // Its end is a minute off at the earliest; so the clock of the book is what is moved.
        let expired = team.create("expired", &["--write", "main", "--admin", "--expires", "1m"]);
        let book = team.served.dir.0.join("tokens.json");
        let mut text: Value = serde_json::from_slice(&fs_err::read(&book).unwrap()).unwrap();
        for entry in text["tokens"].as_array_mut().unwrap() {
            if entry["name"] == "expired" {
                entry["expires_s"] = json!(1);
            }
        }
        fs_err::write(&book, text.to_string()).unwrap();
        let pull = session(&team, &issuer.token(&issuer.pull_request(7))).await;
        let pull = pull["token"].as_str().unwrap().to_owned();
        let edited = format!("{}x", pull);

        for (token, scope) in [(&main, "main"), (&pull, "pr-12-7"), (&team_b, "team-b"), (&public, "public")]
        {
            assert_eq!(
                team.share(token, scope, &Module::new(scope, &format!("bytes of {scope}"))).await.status,
                201
            );
            let profile = format!("/v1/scopes/{scope}/profiles/of-{scope}");
            assert_eq!(team.send(token, "PUT", &profile, &json!({ "actions": [] })).await.status, 200);
        }
        let who = |name, token: &str, scopes, observes, is_good| Who {
            name,
            token: token.to_owned(),
            scopes,
            observes,
            is_good,
        };
        let everyone = vec![
            who("outsider", "", [NotEnter, NotEnter, NotEnter, Read, NotEnter], false, true),
            who("reader", &reader, [Read, Nothing, Nothing, Read, Nothing], false, true),
            who("writer", &main, [Write, Nothing, Nothing, Read, Nothing], false, true),
            who("writer of another scope", &team_b, [Nothing, Nothing, Write, Read, Nothing], false, true),
            who(
                "writer of what is public",
                &public,
                [Nothing, Nothing, Nothing, Write, Nothing],
                false,
                true,
            ),
            who("pull request", &pull, [Read, Write, Nothing, Read, Nothing], false, true),
            who("observer", &observer, [Nothing, Nothing, Nothing, Read, Nothing], true, true),
            who("admin", &admin, [Read, Read, Read, Read, Read], true, true),
            who("revoked", &revoked, [NotEnter; 5], false, false),
            who("expired", &expired, [NotEnter; 5], false, false),
            who("guesser", "pcmc_0000", [NotEnter; 5], false, false),
            who("forger of a session", &edited, [NotEnter; 5], false, false),
        ];
        Self { team, everyone, _rules: rules, _issuer: issuer }
    }
}

async fn with_public(issuer: &Issuer) -> (Team, Scratch) {
    let scratch = Scratch::new();
    let file = scratch.0.join("oidc.toml");
    fs_err::write(&file, issuer.rules()).unwrap();
    let team = Team::with(|config| {
        config.oidc = Some(file);
        config.public_read = vec!["public".parse().unwrap()];
    })
    .await;
    (team, scratch)
}

/// A request to an operation under a scope: about what is there, or about what nobody ever named.
fn request(operation: &str, scope: &str, is_there: bool) -> (&'static str, String, Vec<u8>) {
    let module = match is_there {
        true => Module::new(scope, &format!("bytes of {scope}")),
        false => Module::new("never named", "never made"),
    };
    let claim = Claim::from(module.unit());
    let lease = format!("/v1/scopes/{scope}/leases/{claim}");
    let profile = match is_there {
        true => format!("/v1/scopes/{scope}/profiles/of-{scope}"),
        false => format!("/v1/scopes/{scope}/profiles/never-pushed"),
    };
    let hold = json!({ "fence": 1, "secret": "guessed" });
    let json = |value: Value| value.to_string().into_bytes();
    match operation {
        "acquire" => ("POST", format!("/v1/scopes/{scope}/acquire"), json(module.knowing("matrix"))),
        "renew" => ("POST", lease, json(hold)),
        "release" => {
            ("DELETE", lease, json(json!({ "fence": 1, "secret": "guessed", "reason": "abandoned" })))
        }
        "read_result" => ("GET", module.path(scope), Vec::new()),
        "publish" => ("PUT", module.path(scope), serde_json::to_vec(&module.publication(None)).unwrap()),
        "lookup" => (
            "POST",
            format!("/v1/scopes/{scope}/lookup"),
            json(json!({ "actions": [module.key()], "units": [module.unit()] })),
        ),
        "read_blob" => ("GET", module.blob(scope, 0), Vec::new()),
        "has_blob" => ("HEAD", module.blob(scope, 0), Vec::new()),
        "upload_blob" => ("PUT", module.blob(scope, 0), module.outputs[0].clone()),
        "read_profile" => ("GET", profile, Vec::new()),
        "push_profile" => ("PUT", profile, json(json!({ "actions": [module.key()] }))),
        "revocations" => ("GET", format!("/v1/scopes/{scope}/revocations"), Vec::new()),
        other => panic!("{other} is a route that nobody said here who may ask it"),
    }
}

/// An answer without the names that were asked for, without the time, and without the name of the request.
fn nameless(reply: &Reply, names: &[String]) -> (StatusCode, Vec<(String, String)>, String) {
    let strip =
        |text: &str| names.iter().fold(text.to_owned(), |text, name| text.replace(name.as_str(), "*"));
    let mut headers: Vec<_> = reply
        .headers
        .iter()
        .filter(|(name, _)| !["date", "content-length", "x-request-id"].contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), strip(value.to_str().unwrap())))
        .collect();
    headers.sort();
    (reply.status, headers, strip(&String::from_utf8_lossy(&reply.body)))
}

/// What must come back, by what the asker may and the route needs.
fn expected(who: &Who, may: May, needs: Needs) -> Option<Code> {
    match (may, needs) {
        _ if !who.is_good => Some(Code::Unauthorized),
        (May::NotEnter, _) => Some(Code::Unauthorized),
        (May::Nothing, _) => Some(Code::UnknownScope),
        (May::Read, Needs::Write) => Some(Code::ReadOnly),
        (May::Read, Needs::Read) | (May::Write, _) => None,
    }
}

/// What comes of a request that may be asked, about what is there or not.
fn allowed(operation: &str, is_there: bool) -> &'static [u16] {
    match (operation, is_there) {
        ("renew" | "release", _) => &[404],
        ("read_result" | "read_blob" | "has_blob", false) => &[404],
        // Whoever asked before may have pushed it.
        ("read_profile", false) => &[200, 404],
        // Sent before; or first by whoever may, of all who write the scope.
        ("publish", true) => &[200],
        ("publish", false) => &[422],
        ("upload_blob", _) => &[200, 201],
        _ => &[200],
    }
}

async fn ask(team: &Team, who: &Who, operation: &str, scope: &str, is_there: bool) -> Reply {
    let (method, path, body) = request(operation, scope, is_there);
    team.ask(&who.token, method, &path, body).await
}

fn code(reply: &Reply, operation: &str) -> Option<Code> {
    // An answer to HEAD has no body; its status says as much.
    match operation {
        "has_blob" => match reply.status.as_u16() {
            200 => None,
            401 => Some(Code::Unauthorized),
            404 if reply.header("pcmcache-epoch").is_empty() => Some(Code::Unauthorized),
            404 => Some(Code::UnknownScope),
            _ => panic!("{reply:?}"),
        },
        _ if reply.status.is_success() => None,
        _ => Some(reply.code()),
    }
}

#[tokio::test]
async fn every_route_answers_everyone_as_they_may_be_answered() {
    let stage = Stage::set().await;
    let team = &stage.team;
    let document: Value = serde_json::from_slice(&team.get("", "/openapi.json").await.body).unwrap();
    let served: BTreeSet<&str> = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|item| item.as_object().unwrap().values())
        .map(|operation| operation["operationId"].as_str().unwrap())
        .collect();
    let told: BTreeSet<&str> = SCOPED
        .iter()
        .map(|(name, _)| *name)
        .chain(OBSERVED.iter().chain(OPEN).chain(TELLING).copied())
        .collect();
    assert_eq!(served, told, "every route has a row here, and every row a route");

    let mut cells = 0;
    for who in &stage.everyone {
        for (operation, needs) in SCOPED {
            for (scope, may) in SCOPES.into_iter().zip(who.scopes) {
                let cell = format!("{} {operation} {scope}", who.name);
                let (there, absent) = (
                    ask(team, who, operation, scope, true).await,
                    ask(team, who, operation, scope, false).await,
                );
                cells += 2;
                let expected = expected(who, may, *needs);
                match expected {
                    Some(expected) => {
                        for reply in [&there, &absent] {
                            assert_eq!(code(reply, operation), Some(expected), "{cell}: {reply:?}");
                        }
                        if expected != Code::ReadOnly {
                            same_as_nowhere(team, who, operation, scope, &there).await;
                        }
                    }
                    // In a scope that is empty but may be read nothing is there.
                    None => {
                        let is_full = scope != "never-named";
                        let statuses = [allowed(operation, is_full), allowed(operation, false)];
                        for (reply, allowed) in [&there, &absent].into_iter().zip(statuses) {
                            assert!(allowed.contains(&reply.status.as_u16()), "{cell}: {reply:?}");
                        }
                    }
                }
            }
        }
        for operation in OBSERVED {
            let reply = team.get(&who.token, &format!("/{operation}")).await;
            let expected = match (who.is_good && !who.token.is_empty(), who.observes) {
                (true, true) => None,
                (true, false) => Some(Code::Forbidden),
                (false, _) => Some(Code::Unauthorized),
            };
            assert_eq!(code(&reply, operation), expected, "{} {operation}: {reply:?}", who.name);
            cells += 1;
        }
        for path in ["/", "/dashboard/page.js", "/healthz", "/readyz", "/openapi.json"] {
            assert_eq!(team.get(&who.token, path).await.status, 200, "{} {path}", who.name);
            cells += 1;
        }
        let told = team.get(&who.token, "/v1/token").await;
        assert_eq!(told.status == 200, who.is_good, "{}: {told:?}", who.name);
        // A bad JWT is one whoever shows it.
        let exchanged = team.send(&who.token, "POST", "/v1/token", &json!({ "token": "x" })).await;
        assert_eq!(exchanged.code(), Code::Unauthorized, "{}", who.name);
        let shown = team.get(&who.token, "/v1/dashboard").await;
        assert_eq!(code(&shown, "dashboard"), (!who.is_good).then_some(Code::Unauthorized), "{}", who.name);
        cells += 3;
        // Modules and builders have the names of their scopes here.
        let text = String::from_utf8_lossy(&shown.body);
        for (scope, may) in SCOPES.into_iter().zip(who.scopes) {
            let is_hidden = !who.observes && matches!(may, May::Nothing | May::NotEnter);
            assert!(!is_hidden || !text.contains(scope), "{} is shown {scope}: {text}", who.name);
        }
    }
    println!("{cells} cells");
}

/// The same request about a scope that never was gets the same answer.
async fn same_as_nowhere(team: &Team, who: &Who, operation: &str, scope: &str, there: &Reply) {
    let nowhere = "nowhere-at-all";
    let elsewhere = ask(team, who, operation, nowhere, false).await;
    let names = |scope: &str, is_there: bool| {
        let path = request(operation, scope, is_there).1;
        let last = path.rsplit('/').next().unwrap().to_owned();
        vec![format!("'{scope}'"), last]
    };
    let (there, elsewhere) =
        (nameless(there, &names(scope, true)), nameless(&elsewhere, &names(nowhere, false)));
    assert_eq!(there, elsewhere, "{} can tell {scope} from what never was by {operation}", who.name);
}

#[tokio::test]
async fn a_blob_is_seen_through_no_scope_but_its_own() {
    let stage = Stage::set().await;
    // The writer of another scope asks for the very bytes that main has, and puts them: nothing tells.
    let who = stage.everyone.iter().find(|who| who.name == "writer of another scope").unwrap();
    let main = Module::new("main", "bytes of main");
    for output in 0..2 {
        assert_eq!(stage.team.get(&who.token, &main.blob("team-b", output)).await.code(), Code::NoBlob);
        assert_eq!(stage.team.put_blob(&who.token, "team-b", &main.outputs[output]).await, 201);
        assert_eq!(stage.team.get(&who.token, &main.blob("team-b", output)).await.body, main.outputs[output]);
    }
    // The texts of a result are blobs too, and no more to be had: the recipe names every file that was read.
    let recipe = format!("/v1/scopes/team-b/blobs/{}", main.key().recipe());
    assert_eq!(stage.team.get(&who.token, &recipe).await.code(), Code::NoBlob);
    let named = format!("/v1/scopes/team-b/blobs/{}", Digest::of("nothing has this name"));
    let (there, never) =
        (stage.team.get(&who.token, &recipe).await, stage.team.get(&who.token, &named).await);
    let last = |path: &str| vec![path.rsplit('/').next().unwrap().to_owned()];
    assert_eq!(nameless(&there, &last(&recipe)), nameless(&never, &last(&named)));
}

#[tokio::test]
async fn whoever_team_of_is_given_may_do_what_the_rules_say() {
    let issuer = Issuer::start().await;
    let (team, _rules) = team_of(&issuer).await;
    // A token that writes does not read what unreviewed code may write, whatever its maker wrote.
    let careless = team.create("careless", &["--write", "main", "--read", "pr-12-7"]);
    let squatter = team.create("squatter", &["--write", "pr-12-7"]);
    let curious = team.create("curious", &["--read", "pr-12-7"]);
    let pull = session(&team, &issuer.token(&issuer.pull_request(7))).await;
    let module = Module::new("m", "planted");
    assert_eq!(team.share(pull["token"].as_str().unwrap(), "pr-12-7", &module).await.status, 201);
    assert_eq!(team.get(&careless, &module.path("main")).await.code(), Code::NoResult);
    assert_eq!(team.get(&careless, &module.path("pr-12-7")).await.code(), Code::UnknownScope);
    assert_eq!(team.get(&squatter, &module.path("pr-12-7")).await.code(), Code::UnknownScope);
    assert_eq!(team.get(&curious, &module.path("pr-12-7")).await.status, 200);
}
