//! The check: silent about what kills and bad disks leave, and not about anything else.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pcmcache_server::cache;
use pcmcache_server::clock::ManualClock;
use pcmcache_server::embedded::{Checked, Embedded};
use pcmcache_server::scrub;
use pcmcache_shared::{ActionKey, Digest};
use redb::{Database, ReadableTable as _, TableDefinition, WriteTransaction};

use super::restart::kill;
use crate::bench::{Bench, Module, Scratch, assert_sound, scope};

const PIN: Duration = Duration::from_secs(600);

fn place_of(directory: &Path, digest: Digest) -> PathBuf {
    let name = digest.to_string();
    directory.join("blobs").join(&name[..2]).join(name)
}

/// Two modules, one of them in two versions, and a blob that nobody names.
async fn furnished(directory: &Path) -> (Module, Module) {
    let bench = Bench::on_disk(directory);
    let (a, b) = (Module::new("a"), Module::new("b").making("b's own"));
    for module in [&a, &b, &a.clone().over("later")] {
        bench.share(module, None).await.unwrap();
    }
    bench.upload(b"nobody's yet").await.unwrap();
    kill(bench, directory).await;
    (a, b)
}

async fn check(directory: &Path, full: bool) -> Checked {
    Embedded::open(directory, Arc::new(ManualClock::default())).unwrap().check(full).await.unwrap()
}

#[tokio::test]
async fn a_store_that_was_used_is_sound() {
    let scratch = Scratch::new();
    furnished(scratch.path()).await;
    let checked = assert_sound(scratch.path()).await;
    assert_eq!((checked.results, checked.notes.len()), (3, 0), "{checked:?}");
    let bench = Bench::on_disk(scratch.path());
    bench.clock.advance(PIN);
    for shard in 0..=u8::MAX {
        cache::sweep_shard(&bench.cache, shard).await.unwrap();
    }
    kill(bench, scratch.path()).await;
    assert_eq!(assert_sound(scratch.path()).await.blobs, checked.blobs - 1);
}

#[tokio::test]
async fn what_a_power_cut_leaves_of_a_small_blob_is_noted_only() {
    let scratch = Scratch::new();
    furnished(scratch.path()).await;
    fs_err::write(place_of(scratch.path(), Digest::of("a text")), "a te").unwrap();
    assert_eq!(assert_sound(scratch.path()).await.notes.len(), 1);
}

#[tokio::test]
async fn what_is_lost_and_what_a_kill_leaves_is_noted_only() {
    let scratch = Scratch::new();
    let (a, b) = furnished(scratch.path()).await;
    fs_err::write(place_of(scratch.path(), Digest::of(&a.outputs[0])), "changed").unwrap();
    let bench = Bench::on_disk(scratch.path());
    assert_eq!(scrub::once(&bench.cache, |_, _| {}).await.unwrap().damaged.len(), 1);
    kill(bench, scratch.path()).await;
    // A kill between the file and its row, one between moving aside and its note, one while it is stored again.
    fs_err::write(place_of(scratch.path(), Digest::of("orphan")), "orphan").unwrap();
    let moved = Digest::of(&b.outputs[0]);
    fs_err::rename(place_of(scratch.path(), moved), scratch.path().join(format!("damaged/{moved}.0")))
        .unwrap();
    fs_err::write(place_of(scratch.path(), Digest::of(&a.outputs[0])), &a.outputs[0]).unwrap();
    let checked = assert_sound(scratch.path()).await;
    assert_eq!(checked.notes.len(), 3, "{checked:?}");
    assert!(checked.notes[0].starts_with("2 blobs that results name are lost"), "{checked:?}");
    // It mends itself.
    let bench = Bench::on_disk(scratch.path());
    for module in [&a, &b] {
        bench.share(module, None).await.unwrap();
    }
    assert_eq!(bench.cache.results().await.unwrap(), 3);
    kill(bench, scratch.path()).await;
    assert_eq!(assert_sound(scratch.path()).await.notes.len(), 2);
}

type Name = &'static [u8; 32];
const RESULTS: TableDefinition<(&str, Name), &[u8]> = TableDefinition::new("results");
const SETS: TableDefinition<(&str, Name), &[u8]> = TableDefinition::new("sets");
const SET_RESULTS: TableDefinition<(&str, Name, Name), &[u8]> = TableDefinition::new("set-results");
const REFERENCES: TableDefinition<(Name, &str, Name), &str> = TableDefinition::new("references");
const UPLOADS: TableDefinition<(Name, &str, &str), u64> = TableDefinition::new("uploads");
const USED: TableDefinition<(&str, Name), (u64, u64, u64)> = TableDefinition::new("used");

/// Changes the index behind the server's back.
fn tamper(directory: &Path, change: impl FnOnce(&WriteTransaction)) {
    let index = Database::open(directory.join("index.redb")).unwrap();
    let transaction = index.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
}

/// A wrong to do to the store, what it is, and what the check says to it.
type Wrong = (&'static str, fn(&Path, &Module), &'static str);

