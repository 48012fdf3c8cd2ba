//! A small project of modules, as a value: its files and its commands follow from it.
//!
//! Units stand in an order in which they can be compiled: each imports only what stands before it.

use std::collections::{BTreeMap, BTreeSet};

use crate::Chance;

/// Directories of headers, in the order of their `-I` unless the project turns it round.
pub const DIRS: [&str; 3] = ["inc0", "inc1", "inc2"];
/// How many names of headers there are.
pub const HEADERS: usize = 6;
/// How many of them are there from the beginning, and are included; the others are only looked for.
pub const INCLUDED: usize = 4;

/// What a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The interface of a module.
    Interface,
    /// A partition of the module whose interface is this unit, which stands later.
    Partition(usize),
    /// An implementation unit of the module whose interface is this unit.
    Implementation(usize),
    /// No part of any module; the last one is the main program.
    Plain,
}

/// A unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// What it is.
    pub kind: Kind,
    /// A number that changes with a rename of its source.
    pub name: u32,
    /// The units that it imports, interfaces all of them.
    pub imports: BTreeSet<usize>,
    /// The headers that it includes; whether with quotes.
    pub includes: BTreeMap<usize, bool>,
    /// A header that it only looks for.
    pub probe: Option<usize>,
    /// A number in its code.
    pub value: u32,
    /// How many comments stand above its code.
    pub comments: u32,
    /// It has a warning, or it does not compile.
    pub flaw: Option<Flaw>,
    /// A definition on its own command line.
    pub define: Option<u32>,
    /// Whether its BMI is compiled first and its object from that.
    pub in_two_steps: bool,
}

/// What is wrong with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// The compiler warns.
    Warning,
    /// The compiler fails.
    Error,
}

/// A project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its units.
    pub units: Vec<Unit>,
    /// Its headers: directory, name, and the number in it. Each may be in several directories.
    pub headers: BTreeMap<(usize, usize), u32>,
    /// Flags for every unit.
    pub flags: BTreeSet<&'static str>,
    /// Whether the last directory of headers is searched first.
    pub turned_round: bool,
    /// Whether imports are found by `-fprebuilt-module-path`.
    pub prebuilt: bool,
    /// Which of two build directories it is built in.
    pub build: usize,
}

/// What the compiler is told, and what it then makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The arguments.
    pub words: Vec<String>,
    /// Whether a BMI is made from a source.
    pub makes_bmi: bool,
}

impl Project {
    /// A random one of 6 to 12 units.
    pub fn random(chance: &mut Chance) -> Self {
        let mut units: Vec<Unit> = Vec::new();
        let end = 6 + chance.below(7) as usize;
        while units.len() + 1 < end {
            let at = units.len();
            let interfaces: Vec<_> = (0..at).filter(|unit| units[*unit].kind == Kind::Interface).collect();
            match (chance.below(4), interfaces.first()) {
                (0, _) if at + 2 < end => {
                    units.push(Unit::random(Kind::Partition(at + 1), at, &units, chance));
                    units.push(Unit::random(Kind::Interface, at + 1, &units, chance));
                }
                (1, Some(_)) => {
                    let owner = interfaces[chance.below(interfaces.len() as u64) as usize];
                    units.push(Unit::random(Kind::Implementation(owner), at, &units, chance));
                }
                _ => units.push(Unit::random(Kind::Interface, at, &units, chance)),
            }
        }
        units.push(Unit::random(Kind::Plain, units.len(), &units, chance));
        let headers =
            (0..INCLUDED).map(|header| ((1 + header % 2, header), chance.below(9) as u32)).collect();
        let flags = BTreeSet::from(["-O1"]);
        Self { units, headers, flags, turned_round: false, prebuilt: chance.below(2) == 0, build: 0 }
    }

