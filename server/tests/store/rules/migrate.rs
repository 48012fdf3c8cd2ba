//! A store that an older server wrote: it is opened, and what it holds is there.

use std::path::Path;
use std::sync::Arc;

use pcmcache_server::clock::{MANUAL_START_S, ManualClock};
use pcmcache_server::embedded::{Embedded, FORMAT, OpenError};
use pcmcache_server::results::Results;
use pcmcache_shared::api::acquire::AcquireLine;
use pcmcache_shared::{Digest, Writer};
use redb::{Database, TableDefinition};
use serde_json::json;

use crate::bench::{Bench, Module, Scratch, scope};

type Name = &'static [u8; 32];
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const RESULTS: TableDefinition<(&str, Name), &[u8]> = TableDefinition::new("results");
const SETS: TableDefinition<(&str, Name), &[u8]> = TableDefinition::new("sets");
const SET_RESULTS: TableDefinition<(&str, Name, Name), &[u8]> = TableDefinition::new("set-results");
const REFERENCES: TableDefinition<(Name, &str, Name), ()> = TableDefinition::new("references");
const VISIBLE: TableDefinition<(Name, &str), u64> = TableDefinition::new("visible");
const LEASES: TableDefinition<(&str, Name), &[u8]> = TableDefinition::new("leases");

/// The data directory of a server of format 1 to which the module was published, and that had granted a lease.
fn written_by_format_1(directory: &Path, module: &Module) {
    let texts = [module.recipe().text().as_bytes().to_vec(), module.set().text().into_bytes()];
    let blobs = module.outputs.iter().chain(&texts);
    let (action, unit, set) = (module.key(), module.unit(), module.set().digest());
    let row = json!({ "result": module.result(), "unit": unit, "set": set }).to_string();
    let lease = json!({
        "fence": 7, "secret": "5ec2e7", "request_id": "r", "holder": "h", "expected_ms": null, "at_most_ms": 60_000,
    });

    let database = Database::create(directory.join("index.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut meta = transaction.open_table(META).unwrap();
        meta.insert("format", 1).unwrap();
        meta.insert("fence", 7).unwrap();
        let mut results = transaction.open_table(RESULTS).unwrap();
        results.insert(("main", action.as_bytes()), row.as_bytes()).unwrap();
        let mut sets = transaction.open_table(SETS).unwrap();
        sets.insert(("main", unit.as_bytes()), set.as_bytes().as_slice()).unwrap();
        let mut set_results = transaction.open_table(SET_RESULTS).unwrap();
        let key = ("main", unit.as_bytes(), set.as_bytes());
        set_results.insert(key, action.as_bytes().as_slice()).unwrap();
        let mut references = transaction.open_table(REFERENCES).unwrap();
        let mut visible = transaction.open_table(VISIBLE).unwrap();
        for bytes in blobs {
            let digest = Digest::of(bytes);
            references.insert((digest.as_bytes(), "main", action.as_bytes()), ()).unwrap();
            visible.insert((digest.as_bytes(), "main"), bytes.len() as u64).unwrap();
            let place = directory.join("blobs").join(&digest.to_string()[..2]);
            fs_err::create_dir_all(&place).unwrap();
            fs_err::write(place.join(digest.to_string()), bytes).unwrap();
        }
        let mut leases = transaction.open_table(LEASES).unwrap();
        let claim = Digest::of("under way");
        leases.insert(("main", claim.as_bytes()), lease.to_string().as_bytes()).unwrap();
    }
    transaction.commit().unwrap();
}

#[tokio::test]
async fn what_format_1_held_is_there_as_the_work_of_before_tokens() {
    let (scratch, module) = (Scratch::new(), Module::new("m"));
    written_by_format_1(scratch.path(), &module);
    for round in ["migrated", "opened again"] {
        let bench = Bench::on_disk(scratch.path());
        let line = bench.acquire(module.knowing("a")).await.next().await;
        let Some(AcquireLine::Hit(hit)) = line else { panic!("{round}: {line:?}") };
        assert_eq!((hit.scope, hit.writers), (scope(), vec![Writer::before_tokens()]), "{round}");
        let line = bench.acquire(module.request("b")).await.next().await;
        assert!(matches!(line, Some(AcquireLine::Sets { .. })), "{round}: {line:?}");
        for bytes in &module.outputs {
            assert_eq!(bench.read(Digest::of(bytes)).await.unwrap().as_ref(), Some(bytes), "{round}");
        }
    }
    let store = Embedded::open(scratch.path(), Arc::new(ManualClock::default())).unwrap();
    let stored = store.get(&scope(), module.key()).await.unwrap().unwrap();
    assert_eq!(stored.published_s, MANUAL_START_S);
    let blobs = [Digest::of(&module.outputs[0]), module.key().recipe(), module.set().digest()];
    let named = blobs.map(|blob| (blob, vec![scope()]));
    assert_eq!(store.named_in(blobs.to_vec()).await.unwrap(), named);
}

#[tokio::test]
async fn a_store_of_a_newer_server_is_refused_and_left_as_it_is() {
    let scratch = Scratch::new();
    for format in [0, FORMAT + 1, u64::MAX] {
        let path = scratch.path().join("index.redb");
        let _ = fs_err::remove_file(&path);
        let database = Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(META).unwrap().insert("format", format).unwrap();
        transaction.commit().unwrap();
        drop(database);
        match Embedded::open(scratch.path(), Arc::new(ManualClock::default())) {
            Err(error @ OpenError::Format { found, .. }) => {
                assert_eq!(found, format);
                assert!(error.to_string().contains("newer"), "{error}");
            }
            other => panic!("{format}: {other:?}"),
        }
    }
}
