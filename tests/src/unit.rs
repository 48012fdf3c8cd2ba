//! One interface unit, as heavy as a test needs it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pcmcache_shared::Digest;

use crate::{Machine, Scratch};

/// What makes a unit heavy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Nothing: it compiles in hundredths of a second.
    Light,
    /// A literal of so many bytes: its BMI is large, and its compiler busy with writing.
    Filling(usize),
    /// The standard library's headers: its BMI is of a usual size, and its compiler busy for about a second.
    Headers,
    /// So many sums at compile time, each about a third of a second: its compiler is busy, and small.
    Thinking(usize),
}

/// An interface unit `NAME.cppm` that exports `int NAME_value()` and is compiled to `NAME.o`, `NAME.pcm`
/// and `NAME.d`.
#[derive(Debug, Clone)]
pub struct Unit {
    name: String,
    source: PathBuf,
    search: Vec<PathBuf>,
}

/// The outputs of a compile by file name; `None` for one that is not there.
pub type Outputs = BTreeMap<String, Option<Digest>>;

impl Unit {
    /// Writes the source, and the header that it includes, into `scratch/source`.
    pub fn write(scratch: &Scratch, name: &str, value: u32, weight: Weight) -> Self {
        let dir = scratch.dir("source");
        let header = format!("inline int {name}_scale(int x) {{ return x * 3; }}\n");
        fs_err::write(dir.join(format!("{name}.h")), header).expect("a header");
        let source = dir.join(format!("{name}.cppm"));
        fs_err::write(&source, text(name, value, weight)).expect("a source");
        Self { name: name.to_owned(), source, search: Vec::new() }
    }

    /// Compiled with one more directory of headers: an empty one, before that of the source.
    pub fn searched_for(mut self, scratch: &Scratch) -> Self {
        self.search = vec![scratch.dir("empty"), scratch.dir("source")];
        self
    }

    /// Appends a line to the source.
    pub fn add(&self, line: &str) {
        let text = fs_err::read_to_string(&self.source).expect("the source");
        fs_err::write(&self.source, format!("{text}{line}\n")).expect("the source");
    }

    /// The source.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// `clang++ ARGUMENTS` compiles it with one driver job: BMI and object in one pass.
    pub fn arguments(&self) -> Vec<String> {
        let name = &self.name;
        let mut arguments = vec!["-std=c++23".to_owned(), "-c".to_owned()];
        arguments.push(self.source.to_string_lossy().into_owned());
        arguments.extend(["-o".to_owned(), format!("{name}.o"), format!("-fmodule-output={name}.pcm")]);
        arguments.extend(["-MD".to_owned(), "-MF".to_owned(), format!("{name}.d")]);
        arguments.extend(self.search.iter().map(|directory| format!("-I{}", directory.display())));
        arguments
    }

    /// The same with a driver that runs two compilers, one after the other.
    pub fn two_job_arguments(&self) -> Vec<String> {
        self.arguments().into_iter().chain(["-fno-modules-reduced-bmi".to_owned()]).collect()
    }

    /// `clang++ ARGUMENTS` makes the BMI only, at this path.
    pub fn precompile_arguments(&self, bmi: &Path) -> Vec<String> {
        let source = self.source.to_string_lossy().into_owned();
        let bmi = bmi.to_string_lossy().into_owned();
        ["-std=c++23", "--precompile", &source, "-o", &bmi].map(str::to_owned).to_vec()
    }

    /// What lies in `build` of it.
    pub fn outputs(&self, build: &Path) -> Outputs {
        ["o", "pcm", "d"]
            .map(|kind| format!("{}.{kind}", self.name))
            .into_iter()
            .map(|name| (name.clone(), fs_err::read(build.join(name)).ok().map(Digest::of)))
            .collect()
    }

    /// What the launcher must place: what the compiler itself makes of it, with sources embedded.
    pub fn right_outputs(&self, scratch: &Scratch) -> Outputs {
        self.right_outputs_of(scratch, self.arguments())
    }

    /// What the compiler makes of it when it is told nothing more.
    pub fn bare_outputs(&self, scratch: &Scratch) -> Outputs {
        let reference = Machine::new(scratch, &format!("bare-{}", self.name));
        reference.bare(self.arguments()).ok();
        self.outputs(reference.build())
    }

    /// The same for other arguments than [`Unit::arguments`].
    pub fn right_outputs_of(&self, scratch: &Scratch, arguments: Vec<String>) -> Outputs {
        let reference = Machine::new(scratch, &format!("reference-{}", self.name));
        let embedded = ["-Xclang", "-fmodules-embed-all-files"].map(str::to_owned);
        reference.bare(arguments.into_iter().chain(embedded)).ok();
        self.outputs(reference.build())
    }
}

fn text(name: &str, value: u32, weight: Weight) -> String {
    let mut headers = String::new();
    let mut body = String::new();
    match weight {
        Weight::Light => {}
        Weight::Headers => {
            headers = ["algorithm", "map", "ranges", "regex"].map(|h| format!("#include <{h}>\n")).concat();
        }
        Weight::Filling(bytes) => {
            let letters: String = (b'a'..=b'z').cycle().take(bytes).map(char::from).collect();
            let last = letters.chars().last().unwrap_or('a');
            body = format!(
                "export constexpr char {name}_filling[] = \"{letters}\";\nexport constexpr char {name}_last = '{last}';\n"
            );
        }
        Weight::Thinking(sums) => {
            body = "template <int K> constexpr int think() {\n  int sum = K;\n  \
                    for (int i = 0; i < 200000; ++i) sum ^= i;\n  return sum;\n}\n"
                .to_owned();
            body += &(0..sums).map(|k| format!("static_assert(think<{k}>() != -1);\n")).collect::<String>();
        }
    }
    format!(
        "module;\n{headers}#include \"{name}.h\"\nexport module {name};\n{body}\
         export constexpr int {name}_number = {value};\n\
         export int {name}_value() {{ return {name}_scale({value}); }}\n"
    )
}
