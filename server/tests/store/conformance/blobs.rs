//! What every blob store promises.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use pcmcache_server::blobs::{Blobs, Freed, Opened, Put, Sealed, Stage, Staging};
use pcmcache_server::clock::SystemClock;
use pcmcache_server::embedded::Embedded;
use pcmcache_server::memory::MemoryBlobs;
use pcmcache_shared::{Digest, Scope, Writer};

type Store = Arc<dyn Blobs>;

fn memory() -> Store {
    Arc::new(MemoryBlobs::default())
}

fn embedded(directory: &Path) -> Store {
    Embedded::open(directory, Arc::new(SystemClock::new())).unwrap()
}

super::every_back_end! {
    nothing_is_visible_before_the_commit,
    a_dropped_stage_leaves_nothing,
    putting_again_says_so_and_refreshes,
    who_put_a_blob_is_kept_with_it,
    reads_give_the_bytes_and_end_at_the_end,
    what_is_open_stays_readable,
    only_the_condemned_copy_goes,
    what_is_removed_is_gone_and_can_come_back,
    what_a_scope_does_not_need_leaves_it_and_stays_in_others,
    blobs_are_listed_by_their_first_byte,
    many_puts_of_one_blob_at_once,
    the_empty_blob_is_a_blob,
}

fn main_scope() -> Scope {
    Scope::default()
}

async fn stage(store: &Store, length: usize) -> Box<dyn Stage> {
    match store.stage(&main_scope(), length as u64).await.unwrap() {
        Staging::Open(stage) => stage,
        Staging::Short(shortage) => panic!("{shortage:?}"),
    }
}

fn writer(name: &str) -> Writer {
    name.parse().unwrap()
}

