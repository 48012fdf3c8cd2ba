//! Profiles: who finds which, what they keep from eviction, and that they are there again after whatever happens.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pcmcache_server::cache::{CacheError, Published};
use pcmcache_server::clock::ManualClock;
use pcmcache_server::embedded::{Backup, rebuild_index, restore};
use pcmcache_server::space::Bounds;
use pcmcache_server::trust::{Principal, Revoked, View};
use pcmcache_shared::api::limits::{MAX_INHERITED, MAX_PROFILE};
use pcmcache_shared::api::profiles::{Profile, PushRequest, Pushed};
use pcmcache_shared::{ActionKey, ProfileName, Scope, Writer};

use super::restart::kill;
use crate::bench::{Bench, FakeDisk, Module, Scratch, assert_sound, scope, view, writing};

const PIN: Duration = Duration::from_secs(600);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const BYTES: usize = 100_000;

fn module(name: &str) -> Module {
    let mut module = Module::new(Box::leak(name.to_owned().into_boxed_str()));
    module.outputs = vec![name.bytes().cycle().take(BYTES).collect()];
    module
}

fn named(text: &str) -> ProfileName {
    text.parse().unwrap()
}

fn naming(actions: &[ActionKey]) -> PushRequest {
    PushRequest { inherits: Vec::new(), actions: actions.to_vec() }
}

/// What a job sees that writes this scope and reads main.
fn job(scope: &str, name: &str) -> View {
    let scope: Scope = scope.parse().unwrap();
    let principal = Principal {
        writers: vec![name.parse().unwrap()],
        reads: vec![Scope::default()],
        writes: Some(scope.clone()),
        ..Principal::anyone()
    };
    principal.view(&scope).unwrap()
}

impl Bench {
    async fn push(&self, view: &View, name: &str, actions: &[ActionKey]) -> Result<Pushed, CacheError> {
        self.cache.push_profile(&view.writing().unwrap(), &named(name), naming(actions)).await
    }

    /// The scope and the keys of what is found under the name.
    async fn found(&self, view: &View, name: &str) -> Option<(String, Vec<ActionKey>)> {
        let found = self.cache.profile(view, &named(name)).await.unwrap();
        found.map(|Profile { scope, actions, .. }| (scope.to_string(), actions))
    }

    async fn stored(&self, name: &str) -> ActionKey {
        let module = module(name);
        assert_eq!(self.share(&module, None).await.unwrap(), Published::Stored);
        module.key()
    }

    async fn still_answers(&self, key: ActionKey) -> bool {
        self.cache.result(&view(), key).await.unwrap().is_some()
    }
}

#[tokio::test]
async fn what_is_no_result_is_left_out_and_the_order_stays() {
    let scratch = Scratch::new();
    for bench in [Bench::in_memory(), Bench::on_disk(scratch.path())] {
        let (a, b) = (bench.stored("a").await, bench.stored("b").await);
        let pushed = bench.push(&view(), "nightly", &[b, ActionKey::of("nothing"), a, b]).await.unwrap();
        assert_eq!(pushed, Pushed { kept: 2, unknown: 1 });
        assert_eq!(bench.found(&view(), "nightly").await, Some(("main".to_owned(), vec![b, a])));
        let newest = bench.push(&view(), "nightly", &[a]).await.unwrap();
        assert_eq!((newest.kept, bench.found(&view(), "nightly").await.unwrap().1), (1, vec![a]));
        assert_eq!(bench.found(&view(), "night").await, None);
    }
}

#[tokio::test]
async fn what_is_too_much_is_refused_and_changes_nothing() {
    let bench = Bench::in_memory();
    bench.push(&view(), "p", &[]).await.unwrap();
    let too_many = naming(&vec![ActionKey::of("a"); MAX_PROFILE + 1]);
    let too_kin = PushRequest { inherits: vec![named("x"); MAX_INHERITED + 1], actions: Vec::new() };
    for request in [too_many, too_kin] {
        let refused = bench.cache.push_profile(&writing(), &named("p"), request).await.unwrap_err();
        assert!(matches!(refused, CacheError::BadRequest(_)), "{refused}");
    }
    assert_eq!(bench.found(&view(), "p").await.unwrap().1, []);
}

