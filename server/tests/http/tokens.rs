//! Tokens: what each lets its holder do, and what a revocation takes back.

use std::os::unix::fs::PermissionsExt as _;

use http_body_util::Full;
use pcmcache_server::Server;
use pcmcache_shared::Digest;
use pcmcache_shared::api::problem::Code;
use serde_json::json;

use super::team::{Module, Team, also, run};
use super::wire::{Served, h1, next_line, within};

const LOOKUP: &str = "/v1/scopes/main/lookup";

#[tokio::test]
async fn without_a_book_everyone_writes_main_and_with_one_only_who_was_given_a_token() {
    let mut config = None;
    let served = Served::with(|used| config = Some(used.clone())).await;
    assert_eq!(served.get("/v1/scopes/main/revocations").await.status, 200);
    let token = run(&config.unwrap(), &["create", "--name", "ci", "--write", "main"]).unwrap();
    let refused = served.get("/v1/scopes/main/revocations").await;
    assert_eq!(
        (refused.code(), refused.header("www-authenticate")),
        (Code::Unauthorized, "Bearer realm=\"pcmcache\"")
    );
    assert!(refused.header("pcmcache-epoch").is_empty());
    let request =
        http::Request::get("/v1/scopes/main/revocations").header("authorization", format!("Bearer {token}"));
    assert_eq!(served.send(request.body("").unwrap()).await.status, 200);
}

#[tokio::test]
async fn a_token_says_what_it_is_good_for() {
    let team = Team::with(|config| config.public_read = vec!["public".parse().unwrap()]).await;
    let pr = team.create("pr", &["--read", "main", "--write", "pr-17", "--expires", "1h"]);
    let who = |reply: super::wire::Reply| serde_json::from_slice::<serde_json::Value>(&reply.body).unwrap();
    let mut said = who(team.get(&pr, "/v1/token").await);
    assert!(said["id"].as_str().unwrap().starts_with("t-"));
    assert!((3590..=3600).contains(&said["expires_in_s"].as_u64().unwrap()));
    said.as_object_mut().unwrap().retain(|name, _| name != "id" && name != "expires_in_s");
    assert_eq!(
        said,
        json!({ "reads": ["main", "public"], "writes": "pr-17", "admin": false, "observes": false })
    );
    let anonymous = who(team.get("", "/v1/token").await);
    assert_eq!(anonymous["id"], "anonymous");
    assert_eq!(anonymous["reads"], json!(["public"]));
    assert_eq!(team.get("pcmc_unknown", "/v1/token").await.code(), Code::Unauthorized);
}

#[tokio::test]
async fn a_job_finds_what_its_base_has_and_publishes_for_itself() {
    let team = Team::new().await;
    let main = team.create("main", &["--write", "main"]);
    let pr = team.create("pr", &["--read", "main", "--write", "pr-17"]);
    let (base, change) = (Module::new("base", "base bytes"), Module::new("change", "changed bytes"));
    assert_eq!(team.share(&main, "main", &base).await.status, 201);
    assert_eq!(team.share(&pr, "pr-17", &change).await.status, 201);

    // The job sees both, and is told where each was found.
    for (module, scope) in [(&base, "main"), (&change, "pr-17")] {
        let hit = team.acquire(&pr, "pr-17", &module.knowing("a")).await;
        assert_eq!((&hit["state"], &hit["scope"]), (&json!("hit"), &json!(scope)), "{hit}");
        assert_eq!(team.get(&pr, &module.blob("pr-17", 1)).await.status, 200);
        let sets = team.acquire(&pr, "pr-17", &module.cold("b")).await;
        assert_eq!(sets["sets"][0]["results"][0]["scope"], scope, "{sets}");
        let looked = json!({ "actions": [module.key()], "units": [module.unit()] });
        let looked = team.send(&pr, "POST", "/v1/scopes/pr-17/lookup", &looked).await;
        let looked: serde_json::Value = serde_json::from_slice(&looked.body).unwrap();
        assert_eq!(
            (looked["results"][0]["scope"].as_str(), looked["units"].as_array().unwrap().len()),
            (Some(scope), 1)
        );
    }
    // Its base sees its own only.
    assert_eq!(team.acquire(&main, "main", &change.knowing("a")).await["state"], "granted");
    assert_eq!(team.acquire(&main, "main", &change.cold("a")).await["state"], "granted");
    assert_eq!(team.get(&main, &change.path("main")).await.code(), Code::NoResult);
    assert_eq!(team.get(&main, &change.blob("main", 1)).await.code(), Code::NoBlob);
    assert_eq!(team.get(&main, &change.path("pr-17")).await.code(), Code::UnknownScope);

    // What the base has is the job's answer too: it is not published twice.
    assert_eq!(team.share(&pr, "pr-17", &base).await.status, 200);
    let other = team.share(&pr, "pr-17", &Module { outputs: change.outputs.clone(), ..base.clone() }).await;
    let problem: serde_json::Value = serde_json::from_slice(&other.body).unwrap();
    assert_eq!((other.code(), &problem["winner_scope"]), (Code::Winner, &json!("main")));
}

