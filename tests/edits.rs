//! Random small projects of modules, random edits, and after each edit a build through the launcher compared with a
//! clean build by the compiler alone: exit status, what is printed, every file.
//!
//!     tests/run.sh --test edits -- --nocapture
//!     PCMCACHE_TEST_EDITS=2000 tests/run.sh --test edits -- --ignored --nocapture
//!
//! A failure is shrunk and printed as a script; `PCMCACHE_TEST_SEED` has it all again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pcmcache_tests::edits::{Bench, Edit, Failure, Project};
use pcmcache_tests::{Chance, turn};

/// How many edits a project sees before the next one, in the same place and with the same cache.
const EDITS_A_PROJECT: usize = 25;
/// What a gate has time for.
const GATE: Duration = Duration::from_secs(60);
const GATE_AT_LEAST: u64 = 20;
const SHRINKS_WITHIN: Duration = Duration::from_secs(180);

/// How far it goes: whichever comes first.
#[derive(Debug, Clone, Copy)]
struct Limit {
    edits: u64,
    end: Option<Instant>,
}

#[test]
fn a_minute_of_random_edits() {
    let _turn = turn::beside_others();
    let edits = edit(Limit { edits: u64::MAX, end: Some(Instant::now() + GATE) });
    assert!(edits >= GATE_AT_LEAST, "only {edits} edits in {GATE:?}");
}

#[test]
#[ignore = "minutes: as many edits as PCMCACHE_TEST_EDITS says, 2,000 without it"]
fn thousands_of_random_edits() {
    let _turn = turn::beside_others();
    let named = std::env::var("PCMCACHE_TEST_EDITS").ok().and_then(|edits| edits.parse().ok());
    let edits = named.unwrap_or(2000);
    assert!(edit(Limit { edits, end: None }) >= edits);
}

/// Edits on two threads, each with projects and a cache of its own; how many edits were made.
fn edit(limit: Limit) -> u64 {
    let mut chance = Chance::new("edits");
    let seeds = [chance.below(u64::MAX), chance.below(u64::MAX)];
    let made = AtomicU64::new(0);
    let failures: Vec<_> = std::thread::scope(|scope| {
        let made = &made;
        let threads = seeds.map(|seed| scope.spawn(move || edit_alone(Chance::seeded(seed), limit, made)));
        threads.into_iter().filter_map(|thread| thread.join().expect("a thread that edits")).collect()
    });
    for failure in &failures {
        println!("{}\n{}", failure.difference.join("\n"), failure.script());
    }
    assert!(failures.is_empty(), "{} differences: see above", failures.len());
    made.into_inner()
}

fn edit_alone(mut chance: Chance, limit: Limit, made: &AtomicU64) -> Option<Failure> {
    let bench = Bench::new();
    let enough =
        || limit.end.is_some_and(|end| Instant::now() > end) || made.load(Ordering::Relaxed) >= limit.edits;
    while !enough() {
        let project = Project::random(&mut chance);
        let difference = bench.build(&project, None);
        if !difference.is_empty() {
            return Some(Failure { project, edits: Vec::new(), difference });
        }
        let mut past = vec![project];
        let mut edits = Vec::new();
        while edits.len() < EDITS_A_PROJECT && !enough() {
            let edit = Edit::random(&mut chance);
            past.push(edit.apply(&past));
            edits.push(edit);
            let difference = bench.build(past.last()?, edits.last());
            made.fetch_add(1, Ordering::Relaxed);
            if !difference.is_empty() {
                let failure = Failure { project: past.swap_remove(0), edits, difference };
                println!("a difference; shrinking");
                return Some(failure.shrink(SHRINKS_WITHIN));
            }
        }
    }
    let (hits, compiles) = bench.hits_and_compiles();
    println!(
        "{} edits so far on both threads; here {hits} hits, {compiles} compiles",
        made.load(Ordering::Relaxed)
    );
    None
}
