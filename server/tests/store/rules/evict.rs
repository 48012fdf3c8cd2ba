//! Eviction: what goes, in which order, and what never goes.

use std::path::Path;
use std::time::Duration;

use pcmcache_server::cache::{CacheError, Limits, Published};
use pcmcache_server::space::{Bound, Bounds};
use pcmcache_server::upkeep::{self, Plan};
use pcmcache_shared::{Digest, Scope};

use super::restart::kill;
use crate::bench::{
    Bench, FakeDisk, Module, Scratch, eventually, scope, settle, view, view_of, writing, writing_in,
};

const PIN: Duration = Duration::from_secs(600);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const BYTES: usize = 100_000;

/// A module with one output of about [`BYTES`] that no other has.
fn module(name: &str) -> Module {
    let mut module = Module::new(Box::leak(name.to_owned().into_boxed_str()));
    module.outputs = vec![name.bytes().cycle().take(BYTES).collect()];
    module
}

/// A bench that has room for `count` modules, in which nothing is pinned any more.
fn with_room_for(directory: &Path, count: u64) -> Bench {
    let bounds = Bounds { max_size: Some(count * 101_000), ..Bounds::default() };
    let bench = Bench::on_disk_within(directory, bounds, FakeDisk::empty());
    bench.clock.advance(PIN);
    bench
}

impl Bench {
    /// Uploads and publishes.
    async fn shared(&self, module: &Module) -> Result<(), CacheError> {
        self.upload(&module.outputs[0]).await?;
        assert_eq!(self.publish(module, None).await?, Published::Stored);
        Ok(())
    }

    /// Whether the result answers, which is a use of it.
    async fn answers(&self, module: &Module) -> bool {
        self.cache.result(&view(), module.key()).await.unwrap().is_some()
    }

    /// Whether any of what it stood on is still there.
    async fn has_bytes_of(&self, module: &Module) -> bool {
        let digests = [Digest::of(&module.outputs[0]), module.key().recipe()];
        let mut any = false;
        for digest in digests {
            any |= self.cache.has_blob(&view(), digest).await.unwrap().is_some();
        }
        any
    }
}

#[tokio::test]
async fn what_was_used_least_recently_goes_with_its_bytes() {
    let scratch = Scratch::new();
    let bench = with_room_for(scratch.path(), 3);
    let [a, b, c, d] = ["a", "b", "c", "d"].map(module);
    for module in [&a, &b, &c] {
        bench.shared(module).await.unwrap();
        bench.clock.advance(PIN);
    }
    assert!(bench.answers(&a).await);
    bench.clock.advance(PIN);
    bench.shared(&d).await.unwrap();
    assert!(!bench.has_bytes_of(&b).await && !bench.answers(&b).await);
    for module in [&a, &c, &d] {
        assert!(bench.answers(module).await, "{}", module.name);
        assert_eq!(
            bench.read(Digest::of(&module.outputs[0])).await.unwrap().as_ref(),
            Some(&module.outputs[0])
        );
    }
    let counters = bench.cache.counters();
    assert_eq!((counters.evicted_results, counters.store_full), (1, 0));
    assert!(counters.evicted_bytes > BYTES as u64);
    assert!(bench.cache.usage().total() <= 303_000);
}

#[tokio::test]
async fn what_took_long_to_compile_stays_longer() {
    let scratch = Scratch::new();
    let bench = with_room_for(scratch.path(), 2);
    let [mut dear, cheap, next] = ["dear", "cheap", "next"].map(module);
    dear.cost_ms = 60_000;
    for module in [&dear, &cheap] {
        bench.shared(module).await.unwrap();
        bench.clock.advance(PIN);
    }
    bench.shared(&next).await.unwrap();
    assert!(!bench.has_bytes_of(&cheap).await, "it was younger, and cheap");
    assert!(bench.answers(&dear).await);
    // But not for ever.
    bench.clock.advance(2 * PIN);
    assert!(bench.answers(&next).await);
    bench.clock.advance(30 * DAY);
    assert!(bench.answers(&next).await);
    bench.clock.advance(PIN);
    bench.shared(&cheap).await.unwrap();
    assert!(!bench.has_bytes_of(&dear).await);
}

