//! The dashboard over the wire: the page, what it loads, what it asks for.

use http::Request;
use pcmcache_shared::Digest;
use pcmcache_shared::api::problem::Code;
use serde_json::Value;

use super::team::{Module, Team};
use super::wire::{Served, acquire, h1, next_line, within};

async fn get(served: &Served, path: &str, name: &str, value: &str) -> super::wire::Reply {
    served.send(Request::get(path).header(name, value).body("").unwrap()).await
}

async fn state(served: &Served) -> Value {
    serde_json::from_slice(&served.get("/v1/dashboard?span=hour").await.body).unwrap()
}

#[tokio::test]
async fn a_browser_gets_the_page_and_others_a_text() {
    let served = Served::start().await;
    let page = get(&served, "/", "accept", "text/html,application/xhtml+xml,*/*;q=0.8").await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
    assert_eq!((page.header("x-content-type-options"), page.header("vary")), ("nosniff", "accept"));

    let text = get(&served, "/", "accept", "*/*").await;
    assert!(text.header("content-type").starts_with("text/plain"), "{text:?}");
    assert!(String::from_utf8_lossy(&text.body).contains("/metrics"));
}

#[tokio::test]
async fn what_the_browser_has_is_not_sent_again() {
    let served = Served::start().await;
    for path in ["/dashboard/page.js", "/dashboard/uplot.js", "/dashboard/page.css", "/dashboard/icon.svg"] {
        let first = served.get(path).await;
        assert_eq!((first.status.as_u16(), first.header("cache-control")), (200, "no-cache"), "{path}");
        let again = get(&served, path, "if-none-match", first.header("etag")).await;
        assert_eq!((again.status.as_u16(), again.body.len()), (304, 0), "{path}");
    }
    assert_eq!(served.get("/dashboard/other.js").await.code(), Code::NoRoute);
    assert_eq!(served.get("/v1/dashboard?span=decade").await.code(), Code::BadRequest);
}

#[tokio::test]
async fn a_build_is_told_while_it_runs_and_counted_when_it_is_over() {
    let served = Served::start().await;
    assert_eq!(state(&served).await["builds"], 0);
    let claim = Digest::of("claim").to_string();
    let mut sender = h1(served.addr).await;
    let mut holder = within(sender.send_request(acquire(&claim, "holder"))).await.unwrap().into_body();
    assert_eq!(next_line(&mut holder).await.unwrap()["state"], "granted");
    let mut sender = h1(served.addr).await;
    let mut waiter = within(sender.send_request(acquire(&claim, "waiter"))).await.unwrap().into_body();
    assert_eq!(next_line(&mut waiter).await.unwrap()["state"], "busy");
    let (now, building) = within(async {
        loop {
            let now = state(&served).await;
            if now["waiting"] == 1 {
                let building = now["building"][0].clone();
                return (now, building);
            }
        }
    })
    .await;
    assert_eq!((&now["builds"], &building["waiting"]), (&1.into(), &1.into()));
    assert!(building["id"].as_str().unwrap().starts_with(&claim), "{building}");

    drop((holder, sender));
    drop(waiter);
    within(async { while state(&served).await["builds"] != 0 {} }).await;
    let after = state(&served).await;
    assert_eq!(after["finished"][0]["how"], "lost", "{after}");
    assert!(after["over"]["total"]["misses"].as_u64().unwrap() >= 1, "{after}");
    assert_eq!(after["over"]["steps"]["misses"].as_array().unwrap().len(), 60);
    assert!(after["store"]["blobs"].is_u64() && after["sees"].is_null(), "{after}");
}

#[tokio::test]
async fn who_observes_sees_all_and_who_reads_a_scope_sees_that() {
    let team = Team::new().await;
    let (main, other) = (team.create("main", &["--write", "main"]), team.create("b", &["--write", "team-b"]));
    for (token, scope) in [(&main, "main"), (&other, "team-b")] {
        assert_eq!(team.share(token, scope, &Module::new(scope, "bytes")).await.status, 201);
    }
    let shown = async |token: &str| -> Value {
        let reply = team.get(token, "/v1/dashboard").await;
        serde_json::from_slice(&reply.body).unwrap_or_else(|error| panic!("{error}: {reply:?}"))
    };
    let scopes = |shown: &Value| -> Vec<String> {
        let of = |row: &Value| row["scope"].as_str().unwrap().to_owned();
        shown["scopes"].as_array().unwrap().iter().map(of).collect()
    };
    let mut all = scopes(&shown(&team.create("watcher", &["--observe"])).await);
    all.sort();
    assert_eq!(all, ["main", "team-b"]);
    let reader = shown(&team.create("reader", &["--read", "main"])).await;
    assert_eq!((scopes(&reader), &reader["sees"]), (vec!["main".to_owned()], &serde_json::json!(["main"])));
    assert!(reader["over"].is_null() && !reader.to_string().contains("team-b"), "{reader}");

    let outsider = team.get("", "/v1/dashboard").await;
    assert_eq!(outsider.code(), Code::Unauthorized);
    assert_eq!(team.get("", "/").await.status, 200, "the page says nothing, so it is for anyone");
}
