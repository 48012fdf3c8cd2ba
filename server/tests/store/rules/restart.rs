//! A server that is killed and started again: what was acknowledged is there, and nothing is built twice. Dropping
//! the store is as close to a kill as a test inside one process gets: there is no shutdown to forget.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pcmcache_server::cache::Published;
use pcmcache_server::clock::{ManualClock, SystemClock};
use pcmcache_server::embedded::{Embedded, OpenError};
use pcmcache_server::leases::{Ask, Grant, Leases, RESTART_GRACE};
use pcmcache_server::results::{Creation, Publication, Results, StoredResult};
use pcmcache_shared::api::acquire::AcquireLine;
use pcmcache_shared::api::limits::LEASE_TTL;
use pcmcache_shared::{Claim, Digest, ReleaseReason, Secret};
use rustix::fs::{FlockOperation, flock};

use crate::bench::{Bench, Granted, Module, Scratch, eventually, scope, writing};

/// A server that granted a lease and is no more: its runtime ends under it, and no task of it runs again.
async fn killed_after_a_grant(directory: &Path, module: &Module) -> Granted {
    let (path, module) = (directory.to_owned(), module.clone());
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bench = Bench::on_disk(&path);
            let mut holder = bench.acquire(module.request("holder")).await;
            let held = holder.granted().await;
            std::mem::forget(holder);
            held
        })
    });
    let held = tokio::task::spawn_blocking(|| server.join().unwrap()).await.unwrap();
    free(directory).await;
    held
}

/// Drops it, and waits until nothing of it is left: its tasks end when they notice.
pub(super) async fn kill(bench: Bench, directory: &Path) {
    drop(bench);
    free(directory).await;
}

