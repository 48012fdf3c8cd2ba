//! Who gets a lease, for how long, and who takes over.

use std::time::Duration;

use futures::FutureExt;
use pcmcache_server::cache::{CacheError, Limits, MAX_HOLD};
use pcmcache_shared::api::acquire::{AcquireLine, AcquireMode, AcquireRequest, AloneReason};
use pcmcache_shared::api::limits::{ALONE_FOR, BUSY_EVERY, GRACE, LEASE_TTL, RENEW_EVERY};
use pcmcache_shared::{Claim, Fence, ReleaseReason, Secret};

use crate::bench::{Bench, Client, Module, settle, view, writing};

fn alone(reason: ReleaseReason) -> Option<AcquireLine> {
    Some(AcquireLine::Alone { reason: AloneReason::Released(reason) })
}

#[tokio::test]
async fn a_holder_whose_stream_drops_is_replaced_after_the_grace() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    let mut first = bench.acquire(module.request("first")).await;
    let held = first.granted().await;
    let mut second = bench.acquire(module.request("second")).await;
    second.busy().await;
    drop(first);
    bench.advance(GRACE - Duration::from_millis(1)).await;
    assert_eq!(second.answered().await, None);
    bench.advance(Duration::from_millis(1)).await;
    let taken = second.granted().await;
    assert_eq!(taken.claim, held.claim);
    assert!(taken.hold.fence > held.hold.fence);
    assert_eq!(bench.cache.counters().taken_over, 1);
    assert_eq!(bench.cache.counters().dropped_holds, 1);
}

#[tokio::test]
async fn a_holder_that_vanished_is_replaced_after_the_ttl() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    let mut first = bench.acquire(module.request("first")).await;
    first.granted().await;
    let mut second = bench.acquire(module.request("second")).await;
    bench.advance(LEASE_TTL - Duration::from_millis(1)).await;
    assert_eq!(second.answered().await, None);
    bench.advance(Duration::from_millis(1)).await;
    second.granted().await;
    assert_eq!(first.next().await, None, "the stream of a lost lease ends");
}

#[tokio::test]
async fn a_holder_that_renews_is_not_replaced_before_the_longest_hold() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    let mut first = bench.acquire(module.request("first")).await;
    let held = first.granted().await;
    let mut second = bench.acquire(module.request("second")).await;
    let renewals = (MAX_HOLD.as_secs() / RENEW_EVERY.as_secs()) - 1;
    for _ in 0..renewals {
        bench.advance(RENEW_EVERY).await;
        assert_eq!(second.answered().await, None);
        bench.cache.renew(&writing(), held.claim, &held.hold).await.unwrap();
    }
    bench.advance(RENEW_EVERY).await;
    let late = bench.cache.renew(&writing(), held.claim, &held.hold).await;
    assert!(matches!(late, Err(CacheError::NoLease)), "{late:?}");
    second.granted().await;
}

#[tokio::test]
async fn a_cheap_unit_is_held_for_a_minute_at_most() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    bench.share(&module, None).await.unwrap();
    let changed = module.clone().over("later");
    let mut first = bench.acquire(changed.knowing("first")).await;
    let Some(AcquireLine::Granted { claim, fence, secret, expected_ms, .. }) = first.next().await else {
        panic!("no grant")
    };
    assert_eq!(expected_ms, Some(2_000));
    let hold = pcmcache_shared::api::leases::Hold { fence, secret };
    for _ in 0..11 {
        bench.advance(RENEW_EVERY).await;
        bench.cache.renew(&writing(), claim, &hold).await.unwrap();
    }
    bench.advance(RENEW_EVERY).await;
    assert!(bench.cache.renew(&writing(), claim, &hold).await.is_err());
}

#[tokio::test]
async fn abandonment_wakes_one() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    let mut holder = bench.acquire(module.request("holder")).await;
    let held = holder.granted().await;
    let mut waiting = Vec::new();
    for id in ["a", "b", "c"] {
        waiting.push(bench.acquire(module.request(id)).await);
    }
    settle().await;
    assert_eq!(bench.cache.waiting(), 3);
    bench.cache.release(&writing(), held.claim, &held.release(ReleaseReason::Abandoned)).await.unwrap();
    let mut granted = 0;
    for client in &mut waiting {
        match client.answered().await {
            Some(AcquireLine::Granted { .. }) => granted += 1,
            Some(other) => panic!("{other:?}"),
            None => {}
        }
    }
    assert_eq!(granted, 1);
    assert_eq!(bench.cache.waiting(), 2);
    assert_eq!(holder.next().await, None, "the stream of an ended lease ends");
}

