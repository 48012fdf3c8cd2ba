//! What people are told: hits that nobody reports, builds under way, what missed, what differed.

use std::time::Duration;

use pcmcache_server::dashboard::{Dashboard, Sight};
use pcmcache_server::history::{History, Span};
use pcmcache_server::seen::{Ended, Named, ScopeCounts};
use pcmcache_shared::ReleaseReason;
use pcmcache_shared::api::acquire::AcquireLine;
use serde_json::{Value, json};

use crate::bench::{Bench, Module, scope, settle, writing};

/// The counts of the one scope there is.
fn counts(bench: &Bench) -> ScopeCounts {
    let scopes = bench.cache.seen().scopes();
    assert_eq!(scopes.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), [Named::Scope(scope())]);
    scopes[0].1
}

#[tokio::test]
async fn a_cold_client_that_does_not_ask_again_took_what_it_was_offered() {
    let (bench, module) = (Bench::in_memory(), Module::new("m.cppm"));
    bench.share(&module, None).await.unwrap();
    let taken = bench.acquire(module.request("takes-it")).await.next().await;
    let other = bench.acquire(module.request("has-other-files")).await.next().await;
    assert!(matches!((taken, other), (Some(AcquireLine::Sets { .. }), Some(AcquireLine::Sets { .. }))));
    assert_eq!(bench.cache.counters().hits, 0, "nobody knows yet");

    let elsewhere = module.clone().over("other files");
    bench.acquire(elsewhere.knowing("has-other-files")).await.granted().await;
    bench.advance(Duration::from_secs(3)).await;
    let counters = bench.cache.counters();
    assert_eq!((counters.hits, counters.misses, counters.saved_ms), (1, 1, module.cost_ms));
    let counts = counts(&bench);
    assert_eq!((counts.hits, counts.misses, counts.saved_ms), (1, 1, module.cost_ms));
}

#[tokio::test]
async fn a_build_is_seen_with_who_waits_for_it_until_it_ends() {
    let (bench, module) = (Bench::in_memory(), Module::new("m.cppm"));
    let mut holder = bench.acquire(module.request("holder")).await;
    let granted = holder.granted().await;
    let mut waiters = Vec::new();
    for name in ["a", "b"] {
        waiters.push(bench.acquire(module.request(name)).await);
        settle().await;
    }
    let builds = bench.cache.builds().await.unwrap();
    assert_eq!(builds.len(), 1);
    let building = &builds[0].building;
    assert_eq!((building.subject.as_str(), building.holder.as_str()), ("m.cppm", "client holder"));
    assert_eq!(builds[0].waiters, ["client a", "client b"]);

    bench.advance(Duration::from_secs(2)).await;
    bench.share(&module, Some(&granted)).await.unwrap();
    settle().await;
    assert!(bench.cache.builds().await.unwrap().is_empty());
    let finished = bench.cache.seen().finished();
    let ends: Vec<_> =
        finished.iter().map(|end| (end.building.subject.as_str(), end.how, end.took)).collect();
    assert_eq!(ends, [("m.cppm", Ended::Published, Duration::from_secs(2))]);
    assert_eq!((counts(&bench).published, counts(&bench).waited), (1, 2));
}

#[tokio::test]
async fn a_build_that_is_given_back_or_whose_holder_vanished_is_none_any_more() {
    let (bench, module) = (Bench::in_memory(), Module::new("m.cppm"));
    let granted = bench.acquire(module.request("gives-back")).await.granted().await;
    let release = granted.release(ReleaseReason::Abandoned);
    bench.cache.release(&writing(), granted.claim, &release).await.unwrap();
    let mut vanishes = module.request("vanishes");
    vanishes.hold = false;
    bench.acquire(vanishes).await.granted().await;
    bench.advance(Duration::from_secs(16)).await;
    assert!(bench.cache.builds().await.unwrap().is_empty());
    let ends: Vec<_> = bench.cache.seen().finished().iter().map(|end| end.how).collect();
    assert_eq!(ends, [Ended::Lost, Ended::Released(ReleaseReason::Abandoned)]);
}

#[tokio::test]
async fn what_missed_took_long_or_differed_is_told_by_its_name() {
    let (bench, module) = (Bench::in_memory(), Module::new("m.cppm"));
    let granted = bench.acquire(module.request("builder")).await.granted().await;
    bench.share(&module, Some(&granted)).await.unwrap();
    let (missed, slow) = bench.cache.seen().modules(10, |_| true);
    assert_eq!((missed[0].subject.as_str(), missed[0].misses), ("m.cppm", 1));
    assert_eq!((slow[0].subject.as_str(), slow[0].wall_ms), ("m.cppm", module.cost_ms));

    bench.share(&module.clone().making("other bytes"), None).await.unwrap_err();
    let divergences = bench.cache.seen().divergences();
    assert_eq!(divergences.len(), 1);
    assert_eq!((divergences[0].subject.as_str(), divergences[0].action), ("m.cppm", module.key()));
}

/// What someone of this sight is shown.
async fn shown(bench: &Bench, sight: Sight) -> Value {
    let shown = Dashboard::of(&bench.cache, &History::default(), &sight, Span::Hour).await.unwrap();
    serde_json::to_value(shown).unwrap()
}

#[tokio::test]
async fn who_may_not_see_a_scope_is_shown_nothing_of_it() {
    let (bench, module) = (Bench::in_memory(), Module::new("m.cppm"));
    bench.share(&module, None).await.unwrap();
    bench.share(&module.clone().making("other bytes"), None).await.unwrap_err();
    let other = Module::new("n.cppm");
    let _holder = bench.acquire(other.request("holder")).await.granted().await;
    let _waiter = bench.acquire(other.request("waiter")).await;
    settle().await;

    let all = shown(&bench, Sight::All).await;
    assert_eq!((&all["building"][0]["waiters"], &all["sees"]), (&json!(["client waiter"]), &Value::Null));
    let reader = shown(&bench, Sight::Scopes(vec![scope()])).await;
    assert_eq!((&reader["builds"], &reader["building"][0]["waiting"]), (&json!(1), &json!(1)));
    assert_eq!(reader["building"][0]["waiters"], json!([]), "who waits may do so from a scope of its own");
    for lists in ["missed", "slowest", "diverged", "scopes"] {
        assert_eq!(reader[lists].as_array().unwrap().len(), 1, "{lists}: {reader}");
    }
    assert!(reader["over"].is_null() && reader["store"].is_null(), "{reader}");

    let stranger = shown(&bench, Sight::Scopes(vec!["pr-17".parse().unwrap()])).await;
    for lists in ["building", "finished", "missed", "slowest", "diverged", "scopes"] {
        assert_eq!(stranger[lists], json!([]), "{lists}: {stranger}");
    }
    assert_eq!((&stranger["builds"], &stranger["waiting"]), (&json!(0), &json!(0)));
}
