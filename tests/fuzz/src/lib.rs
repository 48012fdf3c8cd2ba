//! What is fuzzed: for each form that pcmcache reads, a function from any bytes to nothing, which panics when something does
//! not hold. `tests/fuzz.sh` gives them the inputs kept in `corpus/`, and new ones by libFuzzer.
//!
//! A target asks for more than that nothing panics: what was read is written and read again as the same, what we write can be
//! read, what is damaged is noticed, and what is too large is refused. It does the same for the same bytes each time, so
//! that an input which fails fails again; what it needs of the disk lies in a directory of its own.

mod agent;
mod answers;
mod bases;
mod breaker;
mod command_line;
mod depfile;
mod http;
mod journal;
mod names;
mod packed;
mod parts;
mod proof;
mod recipe;
mod requests;
mod response;
mod scratch;
mod sealed;
mod settings;
mod sources;
mod stats;
mod store;
mod tokens;
mod wire;

/// One form that is read.
#[derive(Debug)]
pub struct Target {
    /// What it is called, and its directory in `corpus/`.
    pub name: &'static str,
    /// Reads these bytes, and panics if something does not hold.
    pub run: fn(&[u8]),
}

macro_rules! targets {
    ($($name:ident)*) => {
        /// All of them.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), run: $name::run }),*];
    };
}

targets! {
    agent answers bases breaker command_line depfile http journal names packed proof recipe requests response sealed settings
    sources stats store tokens wire
}

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
