//! The k-th operation of the disk fails, for k = 1, 2, 3 and so on until none is left to fail: once, or from then on. Whoever was
//! told yes was told the truth, whoever was told no may ask again, and once the disk is well the same server goes on.
//!
//! `PCMCACHE_TEST_FAULTS` is how many of the ways to fail are tried.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pcmcache_server::blobs::Blobs as _;
use pcmcache_server::cache::CacheError;
use pcmcache_server::clock::ManualClock;
use pcmcache_server::embedded::Embedded;
use pcmcache_shared::Digest;
use pcmcache_shared::disk::Op;
use pcmcache_shared::disk::watch::{self, Act, Watcher};
use pcmcache_shared::failpoint::{self, Outcome};
use rustix::fs::fstat;
use rustix::io::Errno;

use crate::bench::{Bench, Module, Scratch, eventually, view};

/// What happens to the operation, and whether to all after it. Who is interrupted tries again, so not for ever.
const FAULTS: [(Outcome, bool); 7] = [
    (Outcome::Failed(Errno::IO), false),
    (Outcome::Failed(Errno::IO), true),
    (Outcome::Failed(Errno::NOSPC), false),
    (Outcome::Failed(Errno::NOSPC), true),
    (Outcome::Failed(Errno::INTR), false),
    (Outcome::Short, false),
    (Outcome::Short, true),
];
/// How long anybody waits for an answer, in seconds of the server.
const PATIENCE_S: u64 = 600;

/// Fails one operation, or all from there on.
#[derive(Debug)]
struct Faulty {
    at: u64,
    for_good: bool,
    outcome: Outcome,
    well: AtomicBool,
    /// What was taken while it was not well, in its order.
    points: Mutex<Vec<String>>,
    /// The files whose sync failed: nobody may rely on them any more.
    doubtful: Mutex<HashSet<u64>>,
    relied_on: Mutex<Vec<String>>,
}

impl Faulty {
    fn new(at: u64, outcome: Outcome, for_good: bool) -> Arc<Self> {
        Arc::new(Self {
            at,
            for_good,
            outcome,
            well: AtomicBool::new(false),
            points: Mutex::default(),
            doubtful: Mutex::default(),
            relied_on: Mutex::default(),
        })
    }

    fn points(&self) -> Vec<String> {
        self.points.lock().unwrap().clone()
    }
}

impl Watcher for Faulty {
    fn step(&self, point: &str, op: &Op<'_>, act: Act<'_>) -> io::Result<usize> {
        let well = self.well.load(Ordering::Relaxed);
        let taken = {
            let mut points = self.points.lock().unwrap();
            points.extend((!well).then(|| point.to_owned()));
            points.len() as u64
        };
        let fails = !well && (taken == self.at || self.for_good && taken > self.at);
        let inode = match op {
            Op::Sync { file, .. } => fstat(file).map(|stat| stat.st_ino).ok(),
            Op::Rename { from, .. } => from.metadata().map(|metadata| metadata.ino()).ok(),
            _ => None,
        };
        if inode.is_some_and(|inode| self.doubtful.lock().unwrap().contains(&inode)) {
            self.relied_on.lock().unwrap().push(point.to_owned());
        }
        if !fails {
            return act(op.bytes());
        }
        if let (Op::Sync { .. }, Some(inode), Outcome::Failed(_)) = (op, inode, self.outcome) {
            self.doubtful.lock().unwrap().insert(inode);
        }
        // What cannot be done by half is done.
        failpoint::take(self.outcome, op, op.bytes(), act)
    }
}

/// Whether the module is there, with its own bytes.
async fn is_there(bench: &Bench, module: &Module) -> bool {
    let Ok(Some(_)) = bench.cache.result(&view(), module.key()).await else { return false };
    for bytes in &module.outputs {
        let read = bench.read(Digest::of(bytes)).await;
        assert!(matches!(&read, Ok(Some(read)) if read == bytes), "other bytes, or none");
    }
    true
}

/// Uploads and publishes; says why it was not acknowledged. Time goes on meanwhile: who is told that the disk is full waits for
/// an eviction, and not for ever.
async fn try_share(bench: &Bench, module: &Module, faulty: &Faulty) -> Result<(), CacheError> {
    // No part of this time: a start takes nothing in before it has counted.
    eventually("counted", || async { bench.cache.usage().counted }).await;
    let time = async {
        let mut before = usize::MAX;
        for _ in 0..PATIENCE_S {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = faulty.points().len();
            // Only while nothing else goes on: a slow machine is no reason to give up.
            if now == before {
                bench.clock.advance(Duration::from_secs(1));
            }
            before = now;
        }
    };
    tokio::select! {
        shared = share(bench, module) => shared,
        () = time => panic!("no answer in {PATIENCE_S} s"),
    }
}

async fn share(bench: &Bench, module: &Module) -> Result<(), CacheError> {
    for bytes in &module.outputs {
        bench.upload(bytes).await?;
    }
    bench.publish(module, None).await.map(drop)
}

/// What is failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// A new store is made.
    Opening,
    /// A module is uploaded and published to a store that is open.
    Publishing,
    /// A store that has a module is opened, and the module is read.
    Reading,
}

/// What is there is found, or an error says that nobody could look; it is never said to be missing, and no other bytes come.
async fn try_read(bench: &Bench, module: &Module, told: impl Fn() -> String) {
    let found = bench.cache.result(&view(), module.key()).await;
    assert!(!matches!(found, Ok(None)), "{}: it was said to be missing", told());
    for bytes in &module.outputs {
        let read = bench.read(Digest::of(bytes)).await;
        let is_right = read.as_ref().map_or(true, |read| read.as_ref() == Some(bytes));
        assert!(is_right, "{}: other bytes, or none", told());
    }
}

