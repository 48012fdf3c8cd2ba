//! The server's store: what is durable, what is not, and how long it takes to become so. It does as the embedded one does, on
//! one thread: a writer that applies what is queued in one go, leases that live in memory with a row for each grant, and a
//! crash after which nothing that was under way has happened. The rows are those of the memory back ends.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use pcmcache_server::blobs::{Blobs, Freed, Opened, Placed, Put, Sealed, Stage, Staging, Stat, Version};
use pcmcache_server::clock::Clock;
use pcmcache_server::fault::Fault;
use pcmcache_server::leases::{Ask, Grant, Lease, Leases, RESTART_GRACE};
use pcmcache_server::memory::{MemoryBlobs, MemoryLeases, MemoryProfiles, MemoryResults};
use pcmcache_server::results::{
    Creation, Overdue, Pinned, Publication, Removed, Results, SetRow, Standing, StoredResult, Use,
};
use pcmcache_server::trust::WriterSet;
use pcmcache_shared::{ActionKey, Claim, Digest, Fence, Scope, UnitKey, Writer};
use pcmcache_tests::Chance;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::clocks::HostClock;
use crate::judge::{At, Judge};

/// How bad the disk of a world is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wear {
    /// The longest usual time that a batch takes, in milliseconds.
    pub(crate) batch_ms: u64,
    /// Of a thousand batches, so many take up to a second.
    pub(crate) slow: u64,
    /// Of a thousand batches, so many cannot be written.
    pub(crate) fails: u64,
}

/// What outlives the server.
pub(crate) struct Disk {
    /// Where bytes lie.
    pub(crate) blobs: MemoryBlobs,
    /// Where results lie.
    pub(crate) results: MemoryResults,
    /// Where profiles lie.
    pub(crate) profiles: Arc<MemoryProfiles>,
    rows: Mutex<BTreeMap<At, (Fence, Ask)>>,
    fence: Mutex<Fence>,
    chance: Mutex<Chance>,
    wear: Mutex<Wear>,
}

impl Disk {
    /// An empty one.
    pub(crate) fn new(clock: Arc<dyn Clock>, chance: Chance, wear: Wear) -> Arc<Self> {
        Arc::new(Self {
            blobs: MemoryBlobs::default(),
            results: MemoryResults::new(Arc::clone(&clock)),
            profiles: Arc::new(MemoryProfiles::new(clock)),
            rows: Mutex::default(),
            fence: Mutex::new(Fence(0)),
            chance: Mutex::new(chance),
            wear: Mutex::new(wear),
        })
    }

    /// From now on it never fails.
    pub(crate) fn mend(&self) {
        self.wear.lock().expect("the disk").fails = 0;
    }

    /// The result of that name as it would be found after a crash.
    pub(crate) fn durable(&self, scope: &Scope, action: ActionKey) -> Option<StoredResult> {
        at_once(self.results.get(scope, action)).ok().flatten()
    }

    /// Whether the blob would be found after a crash.
    pub(crate) fn has(&self, digest: Digest) -> bool {
        at_once(self.blobs.stat(digest)).is_ok_and(|stat| stat.is_some_and(|stat| stat.has_its_size()))
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<At, (Fence, Ask)>> {
        self.rows.lock().expect("the disk")
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut Chance, Wear) -> T) -> T {
        let wear = *self.wear.lock().expect("the disk");
        draw(&mut self.chance.lock().expect("the disk"), wear)
    }
}

/// What memory does takes no time.
fn at_once<T>(done: impl Future<Output = T>) -> T {
    done.now_or_never().expect("memory waits for nothing")
}

