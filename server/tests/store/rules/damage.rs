//! A disk that lies: what no longer matches its name is never served whole, its result stops answering, and the next
//! publish heals it.

use std::path::{Path, PathBuf};

use pcmcache_server::cache::{CacheError, Published};
use pcmcache_shared::Digest;
use pcmcache_shared::api::acquire::AcquireLine;

use crate::bench::{Bench, Module, Scratch, view};

fn place_of(directory: &Path, digest: Digest) -> PathBuf {
    let name = digest.to_string();
    directory.join("blobs").join(&name[..2]).join(name)
}

/// What may happen to a file, and its name.
type Damage = (&'static str, fn(&mut Vec<u8>));

const DAMAGES: [Damage; 6] = [
    ("the first byte flipped", |bytes| bytes[0] ^= 1),
    ("the last byte flipped", |bytes| *bytes.last_mut().unwrap() ^= 0x80),
    ("a byte in the middle flipped", |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
    }),
    ("cut", |bytes| bytes.truncate(bytes.len() / 2)),
    ("extended", |bytes| bytes.push(0)),
    ("emptied", Vec::clear),
];

fn damage(path: &Path, change: fn(&mut Vec<u8>)) {
    let mut bytes = fs_err::read(path).unwrap();
    change(&mut bytes);
    fs_err::write(path, bytes).unwrap();
}

/// Reads until the end or an error; gives what came and whether that was all.
async fn read_some(bench: &Bench, digest: Digest) -> (usize, bool) {
    let blob = match bench.cache.open_blob(&view(), digest).await.unwrap() {
        Some(blob) => blob,
        None => return (0, false),
    };
    let mut stream = match blob.stream(None).await {
        Ok(stream) => stream,
        Err(CacheError::Damaged(_)) => return (0, false),
        Err(other) => panic!("{other}"),
    };
    let mut came = 0;
    while let Some(bytes) = futures::StreamExt::next(&mut stream).await {
        match bytes {
            Ok(bytes) => came += bytes.len(),
            Err(CacheError::Damaged(_)) => return (came, false),
            Err(other) => panic!("{other}"),
        }
    }
    (came, true)
}

#[tokio::test]
async fn a_damaged_output_is_never_served_whole_and_its_result_heals() {
    let module = Module::new("m");
    for (what, change) in DAMAGES {
        for (index, bytes) in module.outputs.iter().enumerate() {
            let scratch = Scratch::new();
            let bench = Bench::on_disk(scratch.path());
            bench.share(&module, None).await.unwrap();
            let digest = Digest::of(bytes);
            assert_eq!(bench.read(digest).await.unwrap().as_ref(), Some(bytes));
            damage(&place_of(scratch.path(), digest), change);

            // A small one is still in memory, where it is right, until a restart.
            drop(bench);
            let bench = Bench::on_disk(scratch.path());
            let (came, whole) = read_some(&bench, digest).await;
            assert!(!whole && came < bytes.len(), "{what}, output {index}: {came} bytes came");
            assert_eq!(bench.cache.counters().damaged_blobs, 1, "{what}, output {index}");
            let aside = scratch.path().join("damaged").join(format!("{digest}.0"));
            assert!(aside.exists(), "{what}, output {index}");

            assert_eq!(bench.cache.result(&view(), module.key()).await.unwrap(), None, "{what}");
            let mut client = bench.acquire(module.knowing("a")).await;
            let held = client.granted().await;
            assert!(matches!(bench.publish(&module, Some(&held)).await, Err(CacheError::Missing(_))));
            // With its bytes the result is whole again.
            assert_eq!(bench.share(&module, Some(&held)).await.unwrap(), Published::Same);
            assert_eq!(bench.read(digest).await.unwrap().as_ref(), Some(bytes));
            let line = bench.acquire(module.knowing("b")).await.next().await;
            assert!(matches!(line, Some(AcquireLine::Hit(_))), "{what}: {line:?}");
        }
    }
}

#[tokio::test]
async fn a_result_that_lost_its_bytes_is_replaced_by_one_that_has_some() {
    let scratch = Scratch::new();
    let bench = Bench::on_disk(scratch.path());
    let (lost, rebuilt) = (Module::new("m"), Module::new("m").making("other bytes"));
    bench.share(&lost, None).await.unwrap();
    assert!(matches!(bench.share(&rebuilt, None).await, Err(CacheError::Winner(_))));
    damage(&place_of(scratch.path(), Digest::of(&lost.outputs[0])), |bytes| bytes[0] ^= 1);
    assert_eq!(bench.cache.result(&view(), lost.key()).await.unwrap(), None);
    assert_eq!(bench.share(&rebuilt, None).await.unwrap(), Published::Stored);
    assert_eq!(bench.cache.counters().replaced, 1);
    let stored = bench.cache.result(&view(), lost.key()).await.unwrap().unwrap();
    assert_eq!(stored.result, rebuilt.result());
}

