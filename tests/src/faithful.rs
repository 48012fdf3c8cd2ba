//! Whether a launcher does what the compiler does: the same exit status, standard output, standard error and files.

use std::collections::BTreeMap;
use std::path::Path;

use pcmcache_shared::Digest;

use crate::scratch::names_in;
use crate::{Finished, Machine, Scratch};

/// Compile commands that between them end in all the ways that matter.
const COMMANDS: [(&str, &[&str]); 6] = [
    ("a module", &["-c", "SOURCE/lib.cppm", "-o", "lib.o", "-fmodule-output=lib.pcm", "-MD", "-MF", "lib.d"]),
    ("its BMI alone", &["--precompile", "SOURCE/lib.cppm", "-o", "lib2.pcm"]),
    (
        "an importer with a warning",
        &["-Wall", "-c", "SOURCE/use.cpp", "-fmodule-file=lib=lib.pcm", "-o", "use.o"],
    ),
    ("what does not compile", &["-c", "SOURCE/bad.cpp", "-o", "bad.o", "-MD"]),
    ("what is not there", &["-c", "SOURCE/missing.cpp", "-o", "missing.o"]),
    ("what is no flag", &["-c", "SOURCE/use.cpp", "-o", "no.o", "--no-such-flag"]),
];

/// The commands, and what the compiler itself makes of them.
#[derive(Debug)]
pub struct Faithful {
    source: String,
    right: Vec<Traits>,
}

/// All that a caller sees of a command.
#[derive(Debug, PartialEq, Eq)]
struct Traits {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    files: BTreeMap<String, Digest>,
}

impl Faithful {
    /// Writes the sources and asks the compiler.
    pub fn new(scratch: &Scratch) -> Self {
        scratch.file("faithful/scale.h", "inline int scale(int x) { return x * 3; }\n");
        scratch.file(
            "faithful/lib.cppm",
            "module;\n#include \"scale.h\"\nexport module lib;\nexport int lib() { return scale(2); }\n",
        );
        scratch.file("faithful/use.cpp", "import lib;\nint main() { int unused; return lib(); }\n");
        scratch.file("faithful/bad.cpp", "#warning careful\nint main() { return undeclared; }\n");
        let source = scratch.path().join("faithful").to_string_lossy().into_owned();
        let machine = Machine::new(scratch, "faithful-reference");
        let mut faithful = Self { source, right: Vec::new() };
        faithful.right = faithful.run(&machine, |arguments| {
            let interface = arguments.iter().any(|argument| argument.ends_with(".cppm"));
            let embed: &[&str] = if interface { &["-Xclang", "-fmodules-embed-all-files"] } else { &[] };
            machine.bare(arguments.into_iter().chain(embed.iter().map(|flag| (*flag).to_owned())))
        });
        faithful
    }

    /// Panics unless the launcher on `machine` does the same.
    pub fn check(&self, machine: &Machine) {
        let seen = self.run(machine, |arguments| machine.compile(arguments));
        for (((what, _), seen), right) in COMMANDS.iter().zip(seen).zip(&self.right) {
            assert_eq!(seen, *right, "{what}");
        }
    }

    fn run(&self, machine: &Machine, compile: impl Fn(Vec<String>) -> Finished) -> Vec<Traits> {
        let traits = |(_, arguments): &(&str, &[&str])| {
            let arguments = arguments.iter().map(|argument| argument.replace("SOURCE", &self.source));
            let end = compile(std::iter::once("-std=c++23".to_owned()).chain(arguments).collect());
            let files = files_in(machine.build());
            Traits { code: end.status.code(), stdout: end.stdout, stderr: end.stderr, files }
        };
        COMMANDS.iter().map(traits).collect()
    }
}

fn files_in(dir: &Path) -> BTreeMap<String, Digest> {
    let digest = |name: &String| fs_err::read(dir.join(name)).map_or(Digest::of(""), Digest::of);
    names_in(dir).into_iter().map(|name| (name.clone(), digest(&name))).collect()
}
