//! What every store of exchanged tokens promises.

use std::path::Path;
use std::sync::Arc;

use pcmcache_server::clock::SystemClock;
use pcmcache_server::embedded::Embedded;
use pcmcache_server::trust::{MemorySpent, Spent};
use pcmcache_shared::Digest;

type Store = Arc<dyn Spent>;

fn memory() -> Store {
    Arc::new(MemorySpent::default())
}

fn embedded(directory: &Path) -> Store {
    Embedded::open(directory, Arc::new(SystemClock::new())).unwrap()
}

super::every_back_end! {
    a_name_is_spent_once,
    of_racers_one_is_the_first,
    a_name_whose_time_is_over_is_forgotten,
}

async fn a_name_is_spent_once(store: Store) {
    let (a, b) = (Digest::of("a"), Digest::of("b"));
    assert!(store.spend(a, 100, 10).await.unwrap());
    assert!(!store.spend(a, 100, 10).await.unwrap());
    assert!(store.spend(b, 100, 10).await.unwrap());
    assert!(!store.spend(a, 100, 99).await.unwrap());
}

async fn of_racers_one_is_the_first(store: Store) {
    let racers = (0..30).map(|_| store.spend(Digest::of("a"), 100, 10));
    let outcomes = futures::future::join_all(racers).await;
    assert_eq!(outcomes.into_iter().filter(|first| *first.as_ref().unwrap()).count(), 1);
}

async fn a_name_whose_time_is_over_is_forgotten(store: Store) {
    assert!(store.spend(Digest::of("a"), 100, 10).await.unwrap());
    assert!(store.spend(Digest::of("b"), 300, 200).await.unwrap());
    assert!(!store.spend(Digest::of("b"), 300, 299).await.unwrap());
    // Nobody can come with it any more; but were it asked for, it would be new.
    assert!(store.spend(Digest::of("a"), 100, 300).await.unwrap());
}
