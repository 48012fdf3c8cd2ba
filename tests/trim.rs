//! The bound of the local store: what was not used for longest goes, and no launcher beside is disturbed.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use pcmcache_tests::scratch::files_below;
use pcmcache_tests::{Machine, Scratch, Unit, Weight, turn, until};

const LAUNCHERS: usize = 64;
/// Each launcher does so many compiles, one after the other.
const ROUNDS: usize = 4;
/// Fewer units than launchers: one launcher hits what another one has stored and a trim is about to remove.
const UNITS: usize = 40;
const BOUND: u64 = 4_500_000;

/// What the store takes on the disk.
fn size_of(cache: &Path) -> u64 {
    let size =
        |path: PathBuf| fs_err::metadata(cache.join(path)).map_or(0, |metadata| metadata.blocks() * 512);
    files_below(cache).into_iter().map(size).sum()
}

fn names_of(machine: &Machine, kind: &str) -> Vec<PathBuf> {
    files_below(&machine.cache().join("v1").join(kind))
}

/// Makes all entries look as if they were last used so long ago.
fn age(machine: &Machine, kind: &str, by: Duration) {
    let dir = machine.cache().join("v1").join(kind);
    for file in files_below(&dir) {
        set_age(&dir.join(file), by);
    }
}

fn set_age(path: &Path, by: Duration) {
    let file = fs_err::File::open(path).expect("an entry");
    file.file().set_modified(SystemTime::now() - by).expect("its time");
}

fn trim(machine: &Machine, arguments: &[&str]) -> String {
    let words = std::iter::once("trim").chain(arguments.iter().copied());
    machine.start(machine.launcher(), words).finish().ok().stdout
}

#[test]
fn under_64_launchers_no_build_fails_and_the_bound_is_kept() {
    let _turn = turn::alone();
    let scratch = Scratch::new("trim-64");
    let machine = Machine::new(&scratch, "machine").with("PCMCACHE_MAX_SIZE", BOUND.to_string());
    let units: Vec<Unit> = (0..UNITS)
        .map(|n| Unit::write(&scratch, &format!("u{n}"), n as u32, Weight::Filling(60_000)))
        .collect();
    let right: Vec<_> = units.iter().map(|unit| unit.right_outputs(&scratch)).collect();
    let largest = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..LAUNCHERS)
            .map(|worker| {
                let (units, right, scratch, machine) = (&units, &right, &scratch, &machine);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let at = (worker * 7 + round * 11) % UNITS;
                        let build = scratch.dir(&format!("build-{worker}-{round}"));
                        let machine = machine.clone().building_in(build);
                        let end = machine.compile(units[at].arguments()).ok();
                        assert_eq!((end.stdout.as_str(), end.stderr.as_str()), ("", ""));
                        assert_eq!(units[at].outputs(machine.build()), right[at], "u{at}");
                    }
                })
            })
            .collect();
        let (largest, done, cache) = (&largest, &done, machine.cache());
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                largest.fetch_max(size_of(&cache), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let ends: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(ends.iter().all(Result::is_ok), "a build failed");
    });
    until("the last trim to end", || machine.alive().is_empty());
    let (largest, last) = (largest.into_inner(), size_of(&machine.cache()));
    let stats = machine.stats();
    println!("bound {BOUND}, largest {largest}, at the end {last}; {stats:?}");
    assert!(largest <= BOUND, "the bound is {BOUND}, the store was as large as {largest}");
    let only_full = stats.bypassed.keys().all(|reason| reason == "store-full");
    assert!(stats.errors.is_empty() && only_full, "{stats:?}\n{}", machine.log());
    assert!(stats.compiles > UNITS as u64, "nothing was removed that was needed again: {stats:?}");
    assert!(stats.local_hits > 0, "nothing was hit: {stats:?}");
}

