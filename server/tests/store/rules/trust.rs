//! Scopes and revocations, with a clock that stands still: what is seen from where, who waits for whom, what a flood takes.

use std::time::Duration;

use pcmcache_server::cache::{CacheError, Limits, Published};
use pcmcache_server::clock::Clock as _;
use pcmcache_server::trust::{Principal, Revoked, View};
use pcmcache_shared::api::acquire::{AcquireLine, AcquireMode, AcquireRequest, AloneReason};
use pcmcache_shared::{Digest, Scope, Signature, Writer};

use crate::bench::{Bench, Client, Module, Scratch, settle, view, writing};

/// What a job sees that writes this scope and reads main.
fn job(scope: &str, name: &str) -> View {
    let scope: Scope = scope.parse().unwrap();
    let principal = Principal {
        writers: vec![name.parse().unwrap()],
        reads: vec![Scope::default()],
        writes: Some(scope.clone()),
        ..Principal::anyone()
    };
    principal.view(&scope).unwrap()
}

async fn acquire(bench: &Bench, view: &View, request: AcquireRequest) -> Client {
    Client::over(bench.cache.acquire(view, request).await.unwrap())
}

/// Uploads and publishes as this job.
async fn share(bench: &Bench, view: &View, module: &Module) -> Result<Published, CacheError> {
    let writing = view.writing().unwrap();
    for bytes in &module.outputs {
        let mut upload = bench.cache.begin_upload(&writing, Digest::of(bytes), bytes.len() as u64).await?;
        upload.write(bytes.clone().into()).await?;
        upload.finish().await?;
    }
    bench.cache.publish(&writing, module.key(), module.publication(module.unit().into(), None)).await
}

fn revoked(names: &[&str]) -> Revoked {
    let writers = || names.iter().map(|name| name.parse::<Writer>().unwrap());
    Revoked { refused: writers().collect(), hidden: writers().collect() }
}

#[tokio::test]
async fn both_back_ends_hide_what_the_revoked_published_and_let_it_be_built_again() {
    let scratch = Scratch::new();
    for bench in [Bench::in_memory(), Bench::on_disk(scratch.path())] {
        let (bad, good) = (job("main", "bad"), job("main", "good"));
        let planted = Module::new("m").making("planted");
        assert_eq!(share(&bench, &bad, &planted).await.unwrap(), Published::Stored);
        bench.cache.hide(revoked(&["bad"]));
        assert_eq!(bench.cache.result(&good, planted.key()).await.unwrap(), None);
        for name in [planted.key().recipe(), planted.set().digest(), Digest::of("planted")] {
            assert_eq!(bench.cache.has_blob(&good, name).await.unwrap(), None, "{name}");
        }
        let line = acquire(&bench, &good, planted.request("good")).await.next().await;
        assert!(matches!(line, Some(AcquireLine::Granted { .. })), "no set is learnt of it: {line:?}");
        let honest = Module::new("m").making("honest");
        assert_eq!(honest.key(), planted.key());
        // The lease is held by the very request that publishes no more; so it goes first.
        bench.advance(Duration::from_secs(15)).await;
        assert_eq!(share(&bench, &good, &honest).await.unwrap(), Published::Stored);
        let found = bench.cache.result(&good, honest.key()).await.unwrap().unwrap();
        assert_eq!((found.result, found.writers), (honest.result(), vec!["good".parse().unwrap()]));
        // Revoking is of writers, not of bytes: what both made stays where the good one names it.
        assert!(bench.cache.has_blob(&good, Digest::of(&honest.outputs[1])).await.unwrap().is_some());
        bench.cache.hide(revoked(&["bad", "good"]));
        assert_eq!(bench.cache.result(&view(), honest.key()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_holder_that_is_revoked_loses_its_lease_to_who_waits_for_it() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    let (bad, good) = (job("main", "bad"), job("main", "good"));
    let mut holder = acquire(&bench, &bad, module.request("bad")).await;
    holder.granted().await;
    let mut waits = acquire(&bench, &good, module.request("good")).await;
    waits.busy().await;
    bench.cache.hide(revoked(&["bad"]));
    waits.granted().await;
    assert_eq!(holder.next().await, None, "its stream ends");
}

#[tokio::test]
async fn who_is_revoked_or_expires_while_it_waits_gets_no_lease() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    let mut holder = bench.acquire(module.request("holder")).await;
    let held = holder.granted().await;
    let main = Scope::default();
    let until = bench.clock.now() + Duration::from_secs(10);
    let short = Principal { until: Some(until), ..Principal::anyone() }.view(&main).unwrap();
    let mut revoked_one = acquire(&bench, &job("main", "bad"), module.request("bad")).await;
    let mut expiring = acquire(&bench, &short, module.request("short")).await;
    revoked_one.busy().await;
    expiring.busy().await;
    bench.cache.hide(revoked(&["bad"]));
    bench.advance(Duration::from_secs(10)).await;
    assert_eq!(expiring.answer().await, None);
    let release = held.release(pcmcache_shared::ReleaseReason::Abandoned);
    bench.cache.release(&writing(), held.claim, &release).await.unwrap();
    assert_eq!(revoked_one.answer().await, None);
    bench.acquire(module.request("next")).await.granted().await;
    // And who comes with what has ended is told so.
    for view in [short, job("main", "bad")] {
        let refused = bench.cache.acquire(&view, module.request("again")).await;
        assert!(matches!(refused, Err(CacheError::Revoked)), "{refused:?}");
    }
}

#[tokio::test]
async fn nothing_of_a_scope_is_waited_for_or_woken_by_those_who_do_not_read_it() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    let pull = job("pr-17", "pull");
    acquire(&bench, &pull, module.knowing("pull")).await.granted().await;
    // The branch has its lease with the first line, and a watcher of it sees nobody.
    let watching = AcquireRequest { mode: AcquireMode::Watch, ..module.knowing("watcher") };
    let line = acquire(&bench, &view(), watching).await.next().await;
    assert_eq!(line, Some(AcquireLine::Alone { reason: AloneReason::Nobody }));
    let mut branch = bench.acquire(module.knowing("branch")).await;
    assert!(matches!(branch.next().await, Some(AcquireLine::Granted { .. })));
}

#[tokio::test]
async fn a_job_waits_for_any_claim_of_its_base_that_it_would_take() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    let pull = job("pr-17", "pull");
    // The base builds a unit that it knows nothing of, or an action it does.
    for asked in [module.request("base"), module.knowing("base")] {
        let mut base = bench.acquire(asked).await;
        let held = base.granted().await;
        for request in [module.request("pull"), module.knowing("pull")] {
            let mut waits = acquire(&bench, &pull, request).await;
            waits.busy().await;
        }
        bench
            .cache
            .release(&writing(), held.claim, &held.release(pcmcache_shared::ReleaseReason::Abandoned))
            .await
            .unwrap();
        settle().await;
    }
    acquire(&bench, &pull, module.request("pull")).await.granted().await;
}