#[tokio::test]
async fn what_is_pinned_stays_and_the_upload_is_refused() {
    let scratch = Scratch::new();
    let bench = with_room_for(scratch.path(), 2);
    let [a, b, c] = ["a", "b", "c"].map(module);
    bench.shared(&a).await.unwrap();
    bench.shared(&b).await.unwrap();
    bench.clock.advance(PIN - Duration::from_secs(1));
    let full = bench.shared(&c).await;
    assert!(matches!(&full, Err(CacheError::NoRoom { shortage, .. }) if shortage.bound == Bound::Size));
    assert_eq!(bench.cache.counters().evicted_results, 0);
    // Whoever looks in vain does not look again at once.
    bench.clock.advance(Duration::from_secs(1));
    assert!(bench.shared(&c).await.is_err());
    bench.clock.advance(Duration::from_secs(5));
    bench.shared(&c).await.unwrap();
}

#[tokio::test]
async fn right_after_a_start_everything_stays() {
    let scratch = Scratch::new();
    let bench = with_room_for(scratch.path(), 20);
    let [a, b, c] = ["a", "b", "c"].map(module);
    for module in [&a, &b] {
        bench.shared(module).await.unwrap();
    }
    bench.clock.advance(DAY);
    bench.cache.result(&view(), b.key()).await.unwrap();
    upkeep_for(&bench, Plan::default(), Duration::from_secs(120)).await;
    kill(bench, scratch.path()).await;
    let bounds = Bounds { max_size: Some(202_000), ..Bounds::default() };
    let bench = Bench::on_disk_within(scratch.path(), bounds, FakeDisk::empty());
    assert!(matches!(bench.shared(&c).await, Err(CacheError::NoRoom { .. })));
    assert_eq!(bench.cache.results().await.unwrap(), 2, "what would free nothing does not go");
    bench.clock.advance(PIN);
    bench.shared(&c).await.unwrap();
    assert!(!bench.has_bytes_of(&a).await, "when it was used was not forgotten");
    assert!(bench.answers(&b).await);
}

#[tokio::test]
async fn what_nobody_names_goes_first() {
    let scratch = Scratch::new();
    let bench = with_room_for(scratch.path(), 3);
    let [a, b] = ["a", "b"].map(module);
    bench.shared(&a).await.unwrap();
    bench.upload(&vec![1; 200_000]).await.unwrap();
    bench.clock.advance(PIN);
    bench.shared(&b).await.unwrap();
    assert!(bench.answers(&a).await);
    assert_eq!((bench.cache.counters().evicted_results, bench.cache.counters().swept_blobs), (0, 1));
}

#[tokio::test]
async fn what_was_moved_aside_goes_before_anything() {
    let scratch = Scratch::new();
    let bench = with_room_for(scratch.path(), 2);
    let [a, b] = ["a", "b"].map(module);
    bench.shared(&a).await.unwrap();
    fs_err::write(scratch.path().join("damaged/old.0"), vec![0; 50_000]).unwrap();
    kill(bench, scratch.path()).await;
    let bench = with_room_for(scratch.path(), 2);
    bench.shared(&b).await.unwrap();
    assert_eq!(bench.cache.usage().damaged_bytes, 0);
    assert!(bench.answers(&a).await);
}

