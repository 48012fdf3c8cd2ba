//! What every lease store promises.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pcmcache_server::clock::ManualClock;
use pcmcache_server::embedded::Embedded;
use pcmcache_server::leases::{Ask, Grant, Lease, Leases};
use pcmcache_server::memory::MemoryLeases;
use pcmcache_server::trust::WriterSet;
use pcmcache_shared::{Claim, Fence, Scope, Secret};

struct Store {
    leases: Arc<dyn Leases>,
    clock: Arc<ManualClock>,
}

fn memory() -> Store {
    let clock = Arc::new(ManualClock::default());
    Store { leases: Arc::new(MemoryLeases::new(clock.clone())), clock }
}

fn embedded(directory: &Path) -> Store {
    let clock = Arc::new(ManualClock::default());
    Store { leases: Embedded::open(directory, clock.clone()).unwrap(), clock }
}

super::every_back_end! {
    a_claim_is_granted_to_one,
    of_racing_asks_one_is_granted,
    the_fence_rises_with_each_grant,
    time_ends_a_lease,
    an_extension_postpones_the_end_up_to_the_last_moment,
    a_shrunk_lease_never_lives_longer,
    only_the_grant_itself_is_ended_or_moved,
    scopes_know_nothing_of_each_other,
    expired_leases_are_forgotten,
    the_leases_of_the_revoked_are_found,
}

const TTL: Duration = Duration::from_secs(15);

fn claim() -> Claim {
    Claim::of("claim")
}

fn ask(id: &str) -> Ask {
    Ask {
        request_id: id.to_owned(),
        holder: "tests".to_owned(),
        writers: vec![id.parse().unwrap()],
        secret: Secret::from_random([1; 16]),
        expected: Some(Duration::from_secs(2)),
        ttl: TTL,
        at_most: Duration::from_secs(60),
    }
}

impl Store {
    async fn grant(&self, id: &str) -> Grant {
        self.leases.grant(&Scope::default(), claim(), ask(id)).await.unwrap()
    }

    async fn granted(&self, id: &str) -> (Lease, bool) {
        match self.grant(id).await {
            Grant::New { lease, took_over } => (lease, took_over),
            other => panic!("expected a grant, got {other:?}"),
        }
    }

    async fn current(&self) -> Option<Lease> {
        self.leases.current(&Scope::default(), claim()).await.unwrap()
    }

    async fn extend(&self, fence: Fence) -> Option<Duration> {
        self.leases.extend(&Scope::default(), claim(), fence, TTL).await.unwrap()
    }

    async fn end(&self, fence: Fence) -> bool {
        self.leases.end(&Scope::default(), claim(), fence).await.unwrap()
    }
}

async fn a_claim_is_granted_to_one(store: Store) {
    assert_eq!(store.current().await, None);
    let (lease, took_over) = store.granted("a").await;
    assert!(!took_over);
    assert_eq!((lease.expires_in, lease.request_id.as_str()), (TTL, "a"));
    assert_eq!(store.grant("b").await, Grant::Held(lease.clone()));
    assert_eq!(store.current().await, Some(lease.clone()));
    assert!(store.end(lease.fence).await);
    assert_eq!(store.current().await, None);
    assert!(!store.granted("b").await.1, "it was given back, not taken over");
}

async fn of_racing_asks_one_is_granted(store: Store) {
    let asks = (0..30).map(|n| {
        let leases = Arc::clone(&store.leases);
        tokio::spawn(
            async move { leases.grant(&Scope::default(), claim(), ask(&n.to_string())).await.unwrap() },
        )
    });
    let grants: Vec<_> = futures::future::join_all(asks).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(grants.iter().filter(|grant| matches!(grant, Grant::New { .. })).count(), 1);
    assert_eq!(grants.iter().filter(|grant| matches!(grant, Grant::Held(_))).count(), 29);
}

async fn the_fence_rises_with_each_grant(store: Store) {
    let mut last = Fence(0);
    for n in 0..5 {
        let claim = Claim::of(format!("claim {}", n % 2));
        let grant = store.leases.grant(&Scope::default(), claim, ask("a")).await.unwrap();
        let Grant::New { lease, .. } = grant else { panic!("{grant:?}") };
        assert!(lease.fence > last);
        last = lease.fence;
        store.leases.end(&Scope::default(), claim, lease.fence).await.unwrap();
    }
}