/// The store of one process.
pub(crate) struct Store {
    disk: Arc<Disk>,
    live: MemoryLeases,
    clock: Arc<HostClock>,
    judge: Arc<Judge>,
    writer: Writing,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    /// Opens the disk, for a process that lives until `dead`.
    pub(crate) fn open(
        disk: &Arc<Disk>,
        clock: &Arc<HostClock>,
        judge: &Arc<Judge>,
        dead: CancellationToken,
    ) -> Arc<Self> {
        let live = MemoryLeases::new(Arc::clone(clock) as _);
        live.fence_at_least(*disk.fence.lock().expect("the disk"));
        let until = Instant::now() + RESTART_GRACE.mul_f64(clock.pace());
        for ((scope, claim), (fence, ask)) in disk.rows().iter() {
            live.restore(scope.clone(), *claim, *fence, ask.clone());
            judge.restored(&(scope.clone(), *claim), *fence, until);
        }
        let writer = Writing::start(Arc::clone(disk), dead);
        let (disk, clock, judge) = (Arc::clone(disk), Arc::clone(clock), Arc::clone(judge));
        Arc::new(Self { disk, live, clock, judge, writer })
    }

    fn in_world(&self, lives: Duration) -> Instant {
        Instant::now() + lives.mul_f64(self.clock.pace())
    }
}

type Told = Box<dyn FnOnce() + Send>;
type Job = Box<dyn FnOnce(bool) -> Told + Send>;

/// The writer: what is queued while it writes goes into the next batch.
struct Writing {
    queue: Arc<Mutex<Vec<Job>>>,
    bell: Arc<Notify>,
    dead: CancellationToken,
}

impl Writing {
    fn start(disk: Arc<Disk>, dead: CancellationToken) -> Self {
        let (queue, bell) = (Arc::<Mutex<Vec<Job>>>::default(), Arc::new(Notify::new()));
        let writing = Self { queue: Arc::clone(&queue), bell: Arc::clone(&bell), dead: dead.clone() };
        let run = async move {
            loop {
                bell.notified().await;
                let (before, after, fails) = disk.draw(|chance, wear| {
                    let most = if chance.below(1000) < wear.slow { 1000 } else { wear.batch_ms };
                    let fails = chance.below(1000) < wear.fails;
                    (
                        chance.moment(Duration::from_millis(most)),
                        chance.moment(Duration::from_millis(2)),
                        fails,
                    )
                });
                sleep(before).await;
                let jobs = std::mem::take(&mut *queue.lock().expect("the writer"));
                let told: Vec<Told> = jobs.into_iter().map(|job| job(!fails)).collect();
                sleep(after).await;
                told.into_iter().for_each(|tell| tell());
                if !queue.lock().expect("the writer").is_empty() {
                    bell.notify_one();
                }
            }
        };
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = dead.cancelled() => {}
                () = run => {}
            }
        });
        writing
    }

    /// Does it with the next batch, and returns once that is durable: never, in a process that died meanwhile.
    async fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move |can| {
            let done = if can { Ok(act()) } else { Err(Fault::Unavailable { operation }) };
            Box::new(move || drop(tell.send(done)))
        });
        self.alive().await;
        self.queue.lock().expect("the writer").push(job);
        self.bell.notify_one();
        match told.await {
            Ok(done) => done,
            Err(_) => std::future::pending().await,
        }
    }

    /// A process that died does nothing more.
    async fn alive(&self) {
        if self.dead.is_cancelled() {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl Leases for Store {
    async fn grant(&self, scope: &Scope, claim: Claim, ask: Ask) -> Result<Grant, Fault> {
        self.writer.alive().await;
        let (ttl, at) = (ask.ttl, (scope.clone(), claim));
        let mut grant = self.live.grant_now(scope, claim, ask.clone());
        let Grant::New { lease, .. } = &mut grant else { return Ok(grant) };
        let fence = lease.fence;
        self.judge.granted(&at, fence, self.in_world(lease.expires_in));
        let mut unwritten = Unwritten { store: self, at: Some((at.clone(), fence)) };
        let (disk, judge, row) = (Arc::clone(&self.disk), Arc::clone(&self.judge), at.clone());
        let write = move || {
            disk.rows().insert(row.clone(), (fence, ask));
            let mut last = disk.fence.lock().expect("the disk");
            *last = (*last).max(fence);
            judge.lease_is_durable(&row, fence);
        };
        self.writer.write("grant a lease", write).await?;
        unwritten.at = None;
        if let Some(expires_in) = self.live.written_now(scope, claim, fence, ttl) {
            lease.expires_in = expires_in;
            self.judge.lease_lives(&at, fence, self.in_world(expires_in));
        }
        Ok(grant)
    }

    async fn current(&self, scope: &Scope, claim: Claim) -> Result<Option<Lease>, Fault> {
        self.writer.alive().await;
        self.live.current(scope, claim).await
    }

    async fn extend(
        &self,
        scope: &Scope,
        claim: Claim,
        fence: Fence,
        ttl: Duration,
    ) -> Result<Option<Duration>, Fault> {
        self.writer.alive().await;
        let lives = self.live.extend(scope, claim, fence, ttl).await?;
        if let Some(lives) = lives {
            self.judge.lease_lives(&(scope.clone(), claim), fence, self.in_world(lives));
        }
        Ok(lives)
    }

    async fn shrink(&self, scope: &Scope, claim: Claim, fence: Fence, to: Duration) -> Result<(), Fault> {
        self.writer.alive().await;
        self.judge.lease_shrinks(&(scope.clone(), claim), fence, self.in_world(to));
        self.live.shrink(scope, claim, fence, to).await
    }

    async fn end(&self, scope: &Scope, claim: Claim, fence: Fence) -> Result<bool, Fault> {
        self.writer.alive().await;
        let at = (scope.clone(), claim);
        if self.disk.rows().contains_key(&at) {
            let (disk, row) = (Arc::clone(&self.disk), at.clone());
            self.writer.write("end a lease", move || remove_row(&disk, &row, fence)).await?;
        }
        self.judge.lease_ended(&at, fence);
        self.live.end(scope, claim, fence).await
    }

    async fn held_by(&self, revoked: &WriterSet) -> Result<Vec<(Scope, Claim, Fence)>, Fault> {
        self.live.held_by(revoked).await
    }

    async fn forget_expired(&self) -> Result<usize, Fault> {
        self.writer.alive().await;
        self.live.forget_expired().await
    }
}

/// Takes a grant back that was not written, or whose asker went away before it was.
struct Unwritten<'a> {
    store: &'a Store,
    at: Option<(At, Fence)>,
}

impl Drop for Unwritten<'_> {
    fn drop(&mut self) {
        let Some((at, fence)) = self.at.take() else { return };
        if !self.store.writer.dead.is_cancelled() {
            self.store.judge.lease_ended(&at, fence);
            let _ = at_once(self.store.live.end(&at.0, at.1, fence));
        }
    }
}