#[test]
fn what_was_used_last_stays() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("trim-order");
    let machine = Machine::new(&scratch, "machine");
    let units =
        ["oldest", "hit", "newest"].map(|name| Unit::write(&scratch, name, 1, Weight::Filling(300_000)));
    let [old, hit, new] = &units;
    machine.compile(old.arguments()).ok();
    machine.compile(hit.arguments()).ok();
    for kind in ["results", "units", "commands", "near", "blobs"] {
        age(&machine, kind, Duration::from_secs(3 * 24 * 3600));
    }
    machine.compile(new.arguments()).ok();
    machine.compile(hit.arguments()).ok();
    assert_eq!((machine.stats().compiles, machine.stats().local_hits), (3, 1));
    let before = size_of(&machine.cache());

    let said = trim(&machine, &["--max-size", &(before - 100_000).to_string()]);
    println!("{said}");
    assert!(said.starts_with("removed 1 results"), "{said}");
    machine.compile(new.arguments()).ok();
    machine.compile(hit.arguments()).ok();
    assert_eq!(machine.stats().compiles, 3, "what was used last is still there");
    machine.compile(old.arguments()).ok();
    assert_eq!(machine.stats().compiles, 4, "what was not used for longest is gone");
    assert!(machine.stats().errors.is_empty());

    trim(&machine, &["--max-size", "1"]);
    assert_eq!((names_of(&machine, "results"), names_of(&machine, "blobs")), (Vec::new(), Vec::new()));
}

#[test]
fn what_is_of_no_use_goes_and_what_is_in_work_stays() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("trim-tidy");
    let machine = Machine::new(&scratch, "machine");
    let unit = Unit::write(&scratch, "unit", 1, Weight::Light);
    machine.compile(unit.arguments()).ok();
    let v1 = machine.cache().join("v1");
    let put = |name: &str, hours: u64| {
        let path = v1.join(name);
        fs_err::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs_err::write(&path, "x").expect("an entry");
        set_age(&path, Duration::from_secs(hours * 3600));
        path
    };
    let digit = |digit: &str| digit.repeat(64);
    let gone = [
        put("blobs/.stage-0123", 2),
        put("results/aa/.stage-0123", 2),
        put(&format!("blobs/11/{}", digit("1")), 2),
        put(&format!("locks/22/{}", digit("2")), 2),
        put(&format!("embedded/33/{}", digit("3")), 24 * 100),
    ];
    let held_path = put(&format!("locks/44/{}", digit("4")), 2);
    let held = fs_err::File::open(&held_path).expect("a lock");
    rustix::fs::flock(held.file(), rustix::fs::FlockOperation::LockExclusive).expect("the lock");
    let stays = [
        put("blobs/.stage-4567", 0),
        put(&format!("blobs/55/{}", digit("5")), 0),
        put(&format!("embedded/66/{}", digit("6")), 24 * 10),
        held_path,
    ];
    trim(&machine, &[]);
    assert!(gone.iter().all(|path| !path.exists()), "{gone:?}");
    assert!(stays.iter().all(|path| path.exists()), "{stays:?}");
    machine.compile(unit.arguments()).ok();
    assert_eq!(machine.stats().local_hits, 1, "what is stored stayed too");
    drop(held);
}

#[test]
fn a_lock_that_somebody_holds_outlives_a_trim() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("trim-lock");
    let machine = Machine::new(&scratch, "machine");
    let unit = Unit::write(&scratch, "unit", 1, Weight::Light);
    let at = scratch.path().join("locked");
    let mut first = machine.clone().waiting("launch.locked", &at).launch(unit.arguments());
    until("the first to have the lock", || at.exists() || first.ended());
    // The lock is held: however old it looks, it stays, and the second waits for it.
    age(&machine, "locks", Duration::from_secs(7200));
    trim(&machine, &[]);
    let second = machine.clone().building_in(scratch.dir("beside")).launch(unit.arguments());
    fs_err::remove_file(&at).expect("the announcement");
    first.finish().ok();
    second.finish().ok();
    assert_eq!(machine.stats().compiles, 1, "{}", machine.log());
}

#[test]
fn without_a_bound_nothing_goes() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("trim-unbound");
    let machine = Machine::new(&scratch, "machine").with("PCMCACHE_MAX_SIZE", "0");
    let unit = Unit::write(&scratch, "unit", 1, Weight::Light);
    machine.compile(unit.arguments()).ok();
    let said = trim(&machine, &[]);
    assert!(said.contains("no bound") && said.starts_with("removed 0 results"), "{said}");
    machine.compile(unit.arguments()).ok();
    assert_eq!(machine.stats().local_hits, 1);
}