async fn free(directory: &Path) {
    eventually("the data directory is free", || async {
        match Embedded::open(directory, Arc::new(ManualClock::default())) {
            Ok(_) => true,
            Err(OpenError::InUse(_)) => false,
            Err(other) => panic!("{other}"),
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there() {
    let (scratch, module) = (Scratch::new(), Module::new("m"));
    let bench = Bench::on_disk(scratch.path());
    bench.share(&module, None).await.unwrap();
    bench.upload(b"alone").await.unwrap();
    kill(bench, scratch.path()).await;
    let bench = Bench::on_disk(scratch.path());
    let line = bench.acquire(module.knowing("a")).await.next().await;
    assert!(matches!(line, Some(AcquireLine::Hit(_))), "{line:?}");
    let line = bench.acquire(module.request("b")).await.next().await;
    assert!(matches!(line, Some(AcquireLine::Sets { .. })), "{line:?}");
    assert_eq!(bench.read(Digest::of("alone")).await.unwrap().unwrap(), b"alone");
    for bytes in &module.outputs {
        assert_eq!(bench.read(Digest::of(bytes)).await.unwrap().as_ref(), Some(bytes));
    }
}

#[tokio::test]
async fn a_holder_resumes_by_renewing() {
    let (scratch, module) = (Scratch::new(), Module::new("m"));
    let held = killed_after_a_grant(scratch.path(), &module).await;
    let bench = Bench::on_disk(scratch.path());
    let mut other = bench.acquire(module.request("other")).await;
    other.busy().await;
    assert_eq!(bench.cache.renew(&writing(), held.claim, &held.hold).await.unwrap().ttl_ms, 15_000);
    bench.clock.advance(RESTART_GRACE);
    assert_eq!(bench.cache.renew(&writing(), held.claim, &held.hold).await.unwrap().ttl_ms, 15_000);
    assert_eq!(bench.share(&module, Some(&held)).await.unwrap(), Published::Stored);
    assert!(matches!(other.answer().await, Some(AcquireLine::Sets { .. })));
}

#[tokio::test]
async fn a_holder_resumes_by_asking_again_with_its_request_id() {
    let (scratch, module) = (Scratch::new(), Module::new("m"));
    let held = killed_after_a_grant(scratch.path(), &module).await;
    let bench = Bench::on_disk(scratch.path());
    let mut other = bench.acquire(module.request("other")).await;
    other.busy().await;
    let mut holder = bench.acquire(module.request("holder")).await;
    assert_eq!(holder.granted().await, held);
    assert_eq!(bench.share(&module, Some(&held)).await.unwrap(), Published::Stored);
    assert!(matches!(other.answer().await, Some(AcquireLine::Sets { .. })));
    assert_eq!(bench.cache.counters().granted, 0);
}

#[tokio::test]
async fn a_holder_that_does_not_come_back_is_replaced_and_fences_never_repeat() {
    let (scratch, module) = (Scratch::new(), Module::new("m"));
    let mut last = killed_after_a_grant(scratch.path(), &module).await;
    for _ in 0..3 {
        let bench = Bench::on_disk(scratch.path());
        let mut other = bench.acquire(module.request("other")).await;
        let taken = match other.next().await {
            Some(AcquireLine::Busy { .. }) => {
                bench.clock.advance(RESTART_GRACE);
                other.granted().await
            }
            line => panic!("{line:?}"),
        };
        assert!(taken.hold.fence > last.hold.fence);
        last = taken;
        // A lease that ends leaves no row, and still its fence is not given again.
        let release = last.release(ReleaseReason::Abandoned);
        bench.cache.release(&writing(), last.claim, &release).await.unwrap();
        let next = bench.acquire(module.request("next")).await.granted().await;
        assert!(next.hold.fence > last.hold.fence);
        last = next;
        drop(other);
        kill(bench, scratch.path()).await;
    }
}

#[tokio::test]
async fn a_lease_that_ended_does_not_come_back() {
    let (scratch, module) = (Scratch::new(), Module::new("m"));
    let other = Module::new("other");
    let bench = Bench::on_disk(scratch.path());
    let held = bench.acquire(module.request("a")).await.granted().await;
    bench.share(&module, Some(&held)).await.unwrap();
    let held = bench.acquire(other.request("b")).await.granted().await;
    let release = held.release(ReleaseReason::Abandoned);
    bench.cache.release(&writing(), held.claim, &release).await.unwrap();
    kill(bench, scratch.path()).await;
    let bench = Bench::on_disk(scratch.path());
    bench.acquire(module.clone().over("later").knowing("c")).await.granted().await;
    bench.acquire(other.request("d")).await.granted().await;
}

#[tokio::test]
async fn a_lease_ends_in_the_transaction_of_its_result() {
    // Killed right after the commit, before anyone discharges the lease.
    let (scratch, module) = (Scratch::new(), Module::new("m"));
    let (here, claim) = (scope(), Claim::from(module.unit()));
    let store = Embedded::open(scratch.path(), Arc::new(ManualClock::default())).unwrap();
    let ask = Ask {
        request_id: "a".to_owned(),
        holder: String::new(),
        writers: Vec::new(),
        secret: Secret::from_random([1; 16]),
        expected: None,
        ttl: LEASE_TTL,
        at_most: LEASE_TTL,
    };
    let Grant::New { lease, .. } = store.grant(&here, claim, ask).await.unwrap() else { panic!("no grant") };
    let stored = StoredResult {
        result: module.result(),
        unit: module.unit(),
        set: module.set().digest(),
        writers: Vec::new(),
        published_s: 0,
    };
    let publication =
        Publication { action: module.key(), stored, instead_of: None, ends: Some((claim, lease.fence)) };
    assert_eq!(store.create(&here, publication).await.unwrap(), Creation::Created);
    drop(store);
    free(scratch.path()).await;
    let store = Embedded::open(scratch.path(), Arc::new(ManualClock::default())).unwrap();
    assert!(store.get(&here, module.key()).await.unwrap().is_some());
    assert_eq!(store.current(&here, claim).await.unwrap(), None);
}

#[tokio::test]
async fn stages_of_the_killed_are_swept_and_damaged_copies_kept() {
    let scratch = Scratch::new();
    drop(Embedded::open(scratch.path(), Arc::new(SystemClock::new())).unwrap());
    let (stage, kept) = (scratch.path().join("stages/7"), scratch.path().join("damaged/x.0"));
    fs_err::write(&stage, "half").unwrap();
    fs_err::write(&kept, "for a person").unwrap();
    drop(Embedded::open(scratch.path(), Arc::new(SystemClock::new())).unwrap());
    assert!(!stage.exists());
    assert!(kept.exists());
}

#[tokio::test]
async fn a_data_directory_has_one_server() {
    let scratch = Scratch::new();
    let first = Embedded::open(scratch.path(), Arc::new(SystemClock::new())).unwrap();
    let second = Embedded::open(scratch.path(), Arc::new(SystemClock::new()));
    assert!(matches!(second, Err(OpenError::InUse(_))));
    drop(first);
    Embedded::open(scratch.path(), Arc::new(SystemClock::new())).unwrap();
}

#[tokio::test]
async fn who_is_just_letting_go_of_a_data_directory_is_waited_for() {
    let scratch = Scratch::new();
    drop(Embedded::open(scratch.path(), Arc::new(SystemClock::new())).unwrap());
    // As a child that was forked from the server before has it, until it executes.
    let shared = fs_err::File::open(scratch.path().join("lock")).unwrap();
    flock(&shared, FlockOperation::LockExclusive).unwrap();
    let letting_go = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        drop(shared);
    });
    Embedded::open(scratch.path(), Arc::new(SystemClock::new())).unwrap();
    letting_go.join().unwrap();
}

#[tokio::test]
async fn the_deadline_of_a_restored_lease_is_the_restart_grace() {
    let (scratch, module) = (Scratch::new(), Module::new("m"));
    killed_after_a_grant(scratch.path(), &module).await;
    assert!(RESTART_GRACE < LEASE_TTL);
    let bench = Bench::on_disk(scratch.path());
    bench.clock.advance(RESTART_GRACE);
    bench.acquire(module.request("other")).await.granted().await;
}
