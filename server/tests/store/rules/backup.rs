//! Backups of a store that is in use, and stores made out of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pcmcache_server::clock::ManualClock;
use pcmcache_server::embedded::{BackedUp, Backup, Embedded, OpenError, Restored, restore};
use pcmcache_server::results::Results as _;
use pcmcache_server::space::Bounds;
use pcmcache_shared::{ActionKey, Digest};

use super::restart::kill;
use crate::bench::{Bench, FakeDisk, Module, Scratch, assert_sound, scope, view};

const PIN: Duration = Duration::from_secs(600);

fn module(name: &str) -> Module {
    let mut module = Module::new(Box::leak(name.to_owned().into_boxed_str()));
    module.outputs[1] = name.repeat(20_000).into_bytes();
    module
}

/// What the command does: most of it while others go on, the rest while nothing is removed.
async fn back_up(bench: &Bench, to: &Path, copies: bool) -> BackedUp {
    let backup = Backup::begin(to, copies).unwrap();
    let backup = bench.store().begin_backup(backup).await.unwrap();
    let _paused = bench.cache.pause_removals().await;
    bench.store().finish_backup(backup).await.unwrap()
}

fn restored(from: &Path, to: &Path) -> Restored {
    restore(from, to, &ManualClock::default()).unwrap()
}

fn place_of(directory: &Path, digest: Digest) -> PathBuf {
    let name = digest.to_string();
    directory.join("blobs").join(&name[..2]).join(name)
}