    /// Every file of it: path from the root, and text.
    pub fn files(&self) -> BTreeMap<String, String> {
        let header = |((dir, name), value): (&(usize, usize), &u32)| {
            let text = format!("#ifndef H{name}\n#define H{name} {value}\n#endif\n");
            (format!("{}/h{name}.h", DIRS[*dir]), text)
        };
        let sources = (0..self.units.len()).map(|unit| (self.source(unit), self.text(unit)));
        self.headers.iter().map(header).chain(sources).collect()
    }

    /// The build directory.
    pub fn directory(&self) -> &'static str {
        ["build0", "build1"][self.build]
    }

    /// The commands that build it from nothing, in order, to be run in the build directory.
    pub fn commands(&self, root: &str) -> Vec<Command> {
        (0..self.units.len()).flat_map(|unit| self.commands_of(unit, root)).collect()
    }

    fn commands_of(&self, at: usize, root: &str) -> Vec<Command> {
        let unit = &self.units[at];
        let source = format!("{root}/{}", self.source(at));
        let (object, bmi) = (format!("u{at}.o"), self.bmi(at));
        let common = self.common_words(at, root);
        let words = |rest: &[&str]| {
            common.iter().cloned().chain(rest.iter().map(|word| (*word).to_owned())).collect::<Vec<_>>()
        };
        let Some(bmi) = bmi else {
            return vec![Command { words: words(&["-MD", "-c", &source, "-o", &object]), makes_bmi: false }];
        };
        if unit.in_two_steps {
            let first = words(&["--precompile", &source, "-o", &bmi, "-MD", "-MF", &format!("u{at}.d")]);
            let then = self.words_for_bmi(at, &bmi, &object);
            return vec![
                Command { words: first, makes_bmi: true },
                Command { words: then, makes_bmi: false },
            ];
        }
        let output = format!("-fmodule-output={bmi}");
        vec![Command { words: words(&["-MD", &output, "-c", &source, "-o", &object]), makes_bmi: true }]
    }

    fn common_words(&self, at: usize, root: &str) -> Vec<String> {
        let mut words = vec!["-std=c++23".to_owned()];
        words.extend(self.flags.iter().map(|flag| (*flag).to_owned()));
        words.extend(self.units[at].define.map(|value| format!("-DDEFINED={value}")));
        let mut dirs: Vec<_> = DIRS.iter().map(|dir| format!("-I{root}/{dir}")).collect();
        if self.turned_round {
            dirs.reverse();
        }
        words.extend(dirs);
        words.extend(self.words_for_imports(at));
        words
    }

    fn words_for_bmi(&self, at: usize, bmi: &str, object: &str) -> Vec<String> {
        let mut words = vec!["-std=c++23".to_owned()];
        words.extend(self.flags.iter().map(|flag| (*flag).to_owned()));
        let named = self.closure(at).into_iter().filter_map(|import| self.word_for_import(import));
        words.extend(named);
        words.extend(["-c", bmi, "-o", object].map(str::to_owned));
        words
    }

    fn words_for_imports(&self, at: usize) -> Vec<String> {
        if self.prebuilt {
            return vec!["-fprebuilt-module-path=.".to_owned()];
        }
        self.closure(at).into_iter().filter_map(|import| self.word_for_import(import)).collect()
    }

    fn word_for_import(&self, import: usize) -> Option<String> {
        Some(format!("-fmodule-file={}={}", self.module(import), self.bmi(import)?))
    }

    /// All units whose BMIs the compiler loads for this one.
    fn closure(&self, at: usize) -> BTreeSet<usize> {
        let mut all = BTreeSet::new();
        let mut open = self.needs(at);
        while let Some(next) = open.pop() {
            if all.insert(next) {
                open.extend(self.needs(next));
            }
        }
        all
    }

    fn needs(&self, at: usize) -> Vec<usize> {
        let mut needs: Vec<_> = self.units[at].imports.iter().copied().collect();
        if let Kind::Implementation(owner) = self.units[at].kind {
            needs.push(owner);
        }
        needs.extend(self.partitions(at));
        needs
    }

    fn partitions(&self, owner: usize) -> impl Iterator<Item = usize> {
        (0..owner).filter(move |unit| self.units[*unit].kind == Kind::Partition(owner))
    }

    fn module(&self, at: usize) -> String {
        match self.units[at].kind {
            Kind::Partition(owner) => format!("m{owner}:p{at}"),
            Kind::Interface | Kind::Implementation(_) | Kind::Plain => format!("m{at}"),
        }
    }

    fn bmi(&self, at: usize) -> Option<String> {
        matches!(self.units[at].kind, Kind::Interface | Kind::Partition(_))
            .then(|| format!("{}.pcm", self.module(at).replace(':', "-")))
    }

    fn source(&self, at: usize) -> String {
        let extension = if self.bmi(at).is_some() { "cppm" } else { "cpp" };
        format!("src/u{at}_{}.{extension}", self.units[at].name)
    }

    fn text(&self, at: usize) -> String {
        let unit = &self.units[at];
        let mut lines = Vec::new();
        if unit.kind != Kind::Plain {
            lines.push("module;".to_owned());
        }
        lines.extend((0..unit.comments).map(|n| format!("// {n}")));
        lines.extend(unit.includes.iter().map(|(header, quoted)| match quoted {
            true => format!("#include \"h{header}.h\""),
            false => format!("#include <h{header}.h>"),
        }));
        lines.extend(
            unit.probe.map(|header| format!("#if __has_include(\"h{header}.h\")\n#define FOUND 1\n#endif")),
        );
        match unit.kind {
            Kind::Interface | Kind::Partition(_) => lines.push(format!("export module {};", self.module(at))),
            Kind::Implementation(owner) => lines.push(format!("module m{owner};")),
            Kind::Plain => {}
        }
        lines.extend(self.partitions(at).map(|partition| format!("export import :p{partition};")));
        lines.extend(unit.imports.iter().map(|import| format!("import m{import};")));
        lines.extend(self.code(at));
        lines.join("\n") + "\n"
    }

    fn code(&self, at: usize) -> Vec<String> {
        let unit = &self.units[at];
        let headers = unit.includes.keys().map(|header| format!(" + H{header}"));
        let calls = unit.imports.iter().map(|import| format!(" + f{import}(x)"));
        let own = self.partitions(at).map(|partition| format!(" + f{partition}(x)"));
        let sum: String = headers.chain(calls).chain(own).collect();
        let head = match unit.kind {
            Kind::Interface | Kind::Partition(_) => format!("export inline int f{at}(int x)"),
            Kind::Implementation(_) => format!("int f{at}(int x)"),
            Kind::Plain => "int main(int x, char **)".to_owned(),
        };
        let flaw = match unit.flaw {
            Some(Flaw::Warning) => "if (x = 3) x = 4; ",
            Some(Flaw::Error) => "undeclared(); ",
            None => "",
        };
        vec![
            "#ifndef DEFINED\n#define DEFINED 0\n#endif\n#ifndef FOUND\n#define FOUND 0\n#endif".to_owned(),
            format!("{head} {{ {flaw}return {} * x + DEFINED + FOUND{sum}; }}", unit.value),
        ]
    }
}

impl Unit {
    fn random(kind: Kind, at: usize, before: &[Self], chance: &mut Chance) -> Self {
        let importable = (0..before.len()).filter(|unit| before[*unit].kind == Kind::Interface);
        let imports = importable.filter(|_| chance.below(3) == 0).collect::<Vec<_>>();
        let owner = if let Kind::Implementation(owner) = kind { owner } else { usize::MAX };
        let include = |chance: &mut Chance| (chance.below(INCLUDED as u64) as usize, chance.below(2) == 0);
        Self {
            kind,
            name: 0,
            imports: imports.into_iter().filter(|import| *import != owner && *import != at).collect(),
            includes: (0..chance.below(3)).map(|_| include(chance)).collect(),
            probe: Some(chance.below(2 * HEADERS as u64) as usize).filter(|header| *header < HEADERS),
            value: chance.below(9) as u32,
            comments: 0,
            flaw: None,
            define: None,
            in_two_steps: chance.below(4) == 0,
        }
    }
}
