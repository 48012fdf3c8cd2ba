//! The server, with failpoints.

use std::process::ExitCode;

fn main() -> ExitCode {
    pcmcache_server::main()
}