fn remove_row(disk: &Disk, at: &At, fence: Fence) {
    let mut rows = disk.rows();
    if rows.get(at).is_some_and(|(of, _)| *of == fence) {
        rows.remove(at);
    }
}

#[async_trait]
impl Results for Store {
    async fn get(&self, scope: &Scope, action: ActionKey) -> Result<Option<StoredResult>, Fault> {
        self.writer.alive().await;
        self.disk.results.get(scope, action).await
    }

    async fn create(&self, scope: &Scope, publication: Publication) -> Result<Creation, Fault> {
        let (disk, judge, scope) = (Arc::clone(&self.disk), Arc::clone(&self.judge), scope.clone());
        let create = move || {
            let (action, ends) = (publication.action, publication.ends);
            let (outputs, unit) = (publication.stored.result.outputs.clone(), publication.stored.unit);
            let created = at_once(disk.results.create(&scope, publication))?;
            if created == Creation::Created {
                if let Some((claim, fence)) = ends {
                    remove_row(&disk, &(scope.clone(), claim), fence);
                }
                let claims = [action.into(), unit.into()].into_iter().chain(ends.map(|(claim, _)| claim));
                judge.committed(&(scope, action), &outputs, &claims.collect::<Vec<_>>());
            }
            Ok(created)
        };
        self.writer.write("store a result", create).await?
    }

    async fn sets(&self, scope: &Scope, unit: UnitKey) -> Result<Vec<SetRow>, Fault> {
        self.writer.alive().await;
        self.disk.results.sets(scope, unit).await
    }

    async fn names(&self, scopes: &[Scope], digest: Digest, hidden: &WriterSet) -> Result<bool, Fault> {
        self.writer.alive().await;
        self.disk.results.names(scopes, digest, hidden).await
    }

    async fn named_in(&self, digests: Vec<Digest>) -> Result<Vec<(Digest, Vec<Scope>)>, Fault> {
        self.disk.results.named_in(digests).await
    }

