//! The server's journal, from which a lost index is made again. What a line says is taken or left out; a store that was made of
//! any lines opens, and its check finds nothing that contradicts itself.
//!
//! Each line is one of the journal's; one that begins with `=` gets its check sum, which is too much to guess. A part is a file.

use std::path::PathBuf;
use std::sync::OnceLock;

use pcmcache_server::clock::ManualClock;
use pcmcache_server::embedded::rebuild_index;
use pcmcache_shared::Digest;

use crate::{parts, scratch};

pub(crate) fn run(input: &[u8]) {
    static STORE: OnceLock<PathBuf> = OnceLock::new();
    let store = STORE.get_or_init(|| scratch::directory("journal"));
    let _ = fs_err::remove_dir_all(store);
    fs_err::create_dir_all(store.join("results")).expect("a directory");
    let mut lines = 0;
    for (number, part) in parts::of(input).into_iter().take(4).enumerate() {
        let text: Vec<Vec<u8>> = part.split_inclusive(|byte| *byte == b'\n').map(summed).collect();
        lines += text.len() as u64;
        let name = format!("results/{:020}.{}", number.max(1), if number == 0 { "base" } else { "log" });
        fs_err::write(store.join(name), text.concat()).expect("a file");
    }
    let rebuilt = rebuild_index(store, &ManualClock::default()).expect("an index of what can be read");
    assert!(rebuilt.results + rebuilt.broken + rebuilt.left_out <= lines);
    assert_eq!(rebuilt.results, 0, "a result whose blobs are not there");
}

fn summed(line: &[u8]) -> Vec<u8> {
    let Some(text) = line.strip_prefix(b"=") else { return line.to_vec() };
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let sum = Digest::of(text).to_string();
    [&sum.as_bytes()[..16], b" ", text, b"\n"].concat()
}
