//! What every result store promises.

use std::path::Path;
use std::sync::Arc;

use pcmcache_server::clock::SystemClock;
use pcmcache_server::embedded::Embedded;
use pcmcache_server::memory::MemoryResults;
use pcmcache_server::results::{Creation, Publication, Results, StoredResult};
use pcmcache_server::trust::WriterSet;
use pcmcache_shared::api::limits::{MAX_RESULTS_PER_SET, MAX_SETS};
use pcmcache_shared::{ActionKey, ActionResult, Cost, Digest, Output, Role, Scope, UnitKey, Writer};

type Store = Arc<dyn Results>;

fn memory() -> Store {
    Arc::new(MemoryResults::default())
}

fn embedded(directory: &Path) -> Store {
    Embedded::open(directory, Arc::new(SystemClock::new())).unwrap()
}

super::every_back_end! {
    a_result_is_created_once,
    of_racing_creates_one_wins_and_all_learn_which,
    a_lost_result_is_replaced_by_name_only,
    sets_are_newest_learnt_first_and_bounded,
    results_under_a_set_are_newest_first_and_bounded,
    scopes_know_nothing_of_each_other,
    what_a_result_stands_on_is_referenced,
    a_result_names_its_blobs_in_its_scope_unless_it_is_hidden,
}

fn publication(key: &str, set: &str, bytes: &str) -> Publication {
    let output = Output { role: Role::Bmi, digest: Digest::of(bytes), size: bytes.len() as u64 };
    let result = ActionResult {
        outputs: vec![output],
        cost: Cost { wall_ms: 5 },
        builder: bytes.to_owned(),
        signature: None,
    };
    let (unit, set, writers) = (UnitKey::of("unit"), Digest::of(set), vec![Writer::before_tokens()]);
    let stored = StoredResult { result, unit, set, writers, published_s: 7 };
    Publication { action: ActionKey::of(key), stored, instead_of: None, ends: None }
}

async fn create(store: &Store, publication: &Publication) -> Creation {
    store.create(&Scope::default(), publication.clone()).await.unwrap()
}

async fn a_result_is_created_once(store: Store) {
    let (first, second) = (publication("key", "set", "first"), publication("key", "set", "second"));
    assert_eq!(store.get(&Scope::default(), first.action).await.unwrap(), None);
    assert_eq!(create(&store, &first).await, Creation::Created);
    assert_eq!(create(&store, &second).await, Creation::Exists(Box::new(first.stored.clone())));
    assert_eq!(store.get(&Scope::default(), first.action).await.unwrap(), Some(first.stored));
    assert_eq!(store.count().await.unwrap(), 1);
}

async fn of_racing_creates_one_wins_and_all_learn_which(store: Store) {
    let racers = (0..30).map(|n| {
        let (store, mine) = (Arc::clone(&store), publication("key", "set", &n.to_string()));
        tokio::spawn(async move { (create(&store, &mine).await, mine.stored) })
    });
    let outcomes: Vec<_> = futures::future::join_all(racers).await.into_iter().map(Result::unwrap).collect();
    let winner = store.get(&Scope::default(), ActionKey::of("key")).await.unwrap().unwrap();
    for (creation, mine) in outcomes {
        match creation {
            Creation::Created => assert_eq!(mine, winner),
            Creation::Exists(there) => assert_eq!(*there, winner),
        }
    }
}

async fn a_lost_result_is_replaced_by_name_only(store: Store) {
    let first = publication("key", "set", "first");
    create(&store, &first).await;
    let wrong = Publication {
        instead_of: Some(publication("key", "set", "other").stored),
        ..publication("key", "set", "second")
    };
    assert_eq!(create(&store, &wrong).await, Creation::Exists(Box::new(first.stored.clone())));
    let right = Publication { instead_of: Some(first.stored.clone()), ..wrong };
    assert_eq!(create(&store, &right).await, Creation::Created);
    assert_eq!(create(&store, &right).await, Creation::Exists(Box::new(right.stored.clone())));
    let digests = vec![Digest::of("first"), Digest::of("second")];
    assert_eq!(store.unreferenced(digests).await.unwrap(), [Digest::of("first")]);
}

