//! The whole of it in one thread, a thousand times: the server's router and rules, its leases and its store's crashes, the
//! launchers' remote side and breakers, and a network that delays, cuts, holds back and repeats, all by one seed and in a time
//! that jumps to whatever comes next. What must hold in every world is in `simulation/judge.rs`; the same seed makes the same
//! trace, which one seed in a hundred shows by running twice.
//!
//! ```text
//! tests/run.sh -p pcmcache-tests --test simulation                              the first thousand seeds
//! PCMCACHE_TEST_SEEDS=50000 tests/run.sh -p pcmcache-tests --test simulation    that many
//! PCMCACHE_TEST_FIRST=50000 tests/run.sh -p pcmcache-tests --test simulation    a thousand from that seed on
//! PCMCACHE_TEST_SEED=17 tests/run.sh -p pcmcache-tests --test simulation -- --nocapture    one, with its trace
//! ```
//!
//! Real: `pcmcache_server::{http, cache, leases, trust, upkeep, limits}`; `pcmcache::remote` from its deadlines to the bytes
//! of its requests, and `pcmcache::remote::breaker`; HTTP/1.1 by hyper on both sides. Not here: sockets, TLS, the agent, the
//! accept loop's own timers, the embedded store's files (the memory back ends stand in, with its order of writing and its
//! restart), and the launch story around the remote side, whose steps `simulation/launcher.rs` follows.

#[path = "simulation/clocks.rs"]
mod clocks;
#[path = "simulation/judge.rs"]
mod judge;
#[path = "simulation/launcher.rs"]
mod launcher;
#[path = "simulation/modules.rs"]
mod modules;
#[path = "simulation/network.rs"]
mod network;
#[path = "simulation/server.rs"]
mod server;
#[path = "simulation/store.rs"]
mod store;
#[path = "simulation/world.rs"]
mod world;

use std::cell::RefCell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use judge::Counts;
use modules::Outputs;
use pcmcache_server::trust::BookFile;
use pcmcache_server::trust::book::{Book, Entry, Rights};
use pcmcache_shared::Digest;
use pcmcache_tests::Scratch;
use world::{Ground, Outcome, Team};

/// The seeds of a gate.
const SEEDS: u64 = 1000;
/// Worlds that run at the same time, each on a thread of its own.
const THREADS: usize = 2;
/// One seed of so many runs twice.
const TWICE_EVERY: u64 = 100;
/// As much of a trace is shown.
const TAIL: usize = 60;

#[test]
fn what_is_promised_holds_in_every_world() {
    let scratch = Scratch::new("simulation");
    let ground = ground(&scratch);
    note_panics();
    if let Some(seed) = number("PCMCACHE_TEST_SEED") {
        let outcome = run(seed, &ground, &scratch);
        outcome.trace.iter().for_each(|line| println!("{line}"));
        println!("trace {}: {:?}", outcome.digest(), outcome.counts);
        assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
        return;
    }
    let seeds = number("PCMCACHE_TEST_SEEDS").unwrap_or(SEEDS);
    let first = number("PCMCACHE_TEST_FIRST").unwrap_or_default();
    let (next, sum, began) = (AtomicU64::new(first), Mutex::new(Sum::default()), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first.saturating_add(seeds) || !sum.lock().expect("the sum").failed.is_empty()
                    {
                        return;
                    }
                    let outcome = run(seed, &ground, &scratch);
                    let again = (seed % TWICE_EVERY == 0).then(|| run(seed, &ground, &scratch));
                    sum.lock().expect("the sum").add(seed, outcome, again);
                }
            });
        }
    });
    let sum = sum.into_inner().expect("the sum");
    println!("tally: worlds={} restarts={}", sum.worlds, sum.counts.restarts);
    println!(
        "{} worlds, {:?} in them, {:.1?} outside: {:?}",
        sum.worlds,
        sum.lasted,
        began.elapsed(),
        sum.counts
    );
    assert!(sum.failed.is_empty(), "{}", sum.failed.join("\n"));
    let Counts { commits, hits, winners, restarts, woken, alone, .. } = sum.counts;
    let all = [commits, hits, winners, restarts, woken, alone];
    assert!(
        seeds < SEEDS || all.iter().all(|count| *count > seeds / 20),
        "worlds in which little happens: {all:?}"
    );
}

/// What came of all worlds so far.
#[derive(Debug, Default)]
struct Sum {
    worlds: u64,
    lasted: Duration,
    counts: Counts,
    failed: Vec<String>,
}

impl Sum {
    fn add(&mut self, seed: u64, outcome: Outcome, again: Option<Outcome>) {
        self.worlds += 1;
        self.lasted += outcome.lasted;
        self.counts.add(outcome.counts);
        let replay = format!(
            "PCMCACHE_TEST_SEED={seed} tests/run.sh -p pcmcache-tests --test simulation -- --nocapture"
        );
        if !outcome.violations.is_empty() {
            let tail = outcome.trace.iter().skip(outcome.trace.len().saturating_sub(TAIL));
            let tail: Vec<&str> = tail.map(String::as_str).collect();
            let violations = outcome.violations.join("\n  ");
            self.failed.push(format!("{}\nseed {seed}:\n  {violations}\nreplay: {replay}", tail.join("\n")));
        }
        let Some(again) = again.filter(|again| again.digest() != outcome.digest()) else { return };
        let both = outcome.trace.iter().zip(&again.trace);
        let same = both.take_while(|(one, other)| one == other).count();
        let line = |trace: &[String]| trace.get(same).cloned().unwrap_or_default();
        self.failed.push(format!(
            "seed {seed} ran twice and not alike, from line {same} on:\n  {}\n  {}\nreplay: {replay}",
            line(&outcome.trace),
            line(&again.trace)
        ));
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

thread_local! {
    /// What panicked on this thread: a task that does is swallowed by its runtime, and must not be.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn note_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()));
        before(panic);
    }));
}

fn run(seed: u64, ground: &Ground, scratch: &Scratch) -> Outcome {
    let dir = scratch.dir(&format!("{seed}-{:?}", std::thread::current().id()));
    let mut outcome = world::run(seed, ground, &dir);
    let panics = PANICS.with_borrow_mut(std::mem::take);
    outcome.violations.extend(panics);
    let _ = fs_err::remove_dir_all(&dir);
    outcome
}

/// Three scopes, each with a token; a change's reads what it is a change to.
fn ground(scratch: &Scratch) -> Ground {
    let team = |scope: &str, base: Option<&str>| {
        let token = format!("pcmc_{}", Digest::of(scope));
        let scope = scope.parse().expect("a scope");
        Team { scope, base: base.map(|base| base.parse().expect("a scope")), token }
    };
    let teams = vec![team("main", None), team("other", None), team("pr-17", Some("main"))];
    let mut book = Book::default();
    for Team { scope, base, token } in &teams {
        let rights = Rights {
            reads: base.iter().cloned().collect(),
            writes: Some(scope.clone()),
            ..Rights::default()
        };
        let id = format!("t-{scope}").parse().expect("a writer");
        let sha256 = Digest::of(token);
        let entry = Entry { id, name: scope.to_string(), sha256, rights, created_s: 1, expires_s: None };
        book.add(entry).expect("a token");
    }
    let book = BookFile::new(scratch.file("tokens.json", book.text().expect("a book")));
    Ground { book, teams, outputs: Outputs::new(scratch.dir("outputs")) }
}