#[tokio::test]
async fn a_job_waits_for_a_build_of_its_base_and_takes_what_comes_of_it() {
    let team = Team::new().await;
    let main = team.create("main", &["--write", "main"]);
    let pr = team.create("pr", &["--read", "main", "--write", "pr-17"]);
    let watcher = team.create("laptop", &["--read", "main"]);
    for outcome in ["published", "abandoned"] {
        let module = Module::new(outcome, "bytes");
        let granted = team.acquire(&main, "main", &module.knowing("main")).await;
        assert_eq!(granted["state"], "granted");
        let mut waiting = Vec::new();
        for (token, scope, mode) in [(&pr, "pr-17", "build"), (&watcher, "main", "watch")] {
            let body = also(module.knowing("waits"), json!({ "wait_ms": 60_000, "mode": mode }));
            let request = http::Request::post(format!("http://h/v1/scopes/{scope}/acquire"))
                .header("content-type", "application/json")
                .header("authorization", format!("Bearer {token}"));
            let request = request.body(Full::new(body.to_string().into())).unwrap();
            let mut sender = h1(team.served.addr).await;
            let mut answer = within(sender.send_request(request)).await.unwrap();
            assert_eq!(next_line(answer.body_mut()).await.unwrap()["state"], "busy");
            waiting.push((sender, answer));
        }
        match outcome {
            "published" => {
                for bytes in &module.outputs {
                    team.put_blob(&main, "main", bytes).await;
                }
                let published =
                    team.send(&main, "PUT", &module.path("main"), &module.publication(Some(&granted))).await;
                assert_eq!(published.status, 201);
            }
            _ => {
                let lease = format!("/v1/scopes/main/leases/{}", granted["claim"].as_str().unwrap());
                let release = json!({
                    "fence": granted["fence"], "secret": granted["secret"], "reason": "abandoned",
                });
                assert_eq!(team.send(&main, "DELETE", &lease, &release).await.status, 204);
            }
        }
        let mut ends = Vec::new();
        for (_, answer) in &mut waiting {
            loop {
                let line = next_line(answer.body_mut()).await.unwrap();
                if line["state"] != "busy" {
                    break ends.push(line["state"].clone());
                }
            }
        }
        let expected = if outcome == "published" { ["hit", "hit"] } else { ["granted", "alone"] };
        assert_eq!(ends, expected, "{outcome}");
    }
}

