//! A parsed command line: what it is, what it makes, what it reads. Pure: no file, environment or clock;
//! response files come in through a function.
//!
//! What is not understood to the last argument is a [`Bypass`]: the command goes to the compiler unchanged.

pub mod flags;
mod parse;
pub mod response;
pub mod scan;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use pcmcache_shared::Role;

/// Why a command is not cached: a reason that is counted, and what it was this time, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bypass {
    /// The reason, in the words of the statistics.
    pub reason: &'static str,
    /// What it was this time.
    pub detail: String,
}

impl Bypass {
    /// A reason with what it was this time.
    pub fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// Whose flags they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Clang: modules and all.
    Clang,
    /// GCC: ordinary compiles.
    Gcc,
}

/// Whose flags a command takes, and what it takes a source for that says nothing of its language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// Whose flags they are.
    pub family: Family,
    /// Whether the driver is for C++, as its name says.
    pub is_cxx: bool,
}

/// What kind of compile it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `-c SOURCE`: an object, and a BMI if it is asked for.
    Object,
    /// `--precompile SOURCE`: a BMI.
    Precompile,
    /// `--precompile HEADER`: a BMI of a header, which is looked for as `#include` would.
    HeaderUnit,
    /// `-c X.pcm`: an object from a BMI.
    BmiToObject,
    /// What a scanner does with `-c SOURCE`: it says which modules it provides and requires.
    Scan,
}

/// The language of the source, in the words of `-x`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// C.
    C,
    /// C++.
    Cxx,
    /// C++, and the source is a module's interface.
    CxxModule,
    /// C++, and the source is a header that becomes a unit: as it is, as `#include "..."`, as `#include <...>`.
    Header,
    /// See [`Language::Header`].
    UserHeader,
    /// See [`Language::Header`].
    SystemHeader,
    /// A BMI.
    Bmi,
}

impl Language {
    /// The word for `-x`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Cxx => "c++",
            Self::CxxModule => "c++-module",
            Self::Header => "c++-header",
            Self::UserHeader => "c++-user-header",
            Self::SystemHeader => "c++-system-header",
            Self::Bmi => "pcm",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::C, Self::Cxx, Self::CxxModule, Self::Header, Self::UserHeader, Self::SystemHeader]
            .into_iter()
            .find(|language| language.word() == word)
    }

    /// What the driver takes the source for. A driver for C++ takes C for C++, not without a word.
    fn of_source(path: &Path, is_cxx: bool) -> Option<Self> {
        match path.extension()?.to_str()? {
            "c" if !is_cxx => Some(Self::C),
            "cc" | "cpp" | "cxx" | "c++" | "C" | "CC" | "CPP" | "CXX" => Some(Self::Cxx),
            "cppm" | "ccm" | "cxxm" | "c++m" => Some(Self::CxxModule),
            "h" if is_cxx => Some(Self::Header),
            "hh" | "hpp" | "hxx" | "h++" | "H" => Some(Self::Header),
            "pcm" => Some(Self::Bmi),
            _ => None,
        }
    }
}

/// One argument, or one flag with its value, in the order of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arg {
    /// Enters the key, and goes to the compiler as it is.
    Key(Vec<String>),
    /// A flag whose value is a path.
    Path(PathArg),
    /// A flag whose value maps a prefix of paths to another: what is mapped, and the rest from `=` on.
    PrefixMap {
        /// The flag.
        flag: String,
        /// What is mapped.
        old: String,
        /// The rest, from the `=` on.
        rest: String,
    },
    /// Goes to the compiler as it is, and changes nothing that is kept.
    Quiet(String),
    /// Names a BMI: goes to the compiler as it is, enters the key by its bytes.
    Bmi(String),
    /// Names a directory of BMIs: goes to the compiler as it is; which BMIs it gives is learnt.
    PrebuiltPath(String),
    /// Says that something is compiled, and how far.
    Action(&'static str),
    /// The place of the source.
    Source,
}

/// A flag with a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathArg {
    /// The flag.
    pub flag: String,
    /// The path.
    pub path: String,
    /// Whether the path is an argument of its own.
    pub separate: bool,
}

impl Arg {
    /// The words that go to the compiler, but for the source's and the action's.
    pub fn words(&self) -> Vec<String> {
        match self {
            Self::Key(words) => words.clone(),
            Self::Path(arg) if arg.separate => vec![arg.flag.clone(), arg.path.clone()],
            Self::Path(arg) => vec![format!("{}{}", arg.flag, arg.path)],
            Self::PrefixMap { flag, old, rest } => vec![format!("{flag}{old}{rest}")],
            Self::Quiet(word) | Self::Bmi(word) | Self::PrebuiltPath(word) => vec![word.clone()],
            Self::Action(action) => vec![(*action).to_owned()],
            Self::Source => Vec::new(),
        }
    }