/// One run with this fault; the operations that were taken while it was there.
async fn run(work: Work, at: u64, outcome: Outcome, for_good: bool) -> Vec<String> {
    let scratch = Scratch::in_memory();
    let (clock, module) = (Arc::new(ManualClock::default()), Module::new("m"));
    let faulty = Faulty::new(at, outcome, for_good);
    let watch = || watch::below(scratch.path(), faulty.clone());
    let told = || {
        format!("{work:?}, operation {at} ({:?}), {outcome:?}, for good: {for_good}", faulty.points().last())
    };
    let (opened, watching) = match work {
        Work::Opening => {
            let watching = watch();
            (Embedded::open(scratch.path(), clock.clone()), watching)
        }
        Work::Publishing => {
            let store = Embedded::open(scratch.path(), clock.clone()).unwrap();
            eventually("counted", || async { store.usage().counted }).await;
            (Ok(store), watch())
        }
        Work::Reading => {
            share(&Bench::on_disk(scratch.path()), &module).await.unwrap();
            let watching = watch();
            (Embedded::open(scratch.path(), clock.clone()), watching)
        }
    };
    let mut acknowledged = work == Work::Reading;
    if let Ok(store) = opened {
        let bench = Bench::over(store, clock);
        match work {
            Work::Opening => {}
            Work::Publishing => acknowledged = try_share(&bench, &module, &faulty).await.is_ok(),
            Work::Reading => try_read(&bench, &module, told).await,
        }
        faulty.well.store(true, Ordering::Relaxed);
        assert!(!acknowledged || is_there(&bench, &module).await, "{}: acknowledged, and not there", told());
        // The disk is well again, and the same server goes on.
        for module in [&module, &Module::new("next")] {
            let shared = try_share(&bench, module, &faulty).await;
            assert!(shared.is_ok(), "{}: it did not recover: {shared:?}", told());
            assert!(is_there(&bench, module).await, "{}: published, and not there", told());
        }
        acknowledged = true;
    }
    faulty.well.store(true, Ordering::Relaxed);
    drop(watching);
    assert_eq!(*faulty.relied_on.lock().unwrap(), Vec::<String>::new(), "{}: after its sync failed", told());
    let bench = Bench::on_disk(scratch.path());
    assert!(!acknowledged || is_there(&bench, &module).await, "{}: gone after a restart", told());
    let shared = try_share(&bench, &module, &faulty).await;
    assert!(shared.is_ok(), "{}: not after a restart: {shared:?}", told());
    let checked = bench.store().check(true).await.unwrap();
    assert_eq!(checked.found, 0, "{}: {:#?}", told(), checked.findings);
    faulty.points()
}

/// Bytes are left, and no file can be made.
#[tokio::test]
async fn a_disk_that_is_full_of_files_is_not_asked_without_a_pause() {
    let scratch = Scratch::in_memory();
    let bench = Bench::on_disk(scratch.path());
    eventually("counted", || async { bench.cache.usage().counted }).await;
    let faulty = Faulty::new(1, Outcome::Failed(Errno::NOSPC), true);
    let _watching = watch::below(scratch.path(), faulty.clone());
    let large = vec![7; 100_000];
    let time = async {
        // As often as it can be asked while no time passes.
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let asked = faulty.points().len();
        bench.clock.advance(Duration::from_secs(PATIENCE_S));
        asked
    };
    let (uploaded, asked) = tokio::join!(bench.upload(&large), time);
    assert!(uploaded.is_err(), "{uploaded:?}");
    assert_eq!((asked, faulty.points().len()), (2, 2));
}

async fn sweep(work: Work) {
    let healthy = run(work, u64::MAX, Outcome::Whole, false).await;
    let faults = std::env::var("PCMCACHE_TEST_FAULTS").ok().and_then(|faults| faults.parse().ok());
    for (outcome, for_good) in FAULTS.into_iter().take(faults.unwrap_or(FAULTS.len())) {
        let mut failed = 0;
        for at in 1..=healthy.len() {
            // A directory for each shard is made, and listed: the third is as good as the other 253.
            let is_one_of_many = |step: &str| {
                let is_same = |at: usize| healthy.get(at - 1).is_some_and(|point| point == step);
                at > 2 && (at - 2..=at).all(is_same)
            };
            if ["embedded/files.make-directory", "embedded/files.look"].into_iter().any(is_one_of_many) {
                continue;
            }
            let points = run(work, at as u64, outcome, for_good).await;
            failed += usize::from(points.len() >= at);
        }
        println!("{work:?}, {outcome:?}, for good: {for_good}: {failed} operations of {}", healthy.len());
        println!("tally: disk-faults={failed}");
        assert!(failed > 50, "nothing was failed: {failed}");
    }
}

#[tokio::test]
async fn every_single_fault_of_a_disk_is_told_by_a_publish_and_gone_with_it() {
    sweep(Work::Publishing).await;
}

#[tokio::test]
async fn every_single_fault_of_a_disk_leaves_a_new_store_that_opens_later() {
    sweep(Work::Opening).await;
}

#[tokio::test]
async fn every_single_fault_of_a_disk_keeps_nobody_from_what_is_there() {
    sweep(Work::Reading).await;
}
