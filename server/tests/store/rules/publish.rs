//! What may be published, by whom, and which of two is the answer.

use std::time::Duration;

use pcmcache_server::cache::{CacheError, Published};
use pcmcache_shared::api::limits::LEASE_TTL;
use pcmcache_shared::{Claim, Digest, Secret};

use crate::bench::{Bench, Granted, Module, settle, view, writing};

#[tokio::test]
async fn of_two_publishers_the_first_is_the_answer_and_the_second_learns_it() {
    let (bench, first) = (Bench::in_memory(), Module::new("m"));
    let second = first.clone().making("other bytes");
    assert_eq!(bench.share(&first, None).await.unwrap(), Published::Stored);
    assert_eq!(bench.share(&first, None).await.unwrap(), Published::Same);
    match bench.share(&second, None).await {
        Err(CacheError::Winner(winner)) => assert_eq!(winner.stored.result, first.result()),
        other => panic!("{other:?}"),
    }
    let stored = bench.cache.result(&view(), first.key()).await.unwrap().unwrap();
    assert_eq!(stored.result, first.result());
    let counters = bench.cache.counters();
    assert_eq!((counters.published, counters.published_same, counters.diverged), (1, 1, 1));
}

#[tokio::test]
async fn of_racing_publishers_one_wins_and_all_agree() {
    let bytes: Vec<String> = (0..10).map(|n| format!("bytes {n}")).collect();
    let bench = Bench::in_memory();
    let racers: Vec<_> = bytes.iter().map(|bytes| Module::new("m").making(bytes)).collect();
    let outcomes = futures::future::join_all(racers.iter().map(|module| bench.share(module, None))).await;
    let answer = bench.cache.result(&view(), racers[0].key()).await.unwrap().unwrap().result;
    for (module, outcome) in racers.iter().zip(outcomes) {
        match outcome {
            Ok(Published::Stored) => assert_eq!(module.result(), answer),
            Err(CacheError::Winner(winner)) => assert_eq!(winner.stored.result, answer),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bench.cache.results().await.unwrap(), 1);
}

#[tokio::test]
async fn while_a_lease_lives_only_its_holder_publishes() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    let mut holder = bench.acquire(module.request("holder")).await;
    let held = holder.granted().await;
    let held_by_another = |outcome| match outcome {
        Err(CacheError::LeaseHeld { holder }) => assert_eq!(holder, "client holder"),
        other => panic!("{other:?}"),
    };
    held_by_another(bench.share(&module, None).await);
    let mut wrong: Granted = held.clone();
    wrong.hold.secret = Secret::from_random([9; 16]);
    held_by_another(bench.share(&module, Some(&wrong)).await);
    assert_eq!(bench.cache.result(&view(), module.key()).await.unwrap(), None);
    assert_eq!(bench.share(&module, Some(&held)).await.unwrap(), Published::Stored);
    assert_eq!(holder.next().await, None, "the lease ended with the publish");
}

#[tokio::test]
async fn a_lease_on_the_action_itself_counts_as_well() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    bench.share(&module, None).await.unwrap();
    let changed = module.clone().over("later");
    let mut holder = bench.acquire(changed.knowing("holder")).await;
    holder.granted().await;
    // This one says that it built under the unit's claim, which nobody holds.
    assert!(matches!(bench.share(&changed, None).await, Err(CacheError::LeaseHeld { .. })));
}

#[tokio::test]
async fn a_stale_fence_is_accepted_while_nobody_else_holds() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    let held = bench.acquire(module.request("slow")).await.granted().await;
    bench.advance(LEASE_TTL).await;
    let mut next = bench.acquire(module.request("next")).await;
    let taken = next.granted().await;
    assert!(matches!(bench.share(&module, Some(&held)).await, Err(CacheError::LeaseHeld { .. })));
    drop(next);
    bench.advance(LEASE_TTL).await;
    assert_eq!(bench.share(&module, Some(&held)).await.unwrap(), Published::Stored);
    // The one that took over publishes the same, late.
    assert_eq!(bench.share(&module, Some(&taken)).await.unwrap(), Published::Same);
}

#[tokio::test]
async fn the_lease_of_who_lost_ends_too() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    bench.share(&module, None).await.unwrap();
    // Its holder does not know the set, so it holds the unit's claim.
    let mut request = module.request("holder");
    request.unit = None;
    let mut holder = bench.acquire(request).await;
    let held = holder.granted().await;
    let outcome = bench.share(&module.clone().making("other"), Some(&held)).await;
    assert!(matches!(outcome, Err(CacheError::Winner(_))));
    assert_eq!(holder.next().await, None);
}

#[tokio::test]
async fn what_is_missing_is_named_and_nothing_is_stored() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    bench.upload(&module.outputs[0]).await.unwrap();
    match bench.publish(&module, None).await {
        Err(CacheError::Missing(missing)) => assert_eq!(missing, [Digest::of(&module.outputs[1])]),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.cache.result(&view(), module.key()).await.unwrap(), None);
    assert_eq!(bench.cache.has_blob(&view(), module.key().recipe()).await.unwrap(), None);
    bench.upload(&module.outputs[1]).await.unwrap();
    assert_eq!(bench.publish(&module, None).await.unwrap(), Published::Stored);
    let recipe = bench.read(module.key().recipe()).await.unwrap().unwrap();
    assert_eq!(recipe, module.recipe().text().as_bytes());
}

#[tokio::test]
async fn what_contradicts_its_key_or_itself_is_refused() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    for bytes in &module.outputs {
        bench.upload(bytes).await.unwrap();
    }
    let good = module.publication(Claim::of("c"), None);
    let mut bad = vec![good.clone(); 7];
    bad[0].recipe.push_str("file x\n");
    bad[1].recipe = "schema 2\n\n".to_owned();
    bad[2].include_set = "file b\nfile a\n".to_owned();
    bad[3].include_set = "file /other.h\n".to_owned();
    bad[4].result.outputs.clear();
    bad[5].result.outputs[0].size += 1;
    bad[6].result.builder = "b".repeat(129);
    for (index, request) in bad.into_iter().enumerate() {
        let outcome = bench.cache.publish(&writing(), module.key(), request).await;
        assert!(matches!(outcome, Err(CacheError::BadResult(_))), "{index}: {outcome:?}");
    }
    assert_eq!(bench.cache.results().await.unwrap(), 0);
    bench.cache.publish(&writing(), module.key(), good).await.unwrap();
}

#[tokio::test]
async fn a_publish_goes_on_when_its_client_goes_away() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    let mut holder = bench.acquire(module.request("holder")).await;
    let held = holder.granted().await;
    let mut waiting = bench.acquire(module.request("waiting")).await;
    for bytes in &module.outputs {
        bench.upload(bytes).await.unwrap();
    }
    let mut publish = Box::pin(bench.publish(&module, Some(&held)));
    assert!(futures::poll!(publish.as_mut()).is_pending());
    drop(publish);
    settle().await;
    assert!(bench.cache.result(&view(), module.key()).await.unwrap().is_some());
    assert!(waiting.answered().await.is_some());
    bench.advance(Duration::ZERO).await;
}
