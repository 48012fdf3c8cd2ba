//! A program of small modules that import each other, and its Ninja build: what a build system writes, modmaps
//! included, without one.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use pcmcache_shared::Digest;

use crate::machine::Machine;
use crate::tool::CLANG;
use crate::unit::Outputs;
use crate::{Finished, Process, Scratch};

/// The program: `modules` interface units, each importing the one before it and one far below, and `parts`
/// ordinary units that import one of them.
#[derive(Debug, Clone)]
pub struct Modules {
    source: PathBuf,
    modules: usize,
    parts: usize,
}

/// What stands before the compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The launcher.
    Launcher,
    /// Nothing; the compiler is told to embed sources, as the launcher does.
    Compiler,
}

impl Modules {
    /// Writes the sources.
    pub fn write(source: PathBuf, modules: usize, parts: usize) -> Self {
        let program = Self { source, modules, parts };
        program.put("scale.h", "#pragma once\ninline int scale(int x) { return x * 3; }\n");
        for index in 0..modules {
            program.put(&format!("m{index}.cppm"), &program.module(index));
        }
        for index in 0..parts {
            let module = index % modules;
            let text =
                format!("import m{module};\nint part{index}() {{ return value{module}() + {index}; }}\n");
            program.put(&format!("p{index}.cpp"), &text);
        }
        program.put("main.cpp", &program.main());
        program
    }

    fn put(&self, name: &str, text: &str) {
        fs_err::write(self.source.join(name), text).expect("a source");
    }

    fn imports(index: usize) -> Vec<usize> {
        let mut imports: Vec<_> =
            [index.checked_sub(1), (index > 1).then_some(index / 2)].into_iter().flatten().collect();
        imports.dedup();
        imports
    }

    fn module(&self, index: usize) -> String {
        let mut text = format!("module;\n#include \"scale.h\"\nexport module m{index};\n");
        let mut sum = format!("scale({index})");
        for import in Self::imports(index) {
            let _ = writeln!(text, "import m{import};");
            let _ = write!(sum, " + value{import}()");
        }
        let _ = writeln!(text, "export int value{index}() {{ return ({sum}) % 10007; }}");
        text
    }

    fn main(&self) -> String {
        let last = self.modules - 1;
        let mut text = format!("#include <cstdio>\nimport m{last};\n");
        let mut sum = format!("value{last}()");
        for part in 0..self.parts {
            let _ = writeln!(text, "int part{part}();");
            let _ = write!(sum, " + part{part}()");
        }
        let _ = writeln!(text, "int main() {{ std::printf(\"%d\\n\", {sum}); }}");
        text
    }

    /// Writes the module's source anew, so that it gives another value and must be compiled again.
    pub fn change(&self, index: usize, salt: u32) {
        let text = self.module(index);
        self.put(&format!("m{index}.cppm"), &format!("{text}// change {salt}\n"));
    }

    /// All outputs of compiles that lie in `build`, by name.
    pub fn outputs(&self, build: &Path) -> Outputs {
        let parts = (0..self.parts).map(|part| format!("p{part}"));
        let modules = (0..self.modules).map(|module| format!("m{module}"));
        let units = modules.clone().chain(parts).chain(["main".to_owned()]);
        let names = units.flat_map(|unit| [format!("{unit}.o"), format!("{unit}.o.d")]);
        names
            .chain(modules.map(|module| format!("{module}.pcm")))
            .map(|name| (name.clone(), fs_err::read(build.join(name)).ok().map(Digest::of)))
            .collect()
    }

    /// What the launcher must place.
    pub fn right_outputs(&self, scratch: &Scratch) -> Outputs {
        let reference = Machine::new(scratch, "reference");
        self.start(&reference, By::Compiler, 2).finish().ok();
        self.check(&reference);
        self.outputs(reference.build())
    }

    /// What the program prints.
    pub fn answer(&self) -> String {
        let mut values: Vec<usize> = Vec::new();
        for index in 0..self.modules {
            let below: usize = Self::imports(index).iter().map(|import| values[*import]).sum();
            values.push((index * 3 + below) % 10007);
        }
        let parts: usize = (0..self.parts).map(|part| values[part % self.modules] + part).sum();
        format!("{}\n", values[self.modules - 1] + parts)
    }