async fn sets_are_newest_learnt_first_and_bounded(store: Store) {
    for n in 0..MAX_SETS + 2 {
        create(&store, &publication(&format!("key {n}"), &format!("set {n}"), "b")).await;
    }
    // A result under a set that is known does not make it newer.
    create(&store, &publication("another key", "set 5", "b")).await;
    let rows = store.sets(&Scope::default(), UnitKey::of("unit")).await.unwrap();
    let expected: Vec<_> = (2..MAX_SETS + 2).rev().map(|n| Digest::of(format!("set {n}"))).collect();
    assert_eq!(rows.iter().map(|row| row.set).collect::<Vec<_>>(), expected);
    assert_eq!(store.sets(&Scope::default(), UnitKey::of("other")).await.unwrap(), []);
}

async fn results_under_a_set_are_newest_first_and_bounded(store: Store) {
    for n in 0..MAX_RESULTS_PER_SET + 2 {
        create(&store, &publication(&format!("key {n}"), "set", "b")).await;
    }
    let rows = store.sets(&Scope::default(), UnitKey::of("unit")).await.unwrap();
    let expected: Vec<_> =
        (2..MAX_RESULTS_PER_SET + 2).rev().map(|n| ActionKey::of(format!("key {n}"))).collect();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].actions, expected);
}

async fn scopes_know_nothing_of_each_other(store: Store) {
    let other: Scope = "other".parse().unwrap();
    let first = publication("key", "set", "first");
    create(&store, &first).await;
    assert_eq!(store.get(&other, first.action).await.unwrap(), None);
    assert_eq!(store.sets(&other, UnitKey::of("unit")).await.unwrap(), []);
    let second = publication("key", "set", "second");
    assert_eq!(store.create(&other, second.clone()).await.unwrap(), Creation::Created);
    assert_eq!(store.get(&Scope::default(), first.action).await.unwrap(), Some(first.stored));
    assert_eq!(store.count().await.unwrap(), 2);
}

async fn what_a_result_stands_on_is_referenced(store: Store) {
    let result = publication("key", "set", "bytes");
    create(&store, &result).await;
    let all = vec![Digest::of("bytes"), Digest::of("set"), result.action.recipe(), Digest::of("free")];
    assert_eq!(store.unreferenced(all).await.unwrap(), [Digest::of("free")]);
}

async fn a_result_names_its_blobs_in_its_scope_unless_it_is_hidden(store: Store) {
    let (main, other): (Scope, Scope) = (Scope::default(), "other".parse().unwrap());
    let by = |key: &str, writers: &[&str]| {
        let mut publication = publication(key, "set", "bytes");
        publication.stored.writers = writers.iter().map(|name| name.parse().unwrap()).collect();
        publication
    };
    let hidden = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<WriterSet>();
    let names = async |scopes: &[&Scope], bytes: &str, hidden: &WriterSet| {
        let scopes: Vec<_> = scopes.iter().map(|scope| (*scope).clone()).collect();
        store.names(&scopes, Digest::of(bytes), hidden).await.unwrap()
    };
    create(&store, &by("one", &["a", "a-session"])).await;
    create(&store, &by("two", &["b"])).await;
    let recipe = publication("one", "set", "bytes").action.recipe();
    assert!(store.names(std::slice::from_ref(&main), recipe, &WriterSet::default()).await.unwrap());
    for (scopes, bytes, revoked, expected) in [
        (&[&main][..], "bytes", &[][..], true),
        (&[&main], "set", &[], true),
        (&[&main], "other bytes", &[], false),
        (&[&other], "bytes", &[], false),
        (&[&other, &main], "bytes", &[], true),
        (&[], "bytes", &[], false),
        (&[&main], "bytes", &["a"], true),
        (&[&main], "bytes", &["a-session", "b"], false),
        (&[&main], "bytes", &["c"], true),
    ] {
        assert_eq!(names(scopes, bytes, &hidden(revoked)).await, expected, "{scopes:?} {bytes} {revoked:?}");
    }
}
