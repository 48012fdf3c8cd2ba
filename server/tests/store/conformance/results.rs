//! What every result store promises.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pcmcache_server::clock::ManualClock;
use pcmcache_server::embedded::Embedded;
use pcmcache_server::memory::MemoryResults;
use pcmcache_server::results::{
    Creation, Pinned, Publication, Removed, Results, SetRow, Standing, StoredResult, Use,
};
use pcmcache_server::trust::WriterSet;
use pcmcache_shared::api::limits::{MAX_RESULTS_PER_SET, MAX_SETS};
use pcmcache_shared::{ActionKey, ActionResult, Cost, Digest, Output, Role, Scope, UnitKey, Writer};

struct Store {
    results: Arc<dyn Results>,
    clock: Arc<ManualClock>,
}

impl std::ops::Deref for Store {
    type Target = Arc<dyn Results>;

    fn deref(&self) -> &Self::Target {
        &self.results
    }
}

fn memory() -> Store {
    let clock = Arc::new(ManualClock::default());
    Store { results: Arc::new(MemoryResults::new(clock.clone())), clock }
}

fn embedded(directory: &Path) -> Store {
    let clock = Arc::new(ManualClock::default());
    Store { results: Embedded::open(directory, clock.clone()).unwrap(), clock }
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
    what_was_not_used_for_longest_is_coldest,
    what_is_removed_leaves_nothing_and_can_come_back,
    what_was_used_since_it_was_chosen_stays,
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
        let (store, mine) = (Arc::clone(&store.results), publication("key", "set", &n.to_string()));
        tokio::spawn(
            async move { (store.create(&Scope::default(), mine.clone()).await.unwrap(), mine.stored) },
        )
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
    let named = store.named_in(vec![Digest::of("first"), Digest::of("second")]).await.unwrap();
    assert_eq!(named, [(Digest::of("first"), vec![]), (Digest::of("second"), vec![Scope::default()])]);
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
    let other: Scope = "other".parse().unwrap();
    for n in 0..3 {
        store.create(&other, publication(&format!("other {n}"), "set", "bytes")).await.unwrap();
    }
    let named = [Digest::of("bytes"), Digest::of("set"), result.action.recipe(), Digest::of("free")];
    let both = vec![Scope::default(), other];
    let expected = named.into_iter().zip([both.clone(), both.clone(), vec![Scope::default()], vec![]]);
    assert_eq!(store.named_in(named.into()).await.unwrap(), expected.collect::<Vec<_>>());
}

const HOUR: Duration = Duration::from_secs(60 * 60);

/// The keys of what is coldest, by idle time alone.
async fn coldest(store: &Store, scope: Option<&Scope>, at_most: usize, idle: Duration) -> Vec<String> {
    let by_idle = |standing: &Standing| standing.idle.as_secs() as i64;
    let coldest = store.coldest(scope, at_most, idle, by_idle, &Pinned::default()).await.unwrap();
    assert!(coldest.iter().all(|standing| (standing.cost_ms, standing.bytes) == (5, 1)), "{coldest:?}");
    coldest.iter().map(|standing| format!("{} {}", standing.scope, hours(standing.idle))).collect()
}

fn hours(idle: Duration) -> u64 {
    idle.as_secs() / HOUR.as_secs()
}