#[tokio::test]
async fn a_job_finds_its_own_and_then_those_of_the_scopes_it_reads_but_never_the_reverse() {
    let scratch = Scratch::new();
    for bench in [Bench::in_memory(), Bench::on_disk(scratch.path())] {
        let (main, change) = (job("main", "main"), job("pr-17", "change"));
        let a = bench.stored("a").await;
        bench.push(&main, "ci", &[a]).await.unwrap();
        assert_eq!(bench.found(&change, "ci").await, Some(("main".to_owned(), vec![a])));
        // It may name what it sees, wherever that lies.
        assert_eq!(bench.push(&change, "ci", &[a]).await.unwrap().kept, 1);
        bench.push(&change, "mine", &[]).await.unwrap();
        assert_eq!(bench.found(&change, "ci").await.unwrap().0, "pr-17");
        assert_eq!(bench.found(&main, "ci").await.unwrap().0, "main");
        assert_eq!(
            (bench.found(&main, "mine").await, bench.found(&job("pr-18", "x"), "mine").await),
            (None, None)
        );
    }
}

#[tokio::test]
async fn the_profile_of_a_revoked_writer_is_hidden_at_once() {
    let scratch = Scratch::new();
    for bench in [Bench::in_memory(), Bench::on_disk(scratch.path())] {
        let (bad, main, change) = (job("pr-17", "bad"), job("main", "good"), job("pr-17", "good"));
        bench.push(&main, "ci", &[]).await.unwrap();
        bench.push(&bad, "ci", &[]).await.unwrap();
        bench.push(&bad, "planted", &[]).await.unwrap();
        let revoked = |names: &[&str]| names.iter().map(|name| name.parse::<Writer>().unwrap()).collect();
        bench.cache.hide(Revoked { refused: revoked(&["bad"]), hidden: revoked(&["bad"]) });
        assert_eq!(bench.found(&change, "planted").await, None);
        assert_eq!(bench.found(&change, "ci").await.unwrap().0, "main");
        let late = bench.push(&bad, "planted", &[]).await;
        assert!(matches!(late, Err(CacheError::Revoked)), "{late:?}");
        bench.push(&change, "planted", &[]).await.unwrap();
        assert!(bench.found(&change, "planted").await.is_some());
    }
}

/// A store with room for so many modules, in which nothing is pinned any more.
fn with_room_for(directory: &Path, count: u64) -> Bench {
    let bounds = Bounds { max_size: Some(count * 101_000), ..Bounds::default() };
    let bench = Bench::on_disk_within(directory, bounds, FakeDisk::empty());
    bench.clock.advance(PIN);
    bench
}

#[tokio::test]
async fn what_a_profile_in_use_names_stays_and_goes_when_nobody_uses_it() {
    let scratch = Scratch::new();
    let bench = with_room_for(scratch.path(), 4);
    let old = bench.stored("old").await;
    bench.push(&view(), "ci", &[old]).await.unwrap();
    for name in ["b", "c", "d", "e", "f"] {
        bench.clock.advance(PIN);
        bench.stored(name).await;
    }
    bench.clock.advance(13 * DAY);
    // Fetched once more, it is in use for another while.
    assert!(bench.found(&view(), "ci").await.is_some());
    bench.clock.advance(13 * DAY);
    for name in ["g", "h", "i", "j"] {
        bench.clock.advance(PIN);
        bench.stored(name).await;
    }
    // Not by a look that is a use.
    assert!(bench.store().check(true).await.unwrap().found == 0);
    assert_eq!(bench.push(&view(), "other", &[old]).await.unwrap().kept, 1, "it is still there");
    bench.push(&view(), "other", &[]).await.unwrap();
    bench.clock.advance(15 * DAY);
    for name in ["k", "l", "m", "n"] {
        bench.clock.advance(PIN);
        bench.stored(name).await;
    }
    assert!(!bench.still_answers(old).await);
}

