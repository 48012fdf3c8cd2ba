//! A store at its bound, for a while: many publish, many read, and it evicts all the time.
//!
//! `PCMCACHE_TEST_SECONDS` says for how long, 10 without it. A second of the test is about a quarter of an hour of the
//! store, so that pins run out while it lasts. What a pin promises is asked for only where no more than [`WITHIN`] of the
//! store's time went by in between, however slow the machine is.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use pcmcache_server::cache::{CacheError, Published};
use pcmcache_server::clock::Clock as _;
use pcmcache_server::space::Bounds;
use pcmcache_server::upkeep::{self, Plan};
use pcmcache_shared::Digest;

use super::restart::kill;
use crate::bench::{Bench, Chance, FakeDisk, Module, Scratch, assert_sound, eventually, view, writing};

const MAX_SIZE: u64 = 6_000_000;
const WRITERS: u64 = 6;
const READERS: u64 = 4;
/// Of each writer's modules: they come back once they were evicted.
const MODULES: u64 = 40;
/// How far the clock goes at a time, and how often.
const TICK: Duration = Duration::from_secs(20);
const TICK_EVERY: Duration = Duration::from_millis(20);
/// Less than a pin.
const WITHIN: Duration = Duration::from_secs(500);
/// A stop ends the test, and not by being killed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What all see and count.
struct Field {
    bench: Bench,
    over: AtomicBool,
    published: AtomicU64,
    uploaded_bytes: AtomicU64,
    refused: AtomicU64,
    read: AtomicU64,
    absent: AtomicU64,
    sampled: AtomicU64,
}

/// 20 to 120 kB that no other module makes.
fn module(writer: u64, number: u64) -> Module {
    let name = format!("{writer}-{number}.cppm");
    let size = 20_000 + usize::from(Digest::of(&name).as_bytes()[0]) * 400;
    let mut module = Module::new(Box::leak(name.into_boxed_str()));
    module.outputs = vec![module.name.bytes().cycle().take(size).collect()];
    module.cost_ms = 100 + number * 50;
    module
}

impl Field {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Whether only so little of the store's time went by that what was pinned then is pinned still.
    fn is_recent(&self, then: pcmcache_server::clock::Moment) -> bool {
        self.bench.clock.now().since(then) < WITHIN
    }

    async fn write(self: Arc<Self>, modules: Vec<Module>, mut chance: Chance) {
        while !self.is_over() {
            let module = &modules[chance.below(MODULES) as usize];
            let began = self.bench.clock.now();
            match self.share(module).await {
                Ok(()) => {
                    self.published.fetch_add(1, Ordering::Relaxed);
                    let answers = self.bench.cache.result(&view(), module.key()).await.unwrap().is_some();
                    assert!(
                        answers || !self.is_recent(began),
                        "{} was acknowledged and is gone",
                        module.name
                    );
                }
                Err(CacheError::NoRoom { .. }) => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
                // Its bytes were not named by anything yet, and the pin ran out.
                Err(CacheError::Missing(_)) if !self.is_recent(began) => {}
                Err(error) => panic!("{}: {error}", module.name),
            }
            tokio::task::yield_now().await;
        }
    }

    async fn share(&self, module: &Module) -> Result<(), CacheError> {
        let bytes = &module.outputs[0];
        let mut upload =
            self.bench.cache.begin_upload(&writing(), Digest::of(bytes), bytes.len() as u64).await?;
        for piece in bytes.chunks(16_000) {
            upload.write(piece.to_vec().into()).await?;
        }
        // Before it can lie where it is walked over.
        self.uploaded_bytes.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        upload.finish().await?;
        self.uploaded_bytes.fetch_add(4096, Ordering::SeqCst);
        match self.bench.publish(module, None).await? {
            Published::Stored | Published::Same => Ok(()),
        }
    }

