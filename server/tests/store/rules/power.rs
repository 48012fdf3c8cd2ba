//! The power fails while the server writes, at any step, also while it recovers from that: whatever it acknowledged is there
//! and verifies, nothing that is there is wrong, and it goes on; also where the index is lost with it, and made again.
//!
//! Each store here is one that such a cut could have left: `disk::image` has the model. `PCMCACHE_TEST_SEED` has the same ones
//! again; `PCMCACHE_TEST_IMAGES` is how many there are.

use std::path::Path;
use std::sync::Arc;

use pcmcache_server::clock::ManualClock;
use pcmcache_server::embedded::{Embedded, rebuild_index};
use pcmcache_shared::disk::image::Disk;
use pcmcache_shared::disk::record::{self, Change, Entry, Recorder};
use pcmcache_shared::disk::watch;
use pcmcache_shared::{ActionKey, Digest};

use crate::bench::{Bench, Chance, Module, Scratch, assert_sound, view};

/// Images in the gate, and of how many it is one where the power fails during a recovery, or that loses its index.
const IMAGES: u64 = 300;
const DURING_RECOVERY: u64 = 3;
const WITHOUT_INDEX: u64 = 3;
/// Modules that are published at the same time.
const AT_ONCE: usize = 6;

/// A module of its own size: some blobs wait in memory, some do not.
fn module(name: String, bytes: usize) -> Module {
    let object = name.bytes().cycle().take(bytes).collect();
    let mut module = Module::new(Box::leak(name.into_boxed_str()));
    module.outputs[1] = object;
    module
}

/// What was written while a server did all that servers do.
struct Recorded {
    before: Disk,
    entries: Vec<Entry>,
    modules: Vec<Module>,
}

/// In batches of at most so many modules.
async fn a_day(chance: &mut Chance, at_once: usize) -> Recorded {
    let (scratch, logs) = (Scratch::in_memory(), Scratch::in_memory());
    let before = Disk::of(scratch.path()).unwrap();
    let log = logs.path().join("log");
    let recorder = Arc::new(Recorder::append_to(&log).unwrap());
    let watching = watch::below(scratch.path(), recorder.clone());
    let mut modules = Vec::new();
    for day in 0..2 {
        let bench = Bench::on_disk(scratch.path());
        for batch in 0..4 {
            let batch: Vec<_> = (0..1 + chance.pick(at_once))
                .map(|n| module(format!("{day}.{batch}.{n}"), [90, 5_000, 70_000, 150_000][chance.pick(4)]))
                .collect();
            let published = batch.iter().map(|module| async {
                let held = bench.acquire(module.request("a")).await.granted().await;
                bench.share(module, Some(&held)).await.unwrap();
                recorder.mark(module.key().to_string()).unwrap();
            });
            futures::future::join_all(published).await;
            modules.extend(batch);
            if chance.pick(3) == 0 {
                bench.store().rebase_journal().await.unwrap();
            }
        }
    }
    drop(watching);
    Recorded { before, entries: record::read(&log).unwrap(), modules }
}

/// Opens what a power cut left. All that was acknowledged is there, and all that is there is right.
async fn recover(directory: &Path, acknowledged: &[ActionKey], modules: &[Module]) {
    let bench = Bench::on_disk(directory);
    for module in modules {
        let found = bench.cache.result(&view(), module.key()).await.unwrap();
        if found.is_none() {
            assert!(!acknowledged.contains(&module.key()), "{} was acknowledged and is gone", module.name);
            continue;
        }
        for bytes in &module.outputs {
            let read = bench.read(Digest::of(bytes)).await.unwrap();
            assert!(read.as_ref() == Some(bytes), "{}: other bytes, or none", module.name);
        }
        let recipe = bench.read(module.key().recipe()).await.unwrap();
        assert!(recipe.is_some(), "{}: no recipe", module.name);
    }
    let next = module("the next one".to_owned(), 70_000);
    bench.share(&next, None).await.unwrap();
    drop(bench);
    assert_sound(directory).await;
}