#[tokio::test]
async fn a_reader_writes_nothing_and_learns_nothing_of_what_it_may_not_read() {
    let team = Team::new().await;
    let reader = team.create("laptop", &["--read", "main"]);
    let module = Module::new("m", "bytes");
    for (method, path) in [
        ("PUT", module.path("main")),
        ("PUT", module.blob("main", 0)),
        ("POST", format!("/v1/scopes/main/leases/{}", module.unit())),
        ("DELETE", format!("/v1/scopes/main/leases/{}", module.unit())),
    ] {
        let reply = team.ask(&reader, method, &path, "{}").await;
        assert_eq!(reply.code(), Code::ReadOnly, "{method} {path}");
        assert!(String::from_utf8_lossy(&reply.body).contains("--write"));
    }
    let build = team.send(&reader, "POST", "/v1/scopes/main/acquire", &module.cold("a")).await;
    assert_eq!(build.code(), Code::ReadOnly);
    let watch = also(module.cold("a"), json!({ "mode": "watch" }));
    assert_eq!(team.acquire(&reader, "main", &watch).await["reason"], "nobody");
    assert_eq!(team.get(&reader, &module.path("secret")).await.code(), Code::UnknownScope);
    assert_eq!(team.get(&reader, "/metrics").await.code(), Code::Forbidden);
}

#[tokio::test]
async fn a_blob_is_there_for_who_put_it_or_may_read_a_result_that_names_it() {
    let team = Team::new().await;
    let (a, b) = (team.create("a", &["--write", "main"]), team.create("b", &["--write", "main"]));
    let module = Module::new("m", "bytes");
    let bytes = &module.outputs[0];
    assert_eq!(team.put_blob(&a, "main", bytes).await, 201);
    assert_eq!(team.put_blob(&a, "main", bytes).await, 200);
    assert_eq!(team.get(&a, &module.blob("main", 0)).await.status, 200);
    // Nothing tells the other that it is there, though it writes the same scope.
    assert_eq!(team.get(&b, &module.blob("main", 0)).await.code(), Code::NoBlob);
    assert_eq!(team.ask(&b, "HEAD", &module.blob("main", 0), "").await.status, 404);
    let missing = team.send(&b, "PUT", &module.path("main"), &module.publication(None)).await;
    let problem: serde_json::Value = serde_json::from_slice(&missing.body).unwrap();
    assert_eq!(problem["missing"].as_array().unwrap().len(), 2);
    assert_eq!(team.put_blob(&b, "main", bytes).await, 201);
    // A result names it, and all who read the scope see it.
    assert_eq!(team.share(&a, "main", &module).await.status, 201);
    let reader = team.create("reader", &["--read", "main"]);
    for (path, output) in [(module.blob("main", 0), 0), (module.blob("main", 1), 1)] {
        assert_eq!(team.get(&reader, &path).await.body, module.outputs[output]);
    }
}

