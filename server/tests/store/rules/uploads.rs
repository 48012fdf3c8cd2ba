//! Uploads: whole and right, or nothing.

use bytes::Bytes;
use pcmcache_server::cache::{CacheError, Limits, Uploaded};
use pcmcache_shared::Digest;

use crate::bench::{Bench, Scratch, view, writing};

fn files_under(directory: &std::path::Path) -> usize {
    let entries = fs_err::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files_under(&path) } else { 1 }).sum()
}

#[tokio::test]
async fn what_is_not_whole_or_not_right_leaves_nothing() {
    let scratch = Scratch::new();
    let bench = Bench::on_disk(scratch.path());
    let bytes = vec![1; 700_000];
    let digest = Digest::of(&bytes);
    let here = writing();
    let begin = || bench.cache.begin_upload(&here, digest, 700_000);

    let mut dropped = begin().await.unwrap();
    dropped.write(bytes.clone().into()).await.unwrap();
    drop(dropped);

    let mut short = begin().await.unwrap();
    short.write(Bytes::from_static(b"half")).await.unwrap();
    let outcome = short.finish().await;
    assert!(matches!(outcome, Err(CacheError::ShortBody { declared: 700_000, received: 4 })), "{outcome:?}");

    let mut long = begin().await.unwrap();
    long.write(bytes.clone().into()).await.unwrap();
    assert!(matches!(long.write(Bytes::from_static(b"!")).await, Err(CacheError::TooLarge { .. })));
    drop(long);

    let wrong = bench.upload_as(digest, &[2; 700_000]).await;
    assert!(matches!(wrong, Err(CacheError::DigestMismatch { .. })), "{wrong:?}");

    assert_eq!(bench.cache.has_blob(&view(), digest).await.unwrap(), None);
    assert!(bench.read(digest).await.unwrap().is_none());
    for directory in ["stages", "blobs"] {
        assert_eq!(files_under(&scratch.path().join(directory)), 0, "{directory}");
    }
    assert_eq!(bench.upload(&bytes).await.unwrap(), Uploaded::Stored);
    assert_eq!(bench.upload(&bytes).await.unwrap(), Uploaded::Existed);
    assert_eq!(bench.read(digest).await.unwrap(), Some(bytes));
    assert_eq!(files_under(&scratch.path().join("blobs")), 1);
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_sent() {
    let bench = Bench::in_memory_with(Limits { max_blob: 10, ..Limits::default() });
    let refused = bench.cache.begin_upload(&writing(), Digest::of("x"), 11).await;
    assert!(matches!(refused, Err(CacheError::TooLarge { length: 11, limit: 10 })));
    bench.upload(b"0123456789").await.unwrap();
}

#[tokio::test]
async fn reads_give_any_part() {
    let scratch = Scratch::new();
    let bench = Bench::on_disk(scratch.path());
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| (n / 7) as u8).collect();
    bench.upload(&bytes).await.unwrap();
    let digest = Digest::of(&bytes);
    for (start, end) in [(0, 1), (0, 1_000_000), (999_999, 1_000_000), (262_143, 262_145), (5, 700_000)] {
        let part = bench.read_range(digest, Some(start as u64..end as u64)).await.unwrap().unwrap();
        assert!(part == bytes[start..end], "{start}..{end}");
    }
    assert_eq!(bench.cache.has_blob(&view(), digest).await.unwrap(), Some(1_000_000));
}

#[tokio::test]
async fn an_empty_blob_is_read_as_one() {
    let bench = Bench::in_memory();
    bench.upload(b"").await.unwrap();
    assert_eq!(bench.read(Digest::of("")).await.unwrap(), Some(Vec::new()));
}