    /// The words that enter the key, with paths as `spell` gives them. BMIs enter by their bytes, and which ones a
    /// directory gives is learnt.
    pub fn keyed(&self, spell: impl Fn(&str) -> String) -> Vec<String> {
        match self {
            Self::Path(arg) => Self::Path(PathArg { path: spell(&arg.path), ..arg.clone() }).words(),
            Self::PrefixMap { flag, old, rest } => vec![format!("{flag}{}{rest}", spell(old))],
            Self::Key(_) | Self::Action(_) => self.words(),
            Self::Quiet(_) | Self::Bmi(_) | Self::PrebuiltPath(_) | Self::Source => Vec::new(),
        }
    }
}

/// The depfile that the command asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Depfile {
    /// Where it goes.
    pub path: PathBuf,
    /// Whether system headers are listed (`-MD`) or not (`-MMD`).
    pub system_headers: bool,
    /// `-MT` or `-MQ` with its value; none takes the object's name.
    pub target: Option<(&'static str, String)>,
    /// Whether every header gets an empty rule (`-MP`).
    pub phony: bool,
}

/// A BMI that the command makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BmiOutput {
    /// Where it goes.
    pub path: PathBuf,
    /// Whether its name came from a `.modmap` of CMake, whose Ninja rules look whether the file changed.
    pub restat: bool,
}

/// A BMI that the command names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BmiInput {
    /// The module's name; empty if the command does not say it.
    pub module: String,
    /// Where it is.
    pub path: PathBuf,
}

/// A file that the command makes beside its object, its BMI and its depfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extra {
    /// What it is.
    pub role: Role,
    /// Where it goes.
    pub path: PathBuf,
}

/// A compile that may be cached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// Whose flags they are.
    pub family: Family,
    /// What it is.
    pub kind: Kind,
    /// The language of the source.
    pub language: Language,
    /// Whether the command says the language.
    pub says_language: bool,
    /// The source, as it was named. A header's name, if the kind is that of a header unit.
    pub source: PathBuf,
    /// The object it makes.
    pub object: Option<PathBuf>,
    /// The object that a scan is about: it names it, and does not make it.
    pub scanned: Option<PathBuf>,
    /// The BMI it makes.
    pub bmi: Option<BmiOutput>,
    /// The depfile it makes.
    pub depfile: Option<Depfile>,
    /// What else it makes.
    pub extras: Vec<Extra>,
    /// Headers that stand before the source.
    pub forced_includes: Vec<PathBuf>,
    /// The BMIs it names.
    pub bmis: Vec<BmiInput>,
    /// Where it looks for BMIs that it does not name, in order.
    pub prebuilt_paths: Vec<PathBuf>,
    /// Whether an output holds the directory the compiler runs in.
    pub holds_cwd: bool,
    /// Whether outputs hold absolute names: of that directory, of the main output.
    pub absolute: bool,
    /// Whether the driver may find something else each time.
    pub asks_anew: bool,
    /// All but output names and depfile flags, in order.
    pub args: Vec<Arg>,
}

impl Invocation {
    /// Reads the arguments behind the compiler's name. `read_response` gives the text of an `@FILE`.
    pub fn parse(
        args: &[OsString],
        dialect: Dialect,
        read_response: &dyn Fn(&Path) -> Option<String>,
    ) -> Result<Self, Bypass> {
        parse::parse(args, dialect, read_response)
    }

    /// The output whose name the compile is known by: the object, else the BMI.
    pub fn main_output(&self) -> &Path {
        let bmi = self.bmi.as_ref().map(|bmi| bmi.path.as_path());
        self.object.as_deref().or(self.scanned.as_deref()).or(bmi).unwrap_or(Path::new("a.out"))
    }

    /// The words that enter the key, in the order of the command line, with paths as `spell` gives them.
    pub fn keyed_words(&self, spell: impl Fn(&str) -> String) -> Vec<String> {
        self.args.iter().flat_map(|arg| arg.keyed(&spell)).collect()
    }

    /// The source, unless it is a header that the compiler has to look for.
    pub fn source_file(&self) -> Option<&Path> {
        (self.kind != Kind::HeaderUnit).then_some(self.source.as_path())
    }

    /// Whether the source's text must be embedded in what is made: then a BMI's bytes alone determine what an
    /// importer compiles to, whatever happens to the source later.
    pub fn embeds_sources(&self) -> bool {
        self.bmi.is_some()
    }

    /// Whether BMIs can be loaded at all: without a source of them there is nothing to learn.
    pub fn may_load_bmis(&self) -> bool {
        !self.bmis.is_empty() || !self.prebuilt_paths.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Invocation, Bypass> {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        Invocation::parse(&args, Dialect { family: Family::Clang, is_cxx: true }, &|path| match path
            .to_str()?
        {
            "m.o.modmap" => Some(
                "-x c++-module\n-fmodule-output=\"d/m.pcm\"\n-fmodule-file=\"std=s/std.pcm\"\n".to_owned(),
            ),
            "nested.rsp" => Some("-DA='b c' @m.o.modmap".to_owned()),
            "loop.rsp" => Some("@loop.rsp".to_owned()),
            _ => None,
        })
    }

    fn reason(line: &str) -> &'static str {
        parse(line).expect_err(line).reason
    }