async fn seal(store: &Store, bytes: &[u8]) -> Box<dyn Sealed> {
    let mut stage = stage(store, bytes.len()).await;
    for piece in bytes.chunks(150_000) {
        stage.write(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    stage.seal().await.unwrap()
}

async fn put(store: &Store, bytes: &[u8]) -> (Digest, Put) {
    let sealed = seal(store, bytes).await;
    (sealed.digest(), sealed.commit(&main_scope(), &writer("a")).await.unwrap())
}

async fn open(store: &Store, digest: Digest) -> Option<Box<dyn Opened>> {
    store.open(digest).await.unwrap()
}

async fn nothing_is_visible_before_the_commit(store: Store) {
    let bytes = vec![7; 1_000_000];
    let sealed = seal(&store, &bytes).await;
    let digest = sealed.digest();
    assert_eq!((digest, sealed.size()), (Digest::of(&bytes), 1_000_000));
    assert!(open(&store, digest).await.is_none());
    assert_eq!(store.stat(digest).await.unwrap(), None);
    assert_eq!(store.list(digest.as_bytes()[0]).await.unwrap(), []);
    assert_eq!(sealed.commit(&main_scope(), &writer("a")).await.unwrap(), Put::Stored);
    let stat = store.stat(digest).await.unwrap().unwrap();
    assert_eq!((stat.size, stat.promised), (1_000_000, 1_000_000));
    assert!(stat.has_its_size());
}

async fn a_dropped_stage_leaves_nothing(store: Store) {
    let mut stage = stage(&store, 10).await;
    stage.write(Bytes::from_static(b"half")).await.unwrap();
    drop(stage);
    let sealed = seal(&store, b"whole").await;
    let digest = sealed.digest();
    drop(sealed);
    assert!(open(&store, digest).await.is_none());
}

async fn putting_again_says_so_and_refreshes(store: Store) {
    let (digest, first) = put(&store, b"bytes").await;
    let before = store.stat(digest).await.unwrap().unwrap();
    let (again, second) = put(&store, b"bytes").await;
    assert_eq!((first, second, again), (Put::Stored, Put::Existed, digest));
    let after = store.stat(digest).await.unwrap().unwrap();
    assert_ne!(before.version, after.version);
}

async fn who_put_a_blob_is_kept_with_it(store: Store) {
    let other: Scope = "other".parse().unwrap();
    let (digest, _) = put(&store, b"bytes").await;
    let was_put =
        async |scope: &Scope, name: &str| store.was_put(scope, &writer(name), digest).await.unwrap();
    assert!(was_put(&main_scope(), "a").await);
    assert!(!was_put(&main_scope(), "b").await && !was_put(&other, "a").await);
    for (scope, name) in [(&main_scope(), "b"), (&other, "a")] {
        assert_eq!(seal(&store, b"bytes").await.commit(scope, &writer(name)).await.unwrap(), Put::Stored);
        assert!(was_put(scope, name).await);
        assert_eq!(seal(&store, b"bytes").await.commit(scope, &writer(name)).await.unwrap(), Put::Existed);
    }
    store.retain(vec![(digest, Vec::new())]).await.unwrap();
    assert!(!was_put(&main_scope(), "a").await && !was_put(&other, "a").await);
}

async fn reads_give_the_bytes_and_end_at_the_end(store: Store) {
    let bytes: Vec<u8> = (0..600_000_u32).map(|n| n as u8).collect();
    let (digest, _) = put(&store, &bytes).await;
    let opened = open(&store, digest).await.unwrap();
    assert_eq!(opened.stat().size, 600_000);
    assert_eq!(opened.read(0, 600_000).await.unwrap(), bytes);
    assert_eq!(opened.read(599_990, 100).await.unwrap(), bytes[599_990..]);
    assert_eq!(opened.read(600_000, 100).await.unwrap(), b""[..]);
    assert_eq!(opened.read(u64::from(u32::MAX), 100).await.unwrap(), b""[..]);
    assert_eq!(opened.version().await.unwrap(), opened.stat().version);
}

async fn what_is_open_stays_readable(store: Store) {
    let (digest, _) = put(&store, b"bytes").await;
    let opened = open(&store, digest).await.unwrap();
    put(&store, b"bytes").await;
    store.retain(vec![(digest, Vec::new())]).await.unwrap();
    assert_eq!(opened.read(0, 100).await.unwrap(), b"bytes"[..]);
}

async fn only_the_condemned_copy_goes(store: Store) {
    let (digest, _) = put(&store, b"bytes").await;
    let condemned = open(&store, digest).await.unwrap().stat().version;
    put(&store, b"bytes").await;
    assert!(!store.condemn(digest, condemned).await.unwrap(), "it was replaced meanwhile");
    let present = open(&store, digest).await.unwrap().stat().version;
    assert!(store.condemn(digest, present).await.unwrap());
    assert!(open(&store, digest).await.is_none());
    assert!(!store.condemn(digest, present).await.unwrap(), "it is gone already");
    put(&store, b"bytes").await;
    assert!(open(&store, digest).await.is_some());
}

async fn what_is_removed_is_gone_and_can_come_back(store: Store) {
    let (digest, _) = put(&store, b"bytes").await;
    let nowhere = [digest, Digest::of("never there")].map(|digest| (digest, Vec::new()));
    assert_eq!(store.retain(nowhere.into()).await.unwrap(), Freed { files: 1, bytes: 5 });
    assert_eq!(store.stat(digest).await.unwrap(), None);
    assert_eq!(put(&store, b"bytes").await, (digest, Put::Stored));
    assert!(open(&store, digest).await.is_some());
}

async fn what_a_scope_does_not_need_leaves_it_and_stays_in_others(store: Store) {
    let other: Scope = "other".parse().unwrap();
    let (digest, _) = put(&store, b"bytes").await;
    seal(&store, b"bytes").await.commit(&other, &writer("a")).await.unwrap();
    assert_eq!(store.retain(vec![(digest, vec![other.clone()])]).await.unwrap(), Freed::default());
    assert!(!store.was_put(&main_scope(), &writer("a"), digest).await.unwrap());
    assert!(store.was_put(&other, &writer("a"), digest).await.unwrap());
    // What only a scope stands on that nobody put there stays as well.
    let third: Scope = "third".parse().unwrap();
    assert_eq!(store.retain(vec![(digest, vec![third])]).await.unwrap(), Freed::default());
    assert!(store.open(digest).await.unwrap().is_some());
    assert_eq!(store.list(digest.as_bytes()[0]).await.unwrap(), [digest]);
}

async fn blobs_are_listed_by_their_first_byte(store: Store) {
    let (digest, _) = put(&store, b"bytes").await;
    let shard = digest.as_bytes()[0];
    assert_eq!(store.list(shard).await.unwrap(), [digest]);
    assert_eq!(store.list(shard.wrapping_add(1)).await.unwrap(), []);
}

async fn many_puts_of_one_blob_at_once(store: Store) {
    let puts = (0..20).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { put(&store, &[3; 300_000]).await.1 })
    });
    let outcomes = futures::future::join_all(puts).await;
    let stored = outcomes.into_iter().filter(|put| matches!(put, Ok(Put::Stored))).count();
    assert_eq!(stored, 1);
    let opened = open(&store, Digest::of([3; 300_000])).await.unwrap();
    assert_eq!(opened.read(0, 300_000).await.unwrap(), [3; 300_000][..]);
}

async fn the_empty_blob_is_a_blob(store: Store) {
    let (digest, put) = put(&store, b"").await;
    assert_eq!((digest, put), (Digest::of(""), Put::Stored));
    let opened = open(&store, digest).await.unwrap();
    assert!(opened.stat().has_its_size());
    assert_eq!(opened.read(0, 10).await.unwrap(), b""[..]);
}