    async fn count(&self) -> Result<u64, Fault> {
        self.disk.results.count().await
    }

    async fn used(&self, uses: Vec<Use>) -> Result<(), Fault> {
        self.writer.alive().await;
        self.disk.results.used(uses).await
    }

    async fn coldest(
        &self,
        scope: Option<&Scope>,
        at_most: usize,
        idle: Duration,
        overdue: Overdue,
        pinned: &Pinned,
    ) -> Result<Vec<Standing>, Fault> {
        self.disk.results.coldest(scope, at_most, idle, overdue, pinned).await
    }

    async fn remove(&self, results: Vec<(Scope, ActionKey)>, idle: Duration) -> Result<Removed, Fault> {
        self.disk.results.remove(results, idle).await
    }

    async fn keep(&self, scope: &Scope, action: ActionKey, kept: bool) -> Result<(), Fault> {
        self.disk.results.keep(scope, action, kept).await
    }
}

/// The blobs of one process.
#[derive(Clone)]
pub(crate) struct StoredBlobs(pub(crate) Arc<Store>);

impl fmt::Debug for StoredBlobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredBlobs")
    }
}

#[async_trait]
impl Blobs for StoredBlobs {
    async fn stage(&self, scope: &Scope, length: u64) -> Result<Staging, Fault> {
        self.0.writer.alive().await;
        match self.0.disk.blobs.stage(scope, length).await? {
            Staging::Open(stage) => Ok(Staging::Open(Box::new(Held { held: stage, blobs: self.clone() }))),
            short @ Staging::Short(_) => Ok(short),
        }
    }

    async fn stat(&self, digest: Digest) -> Result<Option<Stat>, Fault> {
        self.0.writer.alive().await;
        self.0.disk.blobs.stat(digest).await
    }

    async fn open(&self, digest: Digest) -> Result<Option<Box<dyn Opened>>, Fault> {
        self.0.writer.alive().await;
        self.0.disk.blobs.open(digest).await
    }

    async fn was_put(&self, scope: &Scope, writer: &Writer, digest: Digest) -> Result<bool, Fault> {
        self.0.writer.alive().await;
        self.0.disk.blobs.was_put(scope, writer, digest).await
    }

    async fn condemn(&self, digest: Digest, version: Version) -> Result<bool, Fault> {
        self.0.writer.alive().await;
        self.0.disk.blobs.condemn(digest, version).await
    }

    async fn list(&self, shard: u8) -> Result<Vec<Digest>, Fault> {
        self.0.disk.blobs.list(shard).await
    }

    async fn retain(&self, blobs: Vec<(Digest, Vec<Scope>)>) -> Result<Freed, Fault> {
        self.0.disk.blobs.retain(blobs).await
    }
}

/// A blob on its way, in a process that may die.
struct Held<T: ?Sized> {
    blobs: StoredBlobs,
    held: Box<T>,
}

impl<T: ?Sized> fmt::Debug for Held<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}

#[async_trait]
impl Stage for Held<dyn Stage> {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Fault> {
        self.held.write(bytes).await
    }

    async fn seal(self: Box<Self>) -> Result<Box<dyn Sealed>, Fault> {
        let Self { blobs, held } = *self;
        Ok(Box::new(Held { held: held.seal().await?, blobs }))
    }
}

#[async_trait]
impl Sealed for Held<dyn Sealed> {
    fn digest(&self) -> Digest {
        self.held.digest()
    }

    fn size(&self) -> u64 {
        self.held.size()
    }

    async fn place(self: Box<Self>) -> Result<Box<dyn Placed>, Fault> {
        let Self { blobs, held } = *self;
        blobs.0.writer.alive().await;
        Ok(Box::new(Held { held: held.place().await?, blobs }))
    }
}

#[async_trait]
impl Placed for Held<dyn Placed> {
    async fn show(self: Box<Self>, scope: &Scope, writer: &Writer) -> Result<Put, Fault> {
        let Self { blobs, held } = *self;
        let (scope, writer) = (scope.clone(), writer.clone());
        blobs.0.writer.write("show a blob", move || at_once(held.show(&scope, &writer))).await?
    }
}
