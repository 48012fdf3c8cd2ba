//! The sweep takes what nobody needs, and nothing else.

use std::time::Duration;

use pcmcache_server::cache;
use pcmcache_shared::Digest;

use crate::bench::{Bench, Module, Scratch, view};

const PIN: Duration = Duration::from_secs(600);

async fn sweep_all(bench: &Bench) -> u64 {
    let mut swept = 0;
    for shard in 0..=u8::MAX {
        swept += cache::sweep_shard(&bench.cache, shard).await.unwrap();
    }
    swept
}

async fn sweeps_what_is_free_only(bench: Bench) {
    let module = Module::new("m");
    bench.share(&module, None).await.unwrap();
    bench.upload(b"free").await.unwrap();
    bench.clock.advance(PIN - Duration::from_millis(1));
    assert_eq!(sweep_all(&bench).await, 0, "it was just uploaded");
    bench.clock.advance(Duration::from_millis(1));
    assert!(bench.cache.has_blob(&view(), Digest::of("free")).await.unwrap().is_some());
    assert_eq!(sweep_all(&bench).await, 0, "someone was told that it is there");
    bench.clock.advance(PIN);
    assert_eq!(sweep_all(&bench).await, 1);
    assert_eq!(bench.cache.has_blob(&view(), Digest::of("free")).await.unwrap(), None);
    assert!(bench.cache.result(&view(), module.key()).await.unwrap().is_some());
    assert!(bench.read(module.set().digest()).await.unwrap().is_some());
    bench.upload(b"free").await.unwrap();
    assert_eq!(bench.read(Digest::of("free")).await.unwrap().unwrap(), b"free");
}

#[tokio::test]
async fn only_what_is_free_is_swept_from_memory() {
    sweeps_what_is_free_only(Bench::in_memory()).await;
}

#[tokio::test]
async fn only_what_is_free_is_swept_from_disk() {
    let scratch = Scratch::new();
    sweeps_what_is_free_only(Bench::on_disk(scratch.path())).await;
}

#[tokio::test]
async fn a_file_that_no_scope_knows_is_swept() {
    // What a kill between the rename and the row leaves.
    let scratch = Scratch::new();
    let bench = Bench::on_disk(scratch.path());
    let digest = Digest::of("orphan");
    let name = digest.to_string();
    let path = scratch.path().join("blobs").join(&name[..2]).join(&name);
    fs_err::write(&path, "orphan").unwrap();
    assert_eq!(bench.cache.has_blob(&view(), digest).await.unwrap(), None, "nobody can see it");
    bench.clock.advance(PIN);
    assert_eq!(sweep_all(&bench).await, 1);
    assert!(!path.exists());
}
