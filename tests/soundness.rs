//! No wrong hit, ever: compile, change one thing, compile again, and compare exit status, what is printed and every
//! output with the bare compiler, byte for byte. The cases are the texts in `soundness/`.
//!
//!     tests/run.sh --test soundness -- --nocapture
//!     PCMCACHE_TEST_CASE='new header' tests/run.sh --test soundness -- --nocapture
//!     tests/run.sh --test soundness -- --ignored --nocapture        # ccache and sccache, too, where installed

use std::collections::BTreeSet;
use std::path::Path;

use pcmcache_tests::soundness::{Case, Contestant, Tally};
use pcmcache_tests::turn;

/// How many compiles after a change must be hits, so that being right was not bought by compiling.
const HITS_AT_LEAST: u64 = 60;
const CASES_AT_LEAST: u64 = 100;

/// Every case whose name holds `PCMCACHE_TEST_CASE`.
fn cases() -> Vec<Case> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("soundness");
    let mut files: Vec<_> =
        fs_err::read_dir(dir).expect("the cases").flatten().map(|file| file.path()).collect();
    files.sort();
    let texts = files.iter().map(|file| fs_err::read_to_string(file).expect("cases"));
    let all: Vec<_> = texts.flat_map(|text| Case::parse_all(&text)).collect();
    let names: BTreeSet<_> = all.iter().map(|case| &case.name).collect();
    assert_eq!(names.len(), all.len(), "two cases have the same name");
    let wanted = wanted();
    all.into_iter().filter(|case| wanted.as_ref().is_none_or(|wanted| case.name.contains(wanted))).collect()
}

fn wanted() -> Option<String> {
    std::env::var("PCMCACHE_TEST_CASE").ok()
}

#[test]
fn what_changed_is_compiled_and_what_did_not_is_hit() {
    let _turn = turn::beside_others();
    let tally = Tally::of(&cases(), Contestant::Pcmcache);
    println!("not cached: {:?}\n{}\n{}", tally.all.bypassed, Tally::head(), tally.row("pcmcache"));
    assert!(tally.all.wrong.is_empty(), "WRONG RESULTS:\n{}", tally.all.wrong.join("\n"));
    assert!(tally.all.missed.is_empty(), "HITS THAT WERE NONE:\n{}", tally.all.missed.join("\n"));
    if wanted().is_none() {
        assert!(tally.cases >= CASES_AT_LEAST, "{} cases", tally.cases);
        assert!(tally.all.second_hits >= HITS_AT_LEAST, "{} hits after a change", tally.all.second_hits);
    }
}

/// The others are not on trial here: their counts are printed, and kept in `target/tmp/soundness.txt`.
#[test]
#[ignore = "minutes: the same cases for ccache and sccache"]
fn the_same_cases_for_the_peers() {
    let _turn = turn::beside_others();
    let common: Vec<_> = cases().into_iter().filter(|case| !case.ours).collect();
    let mut table = vec![Tally::head()];
    let mut wrong = Vec::new();
    for contestant in [Contestant::Pcmcache, Contestant::Ccache, Contestant::Sccache] {
        let Some(program) = contestant.program() else {
            table.push(format!("{:<10} is not installed", contestant.name()));
            continue;
        };
        println!("{}", program.display());
        let tally = Tally::of(&common, contestant);
        table.push(tally.row(contestant.name()));
        wrong.extend(tally.all.wrong.iter().map(|what| format!("{}: {what}", contestant.name())));
    }
    let text = format!("{}\n\n{}\n", wrong.join("\n"), table.join("\n"));
    println!("{text}");
    fs_err::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("soundness.txt"), text).expect("the table");
}
