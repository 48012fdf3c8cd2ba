//! The breaker's file. Whatever is in it, the server is asked again after the longest that a breaker opens.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pcmcache::remote::breaker::{Breaker, State};
use pcmcache_shared::Digest;

use crate::scratch;

const URL: &str = "http://cache";
/// Longer than any breaker opens.
const LONGEST: Duration = Duration::from_secs(61);

pub(crate) fn run(input: &[u8]) {
    static PLACE: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    let (dir, file) = PLACE.get_or_init(|| {
        let dir = scratch::directory("breaker");
        fs_err::create_dir(dir.join("breaker")).expect("a directory");
        (dir.clone(), dir.join("breaker").join(Digest::of(URL).to_string()))
    });
    // The checksum is too much to guess: a line that begins with `=` gets its own.
    let text = match input.strip_prefix(b"=") {
        Some(fields) => {
            let sum: String = Digest::of(fields).to_string().chars().take(8).collect();
            [fields, b" ", sum.as_bytes(), b"\n"].concat()
        }
        None => input.to_vec(),
    };
    let now = UNIX_EPOCH + Duration::from_secs(1_764_000_000);
    let at = |now: SystemTime| Breaker::new(dir, URL, Arc::new(move || now));
    fs_err::write(file, &text).expect("a file");
    let first = at(now);
    // Who finds it open now finds it over after the longest time, unless the clock jumped.
    if matches!(first.state(), State::Open) {
        assert!(matches!(at(now + LONGEST).state(), State::HalfOpen(_)), "open for ever");
    }
    // What is there does not keep it from being opened, nor closed.
    first.trip();
    assert!(!matches!(first.state(), State::Closed), "a breaker that was tripped is open");
    first.close();
    assert!(matches!(first.state(), State::Closed));
}