    /// How many compile commands a build from nothing has.
    pub fn compiles(&self) -> usize {
        self.modules + self.parts + 1
    }

    /// The source of a module.
    pub fn module_source(&self, index: usize) -> PathBuf {
        self.source.join(format!("m{index}.cppm"))
    }

    /// Starts a build on `machine` with `jobs` compiles at once.
    pub fn start(&self, machine: &Machine, by: By, jobs: usize) -> Process {
        self.prepare_by(machine, by);
        machine.start(machine.ninja(), ["-j", &jobs.to_string()])
    }

    /// Builds on `machine` by the launcher, two compiles at once, and panics if that fails.
    pub fn build(&self, machine: &Machine) -> Finished {
        self.start(machine, By::Launcher, 2).finish().ok()
    }

    /// Runs what was built on `machine` and panics unless it prints the answer.
    pub fn check(&self, machine: &Machine) {
        let said = machine.start(machine.build().join("program"), [""; 0]).finish().ok();
        assert_eq!(said.stdout, self.answer());
    }

    /// Writes what Ninja needs to build on `machine` by the launcher.
    pub fn prepare(&self, machine: &Machine) {
        self.prepare_by(machine, By::Launcher);
    }

    /// Writes build.ninja and the modmaps.
    fn prepare_by(&self, machine: &Machine, by: By) {
        let put =
            |name: &str, text: &str| fs_err::write(machine.build().join(name), text).expect("a build file");
        put("build.ninja", &self.ninja(machine, by));
        for index in 0..self.modules {
            let map = format!("-x c++-module\n-fmodule-output=\"m{index}.pcm\"\n");
            put(&format!("m{index}.o.modmap"), &(map + &Self::files(&Self::closure(index))));
        }
        for part in 0..self.parts {
            put(&format!("p{part}.o.modmap"), &Self::files(&Self::closure_with(part % self.modules)));
        }
        put("main.o.modmap", &Self::files(&Self::closure_with(self.modules - 1)));
    }

    fn ninja(&self, machine: &Machine, by: By) -> String {
        let before = match by {
            By::Launcher => format!("{} {CLANG}", machine.launcher().display()),
            By::Compiler => CLANG.to_owned(),
        };
        let embed = match by {
            By::Launcher => "",
            By::Compiler => " -Xclang -fmodules-embed-all-files",
        };
        let compile = "-std=c++23 -O1 -MD -MT $out -MF $out.d @$out.modmap -o $out -c $in";
        let mut text = format!(
            "rule module\n  command = {before}{embed} {compile}\n  depfile = $out.d\n  restat = 1\n\
             rule part\n  command = {before} {compile}\n  depfile = $out.d\n\
             rule link\n  command = {CLANG} $in -o $out\n"
        );
        let source = self.source.display();
        let mut objects = String::new();
        let mut edge = |rule: &str, stem: &str, extension: &str, bmi: &str, imports: &[usize]| {
            let inputs: String = imports.iter().map(|import| format!(" m{import}.pcm")).collect();
            let _ = writeln!(text, "build {stem}.o{bmi}: {rule} {source}/{stem}.{extension} |{inputs}");
            let _ = write!(objects, " {stem}.o");
        };
        for index in 0..self.modules {
            edge("module", &format!("m{index}"), "cppm", &format!(" | m{index}.pcm"), &Self::closure(index));
        }
        for part in 0..self.parts {
            edge("part", &format!("p{part}"), "cpp", "", &Self::closure_with(part % self.modules));
        }
        edge("part", "main", "cpp", "", &Self::closure_with(self.modules - 1));
        let _ = writeln!(text, "build program: link{objects}\ndefault program");
        text
    }

    /// What `index` imports, directly and not.
    fn closure(index: usize) -> Vec<usize> {
        (0..index).collect()
    }

    fn closure_with(index: usize) -> Vec<usize> {
        (0..=index).collect()
    }

    fn files(modules: &[usize]) -> String {
        modules.iter().map(|module| format!("-fmodule-file=\"m{module}=m{module}.pcm\"\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_alone_builds_a_program_that_prints_the_answer() {
        let scratch = Scratch::new("modules");
        let program = Modules::write(scratch.dir("source"), 4, 3);
        let machine = Machine::new(&scratch, "machine");
        program.start(&machine, By::Compiler, 2).finish().ok();
        program.check(&machine);
    }
}