    #[test]
    fn as_cmake_and_ninja_run_it() {
        let i =
            parse("-O2 -std=c++23 -MD -MT d/m.o -MF d/m.o.d @m.o.modmap -o d/m.o -c /src/m.cppm").unwrap();
        assert_eq!((i.kind, i.language), (Kind::Object, Language::CxxModule));
        assert_eq!(i.object.as_deref(), Some(Path::new("d/m.o")));
        assert_eq!(i.bmi, Some(BmiOutput { path: "d/m.pcm".into(), restat: true }));
        let depfile = i.depfile.unwrap();
        assert_eq!((depfile.path.to_str(), depfile.system_headers), (Some("d/m.o.d"), true));
        assert_eq!(depfile.target, Some(("-MT", "d/m.o".to_owned())));
        assert_eq!(i.bmis, [BmiInput { module: "std".to_owned(), path: "s/std.pcm".into() }]);
        assert!(!i.holds_cwd, "an absolute source and no -g");
    }

    #[test]
    fn kinds_and_default_names() {
        let i = parse("--precompile /src/m.cppm").unwrap();
        assert_eq!((i.kind, i.bmi.unwrap().path), (Kind::Precompile, PathBuf::from("m.pcm")));
        let i = parse("-c /src/a.cpp -MD").unwrap();
        assert_eq!(i.object, Some("a.o".into()));
        assert_eq!(i.depfile.unwrap().path, Path::new("a.d"));
        let i = parse("-c m.pcm -o x/m.o -fmodule-file=std=std.pcm").unwrap();
        assert_eq!((i.kind, i.language), (Kind::BmiToObject, Language::Bmi));
        let i = parse("-c m.cppm -fmodule-output -o x/zed.y.o").unwrap();
        assert_eq!(i.bmi.unwrap().path, Path::new("x/zed.y.pcm"));
    }

    #[test]
    fn what_brings_the_directory_into_the_output() {
        assert!(parse("-g -c /src/a.cpp").unwrap().holds_cwd);
        assert!(parse("-c a.cpp").unwrap().holds_cwd);
        assert!(parse("-Iinclude -c /src/a.cpp").unwrap().holds_cwd);
        assert!(parse("-I include -c /src/a.cpp").unwrap().holds_cwd);
        assert!(!parse("-I/include -c /src/a.cpp -o a.o").unwrap().holds_cwd);
    }

    #[test]
    fn what_is_not_understood_is_bypassed_with_its_reason() {
        for (line, expected) in [
            ("a.cpp -o a", "not-a-compile"),
            ("-c", "not-a-compile"),
            ("-c a.cpp b.cpp", "several-sources"),
            ("a.o b.o -o a", "not-a-compile"),
            ("-c -", "standard-input"),
            ("-c a.cpp -o -", "standard-output"),
            ("-c a.cpp -o x -o y", "flag-twice"),
            ("-c a.cpp -o", "missing-value"),
            ("-c a.cpp -fnew-thing", "unknown-flag"),
            ("-E a.cpp", "preprocess-only"),
            ("-c a.cpp -x c++", "language-order"),
            ("-c a.unknown", "language"),
            ("-x cuda -c a.cpp", "language"),
            ("-c a.cppm", "implicit-bmi"),
            ("-c a.cpp -fmodule-output=a.pcm", "module-output"),
            ("-c a.cpp -MF x.d", "unused-depfile-flag"),
            ("-c a.pcm -MD", "unused-depfile-flag"),
            ("-c a.cpp -MD -MMD", "several-depfiles"),
            ("-c a.cpp @missing.rsp", "response-file"),
            ("-c --precompile a.cppm", "several-actions"),
            ("--precompile a.cpp", "precompile"),
            ("-c a.cpp @loop.rsp", "response-file"),
            ("-c a.cpp -o@a.o", "response-file"),
            ("-c d/@a.cpp", "response-file"),
            ("-c a.cpp -include@a.h", "response-file"),
            ("-c a.cpp -MD -MT@a.o -o a.o", "response-file"),
            ("-c a.cpp -Xclang -ast-dump", "xclang"),
            ("-c a.cpp -Xclang -o", "xclang"),
            ("-c a.cpp -Xclang", "missing-value"),
            ("-c a.cpp -Xclang -I", "xclang"),
            ("-c a.cpp -Wp,-MD", "xpreprocessor"),
            ("-c a.cpp -DT=__TIME__", "time-macro"),
            ("-c a.cpp -DHAS=__has_include(<x>)", "computed-probe"),
            ("-c a.cpp -gsplit-dwarf=single", "split-dwarf"),
            ("-c a.h", "language"),
            ("--precompile a.h", "precompile"),
        ] {
            assert_eq!(reason(line), expected, "{line}");
        }
    }
}
