//! A client that asks for too much is told when to ask again, and others do not notice.

use http::{Request, StatusCode};
use pcmcache_shared::Digest;
use pcmcache_shared::api::problem::Code;

use super::wire::{H2, Reply, Served, acquire, h1, h2, next_line, within};

fn assert_told(reply: &Reply) {
    assert_eq!(reply.code(), Code::TooManyRequests);
    assert!(reply.header("retry-after").parse::<u64>().unwrap() >= 1, "{reply:?}");
}

/// As if from there, by way of a proxy.
async fn from(served: &Served, address: &str, path: &str) -> Reply {
    served.send(Request::get(path).header("x-forwarded-for", address).body("").unwrap()).await
}

#[tokio::test]
async fn too_many_requests_a_second_are_told_so_and_probes_are_answered() {
    let served = Served::with(|config| config.rate = 1).await;
    let mut told = None;
    for _ in 0..20 {
        let reply = served.get("/openapi.json").await;
        if reply.status != StatusCode::OK {
            told = Some(reply);
            break;
        }
    }
    let told = told.unwrap();
    assert_told(&told);
    assert_eq!(told.header("connection"), "close");
    assert_eq!(served.get("/healthz").await.status, StatusCode::OK);
    assert_eq!(served.get("/readyz").await.status, StatusCode::OK);
    // What the client says of itself means nothing where no proxy was told of.
    assert_told(&from(&served, "10.0.0.9", "/openapi.json").await);
}

#[tokio::test]
async fn behind_a_proxy_each_address_is_one_client() {
    let served = Served::with(|config| (config.rate, config.behind_proxy) = (1, true)).await;
    let mut asked = 0;
    while from(&served, "10.0.0.1", "/metrics").await.status == StatusCode::OK {
        asked += 1;
        assert!(asked < 20, "never too much");
    }
    assert_told(&from(&served, "9.9.9.9, 10.0.0.1", "/metrics").await);
    let other = from(&served, "10.0.0.2", "/metrics").await;
    assert_eq!(other.status, StatusCode::OK);
    assert!(String::from_utf8_lossy(&other.body).contains("\npcmcache_requests_limited_total 2\n"));
}

#[tokio::test]
async fn waits_and_holds_are_bounded_and_what_ends_makes_room() {
    let served = Served::with(|config| (config.waits, config.concurrency) = (2, 1)).await;
    let claim = Digest::of("claim").to_string();
    let (mut first, mut second) = (h1(served.addr).await, h1(served.addr).await);
    let mut held = within(first.send_request(acquire(&claim, "first"))).await.unwrap().into_body();
    assert_eq!(next_line(&mut held).await.unwrap()["state"], "granted");
    let mut waiting = within(second.send_request(acquire(&claim, "second"))).await.unwrap().into_body();
    assert_eq!(next_line(&mut waiting).await.unwrap()["state"], "busy");

    let H2 { mut sender, .. } = h2(served.addr).await;
    let third = within(sender.send_request(acquire(&claim, "third"))).await.unwrap();
    assert_eq!(third.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(served.get("/metrics").await.status, StatusCode::OK, "what is brief counts apart");

    drop(waiting);
    drop(second);
    within(async {
        while sender.send_request(acquire(&claim, "third")).await.unwrap().status() != StatusCode::OK {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
}
