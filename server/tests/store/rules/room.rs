//! Bounds: what does not fit is refused before its first byte, and what is there is counted right, also after a kill.

use std::path::Path;

use bytes::Bytes;
use pcmcache_server::cache::{CacheError, Upload, Uploaded};
use pcmcache_server::space::{Bound, Bounds, Usage};
use pcmcache_shared::{Digest, Scope};

use crate::bench::{Bench, FakeDisk, Module, Scratch, view, writing, writing_in};

fn at_most(max_size: u64) -> Bounds {
    Bounds { max_size: Some(max_size), ..Bounds::default() }
}

async fn begin(bench: &Bench, name: &str, length: u64) -> Result<Upload, CacheError> {
    bench.cache.begin_upload(&writing(), Digest::of(name), length).await
}

fn refused_by(outcome: Result<Upload, CacheError>) -> Bound {
    match outcome {
        Err(CacheError::NoRoom { shortage, .. }) => shortage.bound,
        other => panic!("{other:?}"),
    }
}

/// The bytes of all files under a directory.
fn bytes_under(directory: &Path) -> u64 {
    let entries = fs_err::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| match entry.metadata().unwrap() {
            metadata if metadata.is_dir() => bytes_under(&entry.path()),
            metadata => metadata.len(),
        })
        .sum()
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_its_first_byte() {
    let scratch = Scratch::new();
    let bench = Bench::on_disk_within(scratch.path(), at_most(1000), FakeDisk::empty());
    let first = begin(&bench, "first", 600).await.unwrap();
    assert_eq!(bytes_under(&scratch.path().join("stages")), 0, "not a byte was sent");
    assert_eq!(refused_by(begin(&bench, "second", 401).await), Bound::Size);
    let second = begin(&bench, "second", 400).await.unwrap();
    drop(first);
    drop(begin(&bench, "third", 600).await.unwrap());
    drop(second);
    let never = begin(&bench, "fourth", 1001).await;
    assert!(matches!(never, Err(CacheError::TooLarge { length: 1001, limit: 1000 })), "{never:?}");
    assert_eq!(bench.cache.counters().store_full, 1);
    assert_eq!(bench.cache.usage().total(), 0);
}

#[tokio::test]
async fn the_texts_of_a_result_need_room_too() {
    let scratch = Scratch::new();
    let module = Module::new("m");
    let outputs: u64 = module.outputs.iter().map(|bytes| bytes.len() as u64).sum();
    let bench = Bench::on_disk_within(scratch.path(), at_most(outputs + 1), FakeDisk::empty());
    let outcome = bench.share(&module, None).await;
    assert!(matches!(outcome, Err(CacheError::NoRoom { .. })), "{outcome:?}");
    assert_eq!(bench.cache.result(&view(), module.key()).await.unwrap(), None);
}

#[tokio::test]
async fn a_scope_at_its_quota_is_no_other_scopes_business() {
    let scratch = Scratch::new();
    let (small, other): (Scope, Scope) = ("small".parse().unwrap(), "other".parse().unwrap());
    let bounds = Bounds { quotas: [(small.clone(), 100)].into(), ..Bounds::default() };
    let bench = Bench::on_disk_within(scratch.path(), bounds, FakeDisk::empty());
    let put = async |scope: &Scope, bytes: &'static [u8]| {
        let writing = writing_in(scope);
        let mut upload = bench.cache.begin_upload(&writing, Digest::of(bytes), bytes.len() as u64).await?;
        upload.write(Bytes::from_static(bytes)).await?;
        upload.finish().await
    };
    assert_eq!(put(&small, &[1; 60]).await.unwrap(), Uploaded::Stored);
    // What another scope has stored costs this one all the same: whether it did is not to be told.
    assert_eq!(put(&other, &[2; 60]).await.unwrap(), Uploaded::Stored);
    match put(&small, &[2; 60]).await {
        Err(CacheError::NoRoom { shortage, .. }) => assert_eq!(shortage.bound, Bound::Quota(small.clone())),
        other => panic!("{other:?}"),
    }
    assert_eq!(put(&other, &[3; 200]).await.unwrap(), Uploaded::Stored);
    assert_eq!(put(&small, &[3; 40]).await.unwrap(), Uploaded::Stored);
    let usage = bench.cache.usage();
    assert_eq!((usage.scopes[&small].bytes, usage.scopes[&other].bytes), (100, 260));
    assert_eq!(usage.blob_bytes, 60 + 60 + 200 + 40);
}

#[tokio::test]
async fn the_disk_keeps_what_it_is_to_keep() {
    let (scratch, disk) = (Scratch::new(), FakeDisk::empty());
    let bounds = Bounds { keep_free: 1000, ..Bounds::default() };
    let bench = Bench::on_disk_within(scratch.path(), bounds, disk.clone());
    disk.has(1500);
    assert_eq!(refused_by(begin(&bench, "a", 501).await), Bound::Disk);
    drop(begin(&bench, "a", 500).await.unwrap());
    disk.has(999);
    assert_eq!(refused_by(begin(&bench, "a", 1).await), Bound::Disk);
}