    async fn read(self: Arc<Self>, modules: Vec<Module>, mut chance: Chance) {
        while !self.is_over() {
            // Some are asked for all the time and stay; others so seldom that they go, however fast readers are.
            let count = modules.len() as u64;
            let module = &modules[(chance.below(count) * chance.below(count) / count) as usize];
            let began = self.bench.clock.now();
            match self.bench.cache.result(&view(), module.key()).await.unwrap() {
                None => {
                    self.absent.fetch_add(1, Ordering::Relaxed);
                }
                Some(found) => {
                    for output in &found.result.outputs {
                        let read = self.bench.read(output.digest).await;
                        let whole = matches!(&read, Ok(Some(bytes)) if *bytes == module.outputs[0]);
                        let gone = matches!(&read, Ok(None)) && !self.is_recent(began);
                        assert!(whole || gone, "{}: a result without its bytes: {read:?}", module.name);
                    }
                    self.read.fetch_add(1, Ordering::Relaxed);
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// What lies on the disk is never more than the bound. Who walks sees what came while they walked beside what went, so
    /// that much more may be seen.
    fn sample(&self, directory: &Path) {
        let before = self.uploaded_bytes.load(Ordering::SeqCst);
        let walked: u64 =
            ["blobs", "stages", "damaged"].map(|name| bytes_under(&directory.join(name))).iter().sum();
        let came = self.uploaded_bytes.load(Ordering::SeqCst) - before;
        assert!(walked <= MAX_SIZE + came, "{walked} bytes, of which {came} came meanwhile");
        let usage = self.bench.cache.usage();
        assert!(usage.total() <= MAX_SIZE, "{usage:?}");
        self.sampled.fetch_add(1, Ordering::Relaxed);
    }
}

/// The bytes of all files under a directory; what goes meanwhile is not there.
fn bytes_under(directory: &Path) -> u64 {
    let Ok(entries) = fs_err::read_dir(directory) else { return 0 };
    let size = |entry: fs_err::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_under(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(size).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_at_its_bound_loses_nothing_that_it_acknowledged() {
    let seconds =
        std::env::var("PCMCACHE_TEST_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10_u64);
    let scratch = Scratch::new();
    let bounds = Bounds { max_size: Some(MAX_SIZE), ..Bounds::default() };
    let bench = Bench::on_disk_within(scratch.path(), bounds, FakeDisk::empty());
    // The store's time runs ahead, and a start takes nothing in before it has counted.
    eventually("counted", || async { bench.cache.usage().counted }).await;
    let zero = || AtomicU64::new(0);
    let field = Arc::new(Field {
        bench,
        over: AtomicBool::new(false),
        published: zero(),
        uploaded_bytes: zero(),
        refused: zero(),
        read: zero(),
        absent: zero(),
        sampled: zero(),
    });
    let keeping = tokio::spawn(upkeep::run(Arc::clone(&field.bench.cache), Plan::default()));
    let ticking = tokio::spawn({
        let clock = Arc::clone(&field.bench.clock);
        async move {
            loop {
                tokio::time::sleep(TICK_EVERY).await;
                clock.advance(TICK);
            }
        }
    });
    let mut busy = Vec::new();
    let all: Vec<_> = (0..WRITERS).flat_map(|writer| (0..MODULES).map(move |n| module(writer, n))).collect();
    for writer in 0..WRITERS {
        let own = all[(writer * MODULES) as usize..][..MODULES as usize].to_vec();
        let chance = Chance::new(&format!("a store at its bound, writer {writer}"));
        busy.push(tokio::spawn(Arc::clone(&field).write(own, chance)));
    }
    for reader in 0..READERS {
        let chance = Chance::new(&format!("a store at its bound, reader {reader}"));
        busy.push(tokio::spawn(Arc::clone(&field).read(all.clone(), chance)));
    }
    busy.push(tokio::task::spawn_blocking({
        let (field, directory) = (Arc::clone(&field), scratch.path().to_owned());
        move || {
            while !field.is_over() {
                field.sample(&directory);
            }
        }
    }));
    for _ in 0..seconds * 20 {
        if busy.iter().any(tokio::task::JoinHandle::is_finished) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    field.over.store(true, Ordering::Relaxed);
    for task in busy {
        tokio::time::timeout(PATIENCE, task).await.expect("it stops").expect("nothing was wrong");
    }
    ticking.abort();
    keeping.abort();
    let _ = keeping.await;

    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let evicted = field.bench.cache.counters().evicted_results;
    println!(
        "{} published, {} refused for want of room, {} read, {} absent, {evicted} evicted, {} samples",
        count(&field.published),
        count(&field.refused),
        count(&field.read),
        count(&field.absent),
        count(&field.sampled),
    );
    assert!(evicted > 0 && count(&field.read) > 0 && count(&field.sampled) > 0, "it was under no pressure");
    let field = Arc::into_inner(field).expect("nobody else has it");
    kill(field.bench, scratch.path()).await;
    assert_sound(scratch.path()).await;
}