async fn what_was_not_used_for_longest_is_coldest(store: Store) {
    let other: Scope = "other".parse().unwrap();
    for (scope, key) in [(Scope::default(), "a"), (other.clone(), "b"), (Scope::default(), "c")] {
        store.create(&scope, publication(key, "set", "x")).await.unwrap();
        store.clock.advance(HOUR);
    }
    assert_eq!(coldest(&store, None, 9, Duration::ZERO).await, ["main 3", "other 2", "main 1"]);
    assert_eq!(coldest(&store, None, 2, Duration::ZERO).await, ["main 3", "other 2"]);
    assert_eq!(coldest(&store, Some(&Scope::default()), 9, Duration::ZERO).await, ["main 3", "main 1"]);
    assert_eq!(coldest(&store, Some(&other), 9, 2 * HOUR).await, ["other 2"]);
    assert_eq!(coldest(&store, None, 9, 4 * HOUR).await, [""; 0]);
    let used = |key: &str, ago| Use { scope: Scope::default(), action: ActionKey::of(key), ago };
    store.used(vec![used("a", HOUR / 2), used("c", 9 * HOUR), used("never there", HOUR)]).await.unwrap();
    assert_eq!(coldest(&store, None, 9, Duration::ZERO).await, ["other 2", "main 1", "main 0"]);
    store.keep(&other, ActionKey::of("b"), true).await.unwrap();
    assert_eq!(coldest(&store, None, 9, Duration::ZERO).await, ["main 1", "main 0"]);
    store.keep(&other, ActionKey::of("b"), false).await.unwrap();
    assert_eq!(coldest(&store, None, 1, Duration::ZERO).await, ["other 2"]);
    let pinned: Pinned =
        [(other.clone(), ActionKey::of("b")), (other, ActionKey::of("c"))].into_iter().collect();
    let by_idle = |standing: &Standing| standing.idle.as_secs() as i64;
    let others = store.coldest(None, 9, Duration::ZERO, by_idle, &pinned).await.unwrap();
    assert_eq!(others.iter().map(|standing| standing.scope.as_str()).collect::<Vec<_>>(), ["main", "main"]);
}

async fn what_is_removed_leaves_nothing_and_can_come_back(store: Store) {
    let (first, second) = (publication("first", "set", "x"), publication("second", "set", "y"));
    let lone = publication("lone", "other set", "z");
    for publication in [&first, &second, &lone] {
        create(&store, publication).await;
    }
    let main = Scope::default();
    let remove = async |publication: &Publication| {
        store.remove(vec![(main.clone(), publication.action)], Duration::ZERO).await.unwrap()
    };
    let removed = remove(&first).await;
    assert_eq!(removed.results, 1);
    assert_eq!(removed.named, [Digest::of("x"), first.action.recipe(), Digest::of("set")]);
    assert_eq!(remove(&first).await, Removed::default());
    assert_eq!(store.get(&main, first.action).await.unwrap(), None);
    let rows = async || store.sets(&main, UnitKey::of("unit")).await.unwrap();
    let row = |set: &str, of: &Publication| SetRow { set: Digest::of(set), actions: vec![of.action] };
    assert_eq!(rows().await, [row("other set", &lone), row("set", &second)]);
    remove(&second).await;
    assert_eq!(rows().await, [row("other set", &lone)]);
    remove(&lone).await;
    assert_eq!(rows().await, []);
    let named = [Digest::of("x"), Digest::of("set"), first.action.recipe()];
    for (_, scopes) in store.named_in(named.into()).await.unwrap() {
        assert_eq!(scopes, []);
    }
    assert_eq!(store.count().await.unwrap(), 0);
    assert_eq!(coldest(&store, None, 9, Duration::ZERO).await, [""; 0]);
    assert_eq!(create(&store, &first).await, Creation::Created);
    assert_eq!(rows().await, [row("set", &first)]);
}

async fn what_was_used_since_it_was_chosen_stays(store: Store) {
    let [old, used] = ["old", "used"].map(|key| publication(key, "set", "x"));
    for publication in [&old, &used] {
        create(&store, publication).await;
    }
    store.clock.advance(2 * HOUR);
    assert_eq!(coldest(&store, None, 9, HOUR).await.len(), 2);
    let main = Scope::default();
    store.used(vec![Use { scope: main.clone(), action: used.action, ago: Duration::ZERO }]).await.unwrap();
    let chosen = vec![(main.clone(), old.action), (main.clone(), used.action)];
    assert_eq!(store.remove(chosen.clone(), HOUR).await.unwrap().results, 1);
    assert_eq!(store.get(&main, old.action).await.unwrap(), None);
    assert!(store.get(&main, used.action).await.unwrap().is_some());
    store.clock.advance(HOUR);
    assert_eq!(store.remove(chosen, HOUR).await.unwrap().results, 1);
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