#[tokio::test]
async fn a_flood_of_one_scope_leaves_room_to_wait_for_others() {
    let bench = Bench::in_memory_with(Limits { max_waiters: 8, ..Limits::default() });
    let (module, pull) = (Module::new("m"), job("pr-17", "pull"));
    let mut holder = bench.acquire(module.request("holder")).await;
    holder.granted().await;
    let mut crowd = Vec::new();
    for n in 0..20 {
        let mut waits = acquire(&bench, &pull, module.request(&n.to_string())).await;
        waits.busy().await;
        crowd.push(waits);
    }
    settle().await;
    assert_eq!(bench.cache.waiting(), 4, "half of the places, and no more");
    let mut branch = bench.acquire(module.request("branch")).await;
    branch.busy().await;
    assert_eq!(branch.answered().await, None, "it waits, and is not sent away");
}

#[tokio::test]
async fn what_is_there_unsigned_is_replaced_by_the_same_with_a_signature_and_by_nothing_else() {
    let (bench, module) = (Bench::in_memory(), Module::new("m"));
    assert_eq!(bench.share(&module, None).await.unwrap(), Published::Stored);
    let signed = |bytes: u8| {
        let mut publication = module.publication(module.unit().into(), None);
        publication.result.signature = Some(Signature::from_bytes([bytes; 64]));
        publication
    };
    let publish = async |publication| bench.cache.publish(&writing(), module.key(), publication).await;
    let signature =
        async || bench.cache.result(&view(), module.key()).await.unwrap().unwrap().result.signature;
    assert_eq!(publish(signed(1)).await.unwrap(), Published::Stored);
    assert_eq!(signature().await, Some(Signature::from_bytes([1; 64])));
    // The first signature stays, and nobody takes it away.
    assert_eq!(publish(signed(2)).await.unwrap(), Published::Same);
    assert_eq!(bench.share(&module, None).await.unwrap(), Published::Same);
    assert_eq!(signature().await, Some(Signature::from_bytes([1; 64])));
    let mut other = module.clone().making("other bytes").publication(module.unit().into(), None);
    other.result.signature = Some(Signature::from_bytes([3; 64]));
    bench.upload(b"other bytes").await.unwrap();
    assert!(matches!(publish(other).await, Err(CacheError::Winner(_))));
}