fn acknowledged(entries: &[Entry]) -> Vec<ActionKey> {
    let marks = entries.iter().filter_map(|entry| match &entry.change {
        Change::Mark(key) => key.parse().ok(),
        _ => None,
    });
    marks.collect()
}

fn after(before: &Disk, entries: &[Entry]) -> Disk {
    let mut disk = before.clone();
    entries.iter().for_each(|entry| disk.follow(entry));
    disk
}

/// The power took the index along; it is made again from the journal.
fn lose_index(directory: &Path) {
    let _ = fs_err::remove_file(directory.join("index.redb"));
    rebuild_index(directory, &ManualClock::default()).unwrap();
}

/// What the power leaves of a recovery that it fails during.
async fn cut_again(directory: &Path, chance: &mut Chance) -> Scratch {
    let (again, logs) = (Scratch::in_memory(), Scratch::in_memory());
    let before = Disk::of(directory).unwrap();
    let log = logs.path().join("log");
    {
        let _watching = watch::below(directory, Arc::new(Recorder::append_to(&log).unwrap()));
        drop(Embedded::open(directory, Arc::new(ManualClock::default())).unwrap());
    }
    let entries = record::read(&log).unwrap();
    let end = chance.pick(entries.len() + 1);
    after(&before, &entries[..end]).cut_to(again.path(), &mut |below| chance.pick(below)).unwrap();
    again
}

#[tokio::test]
async fn whatever_was_acknowledged_survives_a_power_cut_at_any_step() {
    let images =
        std::env::var("PCMCACHE_TEST_IMAGES").ok().and_then(|images| images.parse().ok()).unwrap_or(IMAGES);
    let mut chance = Chance::new("power");
    let mut recorded = a_day(&mut chance, AT_ONCE).await;
    let (mut lost, mut during_recovery) = (0, 0);
    for number in 0..images {
        if number > 0 && number % 100 == 0 {
            recorded = a_day(&mut chance, AT_ONCE).await;
        }
        let Recorded { before, entries, modules } = &recorded;
        let end = chance.pick(entries.len() + 1);
        let disk = after(before, &entries[..end]);
        lost += disk.uncertain();
        let mut image = Scratch::in_memory();
        disk.cut_to(image.path(), &mut |below| chance.pick(below)).unwrap();
        let last = end.checked_sub(1).map_or("the start", |last| entries[last].point.as_str());
        println!("image {number}: behind {last}, step {end} of {}", entries.len());
        if number % DURING_RECOVERY == 0 {
            image = cut_again(image.path(), &mut chance).await;
            during_recovery += 1;
        }
        let acknowledged = acknowledged(&entries[..end]);
        if number % WITHOUT_INDEX == 1 && !acknowledged.is_empty() {
            lose_index(image.path());
        }
        recover(image.path(), &acknowledged, modules).await;
    }
    println!("{images} power cuts, {during_recovery} of them during recovery, {lost} changes uncertain");
    println!("tally: power-cuts={images} power-cuts-during-recovery={during_recovery}");
    assert!(images < 100 || lost > 100, "nothing was ever at stake: {lost}");
}

/// Of all that was not synced nothing reaches the disk, and no more is synced than must be: what is done for many at once would
/// make up for what was left out.
#[tokio::test]
async fn whatever_was_acknowledged_was_synced() {
    let Recorded { before, entries, modules } = a_day(&mut Chance::new("synced"), 1).await;
    let marks = (0..entries.len()).filter(|at| matches!(entries[*at].change, Change::Mark(_)));
    for (number, mark) in marks.enumerate() {
        let image = Scratch::in_memory();
        after(&before, &entries[..=mark]).cut_to(image.path(), &mut |_| 0).unwrap();
        if number % 2 == 1 {
            lose_index(image.path());
        }
        recover(image.path(), &acknowledged(&entries[..=mark]), &modules).await;
    }
}
