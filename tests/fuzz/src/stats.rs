//! Counts: the file that launches append to, and logs of builds. Torn lines and lies about numbers cost counts, nothing else.

use std::path::PathBuf;
use std::sync::OnceLock;

use pcmcache::local::Store;
use pcmcache::local::stats::Counts;
use pcmcache_shared::Digest;

use crate::scratch;

pub(crate) fn run(input: &[u8]) {
    static STORE: OnceLock<(Store, PathBuf)> = OnceLock::new();
    let (store, log) = STORE.get_or_init(|| {
        let dir = scratch::directory("stats");
        (Store::open(&dir).expect("a store"), dir.join("log"))
    });
    fs_err::write(log, input).expect("a file");
    let (sum, bad) = Counts::sum_of_log(log).expect("a log");
    let lines = input.split_inclusive(|byte| *byte == b'\n').count() as u64;
    assert!(bad <= lines);
    let mut twice = sum.clone();
    twice.add(&sum);
    assert!(twice.compiles >= sum.compiles);

    // Each line with its mark, and as it is.
    let file = store.root().join("counts");
    let marked = input.split(|byte| *byte == b'\n').map(|line| {
        let mark: String = Digest::of(line).to_string().chars().take(16).collect();
        [mark.as_bytes(), b" ", line, b"\n"].concat()
    });
    for text in [marked.collect::<Vec<_>>().concat(), input.to_vec()] {
        fs_err::write(&file, &text).expect("a file");
        let before = store.counts();
        store.count(&Counts { compiles: 1, ..Counts::default() }).expect("counting");
        let after = store.counts();
        if text.is_empty() || text.ends_with(b"\n") {
            assert_eq!(after.compiles, before.compiles.saturating_add(1));
        }
    }
}
