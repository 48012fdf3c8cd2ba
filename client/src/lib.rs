//! The launcher and its commands. `main` and `cli` decide which; `launch` is the story of one compile.

pub mod bases;
pub mod cli;
pub mod command;
pub mod compiler;
pub mod depfile;
pub mod doctor;
pub mod explain;
pub mod inputs;
pub mod interrupt;
pub mod invocation;
pub mod key;
pub mod launch;
pub mod local;
pub mod mask;
pub mod os;
pub mod probes;
pub mod profile;
pub mod remote;
pub mod search;
pub mod settings;
pub mod signing;
pub mod size;
pub mod slots;
pub mod stage;

use std::process::ExitCode;

/// The program.
pub fn main() -> ExitCode {
    ExitCode::from(cli::run(std::env::args_os().collect()))
}
