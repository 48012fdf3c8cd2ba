//! The server, with failpoints; and with a clock that goes faster, where `PCMCACHE_TEST_CLOCK_RATE` says how many times as fast.

use std::process::ExitCode;

use pcmcache_server::Config;
use pcmcache_tests::hurry;

fn main() -> ExitCode {
    let rate = std::env::var("PCMCACHE_TEST_CLOCK_RATE").ok().and_then(|rate| rate.parse().ok());
    match rate.filter(|rate| *rate != 1) {
        None => pcmcache_server::main(),
        Some(rate) => hurry::serve(&Config::from_command_line(), rate),
    }
}