#[tokio::test]
async fn what_is_marked_to_be_kept_stays() {
    let scratch = Scratch::new();
    let bench = with_room_for(scratch.path(), 2);
    let [a, b, c] = ["a", "b", "c"].map(module);
    for module in [&a, &b] {
        bench.shared(module).await.unwrap();
        bench.clock.advance(PIN);
    }
    bench.cache.keep(&scope(), a.key(), true).await.unwrap();
    bench.shared(&c).await.unwrap();
    assert!(bench.answers(&a).await && !bench.has_bytes_of(&b).await);
    bench.clock.advance(PIN);
    bench.cache.keep(&scope(), c.key(), true).await.unwrap();
    assert!(matches!(bench.shared(&b).await, Err(CacheError::NoRoom { .. })));
    bench.cache.keep(&scope(), a.key(), false).await.unwrap();
    bench.clock.advance(Duration::from_secs(5));
    bench.shared(&b).await.unwrap();
    assert!(bench.answers(&c).await && !bench.has_bytes_of(&a).await);
}

#[tokio::test]
async fn a_download_that_began_goes_on_to_its_end() {
    // Large enough that most of it is still to come when its name goes.
    const LARGE: usize = 900_000;
    for range in [None, Some(10..800_000)] {
        let scratch = Scratch::new();
        let bench = with_room_for(scratch.path(), 10);
        let [mut a, mut b] = ["a", "b"].map(module);
        (a.outputs[0], b.outputs[0]) = (vec![b'a'; LARGE], vec![b'b'; LARGE]);
        bench.shared(&a).await.unwrap();
        let blob = bench.cache.open_blob(&view(), Digest::of(&a.outputs[0])).await.unwrap().unwrap();
        let stream = blob.stream(range.clone()).await.unwrap();
        bench.clock.advance(PIN);
        bench.shared(&b).await.unwrap();
        assert!(!bench.has_bytes_of(&a).await);
        assert_eq!(bench.cache.usage().unlinked_open_bytes, LARGE as u64);
        let pieces: Vec<_> = futures::StreamExt::collect(stream).await;
        let read: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.unwrap().to_vec()).collect();
        let (from, to) =
            range.map_or((0, a.outputs[0].len()), |range| (range.start as usize, range.end as usize));
        assert_eq!(read, a.outputs[0][from..to.min(a.outputs[0].len())]);
        assert_eq!(bench.cache.usage().unlinked_open_bytes, 0);
        assert_eq!(bench.cache.counters().damaged_blobs, 0);
    }
}

#[tokio::test]
async fn a_scope_over_its_quota_evicts_its_own() {
    let scratch = Scratch::new();
    let small: Scope = "small".parse().unwrap();
    let bounds = Bounds { quotas: [(small.clone(), 202_000)].into(), ..Bounds::default() };
    let bench = Bench::on_disk_within(scratch.path(), bounds, FakeDisk::empty());
    bench.clock.advance(PIN);
    let [a, b, c] = ["a", "b", "c"].map(module);
    let share = async |scope: &Scope, module: &Module| {
        let mut upload = bench
            .cache
            .begin_upload(&writing_in(scope), Digest::of(&module.outputs[0]), module.outputs[0].len() as u64)
            .await?;
        upload.write(module.outputs[0].clone().into()).await?;
        upload.finish().await?;
        bench
            .cache
            .publish(&writing_in(scope), module.key(), module.publication(module.unit().into(), None))
            .await
    };
    for module in [&a, &b] {
        share(&scope(), module).await.unwrap();
        share(&small, module).await.unwrap();
        bench.clock.advance(PIN);
    }
    share(&small, &c).await.unwrap();
    let found = async |scope: &Scope, module: &Module| {
        bench.cache.result(&view_of(scope), module.key()).await.unwrap().is_some()
    };
    assert!(!found(&small, &a).await && found(&small, &b).await && found(&small, &c).await);
    assert!(found(&scope(), &a).await, "another scope still has it, and its bytes");
    assert_eq!(bench.read(Digest::of(&a.outputs[0])).await.unwrap().as_ref(), Some(&a.outputs[0]));
    let usage = bench.cache.usage();
    assert!(usage.scopes[&small].bytes <= 202_000, "{usage:?}");
}