#[tokio::test]
async fn a_wake_up_is_not_lost_with_the_one_it_woke() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    let mut holder = bench.acquire(module.request("holder")).await;
    let held = holder.granted().await;
    let first = bench.acquire(module.request("first")).await;
    settle().await;
    let mut second = bench.acquire(module.request("second")).await;
    settle().await;
    // The first in line is gone at the very moment it is woken.
    bench.cache.release(&writing(), held.claim, &held.release(ReleaseReason::Abandoned)).await.unwrap();
    drop(first);
    settle().await;
    bench.advance(GRACE).await;
    second.granted().await;
}

#[tokio::test]
async fn a_failure_wakes_all_and_answers_alone_for_a_while() {
    let reasons = [
        ReleaseReason::Failed,
        ReleaseReason::Uncacheable,
        ReleaseReason::TooLarge,
        ReleaseReason::StoreFull,
    ];
    for reason in reasons {
        let (bench, module) = (Bench::in_memory(), Module::new("m"));
        let held = bench.acquire(module.request("holder")).await.granted().await;
        let mut waiting = Vec::new();
        for n in 0..20 {
            waiting.push(bench.acquire(module.request(&n.to_string())).await);
        }
        settle().await;
        bench.cache.release(&writing(), held.claim, &held.release(reason)).await.unwrap();
        for client in &mut waiting {
            assert_eq!(client.answer().await, alone(reason));
            assert_eq!(client.next().await, None);
        }
        bench.advance(ALONE_FOR - Duration::from_millis(1)).await;
        assert_eq!(bench.acquire(module.request("late")).await.next().await, alone(reason));
        bench.advance(Duration::from_millis(1)).await;
        bench.acquire(module.request("later")).await.granted().await;
    }
}

#[tokio::test]
async fn a_result_after_a_failure_ends_being_alone() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    let held = bench.acquire(module.request("holder")).await.granted().await;
    bench.cache.release(&writing(), held.claim, &held.release(ReleaseReason::Failed)).await.unwrap();
    bench.share(&module, None).await.unwrap();
    let other = module.clone().over("later");
    bench.acquire(other.knowing("other")).await.granted().await;
}

#[tokio::test]
async fn the_same_request_gets_the_same_grant_and_its_last_stream_is_the_hold() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    let mut first = bench.acquire(module.request("same")).await;
    let held = first.granted().await;
    bench.advance(Duration::from_secs(10)).await;
    let mut again = bench.acquire(module.request("same")).await;
    assert_eq!(again.granted().await, held);
    assert_eq!(first.next().await, None, "an older stream ends");
    drop(first);
    bench.advance(Duration::from_secs(10)).await;
    let mut other = bench.acquire(module.request("other")).await;
    other.busy().await;
    drop(again);
    bench.advance(GRACE).await;
    other.granted().await;
    assert_eq!(bench.cache.counters().resumed, 1);
    assert_eq!(bench.cache.counters().granted, 2);
}

#[tokio::test]
async fn without_a_wait_the_answer_comes_at_once_and_ends() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    let at_once = AcquireRequest { wait_ms: 0, hold: false, ..module.request("a") };
    let mut holder = bench.acquire(at_once.clone()).await;
    let held = holder.granted().await;
    assert_eq!(holder.next().await, None);
    let mut other = bench.acquire(AcquireRequest { request_id: "b".to_owned(), ..at_once }).await;
    other.busy().await;
    assert_eq!(other.next().await, None);
    // It lives by renewals alone.
    bench.advance(Duration::from_secs(10)).await;
    bench.cache.renew(&writing(), held.claim, &held.hold).await.unwrap();
    bench.advance(Duration::from_secs(14)).await;
    bench.cache.renew(&writing(), held.claim, &held.hold).await.unwrap();
}

#[tokio::test]
async fn a_wait_says_that_it_is_there_and_ends_when_it_is_over() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    let mut holder = bench.acquire(module.request("holder")).await;
    holder.granted().await;
    let mut client = bench.acquire(AcquireRequest { wait_ms: 5_000, ..module.request("b") }).await;
    client.busy().await;
    for _ in 0..2 {
        settle().await;
        assert!(client.next().now_or_never().is_none());
        bench.advance(BUSY_EVERY).await;
        client.busy().await;
    }
    bench.advance(Duration::from_secs(1)).await;
    assert_eq!(client.next().await, None);
    assert_eq!(bench.cache.waiting(), 0);
}