#[tokio::test]
async fn what_is_restored_answers_like_what_was_backed_up() {
    for copies in [false, true] {
        let scratch = Scratch::new();
        let [store, backup, other] = ["store", "backup", "other"].map(|name| scratch.path().join(name));
        let bench = Bench::on_disk(&store);
        let modules: Vec<_> = (0..10).map(|n| module(&format!("m{n}"))).collect();
        for module in &modules {
            bench.share(module, None).await.unwrap();
        }
        bench.upload(b"nobody's yet").await.unwrap();
        let done = back_up(&bench, &backup, copies).await;
        assert_eq!((done.results, done.new_blobs, done.damaged.len()), (10, done.blobs, 0), "{done:?}");
        // Whatever happens to the store is nothing to the backup.
        bench.share(&module("later"), None).await.unwrap();
        kill(bench, &store).await;
        fs_err::remove_dir_all(&store).unwrap();
        let came = restored(&backup, &other);
        assert_eq!((came.rebuilt.results, came.rebuilt.left_out, came.blobs), (10, 0, done.blobs));
        assert_sound(&other).await;
        let bench = Bench::on_disk(&other);
        for module in &modules {
            let found = bench.cache.result(&view(), module.key()).await.unwrap().unwrap();
            assert_eq!(found.result, module.result());
            for bytes in &module.outputs {
                assert_eq!(bench.read(Digest::of(bytes)).await.unwrap().as_ref(), Some(bytes));
            }
        }
        assert_eq!(bench.read(Digest::of("nobody's yet")).await.unwrap().unwrap(), b"nobody's yet");
        assert_eq!(bench.cache.result(&view(), module("later").key()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_later_backup_takes_what_is_new_and_drops_what_is_gone() {
    let scratch = Scratch::new();
    let [store, backup, other] = ["store", "backup", "other"].map(|name| scratch.path().join(name));
    let bounds = Bounds { max_size: Some(250_000), ..Bounds::default() };
    let bench = Bench::on_disk_within(&store, bounds, FakeDisk::empty());
    bench.clock.advance(PIN);
    let [a, b, c] = ["aaa", "bbb", "ccc"].map(module);
    for module in [&a, &b, &c] {
        bench.share(module, None).await.unwrap();
        bench.clock.advance(PIN);
    }
    let first = back_up(&bench, &backup, true).await;
    bench.share(&module("ddddd"), None).await.unwrap();
    assert_eq!(bench.cache.result(&view(), a.key()).await.unwrap(), None, "it made room");
    let second = back_up(&bench, &backup, true).await;
    assert_eq!((first.results, second.results), (3, 3));
    // Its two outputs and its recipe; the set was there.
    assert_eq!(second.new_blobs, 3, "{second:?}");
    assert!(!place_of(&backup, Digest::of(&a.outputs[1])).exists());
    kill(bench, &store).await;
    assert_eq!(restored(&backup, &other).rebuilt.results, 3);
    assert_sound(&other).await;
}

#[tokio::test]
async fn a_backup_beside_builds_and_evictions_is_whole() {
    let scratch = Scratch::new();
    let [store, backup, other] = ["store", "backup", "other"].map(|name| scratch.path().join(name));
    let bounds = Bounds { max_size: Some(2_500_000), ..Bounds::default() };
    let bench = Bench::on_disk_within(&store, bounds, FakeDisk::empty());
    bench.clock.advance(PIN);
    let before: Vec<_> = (0..8).map(|n| module(&format!("before {n}"))).collect();
    for module in &before {
        bench.share(module, None).await.unwrap();
    }
    let building = async {
        for n in 0..40 {
            bench.clock.advance(Duration::from_secs(60));
            let module = module(&format!("beside {n}"));
            let full = bench.upload(&module.outputs[0]).await.is_err()
                || bench.upload(&module.outputs[1]).await.is_err()
                || bench.publish(&module, None).await.is_err();
            // While the backup holds removals back there may be no room.
            assert!(!full || bench.cache.counters().store_full > 0);
        }
    };
    let (done, ()) = tokio::join!(back_up(&bench, &backup, true), building);
    assert!(done.results > 0, "{done:?}");
    assert!(bench.cache.counters().evicted_results > 0);
    kill(bench, &store).await;
    assert_sound(&store).await;
    let came = restored(&backup, &other);
    assert_eq!((came.rebuilt.results, came.rebuilt.left_out), (done.results, 0));
    assert_sound(&other).await;
}

#[tokio::test]
async fn what_the_store_lost_meanwhile_the_backup_still_has() {
    let scratch = Scratch::new();
    let [store, backup, other] = ["store", "backup", "other"].map(|name| scratch.path().join(name));
    let bench = Bench::on_disk(&store);
    let module = module("m");
    bench.share(&module, None).await.unwrap();
    back_up(&bench, &backup, true).await;
    let digest = Digest::of(&module.outputs[1]);
    fs_err::write(place_of(&store, digest), vec![0; module.outputs[1].len()]).unwrap();
    assert!(bench.read(digest).await.is_err());
    assert_eq!(bench.cache.results().await.unwrap(), 0);
    assert_eq!(back_up(&bench, &backup, true).await.damaged, []);
    kill(bench, &store).await;
    assert_eq!(restored(&backup, &other).rebuilt.results, 1);
    assert_sound(&other).await;
}

#[tokio::test]
async fn what_is_damaged_is_named_and_not_taken() {
    let scratch = Scratch::new();
    let [store, backup, other] = ["store", "backup", "other"].map(|name| scratch.path().join(name));
    let bench = Bench::on_disk(&store);
    let module = module("m");
    bench.share(&module, None).await.unwrap();
    let digest = Digest::of(&module.outputs[1]);
    fs_err::write(place_of(&store, digest), vec![0; module.outputs[1].len()]).unwrap();
    assert_eq!(back_up(&bench, &backup, true).await.damaged, [digest]);
    kill(bench, &store).await;
    let came = restored(&backup, &other);
    assert_eq!((came.rebuilt.results, came.rebuilt.left_out), (0, 1));
    assert_sound(&other).await;
}

#[tokio::test]
async fn nothing_is_written_where_something_else_is() {
    let scratch = Scratch::new();
    let [store, backup, other] = ["store", "backup", "other"].map(|name| scratch.path().join(name));
    let bench = Bench::on_disk(&store);
    bench.share(&module("m"), None).await.unwrap();
    fs_err::create_dir_all(&other).unwrap();
    fs_err::write(other.join("thesis.tex"), "x").unwrap();
    let refused = Backup::begin(&other, false).unwrap_err();
    assert!(refused.to_string().contains("has files in it"), "{refused}");
    back_up(&bench, &backup, false).await;
    for into in [&other, &store] {
        let refused = restore(&backup, into, &ManualClock::default()).unwrap_err();
        assert!(refused.to_string().contains("has files in it"), "{refused}");
    }
    let refused = restore(&other, &scratch.path().join("new"), &ManualClock::default()).unwrap_err();
    assert!(refused.to_string().contains("there is no backup in"), "{refused}");
    let held = Backup::begin(&backup, false).unwrap();
    let refused = Backup::begin(&backup, false).unwrap_err();
    assert!(refused.to_string().contains("another backup"), "{refused}");
    drop(held);
    // A newer server's.
    fs_err::write(backup.join("pcmcache-backup"), "pcmcache backup 2\n").unwrap();
    let refused = restore(&backup, &scratch.path().join("new"), &ManualClock::default()).unwrap_err();
    assert!(refused.to_string().contains("a newer server"), "{refused}");
    assert!(!scratch.path().join("new").exists());
}

#[tokio::test]
async fn a_restore_that_was_not_finished_is_no_store() {
    let scratch = Scratch::new();
    let [store, backup, other] = ["store", "backup", "other"].map(|name| scratch.path().join(name));
    let bench = Bench::on_disk(&store);
    bench.share(&module("m"), None).await.unwrap();
    back_up(&bench, &backup, false).await;
    restored(&backup, &other);
    fs_err::write(other.join("restoring"), "").unwrap();
    let refused = Embedded::open(&other, Arc::new(ManualClock::default())).unwrap_err();
    assert!(matches!(refused, OpenError::HalfRestored(_)), "{refused}");
    assert!(refused.to_string().contains("run it again"), "{refused}");
    restored(&backup, &other);
    let again = Embedded::open(&other, Arc::new(ManualClock::default())).unwrap();
    assert!(again.get(&scope(), module("m").key()).await.unwrap().is_some());
    assert!(again.get(&scope(), ActionKey::of("none")).await.unwrap().is_none());
}