#[tokio::test]
async fn a_disk_that_others_fill_does_not_cost_the_whole_store() {
    let (scratch, disk) = (Scratch::new(), FakeDisk::empty());
    let bounds = Bounds { keep_free: 1_000_000, ..Bounds::default() };
    let bench = Bench::on_disk_within(scratch.path(), bounds, disk.clone());
    bench.clock.advance(PIN);
    let modules: Vec<_> = (0..40).map(|n| module(&format!("m{n}"))).collect();
    for module in &modules {
        bench.shared(module).await.unwrap();
    }
    bench.clock.advance(PIN);
    // Whatever goes, the disk stays as full as it is.
    disk.has(1_000_100);
    for _ in 0..50 {
        assert!(matches!(bench.upload(&[7; 1000]).await, Err(CacheError::NoRoom { .. })));
        bench.clock.advance(Duration::from_secs(5));
    }
    assert!(bench.cache.results().await.unwrap() >= 8, "{:?}", bench.cache.counters());
    disk.has(u64::MAX);
    bench.upload(&[7; 1000]).await.unwrap();
}

/// Runs the upkeep for so long, in steps that it can follow.
async fn upkeep_for(bench: &Bench, plan: Plan, time: Duration) {
    let task = tokio::spawn(upkeep::run(bench.cache.clone(), plan));
    let step = Duration::from_secs(4);
    for _ in 0..time.as_secs().div_ceil(step.as_secs()) {
        settle().await;
        bench.clock.advance(step);
        // Each step ends in a shard's sweep, which takes other threads.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    task.abort();
    let _ = task.await;
}

#[tokio::test]
async fn the_upkeep_evicts_before_the_bound_is_reached() {
    let scratch = Scratch::new();
    let bench = with_room_for(scratch.path(), 20);
    let modules: Vec<_> = (0..19).map(|n| module(&format!("m{n}"))).collect();
    for module in &modules {
        bench.shared(module).await.unwrap();
        bench.clock.advance(Duration::from_secs(60));
    }
    bench.upload(&vec![9; 60_000]).await.unwrap();
    bench.clock.advance(PIN);
    let task = tokio::spawn(upkeep::run(bench.cache.clone(), Plan::default()));
    eventually("there is room ahead", async || {
        bench.clock.advance(Duration::from_secs(1));
        bench.cache.usage().room(&Bound::Size) >= 202_000
    })
    .await;
    task.abort();
    assert!(!bench.answers(&modules[0]).await && bench.answers(&modules[18]).await);
}

#[tokio::test]
async fn what_nobody_used_for_the_maximal_age_goes() {
    let bench = Bench::in_memory_with(Limits::default());
    bench.clock.advance(PIN);
    let [a, b] = ["a", "b"].map(module);
    for module in [&a, &b] {
        bench.shared(module).await.unwrap();
    }
    bench.clock.advance(29 * DAY);
    assert!(bench.answers(&b).await);
    bench.clock.advance(DAY);
    upkeep_for(&bench, Plan { max_age: Some(30 * DAY), ..Plan::default() }, Duration::from_secs(1200)).await;
    assert!(!bench.has_bytes_of(&a).await && bench.answers(&b).await);
    assert_eq!(bench.cache.counters().aged_results, 1);
}

#[tokio::test]
async fn uploads_do_not_wait_for_an_eviction_that_takes_long() {
    let scratch = Scratch::new();
    let bench = with_room_for(scratch.path(), 1);
    bench.shared(&module("a")).await.unwrap();
    bench.clock.advance(PIN);
    let held = bench.cache.pause_removals().await;
    let uploading = tokio::spawn({
        let cache = bench.cache.clone();
        async move { cache.begin_upload(&writing(), Digest::of("b"), 50_000).await.map(drop) }
    });
    settle().await;
    assert!(!uploading.is_finished());
    bench.clock.advance(Duration::from_secs(2));
    let outcome = uploading.await.unwrap();
    assert!(matches!(outcome, Err(CacheError::NoRoom { .. })), "{outcome:?}");
    drop(held);
}