const WRONGS: [Wrong; 14] = [
    (
        "a file that is none of ours",
        |dir, _| fs_err::write(dir.join("blobs/ab/notes.txt"), "x").unwrap(),
        "notes.txt",
    ),
    (
        "a blob in the wrong shard",
        |dir, a| {
            let digest = Digest::of(&a.outputs[0]);
            let other = if digest.to_string().starts_with("00") { "01" } else { "00" };
            fs_err::copy(place_of(dir, digest), dir.join("blobs").join(other).join(digest.to_string()))
                .map(drop)
                .unwrap();
        },
        "did not make",
    ),
    (
        "a blob removed by hand",
        |dir, a| fs_err::remove_file(place_of(dir, Digest::of(&a.outputs[0]))).unwrap(),
        "is gone",
    ),
    (
        "a blob cut by hand",
        |dir, a| fs_err::write(place_of(dir, Digest::of(&a.outputs[0])), "").unwrap(),
        "has 0 bytes",
    ),
    (
        "a blob changed by hand",
        |dir, a| {
            fs_err::write(place_of(dir, Digest::of(&a.outputs[0])), vec![b'?'; a.outputs[0].len()]).unwrap();
        },
        "not those of its name",
    ),
    (
        "a result that cannot be read",
        |dir, a| {
            tamper(dir, |index| {
                index.open_table(RESULTS).unwrap().insert(("main", a.key().as_bytes()), &b"{"[..]).unwrap();
            })
        },
        "cannot be read",
    ),
    (
        "a result without a reference",
        |dir, a| {
            tamper(dir, |index| {
                let blob = Digest::of(&a.outputs[0]);
                index
                    .open_table(REFERENCES)
                    .unwrap()
                    .remove((blob.as_bytes(), "main", a.key().as_bytes()))
                    .unwrap();
            })
        },
        "its reference to the blob",
    ),
    (
        "a reference by others",
        |dir, a| {
            tamper(dir, |index| {
                let blob = Digest::of(&a.outputs[0]);
                let mut references = index.open_table(REFERENCES).unwrap();
                references.insert((blob.as_bytes(), "main", a.key().as_bytes()), "someone-else").unwrap();
            })
        },
        "its reference to the blob",
    ),
    (
        "a reference without a result",
        |dir, _| {
            tamper(dir, |index| {
                let (blob, action) = (Digest::of("nobody's yet"), ActionKey::of("none"));
                index
                    .open_table(REFERENCES)
                    .unwrap()
                    .insert((blob.as_bytes(), "main", action.as_bytes()), "a")
                    .unwrap();
            })
        },
        "does not name it",
    ),
    (
        "a result unknown to eviction",
        |dir, a| {
            tamper(dir, |index| {
                index.open_table(USED).unwrap().remove(("main", a.key().as_bytes())).unwrap();
            })
        },
        "not known to eviction",
    ),
    (
        "a use of no result",
        |dir, _| {
            tamper(dir, |index| {
                index
                    .open_table(USED)
                    .unwrap()
                    .insert(("main", ActionKey::of("none").as_bytes()), (0, 0, 0))
                    .unwrap();
            })
        },
        "no such result",
    ),
    (
        "a set without results",
        |dir, a| {
            tamper(dir, |index| {
                let key = ("main", a.unit());
                let set = a.set().digest();
                index
                    .open_table(SET_RESULTS)
                    .unwrap()
                    .remove((key.0, key.1.as_bytes(), set.as_bytes()))
                    .unwrap();
            })
        },
        "no result is under it",
    ),
    (
        "a set that its unit forgot",
        |dir, a| {
            tamper(dir, |index| {
                index.open_table(SETS).unwrap().remove(("main", a.unit().as_bytes())).unwrap();
            })
        },
        "its unit does not know it",
    ),
    (
        "a blob that nobody put",
        |dir, a| {
            tamper(dir, |index| {
                let mut uploads = index.open_table(UPLOADS).unwrap();
                let blob = Digest::of(&a.outputs[0]);
                uploads.retain(|(digest, _, _), _| digest != blob.as_bytes()).unwrap();
                assert!(uploads.iter().unwrap().count() > 0);
            })
        },
        "nobody put it",
    ),
];

#[tokio::test]
async fn each_wrong_is_found_by_name() {
    for (what, wrong, says) in WRONGS {
        let scratch = Scratch::new();
        let (a, _) = furnished(scratch.path()).await;
        wrong(scratch.path(), &a);
        let checked = check(scratch.path(), true).await;
        assert!(checked.findings.iter().any(|finding| finding.contains(says)), "{what}: {checked:#?}");
    }
}

#[tokio::test]
async fn a_running_store_can_be_checked() {
    let scratch = Scratch::new();
    furnished(scratch.path()).await;
    let store = Embedded::open(scratch.path(), Arc::new(ManualClock::default())).unwrap();
    for n in 0..20_u8 {
        let (checked, put) = tokio::join!(store.check(false), async {
            use pcmcache_server::blobs::{Blobs as _, Staging};
            let Staging::Open(mut stage) = store.stage(&scope(), 10).await.unwrap() else {
                panic!("no room")
            };
            stage.write(vec![n; 10].into()).await.unwrap();
            stage.seal().await.unwrap().commit(&scope(), &"a".parse().unwrap()).await.unwrap()
        });
        assert_eq!(checked.unwrap().findings, [""; 0], "{put:?}");
    }
}
