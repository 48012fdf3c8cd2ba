//! The server's binary; see [`pcmcache_server::server`].

use std::process::ExitCode;

fn main() -> ExitCode {
    pcmcache_server::server::main()
}