#[tokio::test]
async fn a_revoked_writer_is_out_at_once_and_all_it_published_is_gone() {
    let team = Team::new().await;
    let (bad, good) = (team.create("bad", &["--write", "main"]), team.create("good", &["--write", "main"]));
    let reader = team.create("reader", &["--read", "main"]);
    let (theirs, ours) = (Module::new("theirs", "planted"), Module::new("ours", "honest bytes"));
    assert_eq!(team.share(&bad, "main", &theirs).await.status, 201);
    assert_eq!(team.share(&good, "main", &ours).await.status, 201);
    let held = Module::new("held", "x");
    assert_eq!(team.acquire(&bad, "main", &held.knowing("bad")).await["state"], "granted");
    assert_eq!(team.acquire(&good, "main", &held.knowing("good")).await["state"], "busy");
    let before = team.get(&reader, "/v1/scopes/main/revocations").await;
    assert_eq!(before.header("pcmcache-epoch"), "0");
    let revoked = team.get(&reader, &theirs.path("main")).await;
    let writer = serde_json::from_slice::<serde_json::Value>(&revoked.body).unwrap()["writers"][0].clone();

    team.token(&["revoke", "bad"]);
    assert_eq!(
        team.get(&bad, LOOKUP).await.code(),
        Code::MethodNotAllowed,
        "nobody is asked who they are for that"
    );
    assert_eq!(team.get(&bad, &theirs.path("main")).await.code(), Code::Unauthorized);
    for token in [&reader, &good] {
        assert_eq!(team.get(token, &theirs.path("main")).await.code(), Code::NoResult);
        assert_eq!(team.get(token, &theirs.blob("main", 0)).await.code(), Code::NoBlob);
        assert_eq!(team.get(token, &ours.path("main")).await.status, 200);
        let looked = json!({ "units": [theirs.unit(), ours.unit()], "actions": [theirs.key()] });
        let looked = team.send(token, "POST", LOOKUP, &looked).await;
        let looked: serde_json::Value = serde_json::from_slice(&looked.body).unwrap();
        assert_eq!(looked["results"], json!([]));
        assert_eq!(looked["units"].as_array().unwrap().len(), 1, "{looked}");
    }
    // Clients are told.
    let after = team.get(&reader, "/v1/scopes/main/revocations").await;
    let told: serde_json::Value = serde_json::from_slice(&after.body).unwrap();
    assert_ne!(after.header("pcmcache-epoch"), "0");
    assert_eq!(told["epoch"].to_string(), after.header("pcmcache-epoch"));
    assert_eq!((&told["writers"], &told["complete"]), (&json!([writer]), &json!(true)));
    // Its lease is nobody's, and what it took can be built again.
    within(async {
        while team.acquire(&good, "main", &held.knowing("good")).await["state"] != "granted" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let again = Module { outputs: ours.outputs.clone(), ..theirs.clone() };
    assert_eq!(team.share(&good, "main", &again).await.status, 201);
    let stored = team.get(&reader, &theirs.blob("main", 0)).await;
    assert_eq!(stored.code(), Code::NoBlob);
    assert_eq!(team.get(&reader, &again.blob("main", 1)).await.body, again.outputs[1]);
}

#[tokio::test]
async fn a_leaked_token_is_revoked_and_its_results_kept_where_one_says_so() {
    let team = Team::new().await;
    let (leaked, reader) =
        (team.create("leaked", &["--write", "main"]), team.create("r", &["--read", "main"]));
    let module = Module::new("m", "bytes");
    team.share(&leaked, "main", &module).await;
    team.token(&["revoke", "leaked", "--keep-results"]);
    assert_eq!(team.get(&leaked, &module.path("main")).await.code(), Code::Unauthorized);
    let kept = team.get(&reader, &module.path("main")).await;
    assert_eq!(kept.status, 200);
    assert_eq!(
        kept.header("pcmcache-epoch"),
        team.get(&reader, &module.path("main")).await.header("pcmcache-epoch")
    );
    let told = team.get(&reader, "/v1/scopes/main/revocations").await;
    assert!(String::from_utf8_lossy(&told.body).contains("\"writers\":[]"));
}

#[tokio::test]
async fn a_revocation_tells_only_those_who_see_the_scope() {
    let team = Team::new().await;
    let reader = team.create("reader", &["--read", "main"]);
    team.create("elsewhere", &["--write", "secret-project"]);
    team.token(&["revoke", "elsewhere"]);
    let told = team.get(&reader, "/v1/scopes/main/revocations").await;
    assert!(String::from_utf8_lossy(&told.body).contains("\"writers\":[]"));
}

#[tokio::test]
async fn a_book_that_breaks_lets_nobody_in_and_brings_nothing_back() {
    let team = Team::new().await;
    let (bad, good) = (team.create("bad", &["--write", "main"]), team.create("good", &["--write", "main"]));
    let module = Module::new("m", "planted");
    team.share(&bad, "main", &module).await;
    let book = team.served.dir.0.join("tokens.json");
    let before = fs_err::read(&book).unwrap();
    team.token(&["revoke", "bad"]);
    assert_eq!(team.get(&good, &module.path("main")).await.code(), Code::NoResult);

    let after = fs_err::read(&book).unwrap();
    fs_err::write(&book, "{ half a").unwrap();
    assert_eq!(team.get(&good, &module.path("main")).await.code(), Code::Unavailable);
    assert_eq!(team.get("", &module.path("main")).await.code(), Code::Unauthorized);
    fs_err::remove_file(&book).unwrap();
    assert_eq!(team.get(&good, &module.path("main")).await.code(), Code::Unavailable, "gone is not open");
    fs_err::write(&book, &after).unwrap();
    fs_err::set_permissions(&book, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(
        team.get(&good, &module.path("main")).await.code(),
        Code::Unavailable,
        "anyone could add a token"
    );
    fs_err::set_permissions(&book, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(team.get(&good, &module.path("main")).await.code(), Code::NoResult);
    // A backup of before the revocation does not undo it while the server runs.
    fs_err::write(&book, before).unwrap();
    assert_eq!(team.get(&good, &module.path("main")).await.code(), Code::NoResult);
    assert_eq!(team.get(&bad, &module.path("main")).await.code(), Code::Unauthorized);
}

#[tokio::test]
async fn a_server_does_not_start_with_tokens_that_it_cannot_read() {
    for (book, says) in [
        (None, "token create"),
        (Some("nonsense"), "not a book of tokens"),
        (Some(r#"{"version":99}"#), "version 99"),
    ] {
        let scratch = super::wire::Scratch::new();
        let path = scratch.0.join("tokens.json");
        if let Some(text) = book {
            fs_err::write(&path, text).unwrap();
        }
        let mut config = pcmcache_server::Config::for_dir(scratch.0.join("data"));
        config.tokens = Some(path);
        let error = format!("{:#}", Server::open(&config).await.unwrap_err());
        assert!(error.contains(says) && error.contains("tokens.json"), "{error}");
    }
    let scratch = super::wire::Scratch::new();
    let mut config = pcmcache_server::Config::for_dir(&scratch.0);
    config.public_read = vec!["main".parse().unwrap()];
    let error = format!("{:#}", Server::open(&config).await.unwrap_err());
    assert!(error.contains("--public-read"), "{error}");
}

#[tokio::test]
async fn what_it_takes_of_an_older_and_a_newer_client() {
    let served = Served::start().await;
    for (spoken, status) in
        [(None, 200), (Some("1"), 200), (Some("2"), 200), (Some("0"), 400), (Some("3"), 400)]
    {
        let mut request = http::Request::get("/v1/scopes/main/revocations");
        if let Some(spoken) = spoken {
            request = request.header("pcmcache-wire", spoken);
        }
        let reply = served.send(request.body("").unwrap()).await;
        assert_eq!((reply.status.as_u16(), reply.header("pcmcache-wire")), (status, "2"), "{spoken:?}");
        if status == 400 {
            assert_eq!(reply.code(), Code::WireVersion);
        }
    }
}

#[tokio::test]
async fn the_list_shows_who_has_what_and_no_secret() {
    let team = Team::new().await;
    let ci = team.create("ci", &["--write", "main", "--read", "base", "--expires", "90d"]);
    let gone = team.create("gone", &["--read", "main"]);
    team.token(&["revoke", "gone"]);
    team.token(&["revoke", "--subject", "github:17", "--keep-results"]);
    let list = team.token(&["list"]);
    for line in [
        "first  admin",
        "ci  writes main  reads base  ends in 90d",
        "gone  reads main  revoked, results taken back",
    ] {
        assert!(list.contains(line), "{line} is not in\n{list}");
    }
    assert!(
        list.lines().any(|line| line.starts_with("subject-") && line.ends_with("revoked, results kept")),
        "{list}"
    );
    let book = fs_err::read_to_string(team.served.dir.0.join("tokens.json")).unwrap();
    for token in [ci, gone] {
        assert!(!list.contains(&token) && !book.contains(&token));
        assert!(book.contains(&Digest::of(&token).to_string()));
    }
    let mode = fs_err::metadata(team.served.dir.0.join("tokens.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