/// What can be seen of a store from outside.
fn seen(directory: &Path) -> (u64, u64) {
    (bytes_under(&directory.join("blobs")), bytes_under(&directory.join("damaged")))
}

fn counted(usage: &Usage) -> (u64, u64) {
    (usage.blob_bytes, usage.damaged_bytes)
}

#[tokio::test]
async fn whatever_happens_the_count_is_what_lies_on_the_disk() {
    let scratch = Scratch::new();
    let mut before = Usage::default();
    for round in 0..4_u32 {
        let bench = Bench::on_disk(scratch.path());
        bench.upload(b"the count is done once something is taken").await.unwrap();
        if round > 0 {
            assert_eq!(bench.cache.usage(), before, "a restart counts what was counted");
        }
        for step in 0..60_u32 {
            let bytes = vec![(step % 7) as u8; 1000 * (step % 11) as usize + round as usize];
            let digest = Digest::of(&bytes);
            match step % 5 {
                0 | 1 => drop(bench.upload(&bytes).await.unwrap()),
                2 => drop(bench.upload_as(Digest::of("other"), &bytes).await.unwrap_err()),
                3 => drop(bench.cache.begin_upload(&writing(), digest, 12_345).await.unwrap()),
                _ => {
                    bench.upload(&bytes).await.unwrap();
                    let place = scratch.path().join("blobs").join(&digest.to_string()[..2]);
                    fs_err::write(place.join(digest.to_string()), vec![9; bytes.len()]).unwrap();
                    let _ = bench.read(digest).await;
                }
            }
            let usage = bench.cache.usage();
            assert_eq!(counted(&usage), seen(scratch.path()), "round {round}, step {step}");
            assert_eq!(usage.reserved_bytes, 0);
        }
        let uploads = (0..20_u8).map(|n| {
            let bytes = vec![n % 3; 50_000];
            let bench = &bench;
            async move { bench.upload(&bytes).await.unwrap() }
        });
        futures::future::join_all(uploads).await;
        before = bench.cache.usage();
        assert_eq!(counted(&before), seen(scratch.path()), "round {round}: the same blobs at once");
    }
}

#[tokio::test]
async fn what_is_removed_while_someone_reads_it_is_told_apart_until_they_are_done() {
    let scratch = Scratch::new();
    let bench = Bench::on_disk(scratch.path());
    let bytes = vec![7; 500_000];
    bench.upload(&bytes).await.unwrap();
    let digest = Digest::of(&bytes);
    let first = bench.cache.open_blob(&view(), digest).await.unwrap().unwrap();
    let second = bench.cache.open_blob(&view(), digest).await.unwrap().unwrap();
    let place = scratch.path().join("blobs").join(&digest.to_string()[..2]).join(digest.to_string());
    let before = bench.cache.usage();
    assert_eq!((before.blob_bytes, before.unlinked_open_bytes), (500_000, 0));
    // The same bytes once more take the place of those that are open.
    bench.upload(&bytes).await.unwrap();
    assert!(place.exists());
    assert_eq!(bench.cache.usage().blob_bytes, 500_000);
    assert_eq!(bench.cache.usage().unlinked_open_bytes, 500_000);
    drop(first);
    assert_eq!(bench.cache.usage().unlinked_open_bytes, 500_000);
    drop(second);
    assert_eq!(bench.cache.usage().unlinked_open_bytes, 0);
}

#[tokio::test]
async fn what_a_scope_has_is_known_after_a_restart_and_counted_where_another_wrote() {
    const UPLOADS: redb::TableDefinition<(&[u8; 32], &str, &str), u64> =
        redb::TableDefinition::new("uploads");
    let scratch = Scratch::new();
    let has =
        |bench: &Bench| bench.cache.usage().scopes.get(&Scope::default()).map_or(0, |scope| scope.bytes);
    let bench = Bench::on_disk(scratch.path());
    for bytes in [&b"one"[..], b"three"] {
        bench.upload(bytes).await.unwrap();
    }
    assert_eq!(has(&bench), 8);
    drop(bench);
    let bench = Bench::on_disk(scratch.path());
    assert_eq!(has(&bench), 8);
    drop(bench);
    // A server that knows nothing of sums.
    let database = redb::Database::open(scratch.path().join("index.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    let digest = Digest::of("by an older server");
    transaction.open_table(UPLOADS).unwrap().insert((digest.as_bytes(), "main", "a"), 100).unwrap();
    transaction.commit().unwrap();
    drop(database);
    for _ in 0..2 {
        assert_eq!(has(&Bench::on_disk(scratch.path())), 108);
    }
}
