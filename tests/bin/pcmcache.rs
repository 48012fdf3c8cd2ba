//! The launcher, with failpoints.

use std::process::ExitCode;

fn main() -> ExitCode {
    pcmcache::main()
}
