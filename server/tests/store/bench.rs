//! What the tests stand on: a cache over memory or over a directory, a clock to move, and clients to play.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use pcmcache_server::cache::{AcquireStream, Cache, CacheError, Limits, Published, Rooms, Uploaded};
use pcmcache_server::clock::{CountedEntropy, ManualClock};
use pcmcache_server::embedded::{Checked, Embedded};
use pcmcache_server::leases::Leases;
use pcmcache_server::memory::{MemoryBlobs, MemoryLeases, MemoryProfiles, MemoryResults};
use pcmcache_server::space::{Bounds, Disk};
use pcmcache_server::trust::{Principal, View, Writing};
use pcmcache_shared::api::acquire::{AcquireLine, AcquireMode, AcquireRequest, KnownSet};
use pcmcache_shared::api::actions::PublishRequest;
use pcmcache_shared::api::leases::{Hold, ReleaseRequest};
use pcmcache_shared::recipe::{Learnt, Unit};
use pcmcache_shared::{
    ActionKey, ActionResult, Claim, Cost, Digest, IncludeSet, Output, Recipe, ReleaseReason, Role, Scope,
    UnitKey,
};

/// How long a test waits for what must come at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory of one test's own, removed when dropped.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// In memory, where there is such a place: for what is not about a disk.
    #[cfg(feature = "failpoints")]
    pub(crate) fn in_memory() -> Self {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Self::below(memory) } else { Self::new() }
    }

    fn below(root: &Path) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("pcmcache-store-{}-{number}", std::process::id()));
        // Left by a killed process that had this one's number.
        let _ = fs_err::remove_dir_all(&path);
        fs_err::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs_err::remove_dir_all(&self.0);
    }
}

/// A disk that has as much free space as a test says.
#[derive(Debug)]
pub(crate) struct FakeDisk(AtomicU64);

impl FakeDisk {
    pub(crate) fn empty() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(u64::MAX)))
    }

    pub(crate) fn has(&self, free: u64) {
        self.0.store(free, Ordering::Relaxed);
    }
}

impl Disk for FakeDisk {
    fn free(&self) -> std::io::Result<u64> {
        Ok(self.0.load(Ordering::Relaxed))
    }
}

/// Opens the store, checks all of it, and panics with what is wrong. Nobody else may have it.
pub(crate) async fn assert_sound(directory: &Path) -> Checked {
    let store = Embedded::open(directory, Arc::new(ManualClock::default())).unwrap();
    let checked = store.check(true).await.unwrap();
    assert_eq!(checked.found, 0, "{:#?}", checked.findings);
    checked
}

/// A cache and the clock it goes by.
pub(crate) struct Bench {
    pub(crate) cache: Arc<Cache>,
    pub(crate) clock: Arc<ManualClock>,
    /// What is on the disk, if it is.
    store: Option<Arc<Embedded>>,
}

pub(crate) fn scope() -> Scope {
    Scope::default()
}

/// What everyone sees where there are no tokens.
pub(crate) fn view() -> View {
    Principal::anyone().view(&scope()).unwrap()
}

pub(crate) fn writing() -> Writing {
    view().writing().unwrap()
}

/// What the writer of a scope sees.
pub(crate) fn view_of(scope: &Scope) -> View {
    Principal { writes: Some(scope.clone()), ..Principal::anyone() }.view(scope).unwrap()
}

/// The right to write a scope.
pub(crate) fn writing_in(scope: &Scope) -> Writing {
    view_of(scope).writing().unwrap()
}

impl Bench {
    pub(crate) fn in_memory() -> Self {
        Self::in_memory_with(Limits::default())
    }

    pub(crate) fn in_memory_with(limits: Limits) -> Self {
        Self::in_memory_over(limits, |leases| Arc::new(leases))
    }

    /// With something between the cache and its leases.
    pub(crate) fn in_memory_over(limits: Limits, over: impl FnOnce(MemoryLeases) -> Arc<dyn Leases>) -> Self {
        let clock = Arc::new(ManualClock::default());
        let rooms = Rooms {
            blobs: Arc::new(MemoryBlobs::default()),
            results: Arc::new(MemoryResults::new(clock.clone())),
            profiles: Arc::new(MemoryProfiles::new(clock.clone())),
            leases: over(MemoryLeases::new(clock.clone())),
            clock: clock.clone(),
            entropy: Arc::new(CountedEntropy::default()),
        };
        Self { cache: Cache::new(rooms, limits), clock, store: None }
    }

    /// Over a directory; dropping it is all the shutdown there is.
    pub(crate) fn on_disk(directory: &Path) -> Self {
        Self::on_disk_within(directory, Bounds::default(), FakeDisk::empty())
    }

