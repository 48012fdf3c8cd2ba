//! `verify` finds what is bad, and what the compiler would make otherwise today; `stats --log` tells one build's numbers.

use pcmcache_tests::harm::Harm;
use pcmcache_tests::scratch::files_below;
use pcmcache_tests::{Finished, Machine, Scratch, Unit, Weight, turn};

fn verify(machine: &Machine, arguments: &[&str]) -> Finished {
    let words = std::iter::once("verify").chain(arguments.iter().copied());
    machine.start(machine.launcher(), words).finish()
}

#[test]
fn each_damaged_entry_is_found_and_taken_out_of_use() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("verify-each");
    let machine = Machine::new(&scratch, "machine");
    let unit = Unit::write(&scratch, "unit", 1, Weight::Light);
    unit.add("#warning careful");
    let mut seen = 0;
    for kind in ["blobs", "results", "units", "commands", "near", "memo", "embedded"] {
        machine.compile(unit.arguments()).ok();
        let good = verify(&machine, &[]).ok().stdout;
        assert!(good.contains(": 0 bad"), "{good}");
        let dir = machine.cache().join("v1").join(kind);
        for file in files_below(&dir) {
            machine.compile(unit.arguments()).ok();
            let path = dir.join(&file);
            if !path.exists() {
                continue;
            }
            Harm::Flip.to(&path);
            let end = verify(&machine, &[]);
            let name = file.file_name().expect("a name").to_string_lossy().into_owned();
            assert_eq!(end.status.code(), Some(1), "{}", end.transcript());
            assert!(end.stdout.contains("bad: ") && end.stdout.contains(&name), "{}", end.transcript());
            assert!(end.stderr.contains("damaged"), "{}", end.transcript());
            assert!(verify(&machine, &[]).status.success(), "{kind}: it was taken out of use");
            seen += 1;
        }
    }
    assert!(seen >= 12, "{seen} entries");
}

#[test]
fn a_result_without_its_blob_is_bad() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("verify-lost");
    let machine = Machine::new(&scratch, "machine");
    let unit = Unit::write(&scratch, "unit", 1, Weight::Light);
    machine.compile(unit.arguments()).ok();
    fs_err::remove_dir_all(machine.cache().join("v1/blobs")).expect("the blobs");
    let end = verify(&machine, &[]);
    assert!(end.stdout.contains("which is not there") && !end.status.success(), "{}", end.transcript());
    machine.compile(unit.arguments()).ok();
    assert_eq!(machine.stats().compiles, 2);
}

#[test]
fn a_rebuild_compares_and_places_nothing() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("verify-rebuild");
    let machine = Machine::new(&scratch, "machine");
    let units = ["one", "two", "six"].map(|name| Unit::write(&scratch, name, 1, Weight::Light));
    for unit in &units {
        machine.compile(unit.arguments()).ok();
    }
    let before = machine.stats();
    let placed = machine.build().join("one.o");
    fs_err::remove_file(&placed).expect("an output");
    let same = verify(&machine, &["--rebuild", "3"]).ok().stdout;
    assert!(same.contains("compiled 3 results again: 3 the same, 0 different; 0 could"), "{same}");
    assert!(!placed.exists(), "nothing is placed");
    assert_eq!(machine.stats(), before, "nothing is counted");

    // An input that changed is another action: nothing to compare.
    units[0].add("// edited");
    let passed = verify(&machine, &["--rebuild", "3"]).ok().stdout;
    assert!(passed.contains("compiled 2 results again: 2 the same, 0 different; 1 could not"), "{passed}");

    // A result that is not what the compiler makes, whole in itself: only a rebuild tells.
    swap_objects(&machine, "two.o", "six.o");
    let end = verify(&machine, &["--rebuild", "3"]);
    assert_eq!(end.status.code(), Some(1), "{}", end.transcript());
    assert!(end.stdout.contains(": 0 bad"), "{}", end.transcript());
    assert!(end.stdout.contains("object: ") && end.stdout.contains("first at byte"), "{}", end.transcript());
    assert!(end.stdout.contains("2 different"), "{}", end.transcript());
    assert!(end.stderr.contains("deterministic"), "{}", end.transcript());
}

/// Makes each of two results name the object of the other, under a true seal.
fn swap_objects(machine: &Machine, one: &str, other: &str) {
    let digest = |name: &str| {
        pcmcache_shared::Digest::of(fs_err::read(machine.build().join(name)).expect("an object")).to_string()
    };
    let size = |name: &str| fs_err::metadata(machine.build().join(name)).expect("an object").len();
    assert_eq!(size(one), size(other), "names of one length");
    let (one, other) = (digest(one), digest(other));
    let dir = machine.cache().join("v1/results");
    for file in files_below(&dir) {
        let path = dir.join(file);
        let text = fs_err::read_to_string(&path).expect("a result");
        let body = text.rsplit_once("\nsha256 ").expect("a seal").0;
        let swapped = body.replace(&one, "x").replace(&other, &one).replace('x', &other);
        if swapped != body {
            let seal = pcmcache_shared::Digest::of(&swapped);
            fs_err::write(path, format!("{swapped}\nsha256 {seal}\n")).expect("a result");
        }
    }
}

#[test]
fn a_log_of_counts_tells_one_build_from_another() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("stats-log");
    let machine = Machine::new(&scratch, "machine");
    let log = scratch.path().join("build.stats");
    let logged = machine.clone().with("PCMCACHE_STATS_LOG", &log);
    let unit = Unit::write(&scratch, "unit", 1, Weight::Light);
    machine.compile(unit.arguments()).ok();
    logged.compile(unit.arguments()).ok();
    logged.compile(unit.arguments()).ok();
    logged.compile(["-E", "-x", "c++", "/dev/null", "-o", "e.ii"]).ok();
    assert_eq!((machine.stats().compiles, machine.stats().local_hits), (1, 2));

    let text = fs_err::read_to_string(&log).expect("the log");
    assert_eq!(text.lines().count(), 3, "{text}");
    fs_err::write(&log, format!("no counts\n{text}{{\"local_hits\":")).expect("the log");
    let words = ["stats", "--format", "json", "--log", log.to_str().expect("a path")];
    let end = machine.start(machine.launcher(), words).finish().ok();
    let sum: pcmcache_tests::Stats = serde_json::from_str(&end.stdout).expect("the sum");
    assert_eq!((sum.compiles, sum.local_hits, sum.bypassed.len()), (0, 2, 1), "{}", end.transcript());
    assert!(end.stderr.contains("2 lines are no counts"), "{}", end.transcript());

    let side_by_side: Vec<_> = (0..12).map(|_| logged.launch(unit.arguments())).collect();
    side_by_side.into_iter().for_each(|launch| drop(launch.finish().ok()));
    let text = fs_err::read_to_string(&log).expect("the log");
    assert_eq!(
        text.lines().filter(|line| line.starts_with("{\"compiles\":0,\"scans\":0,\"local_hits\":1,")).count(),
        13,
        "{text}"
    );
}
