//! What is kept in memory of blobs that were read says what the store says: after each thing that takes one away, nobody sees it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pcmcache_server::trust::Revoked;
use pcmcache_server::{cache, scrub};
use pcmcache_shared::Digest;

use crate::bench::{Bench, Module, Scratch, view};

const PIN: Duration = Duration::from_secs(600);
const SMALL: &[u8] = b"a small blob";

fn place_of(directory: &Path, digest: Digest) -> PathBuf {
    let name = digest.to_string();
    directory.join("blobs").join(&name[..2]).join(name)
}

/// Whether the bytes are served; twice, since the first time is what the second remembers.
async fn is_served(bench: &Bench, bytes: &[u8]) -> bool {
    let mut served = [false; 2];
    for served in &mut served {
        let read = bench.read(Digest::of(bytes)).await.unwrap();
        assert!(read.as_ref().is_none_or(|read| read == bytes));
        *served = read.is_some();
    }
    assert_eq!(served[0], served[1]);
    served[0]
}

#[tokio::test]
async fn what_was_swept_is_gone() {
    let scratch = Scratch::new();
    let bench = Bench::on_disk(scratch.path());
    bench.upload(SMALL).await.unwrap();
    assert!(is_served(&bench, SMALL).await);
    bench.clock.advance(2 * PIN);
    for shard in 0..=u8::MAX {
        cache::sweep_shard(&bench.cache, shard).await.unwrap();
    }
    assert!(!is_served(&bench, SMALL).await);
    bench.upload(SMALL).await.unwrap();
    assert!(is_served(&bench, SMALL).await);
}

#[tokio::test]
async fn what_the_revoked_published_is_gone_for_those_who_read_it_before() {
    let scratch = Scratch::new();
    for bench in [Bench::in_memory(), Bench::on_disk(scratch.path())] {
        let module = Module::new("m").making("planted");
        bench.share(&module, None).await.unwrap();
        let other = pcmcache_server::trust::Principal {
            writers: vec!["other".parse().unwrap()],
            ..pcmcache_server::trust::Principal::anyone()
        };
        let other = other.view(&view().scope().clone()).unwrap();
        let planted = Digest::of(b"planted");
        for _ in 0..2 {
            assert!(bench.cache.open_blob(&other, planted).await.unwrap().is_some());
        }
        let writers = || view().asker().to_vec();
        bench.cache.hide(Revoked {
            refused: writers().into_iter().collect(),
            hidden: writers().into_iter().collect(),
        });
        assert!(bench.cache.open_blob(&other, planted).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn what_the_scrub_finds_damaged_is_not_served_from_memory_either() {
    let scratch = Scratch::new();
    let bench = Bench::on_disk(scratch.path());
    bench.upload(SMALL).await.unwrap();
    assert!(is_served(&bench, SMALL).await);
    fs_err::write(place_of(scratch.path(), Digest::of(SMALL)), b"another blob").unwrap();
    assert!(is_served(&bench, SMALL).await, "it is in memory, and is right");
    let findings = scrub::once(&bench.cache, |_, _| {}).await.unwrap();
    assert_eq!(findings.damaged, [Digest::of(SMALL)]);
    assert!(!is_served(&bench, SMALL).await);
}

#[tokio::test]
async fn a_publish_looks_at_the_disk_and_heals_what_memory_hides() {
    let scratch = Scratch::new();
    let bench = Bench::on_disk(scratch.path());
    let module = Module::new("m");
    bench.share(&module, None).await.unwrap();
    let recipe = module.recipe().text().to_owned();
    assert!(is_served(&bench, recipe.as_bytes()).await);
    let place = place_of(scratch.path(), module.key().recipe());
    let mut damaged = recipe.clone().into_bytes();
    damaged[0] ^= 1;
    fs_err::write(&place, damaged).unwrap();
    bench.share(&module, None).await.unwrap();
    assert_eq!(fs_err::read_to_string(&place).unwrap(), recipe);
}

#[tokio::test]
async fn a_copy_that_was_right_is_hashed_again_after_a_while_or_a_write() {
    let scratch = Scratch::new();
    let bench = Bench::on_disk(scratch.path());
    let large = vec![7; 300_000];
    bench.upload(&large).await.unwrap();
    assert!(is_served(&bench, &large).await);
    let place = place_of(scratch.path(), Digest::of(&large));
    let mut damaged = large.clone();
    damaged[0] ^= 1;
    fs_err::write(&place, &damaged).unwrap();
    let blob = bench.cache.open_blob(&view(), Digest::of(&large)).await.unwrap().unwrap();
    let mut stream = blob.stream(None).await.unwrap();
    let mut came = 0;
    while let Some(Ok(bytes)) = futures::StreamExt::next(&mut stream).await {
        came += bytes.len();
    }
    assert!(came < large.len(), "the last bytes do not go out");
    assert!(!is_served(&bench, &large).await);
}
