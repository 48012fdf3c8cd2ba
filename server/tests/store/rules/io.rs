//! The k-th operation of the disk fails, for k = 1, 2, 3 and so on until none is left to fail: once, or from then on. Whoever was
//! told yes was told the truth, whoever was told no may ask again, and once the disk is well the same server goes on.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pcmcache_server::clock::ManualClock;
use pcmcache_server::embedded::Embedded;
use pcmcache_shared::Digest;
use pcmcache_shared::disk::Op;
use pcmcache_shared::disk::watch::{self, Act, Watcher};
use pcmcache_shared::failpoint::{self, Outcome};
use rustix::fs::fstat;
use rustix::io::Errno;

use crate::bench::{Bench, Module, Scratch, view};

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
/// More operations than a publish has.
const MANY: u64 = 2_000;
/// How long anybody waits for an answer, in seconds of the server.
const PATIENCE_S: u64 = 600;

/// Fails one operation, or all from there on.
#[derive(Debug)]
struct Faulty {
    at: u64,
    for_good: bool,
    outcome: Outcome,
    taken: AtomicU64,
    well: AtomicBool,
    failed_at: Mutex<Option<String>>,
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
            taken: AtomicU64::new(0),
            well: AtomicBool::new(false),
            failed_at: Mutex::default(),
            doubtful: Mutex::default(),
            relied_on: Mutex::default(),
        })
    }

    fn failed_at(&self) -> Option<String> {
        self.failed_at.lock().unwrap().clone()
    }
}

impl Watcher for Faulty {
    fn step(&self, point: &str, op: &Op<'_>, act: Act<'_>) -> io::Result<usize> {
        let taken = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
        let fails = taken == self.at || self.for_good && taken > self.at;
        let inode = match op {
            Op::Sync { file, .. } => fstat(file).map(|stat| stat.st_ino).ok(),
            Op::Rename { from, .. } => from.metadata().map(|metadata| metadata.ino()).ok(),
            _ => None,
        };
        if inode.is_some_and(|inode| self.doubtful.lock().unwrap().contains(&inode)) {
            self.relied_on.lock().unwrap().push(point.to_owned());
        }
        if !fails || self.well.load(Ordering::Relaxed) {
            return act(op.bytes());
        }
        self.failed_at.lock().unwrap().get_or_insert_with(|| point.to_owned());
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

/// Uploads and publishes; whether it was acknowledged. Time goes on meanwhile: who is told that the disk is full waits for an
/// eviction, and not for ever.
async fn try_share(bench: &Bench, module: &Module) -> bool {
    let time = async {
        for _ in 0..PATIENCE_S {
            tokio::time::sleep(Duration::from_millis(20)).await;
            bench.clock.advance(Duration::from_secs(1));
        }
    };
    tokio::select! {
        shared = share(bench, module) => shared,
        () = time => panic!("no answer in {PATIENCE_S} s"),
    }
}

async fn share(bench: &Bench, module: &Module) -> bool {
    for bytes in &module.outputs {
        if bench.upload(bytes).await.is_err() {
            return false;
        }
    }
    bench.publish(module, None).await.is_ok()
}

/// What is failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// A new store is made.
    Opening,
    /// A module is uploaded and published to a store that is open.
    Publishing,
}

/// Whether an operation was failed, and not the disk's work all done before.
async fn run(work: Work, at: u64, outcome: Outcome, for_good: bool) -> Option<String> {
    let scratch = Scratch::in_memory();
    let (clock, module) = (Arc::new(ManualClock::default()), Module::new("m"));
    let faulty = Faulty::new(at, outcome, for_good);
    let watch = || watch::below(scratch.path(), faulty.clone());
    let told =
        || format!("{work:?}, operation {at} ({:?}), {outcome:?}, for good: {for_good}", faulty.failed_at());
    let (opened, watching) = match work {
        Work::Opening => {
            let watching = watch();
            (Embedded::open(scratch.path(), clock.clone()), watching)
        }
        Work::Publishing => (Embedded::open(scratch.path(), clock.clone()), watch()),
    };
    let mut acknowledged = false;
    if let Ok(store) = opened {
        let bench = Bench::over(store, clock);
        if work == Work::Publishing {
            acknowledged = try_share(&bench, &module).await;
        }
        faulty.well.store(true, Ordering::Relaxed);
        assert!(!acknowledged || is_there(&bench, &module).await, "{}: acknowledged, and not there", told());
        // The disk is well again, and the same server goes on.
        for module in [&module, &Module::new("next")] {
            assert!(try_share(&bench, module).await, "{}: it did not recover", told());
            assert!(is_there(&bench, module).await, "{}: published, and not there", told());
        }
        acknowledged = true;
    }
    faulty.well.store(true, Ordering::Relaxed);
    drop(watching);
    assert_eq!(*faulty.relied_on.lock().unwrap(), Vec::<String>::new(), "{}: after its sync failed", told());
    let bench = Bench::on_disk(scratch.path());
    assert!(!acknowledged || is_there(&bench, &module).await, "{}: gone after a restart", told());
    assert!(try_share(&bench, &module).await, "{}: not after a restart", told());
    let checked = bench.store().check(true).await.unwrap();
    assert_eq!(checked.found, 0, "{}: {:#?}", told(), checked.findings);
    faulty.failed_at()
}

async fn sweep(work: Work) {
    for (outcome, for_good) in FAULTS {
        let (mut at, mut runs, mut directories) = (1, 0, 0);
        while let Some(point) = run(work, at, outcome, for_good).await {
            runs += 1;
            at += 1;
            // One for each shard: the second is as good as the other 254.
            directories += u64::from(point == "embedded/files.make-directory");
            if directories == 5 {
                (at, directories) = (at + 252, 6);
            }
            assert!(at < MANY, "it never comes to an end");
        }
        println!("{work:?}, {outcome:?}, for good: {for_good}: {runs} operations");
        assert!(runs > 25, "it was over too soon: {runs}");
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
