//! What every store of profiles promises.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pcmcache_server::clock::ManualClock;
use pcmcache_server::embedded::Embedded;
use pcmcache_server::memory::MemoryProfiles;
use pcmcache_server::profiles::{FORGOTTEN_AFTER, MAX_KEYS, MAX_PROFILES, Profiles, StoredProfile};
use pcmcache_shared::{ActionKey, ProfileName, Scope};

const HOUR: Duration = Duration::from_secs(60 * 60);

struct Store {
    profiles: Arc<dyn Profiles>,
    clock: Arc<ManualClock>,
}

fn memory() -> Store {
    let clock = Arc::new(ManualClock::default());
    Store { profiles: Arc::new(MemoryProfiles::new(clock.clone())), clock }
}

fn embedded(directory: &Path) -> Store {
    let clock = Arc::new(ManualClock::default());
    Store { profiles: Embedded::open(directory, clock.clone()).unwrap(), clock }
}

super::every_back_end! {
    a_profile_takes_the_place_of_the_one_of_its_name,
    the_last_used_come_first_and_those_of_long_ago_not_at_all,
    what_a_scope_has_too_many_of_goes_the_least_used_first,
    keys_are_bounded_over_all_profiles_of_a_scope,
    what_nobody_used_for_long_is_forgotten,
}

fn named(text: &str) -> ProfileName {
    text.parse().unwrap()
}

fn naming(actions: &[&str]) -> StoredProfile {
    StoredProfile {
        inherits: vec![named("main")],
        writers: vec!["t-1".parse().unwrap()],
        actions: actions.iter().map(ActionKey::of).collect(),
    }
}

impl Store {
    async fn put(&self, scope: &str, name: &str, profile: StoredProfile) {
        self.profiles.put(&scope.parse().unwrap(), &named(name), profile).await.unwrap();
    }

    async fn get(&self, scope: &str, name: &str) -> Option<StoredProfile> {
        self.profiles.profile(&scope.parse().unwrap(), &named(name)).await.unwrap()
    }

    async fn touch(&self, scope: &str, name: &str) {
        self.profiles.touch(&scope.parse::<Scope>().unwrap(), &named(name)).await.unwrap();
    }

    async fn recent(&self, within: Duration) -> Vec<String> {
        let recent = self.profiles.recent(within).await.unwrap();
        recent.into_iter().map(|(scope, name)| format!("{scope}/{name}")).collect()
    }
}

async fn a_profile_takes_the_place_of_the_one_of_its_name(store: Store) {
    assert_eq!(store.get("main", "nightly").await, None);
    store.put("main", "nightly", naming(&["c", "a", "b"])).await;
    store.put("other", "nightly", naming(&[])).await;
    assert_eq!(store.get("main", "nightly").await, Some(naming(&["c", "a", "b"])));
    assert_eq!(store.get("other", "nightly").await, Some(naming(&[])));
    assert_eq!((store.get("main", "night").await, store.get("pr-1", "nightly").await), (None, None));
    store.put("main", "nightly", naming(&["d"])).await;
    assert_eq!(store.get("main", "nightly").await, Some(naming(&["d"])));
}

async fn the_last_used_come_first_and_those_of_long_ago_not_at_all(store: Store) {
    for name in ["a", "b", "c"] {
        store.put("main", name, naming(&[name])).await;
        store.clock.advance(HOUR);
    }
    assert_eq!(store.recent(9 * HOUR).await, ["main/c", "main/b", "main/a"]);
    store.touch("main", "a").await;
    store.touch("main", "never-there").await;
    assert_eq!(store.recent(9 * HOUR).await, ["main/a", "main/c", "main/b"]);
    assert_eq!(store.recent(HOUR).await, ["main/a", "main/c"]);
    // So soon after the last one a use says nothing new.
    store.clock.advance(HOUR / 2);
    store.touch("main", "a").await;
    store.clock.advance(HOUR / 2);
    assert_eq!(store.recent(HOUR / 2).await, [""; 0]);
    assert_eq!(store.get("main", "a").await, Some(naming(&["a"])), "a use leaves it as it is");
}

async fn what_a_scope_has_too_many_of_goes_the_least_used_first(store: Store) {
    store.put("other", "p0", naming(&[])).await;
    for n in 0..MAX_PROFILES {
        store.put("main", &format!("p{n}"), naming(&[])).await;
        store.clock.advance(Duration::from_secs(60));
    }
    store.touch("main", "p0").await;
    store.put("main", "new", naming(&[])).await;
    assert_eq!((store.get("main", "p1").await, store.get("main", "p0").await.is_some()), (None, true));
    assert!(store.get("main", "new").await.is_some() && store.get("other", "p0").await.is_some());
    assert_eq!(store.recent(FORGOTTEN_AFTER).await.len(), MAX_PROFILES + 1);
}

async fn keys_are_bounded_over_all_profiles_of_a_scope(store: Store) {
    let many = || StoredProfile { actions: vec![ActionKey::of("a"); MAX_KEYS as usize / 4], ..naming(&[]) };
    for name in ["a", "b", "c", "d"] {
        store.put("main", name, many()).await;
        store.clock.advance(HOUR);
    }
    assert_eq!(store.recent(9 * HOUR).await.len(), 4);
    store.put("main", "e", naming(&["one more"])).await;
    assert_eq!(store.recent(9 * HOUR).await, ["main/e", "main/d", "main/c", "main/b"]);
}

async fn what_nobody_used_for_long_is_forgotten(store: Store) {
    store.put("pr-1", "of-a-change", naming(&[])).await;
    store.clock.advance(FORGOTTEN_AFTER - HOUR);
    store.put("main", "a", naming(&[])).await;
    assert!(store.get("pr-1", "of-a-change").await.is_some());
    store.clock.advance(HOUR);
    store.put("main", "b", naming(&[])).await;
    assert_eq!(store.get("pr-1", "of-a-change").await, None);
}
