//! `pcmcache`: a compiler launcher with a crash-safe cache of C++ modules.

use std::process::ExitCode;

fn main() -> ExitCode {
    pcmcache::main()
}
