//! The wall clock's shift, by which a test has it jump while the programs run; only in builds with the `failpoints` feature.

/// By how many seconds the wall clock is off: what the file holds that `PCMCACHE_TEST_CLOCK` names, read at each asking.
pub fn shift_s() -> i64 {
    let file = std::env::var_os("PCMCACHE_TEST_CLOCK");
    let text = file.and_then(|file| fs_err::read_to_string(file).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
