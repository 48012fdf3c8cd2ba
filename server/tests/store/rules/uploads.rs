//! Uploads: whole and right, or nothing.

use bytes::Bytes;
use pcmcache_server::blobs::{Blobs as _, Placed, Put, Staging};
use pcmcache_server::cache::{CacheError, Limits, Uploaded};
use pcmcache_shared::Digest;

use crate::bench::{Bench, Scratch, scope, view, writing};

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

/// Puts a small blob in its place, where nobody sees it yet.
async fn placed(bench: &Bench, bytes: &[u8]) -> Box<dyn Placed> {
    let staging = bench.store().stage(&scope(), bytes.len() as u64).await.unwrap();
    let Staging::Open(mut stage) = staging else { panic!("no room") };
    stage.write(Bytes::copy_from_slice(bytes)).await.unwrap();
    stage.seal().await.unwrap().place().await.unwrap()
}

async fn show(placed: Box<dyn Placed>) -> Result<Put, pcmcache_server::fault::Fault> {
    placed.show(&scope(), &"a".parse().unwrap()).await
}

#[tokio::test]
async fn many_small_ones_at_once_are_all_there() {
    let scratch = Scratch::new();
    let bench = Bench::on_disk(scratch.path());
    let bytes: Vec<_> = (0..300).map(|n| format!("the {n}th").into_bytes()).collect();
    let put = async |bytes: &Vec<u8>| show(placed(&bench, bytes).await).await.unwrap();
    let put = futures::future::join_all(bytes.iter().map(put)).await;
    assert_eq!(put, [Put::Stored; 300]);
    for bytes in &bytes {
        let stat = bench.store().stat(Digest::of(bytes)).await.unwrap().unwrap();
        assert!(stat.has_its_size());
    }
    assert_eq!(files_under(&scratch.path().join("stages")), 0);
    assert_eq!(bench.cache.usage().blobs, 300);
    assert_eq!(bench.cache.usage().reserved_bytes, 0);
}

#[tokio::test]
async fn a_small_one_whose_name_cannot_be_made_durable_is_not_there() {
    let scratch = Scratch::new();
    let bench = Bench::on_disk(scratch.path());
    let (bytes, digest) = (b"small", Digest::of(b"small"));
    let shard = scratch.path().join("blobs").join(&digest.to_string()[..2]);
    let placed_once = placed(&bench, bytes).await;
    fs_err::rename(&shard, scratch.path().join("elsewhere")).unwrap();
    let shown = show(placed_once).await;
    fs_err::rename(scratch.path().join("elsewhere"), &shard).unwrap();
    assert!(shown.is_err(), "{shown:?}");
    assert!(shard.join(digest.to_string()).exists(), "its file is there, and nobody's");
    assert_eq!(bench.store().stat(digest).await.unwrap(), None);
    assert_eq!(bench.upload(bytes).await.unwrap(), Uploaded::Stored);
    assert_eq!(bench.read(digest).await.unwrap(), Some(bytes.to_vec()));
}

#[tokio::test]
async fn a_small_one_takes_the_place_of_what_a_power_cut_left() {
    let scratch = Scratch::new();
    let bench = Bench::on_disk(scratch.path());
    let digest = Digest::of(b"small");
    let place = scratch.path().join("blobs").join(&digest.to_string()[..2]).join(digest.to_string());
    for left in ["", "sma", "SMALL"] {
        fs_err::write(&place, left).unwrap();
        show(placed(&bench, b"small").await).await.unwrap();
        assert_eq!(fs_err::read_to_string(&place).unwrap(), "small");
    }
}