#[tokio::test]
async fn a_part_of_a_damaged_blob_is_not_served_either() {
    for (what, change) in DAMAGES {
        for read_before in [false, true] {
            let scratch = Scratch::new();
            let bench = Bench::on_disk(scratch.path());
            let bytes = vec![5; 800_000];
            bench.upload(&bytes).await.unwrap();
            let digest = Digest::of(&bytes);
            if read_before {
                bench.read_range(digest, Some(0..10)).await.unwrap();
            }
            damage(&place_of(scratch.path(), digest), change);
            match bench.read_range(digest, Some(300_000..300_010)).await {
                Ok(None) | Err(CacheError::Damaged(_)) => {}
                other => panic!("{what}: {other:?}"),
            }
            assert!(bench.cache.open_blob(&view(), digest).await.unwrap().is_none(), "{what}");
        }
    }
}

#[tokio::test]
async fn a_damaged_small_blob_does_not_ride_along() {
    for (what, change) in DAMAGES {
        let scratch = Scratch::new();
        let bench = Bench::on_disk(scratch.path());
        let module = Module::new("m");
        bench.share(&module, None).await.unwrap();
        damage(&place_of(scratch.path(), Digest::of(&module.outputs[0])), change);
        assert_eq!(bench.cache.result(&view(), module.key()).await.unwrap(), None, "{what}");
    }
}

#[tokio::test]
async fn damaged_texts_are_no_texts_and_heal() {
    for (what, change) in DAMAGES {
        let scratch = Scratch::new();
        let bench = Bench::on_disk(scratch.path());
        let module = Module::new("m");
        bench.share(&module, None).await.unwrap();
        damage(&place_of(scratch.path(), module.set().digest()), change);
        damage(&place_of(scratch.path(), module.key().recipe()), change);
        // Nobody is offered the set; who knows it still finds the result, or builds it again.
        let mut client = bench.acquire(module.request("a")).await;
        let held = client.granted().await;
        assert!(bench.read(module.key().recipe()).await.ok().flatten().is_none(), "{what}");
        assert_eq!(bench.share(&module, Some(&held)).await.unwrap(), Published::Stored, "{what}");
        let recipe = bench.read(module.key().recipe()).await.unwrap().unwrap();
        assert_eq!(recipe, module.recipe().text().as_bytes());
        let line = bench.acquire(module.request("b")).await.next().await;
        assert!(matches!(line, Some(AcquireLine::Sets { .. })), "{what}: {line:?}");
    }
}

#[tokio::test]
async fn a_set_that_is_damaged_alone_heals_when_its_result_is_published_again() {
    for (what, change) in DAMAGES {
        let scratch = Scratch::new();
        let bench = Bench::on_disk(scratch.path());
        let module = Module::new("m");
        bench.share(&module, None).await.unwrap();
        damage(&place_of(scratch.path(), module.set().digest()), change);
        assert_eq!(bench.share(&module, None).await.unwrap(), Published::Same, "{what}");
        let line = bench.acquire(module.request("b")).await.next().await;
        assert!(matches!(line, Some(AcquireLine::Sets { .. })), "{what}: {line:?}");
    }
}

#[tokio::test]
async fn an_upload_replaces_a_copy_that_nobody_knew_was_damaged() {
    let scratch = Scratch::new();
    let bench = Bench::on_disk(scratch.path());
    bench.upload(b"some bytes").await.unwrap();
    let digest = Digest::of("some bytes");
    damage(&place_of(scratch.path(), digest), |bytes| bytes[0] ^= 1);
    bench.upload(b"some bytes").await.unwrap();
    assert_eq!(bench.read(digest).await.unwrap().unwrap(), b"some bytes");
    assert_eq!(bench.cache.counters().damaged_blobs, 0);
}

#[tokio::test]
async fn a_copy_that_changes_while_it_is_read_is_not_served_whole() {
    let scratch = Scratch::new();
    let bench = Bench::on_disk(scratch.path());
    let bytes = vec![5; 800_000];
    bench.upload(&bytes).await.unwrap();
    let digest = Digest::of(&bytes);
    for range in [None, Some(0..800_000)] {
        bench.upload(&bytes).await.unwrap();
        let blob = bench.cache.open_blob(&view(), digest).await.unwrap().unwrap();
        let mut stream = blob.stream(range).await.unwrap();
        let first = futures::StreamExt::next(&mut stream).await.unwrap().unwrap();
        assert!(first.len() < bytes.len());
        damage(&place_of(scratch.path(), digest), |bytes| *bytes.last_mut().unwrap() ^= 1);
        let rest: Vec<_> = futures::StreamExt::collect(&mut stream).await;
        assert!(matches!(rest.last(), Some(Err(CacheError::Damaged(_)))));
    }
}