#[tokio::test]
async fn profiles_keep_at_most_half_so_that_something_can_always_go() {
    let scratch = Scratch::new();
    let bench = with_room_for(scratch.path(), 6);
    let mut keys = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        keys.push(bench.stored(name).await);
        bench.clock.advance(PIN);
    }
    bench.push(&view(), "ci", &keys).await.unwrap();
    for name in ["f", "g", "h", "i"] {
        bench.stored(name).await;
        bench.clock.advance(PIN);
    }
    // The most urgent stay, though they are older than what went.
    let mut left = Vec::new();
    for key in &keys {
        left.push(bench.still_answers(*key).await);
    }
    assert_eq!(left, [true, true, true, false, false]);
}

#[tokio::test]
async fn profiles_of_a_change_keep_nothing_of_main() {
    let scratch = Scratch::new();
    let bench = with_room_for(scratch.path(), 4);
    let a = bench.stored("a").await;
    assert_eq!(bench.push(&job("pr-17", "change"), "mine", &[a]).await.unwrap().kept, 1);
    for name in ["b", "c", "d", "e"] {
        bench.clock.advance(PIN);
        bench.stored(name).await;
    }
    assert!(!bench.still_answers(a).await);
}

#[tokio::test]
async fn profiles_survive_a_kill_a_lost_index_and_a_restore() {
    let scratch = Scratch::new();
    let [store, backup, other] = ["store", "backup", "other"].map(|name| scratch.path().join(name));
    let bench = Bench::on_disk(&store);
    let mut keys = Vec::new();
    for n in 0..3 {
        keys.push(bench.stored(&format!("m{n}")).await);
    }
    let inherits = vec![named("base")];
    let request = PushRequest { inherits: inherits.clone(), actions: keys.clone() };
    bench.push(&view(), "ci", &keys[..1]).await.unwrap();
    bench.cache.push_profile(&writing(), &named("ci"), request).await.unwrap();
    let expected = Some(Profile { scope: scope(), inherits, actions: keys });
    let found = async |bench: &Bench| bench.cache.profile(&view(), &named("ci")).await.unwrap();
    kill(bench, &store).await;
    let bench = Bench::on_disk(&store);
    assert_eq!(found(&bench).await, expected);

    let taken = bench.store().begin_backup(Backup::begin(&backup, false).unwrap()).await.unwrap();
    bench.store().finish_backup(taken).await.unwrap();
    restore(&backup, &other, &ManualClock::default()).unwrap();
    assert_sound(&other).await;
    assert_eq!(found(&Bench::on_disk(&other)).await, expected);

    kill(bench, &store).await;
    fs_err::remove_file(store.join("index.redb")).unwrap();
    let rebuilt = rebuild_index(&store, &ManualClock::default()).unwrap();
    assert_eq!((rebuilt.results, rebuilt.broken), (3, 0));
    assert_sound(&store).await;
    assert_eq!(found(&Bench::on_disk(&store)).await, expected);
}

#[tokio::test]
async fn a_profile_of_many_lines_of_the_journal_comes_back_whole() {
    use pcmcache_server::embedded::Embedded;
    use pcmcache_server::profiles::{Profiles as _, StoredProfile};
    let scratch = Scratch::new();
    let open = || Embedded::open(scratch.path(), Arc::new(ManualClock::default())).unwrap();
    let actions: Vec<_> = (0..20_001_u32).map(|n| ActionKey::of(n.to_le_bytes())).collect();
    let stored = StoredProfile { inherits: Vec::new(), writers: vec![Writer::before_tokens()], actions };
    open().put(&scope(), &named("large"), stored.clone()).await.unwrap();
    fs_err::remove_file(scratch.path().join("index.redb")).unwrap();
    rebuild_index(scratch.path(), &ManualClock::default()).unwrap();
    assert_eq!(open().profile(&scope(), &named("large")).await.unwrap(), Some(stored));
}
