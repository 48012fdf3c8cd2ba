//! Include sets: who learns which, and which claim they compete for.

use std::time::Duration;

use pcmcache_server::trust::Principal;
use pcmcache_shared::api::acquire::{AcquireLine, KnownSet};
use pcmcache_shared::api::lookup::LookupRequest;
use pcmcache_shared::{Digest, Scope};

use crate::bench::{Bench, Module, settle, view};

#[tokio::test]
async fn a_cold_client_learns_the_sets_and_finds_the_result_with_its_small_blobs() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    bench.share(&module, None).await.unwrap();
    let Some(AcquireLine::Sets { sets }) = bench.acquire(module.request("cold")).await.next().await else {
        panic!("no sets")
    };
    assert_eq!(sets.len(), 1);
    assert_eq!((sets[0].set, sets[0].text.as_str()), (module.set().digest(), module.set().text().as_str()));
    let result = &sets[0].results[0];
    assert_eq!((result.action, &result.result), (module.key(), &module.result()));
    let small: Vec<_> = result.blobs.iter().collect();
    assert_eq!(small.len(), 1, "the object is too large to ride along");
    assert_eq!((*small[0].0, &small[0].1.0), (Digest::of(&module.outputs[0]), &module.outputs[0]));
}

#[tokio::test]
async fn a_client_that_knows_the_set_gets_the_hit() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    bench.share(&module, None).await.unwrap();
    let Some(AcquireLine::Hit(hit)) = bench.acquire(module.knowing("warm")).await.next().await else {
        panic!("no hit")
    };
    assert_eq!((hit.action, hit.result), (module.key(), module.result()));
    // Its own key alone is enough as well.
    let mut by_key = module.request("by-key");
    by_key.claim = module.key().into();
    assert!(matches!(bench.acquire(by_key).await.next().await, Some(AcquireLine::Hit(_))));
    assert_eq!(bench.cache.counters().hits, 2);
}

#[tokio::test]
async fn only_unknown_sets_are_offered_newest_first() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    let (one, two, three) = (
        module.clone().reading(&["/1.h"]),
        module.clone().reading(&["/2.h"]),
        module.clone().reading(&["/3.h"]),
    );
    for learnt in [&one, &two, &three] {
        bench.share(learnt, None).await.unwrap();
    }
    let mut request = module.request("a");
    request.known = vec![KnownSet { set: two.set().digest(), action: None }];
    let Some(AcquireLine::Sets { sets }) = bench.acquire(request).await.next().await else {
        panic!("no sets")
    };
    let offered: Vec<_> = sets.iter().map(|set| set.set).collect();
    assert_eq!(offered, [three.set().digest(), one.set().digest()]);
}

#[tokio::test]
async fn the_lease_is_on_the_action_under_the_newest_known_set() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    bench.share(&module, None).await.unwrap();
    let changed = module.clone().over("later");
    let mut first = bench.acquire(changed.knowing("first")).await;
    assert_eq!(first.granted().await.claim, changed.key().into());
    // Other contents of the same files: another claim, nobody waits.
    let other = module.clone().over("much later");
    let mut second = bench.acquire(other.knowing("second")).await;
    assert_eq!(second.granted().await.claim, other.key().into());
    // A file of the set is missing here: what the client asked for.
    let mut missing = module.request("third");
    missing.known = vec![KnownSet { set: module.set().digest(), action: None }];
    let mut third = bench.acquire(missing).await;
    assert_eq!(third.granted().await.claim, module.unit().into());
}

#[tokio::test]
async fn a_set_learnt_while_waiting_wakes_with_it() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    let mut holder = bench.acquire(module.request("holder")).await;
    let held = holder.granted().await;
    let mut waiting = Vec::new();
    for id in ["a", "b", "c"] {
        waiting.push(bench.acquire(module.request(id)).await);
    }
    settle().await;
    bench.share(&module, Some(&held)).await.unwrap();
    for client in &mut waiting {
        let Some(AcquireLine::Sets { sets }) = client.answer().await else { panic!("no sets") };
        assert_eq!(sets[0].results[0].action, module.key());
    }
    assert_eq!(holder.next().await, None);
}

#[tokio::test]
async fn a_set_that_the_known_one_lacked_wakes_who_waits_for_the_action() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    bench.share(&module, None).await.unwrap();
    // A header now includes another: the same known set, and the holder learns a larger one.
    let changed = module.clone().over("later");
    let mut holder = bench.acquire(changed.knowing("holder")).await;
    let held = holder.granted().await;
    let mut waiting = bench.acquire(changed.knowing("waiting")).await;
    waiting.busy().await;
    settle().await;
    let larger = changed.clone().reading(&["/a.h", "/b.h"]);
    bench.share(&larger, Some(&held)).await.unwrap();
    let Some(AcquireLine::Sets { sets }) = waiting.answer().await else { panic!("no sets") };
    assert_eq!(sets[0].set, larger.set().digest());
    assert_eq!(sets[0].results[0].action, larger.key());
}

#[tokio::test]
async fn lookup_tells_what_there_is_and_leaves_out_what_there_is_not() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    bench.share(&module, None).await.unwrap();
    let other = Module::new("other");
    let request =
        LookupRequest { units: vec![module.unit(), other.unit()], actions: vec![other.key(), module.key()] };
    let answer = bench.cache.lookup(&view(), &request).await.unwrap();
    assert_eq!(answer.units.iter().map(|unit| unit.unit).collect::<Vec<_>>(), [module.unit()]);
    assert_eq!(answer.units[0].sets[0].text, module.set().text());
    assert_eq!(answer.results.iter().map(|found| found.action).collect::<Vec<_>>(), [module.key()]);

    let too_many = LookupRequest { units: vec![module.unit(); 1001], ..LookupRequest::default() };
    assert!(bench.cache.lookup(&view(), &too_many).await.is_err());
}

#[tokio::test]
async fn a_scope_knows_nothing_of_another() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    bench.share(&module, None).await.unwrap();
    let other: Scope = "other".parse().unwrap();
    let elsewhere = Principal { writes: Some(other.clone()), ..Principal::anyone() };
    let other = elsewhere.view(&other).unwrap();
    assert_eq!(bench.cache.result(&other, module.key()).await.unwrap(), None);
    let digest = Digest::of(&module.outputs[0]);
    assert_eq!(bench.cache.has_blob(&other, digest).await.unwrap(), None);
    assert!(bench.cache.open_blob(&other, digest).await.unwrap().is_none());
    let _lease = bench.acquire(Module::new("leased").request("a")).await.granted().await;
    let mut elsewhere = bench.cache.acquire(&other, Module::new("leased").request("b")).await.unwrap();
    let line = futures::StreamExt::next(&mut elsewhere).await;
    assert!(matches!(line, Some(AcquireLine::Granted { .. })), "{line:?}");
    bench.advance(Duration::ZERO).await;
}
