//! A server that is killed while it keeps its store: at whatever step, what is left is sound, and it goes on.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pcmcache_server::clock::ManualClock;
use pcmcache_server::embedded::{Backup, Embedded, OpenError, rebuild_index, restore};
use pcmcache_server::space::Bounds;
use pcmcache_shared::Digest;

use super::kill::{DIRECTORY, server};
use super::restart::kill;
use crate::bench::{Bench, FakeDisk, Module, Scratch, assert_sound, view};

const PIN: Duration = Duration::from_secs(600);
/// As many modules as do not fit beside the first.
const NEWEST: usize = 8;

fn bounded(directory: &Path) -> Bench {
    let bounds = Bounds { max_size: Some(3_000_000), ..Bounds::default() };
    let bench = Bench::on_disk_within(directory, bounds, FakeDisk::empty());
    bench.clock.advance(PIN);
    bench
}

fn module(n: usize) -> Module {
    let mut module = Module::new(Box::leak(format!("m{n}").into_boxed_str()));
    module.outputs[1] = format!("object {n}").repeat(50_000).into_bytes();
    module
}

fn directory() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(PathBuf::from)
}

/// Runs one of the tests below in a process of its own, and sees it killed at the step.
async fn killed_at(step: &str, test: &str, directory: &Path) {
    let mut server = server(&format!("rules::killed_upkeep::{test}"), directory);
    server.env("PCMCACHE_FAILPOINT", format!("{step}=kill"));
    let status = tokio::task::spawn_blocking(move || server.status().unwrap()).await.unwrap();
    assert_eq!(status.signal(), Some(9), "{step}: {status}");
}

/// What is killed while it evicts.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it is run, and killed, by the test below"]
async fn evictor() {
    let Some(directory) = directory() else { return };
    let bench = bounded(&directory);
    for n in 0..12 {
        bench.share(&module(n), None).await.unwrap();
        bench.clock.advance(PIN);
    }
    panic!("it was not killed");
}

#[tokio::test]
async fn killed_in_the_midst_of_an_eviction_the_store_is_sound() {
    for step in ["evict.results", "remove.hidden", "evict.blobs"] {
        let scratch = Scratch::new();
        killed_at(step, "evictor", scratch.path()).await;
        let checked = assert_sound(scratch.path()).await;
        assert!((3..12).contains(&checked.results), "{step}: {checked:?}");
        let bench = bounded(scratch.path());
        for n in 0..12 {
            let found = bench.cache.result(&view(), module(n).key()).await.unwrap();
            for output in found.iter().flat_map(|found| &found.result.outputs) {
                assert!(bench.read(output.digest).await.unwrap().is_some(), "{step}: {n}");
            }
        }
        assert!(bench.cache.usage().total() <= 3_000_000);
        bench.clock.advance(PIN);
        bench.share(&module(99), None).await.unwrap();
        assert!(bench.cache.usage().total() <= 3_000_000, "{step}: {:?}", bench.cache.usage());
    }
}

/// What is killed while it moves a damaged blob aside.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it is run, and killed, by the test below"]
async fn condemner() {
    let Some(directory) = directory() else { return };
    let (bench, module) = (bounded(&directory), module(0));
    bench.share(&module, None).await.unwrap();
    let name = Digest::of(&module.outputs[1]).to_string();
    fs_err::write(directory.join("blobs").join(&name[..2]).join(&name), "changed").unwrap();
    let _ = bench.read(Digest::of(&module.outputs[1])).await;
    panic!("it was not killed");
}

#[tokio::test]
async fn killed_while_a_blob_is_moved_aside_its_results_wait_for_it() {
    let scratch = Scratch::new();
    killed_at("condemn.moved", "condemner", scratch.path()).await;
    assert_eq!(assert_sound(scratch.path()).await.notes.len(), 2);
    let bench = bounded(scratch.path());
    assert_eq!(bench.cache.results().await.unwrap(), 0);
    bench.share(&module(0), None).await.unwrap();
    assert_eq!(bench.cache.results().await.unwrap(), 1);
}

/// What is killed while it makes the index again.
#[test]
#[ignore = "it is run, and killed, by the test below"]
fn rebuilder() {
    let Some(directory) = directory() else { return };
    rebuild_index(&directory, &ManualClock::default()).unwrap();
    panic!("it was not killed");
}

