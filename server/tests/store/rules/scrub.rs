//! The scrub finds what the disk lost, all of it and nothing else; what is found answers nobody, and heals.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pcmcache_server::cache::Published;
use pcmcache_server::scrub;
use pcmcache_shared::Digest;

use super::restart::kill;
use crate::bench::{Bench, Chance, Module, Scratch, eventually, settle, view};

fn place_of(directory: &Path, digest: Digest) -> PathBuf {
    let name = digest.to_string();
    directory.join("blobs").join(&name[..2]).join(name)
}

/// Flips one bit somewhere in the file, and leaves its times as they were: a disk does not tell.
fn flip(path: &Path, chance: &mut Chance) {
    let mut bytes = fs_err::read(path).unwrap();
    let times = fs_err::metadata(path).unwrap();
    let at = chance.below(bytes.len() as u64) as usize;
    bytes[at] ^= 1 << chance.below(8);
    let file = fs_err::OpenOptions::new().write(true).truncate(false).open(path).unwrap();
    fs_err::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    file.file().set_modified(times.modified().unwrap()).unwrap();
}

#[tokio::test]
async fn each_of_a_thousand_random_flips_is_found() {
    let mut chance = Chance::new("each_of_a_thousand_random_flips_is_found");
    let scratch = Scratch::new();
    let bench = Bench::on_disk(scratch.path());
    let mut stored = Vec::new();
    for batch in 0..12_u64 {
        let blobs: Vec<Vec<u8>> = (0..100)
            .map(|n| {
                let length = 1 + chance.below([1, 100, 20_000, 400_000][(n % 4) as usize]);
                (0..length)
                    .map(|i| (i ^ n ^ (batch << 3)) as u8)
                    .chain((batch * 100 + n).to_le_bytes())
                    .collect()
            })
            .collect();
        futures::future::join_all(blobs.iter().map(|bytes| bench.upload(bytes))).await;
        stored.extend(blobs.iter().map(Digest::of));
    }
    chance.shuffle(&mut stored);
    let (flipped, sound) = stored.split_at(1000);
    for digest in flipped {
        flip(&place_of(scratch.path(), *digest), &mut chance);
    }
    let findings = scrub::once(&bench.cache, |_, _| {}).await.unwrap();
    let (mut found, mut expected) = (findings.damaged.clone(), flipped.to_vec());
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(findings.blobs, 1200);
    for digest in sound {
        assert_eq!(Digest::of(bench.read(*digest).await.unwrap().unwrap()), *digest);
    }
    let again = scrub::once(&bench.cache, |_, _| {}).await.unwrap();
    assert_eq!((again.blobs, again.damaged.len()), (200, 0));
    let counters = bench.cache.counters();
    assert_eq!((counters.damaged_blobs, counters.scrubbed_blobs, counters.scrub_rounds), (1000, 1400, 2));
}

#[tokio::test]
async fn what_is_lost_hides_its_results_until_it_is_stored_again() {
    let (scratch, module) = (Scratch::new(), Module::new("m"));
    let bench = Bench::on_disk(scratch.path());
    bench.share(&module, None).await.unwrap();
    bench.share(&Module::new("other").making("other bmi"), None).await.unwrap();
    assert_eq!(bench.cache.results().await.unwrap(), 2);
    let digest = Digest::of(&module.outputs[0]);
    let place = place_of(scratch.path(), digest);
    fs_err::write(&place, "changed").unwrap();
    let findings = scrub::once(&bench.cache, |_, _| {}).await.unwrap();
    assert_eq!(findings.damaged, [digest]);
    assert_eq!(bench.cache.results().await.unwrap(), 1);
    assert_eq!(bench.cache.result(&view(), module.key()).await.unwrap(), None);
    kill(bench, scratch.path()).await;
    let bench = Bench::on_disk(scratch.path());
    assert_eq!(bench.cache.results().await.unwrap(), 1);
    assert_eq!(bench.share(&module, None).await.unwrap(), Published::Same);
    assert_eq!(bench.cache.results().await.unwrap(), 2);
}

#[tokio::test]
async fn it_keeps_to_its_rate_and_goes_on_where_it_was() {
    let scratch = Scratch::new();
    let bench = Bench::on_disk(scratch.path());
    let blobs: Vec<Vec<u8>> = (0..40_u8).map(|n| vec![n; 10_000]).collect();
    for bytes in &blobs {
        bench.upload(bytes).await.unwrap();
    }
    let scrubbed = || bench.cache.counters().scrubbed_bytes;
    let task = tokio::spawn(scrub::run(bench.cache.clone(), 1000));
    for _ in 0..60 {
        settle().await;
        tokio::time::sleep(Duration::from_millis(2)).await;
        bench.clock.advance(Duration::from_secs(1));
        assert!(scrubbed() <= 1000 * 60 + 20_000, "{}", scrubbed());
    }
    eventually("some was read", async || {
        bench.clock.advance(Duration::from_secs(1));
        scrubbed() >= 150_000
    })
    .await;
    task.abort();
    let _ = task.await;
    let before = scrubbed();
    kill(bench, scratch.path()).await;
    let bench = Bench::on_disk(scratch.path());
    let task = tokio::spawn(scrub::run(bench.cache.clone(), 1 << 30));
    eventually("all was read", async || {
        bench.clock.advance(Duration::from_secs(1));
        bench.cache.counters().scrub_rounds == 1
    })
    .await;
    task.abort();
    let rest = bench.cache.counters().scrubbed_bytes;
    // A shard that was not done is begun again.
    assert!((400_000 - before..=400_000 - before + 40_000).contains(&rest), "{before} before, {rest} after");
}
