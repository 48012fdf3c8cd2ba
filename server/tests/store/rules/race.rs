//! A result that is published between an acquire's look and its grant, which no timing of a test can hit: here the
//! lease store itself lets a publish through just before it grants.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use pcmcache_server::cache::{Cache, Limits, Published};
use pcmcache_server::fault::Fault;
use pcmcache_server::leases::{Ask, Grant, Lease, Leases};
use pcmcache_server::memory::MemoryLeases;
use pcmcache_server::trust::WriterSet;
use pcmcache_shared::api::acquire::{AcquireLine, AcquireRequest};
use pcmcache_shared::{Claim, Fence, Scope};

use crate::bench::{Bench, Module, settle, writing};

struct PublishFirst {
    leases: MemoryLeases,
    module: Module,
    cache: Arc<OnceLock<Weak<Cache>>>,
}

impl fmt::Debug for PublishFirst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublishFirst")
    }
}

#[async_trait]
impl Leases for PublishFirst {
    async fn grant(&self, scope: &Scope, claim: Claim, ask: Ask) -> Result<Grant, Fault> {
        let cache = self.cache.get().and_then(Weak::upgrade).unwrap();
        let publication = self.module.publication(claim, None);
        cache.publish(&writing(), self.module.key(), publication).await.unwrap();
        self.leases.grant(scope, claim, ask).await
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

async fn answer(request: impl FnOnce(&Module) -> AcquireRequest) -> Option<AcquireLine> {
    let (module, cache) = (Module::new("m"), Arc::new(OnceLock::new()));
    let (publishes, knows) = (module.clone(), Arc::clone(&cache));
    let bench = Bench::in_memory_over(Limits::default(), |leases| {
        Arc::new(PublishFirst { leases, module: publishes, cache: knows })
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
