//! An index that is lost is made again from what is on the disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pcmcache_server::clock::ManualClock;
use pcmcache_server::embedded::{Embedded, OpenError, Rebuilt, rebuild_index};
use pcmcache_server::results::{Publication, Results as _, StoredResult};
use pcmcache_server::space::Bounds;
use pcmcache_shared::{ActionKey, Digest, Scope, Writer};

use super::restart::kill;
use crate::bench::{Bench, Chance, FakeDisk, Module, Scratch, assert_sound, scope, view, writing_in};

const PIN: Duration = Duration::from_secs(600);

fn open(directory: &Path) -> Arc<Embedded> {
    Embedded::open(directory, Arc::new(ManualClock::default())).unwrap()
}

fn rebuild(directory: &Path) -> Rebuilt {
    rebuild_index(directory, &ManualClock::default()).unwrap()
}

fn lose_index(directory: &Path) {
    fs_err::remove_file(directory.join("index.redb")).unwrap();
    match Embedded::open(directory, Arc::new(ManualClock::default())) {
        Err(error @ OpenError::NoIndex(_)) => assert!(error.to_string().contains("rebuild-index"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert!(!directory.join("index.redb").exists(), "an empty one would hide that it was lost");
}

fn module(name: String) -> Module {
    let mut module = Module::new(Box::leak(name.into_boxed_str()));
    module.outputs[1] = module.name.repeat(3000).into_bytes();
    module
}

#[tokio::test]
async fn every_acknowledged_result_answers_again_in_its_scope_and_under_its_writers() {
    let scratch = Scratch::new();
    let mut chance = Chance::new("every_acknowledged_result_answers_again");
    let scopes: [Scope; 3] = ["main", "pr-17", "nightly"].map(|name| name.parse().unwrap());
    let mut acknowledged = BTreeMap::<(Scope, ActionKey), StoredResult>::new();
    // Several processes, so that there are several segments.
    for _ in 0..3 {
        let bench = Bench::on_disk(scratch.path());
        for _ in 0..25 {
            let scope = &scopes[chance.below(3) as usize];
            let module = module(format!("m{}", chance.below(20)))
                .over(["now", "later", "last"][chance.below(3) as usize])
                .reading([&["/a.h"][..], &["/a.h", "/b.h"]][chance.below(2) as usize]);
            for bytes in &module.outputs {
                let (writing, length) = (writing_in(scope), bytes.len() as u64);
                let mut upload = bench.cache.begin_upload(&writing, Digest::of(bytes), length).await.unwrap();
                upload.write(bytes.clone().into()).await.unwrap();
                upload.finish().await.unwrap();
            }
            let request = module.publication(module.unit().into(), None);
            bench.cache.publish(&writing_in(scope), module.key(), request).await.unwrap();
            let stored = bench.store().get(scope, module.key()).await.unwrap().unwrap();
            acknowledged.insert((scope.clone(), module.key()), stored);
        }
        kill(bench, scratch.path()).await;
    }
    let before = open(scratch.path());
    let mut sets = BTreeMap::new();
    for ((scope, _), stored) in &acknowledged {
        sets.insert((scope.clone(), stored.unit), before.sets(scope, stored.unit).await.unwrap());
    }
    drop(before);
    lose_index(scratch.path());
    let rebuilt = rebuild(scratch.path());
    assert_eq!(rebuilt, Rebuilt { results: acknowledged.len() as u64, left_out: 0, broken: 0 });
    assert_sound(scratch.path()).await;
    let after = open(scratch.path());
    for ((scope, action), stored) in &acknowledged {
        assert_eq!(after.get(scope, *action).await.unwrap().as_ref(), Some(stored));
    }
    for ((scope, unit), rows) in &sets {
        assert_eq!(after.sets(scope, *unit).await.unwrap(), *rows, "{unit} in {scope}");
    }
    drop(after);
    // Once more, from a base and what came since.
    let bench = Bench::on_disk(scratch.path());
    bench.share(&module("one more".to_owned()), None).await.unwrap();
    kill(bench, scratch.path()).await;
    lose_index(scratch.path());
    assert_eq!(rebuild(scratch.path()).results, acknowledged.len() as u64 + 1);
    assert_sound(scratch.path()).await;
}

#[tokio::test]
async fn who_published_what_is_not_forgotten() {
    let scratch = Scratch::new();
    let module = Module::new("m");
    let writers = ["t-1", "s-2"].map(|name| name.parse::<Writer>().unwrap());
    let stored = StoredResult {
        result: module.result(),
        unit: module.unit(),
        set: module.set().digest(),
        writers: writers.to_vec(),
        published_s: 77,
    };
    let bench = Bench::on_disk(scratch.path());
    bench.share(&module, None).await.unwrap();
    let lost = bench.store().get(&scope(), module.key()).await.unwrap();
    // It takes the place of another, as one does whose blobs were lost.
    let publication =
        Publication { action: module.key(), stored: stored.clone(), instead_of: lost, ends: None };
    bench.store().create(&scope(), publication).await.unwrap();
    kill(bench, scratch.path()).await;
    lose_index(scratch.path());
    assert_eq!(rebuild(scratch.path()).results, 1);
    assert_eq!(open(scratch.path()).get(&scope(), module.key()).await.unwrap(), Some(stored));
    assert_sound(scratch.path()).await;
}

#[tokio::test]
async fn what_was_evicted_stays_gone_and_what_was_kept_is_kept() {
    let scratch = Scratch::new();
    let bounds = Bounds { max_size: Some(1_600_000), ..Bounds::default() };
    let bench = Bench::on_disk_within(scratch.path(), bounds, FakeDisk::empty());
    bench.clock.advance(PIN);
    let [a, b, c] = ["a", "b", "c"].map(|name| {
        let mut module = module(name.to_owned());
        module.outputs[1] = name.repeat(700_000).into_bytes();
        module
    });
    for module in [&a, &b] {
        bench.share(module, None).await.unwrap();
        bench.clock.advance(PIN);
    }
    bench.cache.keep(&scope(), a.key(), true).await.unwrap();
    bench.share(&c, None).await.unwrap();
    bench.store().rebase_journal().await.unwrap();
    kill(bench, scratch.path()).await;
    lose_index(scratch.path());
    assert_eq!(rebuild(scratch.path()).results, 2);
    let bounds = Bounds { max_size: Some(1_600_000), ..Bounds::default() };
    let bench = Bench::on_disk_within(scratch.path(), bounds, FakeDisk::empty());
    assert_eq!(bench.cache.result(&view(), b.key()).await.unwrap(), None);
    bench.clock.advance(PIN);
    bench.share(&b, None).await.unwrap();
    assert!(bench.cache.result(&view(), a.key()).await.unwrap().is_some());
    assert_eq!(bench.cache.result(&view(), c.key()).await.unwrap(), None);
}

#[tokio::test]
async fn an_index_that_cannot_be_opened_is_made_again_and_the_old_one_stays() {
    let scratch = Scratch::new();
    let bench = Bench::on_disk(scratch.path());
    bench.share(&Module::new("m"), None).await.unwrap();
    kill(bench, scratch.path()).await;
    let index = scratch.path().join("index.redb");
    fs_err::write(&index, "not an index at all").unwrap();
    let error = Embedded::open(scratch.path(), Arc::new(ManualClock::default())).unwrap_err();
    assert!(error.to_string().contains("rebuild-index"), "{error}");
    assert_eq!(rebuild(scratch.path()).results, 1);
    assert_eq!(fs_err::read(scratch.path().join("index.redb.old")).unwrap(), b"not an index at all");
    assert_sound(scratch.path()).await;
}

#[tokio::test]
async fn a_rebuild_needs_the_store_for_itself() {
    let scratch = Scratch::new();
    let _open = open(scratch.path());
    let refused = rebuild_index(scratch.path(), &ManualClock::default()).unwrap_err();
    assert!(matches!(refused, OpenError::InUse(_)), "{refused}");
}