#[tokio::test]
async fn killed_in_the_midst_of_a_rebuild_it_can_be_begun_anew() {
    for (step, had_index) in [("rebuild.filled", true), ("rebuild.filled", false), ("rebuild.moved", true)] {
        let scratch = Scratch::new();
        let bench = bounded(scratch.path());
        bench.share(&module(0), None).await.unwrap();
        kill(bench, scratch.path()).await;
        if !had_index {
            fs_err::remove_file(scratch.path().join("index.redb")).unwrap();
        }
        killed_at(step, "rebuilder", scratch.path()).await;
        if step == "rebuild.moved" || !had_index {
            let refused = Embedded::open(scratch.path(), Arc::new(ManualClock::default()));
            assert!(matches!(refused, Err(OpenError::NoIndex(_))), "{step}: {refused:?}");
        } else {
            assert_sound(scratch.path()).await;
        }
        assert_eq!(rebuild_index(scratch.path(), &ManualClock::default()).unwrap().results, 1, "{step}");
        assert_sound(scratch.path()).await;
        let found = bounded(scratch.path()).cache.result(&view(), module(0).key()).await.unwrap();
        assert!(found.is_some(), "{step}");
    }
}

/// What is killed while it backs up a store that has changed since its last backup.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it is run, and killed, by the test below"]
async fn backer() {
    let Some(directory) = directory() else { return };
    let bench = bounded(&directory.join("store"));
    back_up(&bench, &directory.join("backup")).await;
    panic!("it was not killed");
}

async fn back_up(bench: &Bench, to: &Path) {
    let backup = Backup::begin(to, true).unwrap();
    let backup = bench.store().begin_backup(backup).await.unwrap();
    let _paused = bench.cache.pause_removals().await;
    bench.store().finish_backup(backup).await.unwrap();
}

#[tokio::test]
async fn killed_in_the_midst_of_a_backup_there_is_the_earlier_or_the_new_one() {
    for step in ["backup.dumped", "backup.written"] {
        let scratch = Scratch::new();
        let [store, backup, other] = ["store", "backup", "other"].map(|name| scratch.path().join(name));
        let bench = bounded(&store);
        bench.share(&module(0), None).await.unwrap();
        back_up(&bench, &backup).await;
        // The first goes, so that the earlier backup has what the new one has not.
        for n in 1..=NEWEST {
            bench.clock.advance(PIN);
            bench.share(&module(n), None).await.unwrap();
        }
        assert_eq!(bench.cache.result(&view(), module(0).key()).await.unwrap(), None);
        let kept = bench.cache.results().await.unwrap();
        kill(bench, &store).await;
        killed_at(step, "backer", scratch.path()).await;
        let restored = restore(&backup, &other, &ManualClock::default()).unwrap();
        let results = if step == "backup.dumped" { 1 } else { kept };
        assert_eq!((restored.rebuilt.results, restored.rebuilt.left_out), (results, 0), "{step}");
        assert_sound(&other).await;
        assert_sound(&store).await;
        // What is there of it may not have reached the disk; so it is read.
        let half = backup.join("blobs");
        let newest = &module(NEWEST).outputs[1];
        let name = Digest::of(newest).to_string();
        fs_err::write(half.join(&name[..2]).join(&name), vec![0; newest.len()]).unwrap();
        let bench = bounded(&store);
        back_up(&bench, &backup).await;
        fs_err::remove_dir_all(&other).unwrap();
        assert_eq!(
            restore(&backup, &other, &ManualClock::default()).unwrap().rebuilt.results,
            kept,
            "{step}"
        );
        assert_sound(&other).await;
    }
}

/// What is killed while it restores.
#[test]
#[ignore = "it is run, and killed, by the test below"]
fn restorer() {
    let Some(directory) = directory() else { return };
    restore(&directory.join("backup"), &directory.join("other"), &ManualClock::default()).unwrap();
    panic!("it was not killed");
}

#[tokio::test]
async fn killed_in_the_midst_of_a_restore_it_is_begun_anew() {
    for step in ["restore.linked", "rebuild.filled", "rebuild.moved", "restore.rebuilt"] {
        let scratch = Scratch::new();
        let [store, backup, other] = ["store", "backup", "other"].map(|name| scratch.path().join(name));
        let bench = bounded(&store);
        bench.share(&module(0), None).await.unwrap();
        back_up(&bench, &backup).await;
        killed_at(step, "restorer", scratch.path()).await;
        let refused = Embedded::open(&other, Arc::new(ManualClock::default()));
        assert!(matches!(refused, Err(OpenError::HalfRestored(_))), "{step}: {refused:?}");
        assert_eq!(restore(&backup, &other, &ManualClock::default()).unwrap().rebuilt.results, 1, "{step}");
        assert_sound(&other).await;
    }
}