#[tokio::test]
async fn a_waiter_that_goes_away_leaves_its_queue() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    let mut holder = bench.acquire(module.request("holder")).await;
    holder.granted().await;
    let waiting = bench.acquire(module.request("b")).await;
    settle().await;
    assert_eq!(bench.cache.waiting(), 1);
    drop(waiting);
    settle().await;
    assert_eq!(bench.cache.waiting(), 0);
}

#[tokio::test]
async fn a_watcher_never_gets_a_lease() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    let watch = AcquireRequest { mode: AcquireMode::Watch, ..module.knowing("watcher") };
    let nobody = Some(AcquireLine::Alone { reason: AloneReason::Nobody });
    assert_eq!(bench.acquire(watch.clone()).await.next().await, nobody);

    let mut holder = bench.acquire(module.request("holder")).await;
    let held = holder.granted().await;
    let mut watching = bench.acquire(watch.clone()).await;
    watching.busy().await;
    bench.share(&module, Some(&held)).await.unwrap();
    assert!(matches!(watching.answer().await, Some(AcquireLine::Hit(_))));

    let other = Module::new("other");
    let mut holder = bench.acquire(other.request("holder")).await;
    let held = holder.granted().await;
    let mut watching =
        bench.acquire(AcquireRequest { mode: AcquireMode::Watch, ..other.request("watcher") }).await;
    watching.busy().await;
    bench.cache.release(&writing(), held.claim, &held.release(ReleaseReason::Abandoned)).await.unwrap();
    assert_eq!(watching.answer().await, nobody);
}

#[tokio::test]
async fn a_crowd_is_told_to_compile_alone() {
    let bench = Bench::in_memory_with(Limits { max_waiters: 1, ..Limits::default() });
    let module = Module::new("m");
    let mut holder = bench.acquire(module.request("holder")).await;
    holder.granted().await;
    let mut waiting = bench.acquire(module.request("waiting")).await;
    settle().await;
    let crowded = Some(AcquireLine::Alone { reason: AloneReason::Crowded });
    assert_eq!(bench.acquire(module.request("late")).await.answer().await, crowded);
    assert_eq!(waiting.answered().await, None);
}

#[tokio::test]
async fn a_grant_that_nobody_heard_of_lives_for_the_grace() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    // The client is gone before the first line is out.
    let here = view();
    let mut acquire = Box::pin(bench.cache.acquire(&here, module.request("gone")));
    assert!(futures::poll!(acquire.as_mut()).is_pending());
    drop(acquire);
    settle().await;
    let mut next = bench.acquire(module.request("next")).await;
    next.busy().await;
    bench.advance(GRACE).await;
    next.granted().await;
}

#[tokio::test]
async fn only_the_holder_renews_and_releases() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    let mut holder: Client = bench.acquire(module.request("holder")).await;
    let held = holder.granted().await;
    let mut wrong_secret = held.clone();
    wrong_secret.hold.secret = Secret::from_random([9; 16]);
    let mut wrong_fence = held.clone();
    wrong_fence.hold.fence = Fence(held.hold.fence.0 + 1);
    let mut wrong_claim = held.clone();
    wrong_claim.claim = Claim::of("another");
    for wrong in [wrong_secret, wrong_fence, wrong_claim] {
        let renewed = bench.cache.renew(&writing(), wrong.claim, &wrong.hold).await;
        assert!(matches!(renewed, Err(CacheError::NoLease)));
        let release = wrong.release(ReleaseReason::Failed);
        let released = bench.cache.release(&writing(), wrong.claim, &release).await;
        assert!(matches!(released, Err(CacheError::NoLease)));
    }
    assert_eq!(bench.cache.renew(&writing(), held.claim, &held.hold).await.unwrap().ttl_ms, 15_000);
}

#[tokio::test]
async fn what_no_client_sends_is_refused() {
    let (bench, good) = (Bench::in_memory(), Module::new("m").knowing("a"));
    let bad = [
        AcquireRequest { request_id: String::new(), ..good.clone() },
        AcquireRequest { request_id: "a b".to_owned(), ..good.clone() },
        AcquireRequest { request_id: "a".repeat(129), ..good.clone() },
        AcquireRequest { holder: "h".repeat(129), ..good.clone() },
        AcquireRequest { subject: "s".repeat(201), ..good.clone() },
        AcquireRequest { known: vec![good.known[0]; 9], ..good.clone() },
    ];
    for request in bad {
        let refused = bench.cache.acquire(&view(), request).await;
        assert!(matches!(refused, Err(CacheError::BadRequest(_))));
    }
}