    /// Within bounds, on a disk that a test fills.
    pub(crate) fn on_disk_within(directory: &Path, bounds: Bounds, disk: Arc<FakeDisk>) -> Self {
        let clock = Arc::new(ManualClock::default());
        Self::over(Embedded::open_within(directory, clock.clone(), bounds, disk).unwrap(), clock)
    }

    /// Over a store that was opened, with its clock.
    pub(crate) fn over(store: Arc<Embedded>, clock: Arc<ManualClock>) -> Self {
        let rooms = Rooms {
            blobs: store.clone(),
            results: store.clone(),
            profiles: store.clone(),
            leases: store.clone(),
            clock: clock.clone(),
            entropy: Arc::new(CountedEntropy::default()),
        };
        Self { cache: Cache::new(rooms, Limits::default()), clock, store: Some(store) }
    }

    /// The store of one that is on the disk.
    pub(crate) fn store(&self) -> &Arc<Embedded> {
        self.store.as_ref().unwrap()
    }

    pub(crate) async fn acquire(&self, request: AcquireRequest) -> Client {
        Client(self.cache.acquire(&view(), request).await.unwrap())
    }

    /// Lets every task do all it can, then moves the clock, then again.
    pub(crate) async fn advance(&self, by: Duration) {
        settle().await;
        self.clock.advance(by);
        settle().await;
    }

    pub(crate) async fn upload(&self, bytes: &[u8]) -> Result<Uploaded, CacheError> {
        self.upload_as(Digest::of(bytes), bytes).await
    }

    pub(crate) async fn upload_as(&self, digest: Digest, bytes: &[u8]) -> Result<Uploaded, CacheError> {
        let mut upload = self.cache.begin_upload(&writing(), digest, bytes.len() as u64).await?;
        for piece in bytes.chunks(100_000) {
            upload.write(Bytes::copy_from_slice(piece)).await?;
        }
        upload.finish().await
    }

    pub(crate) async fn publish(
        &self,
        module: &Module,
        granted: Option<&Granted>,
    ) -> Result<Published, CacheError> {
        let claim = granted.map_or(module.unit().into(), |granted| granted.claim);
        self.cache.publish(&writing(), module.key(), module.publication(claim, granted)).await
    }

    /// Uploads the outputs and publishes.
    pub(crate) async fn share(
        &self,
        module: &Module,
        granted: Option<&Granted>,
    ) -> Result<Published, CacheError> {
        for bytes in &module.outputs {
            self.upload(bytes).await.unwrap();
        }
        self.publish(module, granted).await
    }

    pub(crate) async fn read(&self, digest: Digest) -> Result<Option<Vec<u8>>, CacheError> {
        self.read_range(digest, None).await
    }

    pub(crate) async fn read_range(
        &self,
        digest: Digest,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<Option<Vec<u8>>, CacheError> {
        let Some(blob) = self.cache.open_blob(&view(), digest).await? else { return Ok(None) };
        let mut stream = blob.stream(range).await?;
        let mut all = Vec::new();
        while let Some(bytes) = stream.next().await {
            all.extend_from_slice(&bytes?);
        }
        Ok(Some(all))
    }
}

/// Lets every task of this runtime do all it can without the clock.
pub(crate) async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Asks again and again, for what takes other threads.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    for _ in 0..PATIENCE.as_millis() {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{what}: not within {PATIENCE:?}");
}

/// The stream of a client; dropping it is the client going away.
pub(crate) struct Client(AcquireStream);

impl Client {
    pub(crate) fn over(stream: AcquireStream) -> Self {
        Self(stream)
    }

    /// The next line, or `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<AcquireLine> {
        tokio::time::timeout(PATIENCE, self.0.next()).await.expect("a line or the end, within patience")
    }

    /// The next line that is not `busy`.
    pub(crate) async fn answer(&mut self) -> Option<AcquireLine> {
        loop {
            match self.next().await {
                Some(AcquireLine::Busy { .. }) => {}
                other => return other,
            }
        }
    }

    pub(crate) async fn granted(&mut self) -> Granted {
        match self.answer().await {
            Some(AcquireLine::Granted { claim, fence, secret, .. }) => {
                Granted { claim, hold: Hold { fence, secret } }
            }
            other => panic!("expected a grant, got {other:?}"),
        }
    }

    pub(crate) async fn busy(&mut self) {
        match self.next().await {
            Some(AcquireLine::Busy { .. }) => {}
            other => panic!("expected busy, got {other:?}"),
        }
    }

