//! Every history of a server under faults can be explained: what many clients were told, while it was killed, stopped and cut
//! off, fits one order of events in which no result is lost, changed or doubled, no lease is held twice, and nobody sees what is
//! not theirs (`src/history/rules.rs` says what is demanded).
//!
//!     tests/run.sh -p pcmcache-tests --test histories                                       # 20 histories of 10 s, each another
//!     PCMCACHE_TEST_HISTORIES=500 PCMCACHE_TEST_SECONDS=30 tests/run.sh -p pcmcache-tests --test histories   # for hours
//!     PCMCACHE_TEST_HISTORIES=1 PCMCACHE_TEST_SEED=7 tests/run.sh -p pcmcache-tests --test histories         # that of seed 7
//!     PCMCACHE_TEST_HISTORY=FILE tests/run.sh -p pcmcache-tests --test histories                             # one that was kept
//!
//! The seed determines what clients and faults try, and not how the threads of two programs take turns: a history that broke a
//! rule is kept in a file, where it can be read and judged again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use pcmcache_tests::history::{self, Act, End, Kind, Line, line};
use pcmcache_tests::{Chance, turn};

/// How many are run at once: they mostly wait.
const AT_ONCE: usize = 7;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|number| number.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn histories_under_faults_can_be_explained() {
    if let Some(kept) = std::env::var_os("PCMCACHE_TEST_HISTORY") {
        let kept = Path::new(&kept);
        let report = judge(&line::read(kept).expect("a history"), kept);
        assert!(report.is_none(), "{}", report.unwrap_or_default());
        return;
    }
    let _turn = turn::alone();
    let (count, seconds) = (number("PCMCACHE_TEST_HISTORIES", 20), number("PCMCACHE_TEST_SECONDS", 10));
    let mut chance = Chance::new("histories");
    let first = std::env::var("PCMCACHE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut seeds: Vec<u64> = (0..count).map(|_| chance.below(u64::MAX)).collect();
    if let (Some(seed), Some(named)) = (seeds.first_mut(), first) {
        *seed = named;
    }
    let (seeds, total, wrong) = (Mutex::new(seeds), Mutex::new(Tally::default()), Mutex::new(String::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(seed) = next(&seeds) {
                    let lines = history::run(seed, Duration::from_secs(seconds));
                    let tally = Tally::of(&lines);
                    println!("seed {seed}, {:?}: {tally}", Kind::of(seed));
                    total.lock().expect("the total").add(&tally);
                    if let Some(report) = judge(&lines, &kept(seed)) {
                        println!("{report}");
                        *wrong.lock().expect("the reports") += &report;
                    }
                }
            });
        }
    });
    let total = total.into_inner().expect("the total");
    println!("{count} histories: {total}");
    println!(
        "tally: histories={count} faults-in-histories={}",
        total.0.get("fault").copied().unwrap_or_default()
    );
    let wrong = wrong.into_inner().expect("the reports");
    assert!(wrong.is_empty(), "{wrong}");
    for what in ["found", "winner", "granted", "renewed", "bytes", "cut", "absent", "refused", "fault"] {
        assert!(total.0.contains_key(what), "no {what} in any of them: they show nothing");
    }
}

fn next(seeds: &Mutex<Vec<u64>>) -> Option<u64> {
    let mut seeds = seeds.lock().expect("the seeds");
    (!seeds.is_empty()).then(|| seeds.remove(0))
}

fn kept(seed: u64) -> PathBuf {
    std::env::temp_dir().join(format!("pcmcache-history-{seed}.jsonl"))
}

/// All that is wrong with a history, which is kept then; or always, if `PCMCACHE_TEST_KEEP` is set.
fn judge(lines: &[Line], path: &Path) -> Option<String> {
    let violations = history::check(lines);
    if violations.is_empty() && std::env::var_os("PCMCACHE_TEST_KEEP").is_none() {
        return None;
    }
    line::write(lines, path).expect("a file for the history");
    if violations.is_empty() {
        return None;
    }
    let mut report = format!("{} violations in {}:\n", violations.len(), path.display());
    for violation in violations.iter().take(10) {
        report += &format!("{violation}\n");
        for number in &violation.lines {
            let line = serde_json::to_string(&lines[number - 1]).expect("JSON of a line");
            report += &format!("  {number}: {line}\n");
        }
    }
    let Some(Line::Setting(setting)) = lines.first() else { panic!("a history begins with its setting") };
    let again = "tests/run.sh -p pcmcache-tests --test histories";
    report += &format!("again: PCMCACHE_TEST_HISTORIES=1 PCMCACHE_TEST_SEED={} {again}\n", setting.seed);
    Some(report)
}

/// How much of what happened: ends by their names, publishes that were taken, results that went, faults.
#[derive(Default)]
struct Tally(BTreeMap<String, u64>);

impl Tally {
    fn of(lines: &[Line]) -> Self {
        let mut tally = Self::default();
        let mut held = BTreeMap::new();
        for line in lines {
            let Line::Op(op) = line else {
                tally.count(if matches!(line, Line::Fault(_)) { "fault" } else { "history" });
                continue;
            };
            let json = serde_json::to_value(&op.end).expect("JSON of an end");
            tally.count(json["end"].as_str().unwrap_or_default());
            let place = (&op.scope, op.act.key());
            match &op.end {
                End::Done { status: 201 } if matches!(op.act, Act::Publish { .. }) => {
                    held.insert(place, op.to);
                    tally.count("published");
                }
                End::Absent | End::Granted { .. } if held.get(&place).is_some_and(|to| *to < op.from) => {
                    held.remove(&place);
                    tally.count("evicted");
                }
                _ => {}
            }
        }
        tally
    }

    fn count(&mut self, what: &str) {
        *self.0.entry(what.to_owned()).or_default() += 1;
    }

    fn add(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            *self.0.entry(name.clone()).or_default() += count;
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|(name, count)| write!(f, "{count} {name}, "))
    }
}