async fn time_ends_a_lease(store: Store) {
    let (first, _) = store.granted("a").await;
    store.clock.advance(TTL - Duration::from_millis(1));
    assert_eq!(store.current().await.unwrap().expires_in, Duration::from_millis(1));
    store.clock.advance(Duration::from_millis(1));
    assert_eq!(store.current().await, None);
    assert_eq!(store.extend(first.fence).await, None);
    assert!(!store.end(first.fence).await);
    let (_, took_over) = store.granted("b").await;
    assert!(!took_over, "whose end was heard of left nothing to take over");
    store.clock.advance(TTL);
    assert!(store.granted("c").await.1);
}

async fn an_extension_postpones_the_end_up_to_the_last_moment(store: Store) {
    let (lease, _) = store.granted("a").await;
    for _ in 0..5 {
        store.clock.advance(Duration::from_secs(10));
        assert!(store.extend(lease.fence).await.is_some());
    }
    assert_eq!(store.extend(lease.fence).await, Some(Duration::from_secs(10)));
    store.clock.advance(Duration::from_secs(10));
    assert_eq!(store.extend(lease.fence).await, None);
}

async fn a_shrunk_lease_never_lives_longer(store: Store) {
    let (lease, _) = store.granted("a").await;
    let scope = Scope::default();
    let shrink = |to| store.leases.shrink(&scope, claim(), lease.fence, to);
    shrink(Duration::from_secs(100)).await.unwrap();
    assert_eq!(store.current().await.unwrap().expires_in, TTL);
    shrink(Duration::from_secs(1)).await.unwrap();
    assert_eq!(store.current().await.unwrap().expires_in, Duration::from_secs(1));
    assert_eq!(store.extend(lease.fence).await, Some(TTL), "its holder came back");
}

async fn only_the_grant_itself_is_ended_or_moved(store: Store) {
    let (lease, _) = store.granted("a").await;
    let stale = Fence(lease.fence.0 - 1);
    assert!(!store.end(stale).await);
    assert_eq!(store.extend(stale).await, None);
    store.leases.shrink(&Scope::default(), claim(), stale, Duration::ZERO).await.unwrap();
    assert_eq!(store.current().await, Some(lease));
}

async fn scopes_know_nothing_of_each_other(store: Store) {
    let other: Scope = "other".parse().unwrap();
    store.granted("a").await;
    assert_eq!(store.leases.current(&other, claim()).await.unwrap(), None);
    let grant = store.leases.grant(&other, claim(), ask("b")).await.unwrap();
    assert!(matches!(grant, Grant::New { .. }));
}

async fn expired_leases_are_forgotten(store: Store) {
    store.granted("a").await;
    assert_eq!(store.leases.forget_expired().await.unwrap(), 0);
    store.clock.advance(TTL);
    assert_eq!(store.leases.forget_expired().await.unwrap(), 1);
    assert_eq!(store.leases.forget_expired().await.unwrap(), 0);
}

async fn the_leases_of_the_revoked_are_found(store: Store) {
    let other: Scope = "other".parse().unwrap();
    let mut fences = Vec::new();
    for (scope, claim, id) in
        [(Scope::default(), "1", "a"), (other.clone(), "2", "a"), (other.clone(), "3", "b")]
    {
        let Grant::New { lease, .. } = store.leases.grant(&scope, Claim::of(claim), ask(id)).await.unwrap()
        else {
            panic!("not granted")
        };
        fences.push((scope, Claim::of(claim), lease.fence));
    }
    let revoked: WriterSet = [&"a", &"c"].iter().map(|name| name.parse().unwrap()).collect();
    let mut held = store.leases.held_by(&revoked).await.unwrap();
    held.sort_by_key(|(_, _, fence)| *fence);
    assert_eq!(held, fences[..2]);
    assert_eq!(store.leases.held_by(&WriterSet::default()).await.unwrap(), []);
}