    /// What has come by now that is not `busy`, without waiting for anything.
    pub(crate) async fn answered(&mut self) -> Option<AcquireLine> {
        settle().await;
        loop {
            match futures::FutureExt::now_or_never(self.0.next()) {
                Some(Some(AcquireLine::Busy { .. })) => {}
                Some(line) => return line,
                None => return None,
            }
        }
    }
}

/// A lease that a client got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) claim: Claim,
    pub(crate) hold: Hold,
}

impl Granted {
    pub(crate) fn release(&self, reason: ReleaseReason) -> ReleaseRequest {
        ReleaseRequest { fence: self.hold.fence, secret: self.hold.secret.clone(), reason }
    }
}

/// A module to build: a unit, what compiling it teaches, and what it makes.
#[derive(Debug, Clone)]
pub(crate) struct Module {
    pub(crate) name: &'static str,
    /// The headers it reads, by their names; their digests are of [`Module::content`].
    pub(crate) headers: Vec<&'static str>,
    pub(crate) content: &'static str,
    pub(crate) outputs: Vec<Vec<u8>>,
    pub(crate) cost_ms: u64,
}

impl Module {
    pub(crate) fn new(name: &'static str) -> Self {
        let outputs = vec![format!("{name}: bmi").into_bytes(), vec![b'o'; 700_000]];
        Self { name, headers: vec!["/a.h"], content: "now", outputs, cost_ms: 2_000 }
    }

    pub(crate) fn making(mut self, bmi: &str) -> Self {
        self.outputs[0] = bmi.as_bytes().to_vec();
        self
    }

    pub(crate) fn reading(mut self, headers: &[&'static str]) -> Self {
        self.headers = headers.to_vec();
        self
    }

    pub(crate) fn over(mut self, content: &'static str) -> Self {
        self.content = content;
        self
    }

    fn text(&self) -> Unit {
        let mut unit = Unit::new();
        unit.source(Path::new(self.name), Digest::of(self.name));
        unit
    }

    pub(crate) fn set(&self) -> IncludeSet {
        self.headers.iter().map(|name| Learnt::File(name.into())).collect()
    }

    pub(crate) fn recipe(&self) -> Recipe {
        Recipe::new(&self.text(), &self.set(), |_| Some(Digest::of(self.content))).unwrap()
    }

    pub(crate) fn unit(&self) -> UnitKey {
        self.text().key()
    }

    pub(crate) fn key(&self) -> ActionKey {
        self.recipe().action_key()
    }

    pub(crate) fn known(&self) -> KnownSet {
        KnownSet { set: self.set().digest(), action: Some(self.key()) }
    }

    pub(crate) fn result(&self) -> ActionResult {
        let roles = [Role::Bmi, Role::Object, Role::Depfile];
        let outputs = roles.into_iter().zip(&self.outputs).map(|(role, bytes)| Output {
            role,
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
        });
        let cost = Cost { wall_ms: self.cost_ms };
        ActionResult { outputs: outputs.collect(), cost, builder: "tests".to_owned(), signature: None }
    }

    pub(crate) fn publication(&self, claim: Claim, granted: Option<&Granted>) -> PublishRequest {
        PublishRequest {
            result: self.result(),
            recipe: self.recipe().text().to_owned(),
            include_set: self.set().text(),
            claim,
            lease: granted.map(|granted| granted.hold.clone()),
        }
    }

    /// What a client sends that knows no set and would wait and hold.
    pub(crate) fn request(&self, id: &str) -> AcquireRequest {
        AcquireRequest {
            claim: self.unit().into(),
            unit: Some(self.unit()),
            known: Vec::new(),
            request_id: id.to_owned(),
            holder: format!("client {id}"),
            subject: self.name.to_owned(),
            mode: AcquireMode::Build,
            wait_ms: 3_600_000,
            hold: true,
        }
    }

    /// What a client sends that knows the set.
    pub(crate) fn knowing(&self, id: &str) -> AcquireRequest {
        AcquireRequest { known: vec![self.known()], ..self.request(id) }
    }
}

/// Numbers that look random, and that a failing test prints how to get again.
pub(crate) struct Chance(u64);

impl Chance {
    /// The numbers of `PCMCACHE_TEST_SEED`, or of the test's name.
    pub(crate) fn new(test: &str) -> Self {
        let seed = std::env::var("PCMCACHE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed =
            seed.unwrap_or_else(|| u64::from_le_bytes(*Digest::of(test).as_bytes().first_chunk().unwrap()));
        println!("PCMCACHE_TEST_SEED={seed}");
        Self(seed)
    }

    /// A number below `limit` (splitmix64).
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    /// The same for an index.
    #[cfg(feature = "failpoints")]
    pub(crate) fn pick(&mut self, end: usize) -> usize {
        self.below(end as u64) as usize
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}
