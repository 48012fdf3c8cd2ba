//! What comes between an acquire's look and its grant, or between the grant and its answer, which no timing of a test can
//! hit: here the lease store itself lets it through just before it grants, or just after.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use pcmcache_server::cache::{Cache, Limits, Published};
use pcmcache_server::fault::Fault;
use pcmcache_server::leases::{Ask, Grant, Lease, Leases};
use pcmcache_server::memory::MemoryLeases;
use pcmcache_server::trust::WriterSet;
use pcmcache_shared::api::acquire::{AcquireLine, AcquireRequest};
use pcmcache_shared::{Claim, Fence, Scope};
use tokio::sync::Notify;

use crate::bench::{Bench, Module, settle, view, writing};

type Step = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Something happens around each grant.
struct Between {
    leases: MemoryLeases,
    before: Step,
    after: Step,
}

fn nothing() -> Step {
    Box::new(|| async {}.boxed())
}

impl fmt::Debug for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Between")
    }
}

#[async_trait]
impl Leases for Between {
    async fn grant(&self, scope: &Scope, claim: Claim, ask: Ask) -> Result<Grant, Fault> {
        (self.before)().await;
        let grant = self.leases.grant(scope, claim, ask).await;
        (self.after)().await;
        grant
    }

    async fn current(&self, scope: &Scope, claim: Claim) -> Result<Option<Lease>, Fault> {
        self.leases.current(scope, claim).await
    }

    async fn extend(
        &self,
        scope: &Scope,
        claim: Claim,
        fence: Fence,
        ttl: Duration,
    ) -> Result<Option<Duration>, Fault> {
        self.leases.extend(scope, claim, fence, ttl).await
    }

    async fn shrink(&self, scope: &Scope, claim: Claim, fence: Fence, to: Duration) -> Result<(), Fault> {
        self.leases.shrink(scope, claim, fence, to).await
    }

    async fn end(&self, scope: &Scope, claim: Claim, fence: Fence) -> Result<bool, Fault> {
        self.leases.end(scope, claim, fence).await
    }

    async fn held_by(&self, revoked: &WriterSet) -> Result<Vec<(Scope, Claim, Fence)>, Fault> {
        self.leases.held_by(revoked).await
    }

    async fn forget_expired(&self) -> Result<usize, Fault> {
        self.leases.forget_expired().await
    }
}

async fn answer(request: impl Fn(&Module) -> AcquireRequest) -> Option<AcquireLine> {
    let (module, cache) = (Module::new("m"), Arc::new(OnceLock::<Weak<Cache>>::new()));
    let (publishes, knows) = (module.clone(), Arc::clone(&cache));
    let claim = request(&module).claim;
    let publish: Step = Box::new(move || {
        let cache = knows.get().and_then(Weak::upgrade).unwrap();
        let (module, publication) = (publishes.clone(), publishes.publication(claim, None));
        async move { assert!(cache.publish(&writing(), module.key(), publication).await.is_ok()) }.boxed()
    });
    let bench = Bench::in_memory_over(Limits::default(), |leases| {
        Arc::new(Between { leases, before: publish, after: nothing() })
    });
    cache.set(Arc::downgrade(&bench.cache)).unwrap();
    for bytes in &module.outputs {
        bench.upload(bytes).await.unwrap();
    }
    let line = bench.acquire(request(&module)).await.next().await;
    settle().await;
    // Nobody was left with a lease on what is there.
    let counters = bench.cache.counters();
    assert_eq!((counters.granted, counters.published), (0, 1));
    let changed = module.clone().over("later");
    assert_eq!(bench.publish(&changed, None).await.unwrap(), Published::Stored);
    line
}

#[tokio::test]
async fn who_knows_the_set_gets_the_result_and_no_lease() {
    let line = answer(|module| module.knowing("a")).await;
    assert!(matches!(line, Some(AcquireLine::Hit(_))), "{line:?}");
}

#[tokio::test]
async fn who_does_not_learns_the_set_and_gets_no_lease() {
    let line = answer(|module| module.request("a")).await;
    assert!(matches!(line, Some(AcquireLine::Sets { .. })), "{line:?}");
}

#[tokio::test]
async fn who_lost_the_stream_while_it_was_granted_and_asked_again_has_the_lease() {
    let (module, granted, go) = (Module::new("m"), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tells, waits) = (Arc::clone(&granted), Arc::clone(&go));
    let wait: Step = Box::new(move || {
        let waits = Arc::clone(&waits);
        tells.notify_one();
        async move { waits.notified().await }.boxed()
    });
    let bench = Bench::in_memory_over(Limits::default(), |leases| {
        Arc::new(Between { leases, before: nothing(), after: wait })
    });
    let (cache, request) = (Arc::clone(&bench.cache), module.request("once"));
    let lost = tokio::spawn(async move { cache.acquire(&view(), request).await.map(drop) });
    granted.notified().await;
    lost.abort();
    assert!(lost.await.unwrap_err().is_cancelled());

    let mut again = bench.acquire(module.request("once")).await;
    let held = again.granted().await;
    go.notify_one();
    settle().await;
    bench.cache.renew(&writing(), held.claim, &held.hold).await.unwrap();
    bench.acquire(module.request("other")).await.busy().await;
    assert_eq!(again.answered().await, None, "the hold goes on");
}
