//! A parsed command line: what it is, what it makes, what it reads. Pure: no file, environment or clock;
//! response files come in through a function.
//!
//! What is not understood to the last argument is a [`Bypass`]: the command goes to the compiler unchanged.

pub mod flags;
pub mod response;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use flags::{Effect, Form, Role};

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

/// What kind of compile it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `-c SOURCE`: an object, and a BMI if it is asked for.
    Object,
    /// `--precompile SOURCE`: a BMI.
    Precompile,
    /// `-c X.pcm`: an object from a BMI.
    BmiToObject,
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
            Self::Bmi => "pcm",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::C, Self::Cxx, Self::CxxModule].into_iter().find(|language| language.word() == word)
    }

    fn of_source(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "c" => Some(Self::C),
            "cc" | "cpp" | "cxx" | "c++" | "C" | "CC" | "CPP" | "CXX" => Some(Self::Cxx),
            "cppm" | "ccm" | "cxxm" | "c++m" => Some(Self::CxxModule),
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
    /// The module's name.
    pub module: String,
    /// Where it is.
    pub path: PathBuf,
}

/// A compile that may be cached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// What it is.
    pub kind: Kind,
    /// The language of the source.
    pub language: Language,
    /// The source, as it was named.
    pub source: PathBuf,
    /// The object it makes.
    pub object: Option<PathBuf>,
    /// The BMI it makes.
    pub bmi: Option<BmiOutput>,
    /// The depfile it makes.
    pub depfile: Option<Depfile>,
    /// The BMIs it names.
    pub bmis: Vec<BmiInput>,
    /// Where it looks for BMIs that it does not name, in order.
    pub prebuilt_paths: Vec<PathBuf>,
    /// Whether an output holds the directory the compiler runs in.
    pub holds_cwd: bool,
    /// All but output names and depfile flags, in order.
    pub args: Vec<Arg>,
}

impl Invocation {
    /// Reads the arguments behind the compiler's name. `read_response` gives the text of an `@FILE`.
    pub fn parse(args: &[OsString], read_response: &dyn Fn(&Path) -> Option<String>) -> Result<Self, Bypass> {
        let words = expand(args, read_response)?;
        let mut parser = Parser::default();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            parser.take(word, &mut rest)?;
        }
        parser.finish()
    }

    /// The output whose name the compile is known by: the object, else the BMI.
    pub fn main_output(&self) -> &Path {
        let bmi = self.bmi.as_ref().map(|bmi| bmi.path.as_path());
        self.object.as_deref().or(bmi).unwrap_or(Path::new("a.out"))
    }

    /// The words that enter the key, in the order of the command line. BMIs do so by their bytes, and which ones a
    /// directory gives is learnt.
    pub fn keyed_words(&self) -> Vec<String> {
        let words = |arg: &Arg| match arg {
            Arg::Key(words) => words.clone(),
            Arg::Action(action) => vec![(*action).to_owned()],
            Arg::Quiet(_) | Arg::Bmi(_) | Arg::PrebuiltPath(_) | Arg::Source => Vec::new(),
        };
        self.args.iter().flat_map(words).collect()
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

/// A word, and whether it came from a response file of CMake's module maps.
struct Word {
    text: String,
    modmap: bool,
}

/// The most arguments, after expansion, and their total size in bytes, that a new process surely takes.
const MAX_WORDS: usize = 50_000;
const MAX_WORD_BYTES: usize = 1024 * 1024;

fn expand(args: &[OsString], read_response: &dyn Fn(&Path) -> Option<String>) -> Result<Vec<Word>, Bypass> {
    let mut words = Vec::with_capacity(args.len());
    for arg in args {
        let text = arg.to_str().ok_or_else(|| Bypass::new("not-utf8", arg.to_string_lossy()))?;
        let Some(path) = text.strip_prefix('@') else {
            words.push(Word { text: text.to_owned(), modmap: false });
            continue;
        };
        let content = read_response(Path::new(path)).ok_or_else(|| Bypass::new("response-file", path))?;
        let modmap = path.ends_with(".modmap");
        for text in response::split(&content)? {
            if text.starts_with('@') {
                return Err(Bypass::new("nested-response-file", path));
            }
            words.push(Word { text, modmap });
        }
    }
    let bytes: usize = words.iter().map(|word| word.text.len() + 1).sum();
    if words.len() > MAX_WORDS || bytes > MAX_WORD_BYTES {
        return Err(Bypass::new("too-many-arguments", format!("{} arguments", words.len())));
    }
    Ok(words)
}

#[derive(Default)]
struct Parser {
    args: Vec<Arg>,
    precompile: bool,
    compile: bool,
    source: Option<PathBuf>,
    language: Option<Language>,
    output: Option<String>,
    bmi_output: Option<(Option<String>, bool)>,
    bmis: Vec<BmiInput>,
    prebuilt_paths: Vec<PathBuf>,
    depfile: bool,
    user_depfile: bool,
    depfile_path: Option<String>,
    depfile_target: Option<(&'static str, String)>,
    phony: bool,
    holds_cwd: bool,
}

impl Parser {
    fn take<'w>(&mut self, word: &Word, rest: &mut impl Iterator<Item = &'w Word>) -> Result<(), Bypass> {
        let text = word.text.as_str();
        if text == "-" || !text.starts_with('-') {
            return self.take_source(text);
        }
        let (form, effect, joined) = flags::find(text).ok_or_else(|| Bypass::new("unknown-flag", text))?;
        let separate = form == Form::Separate || form == Form::Either && joined.is_empty();
        let value = match (effect, separate) {
            (Effect::Bypass(reason), _) => return Err(Bypass::new(reason, text)),
            (_, false) => joined.to_owned(),
            (_, true) => rest.next().ok_or_else(|| Bypass::new("missing-value", text))?.text.clone(),
        };
        let whole = || if separate { vec![text.to_owned(), value.clone()] } else { vec![text.to_owned()] };
        match effect {
            Effect::Bypass(reason) => return Err(Bypass::new(reason, text)),
            Effect::Role(role) => return self.take_role(role, text, value, word.modmap),
            Effect::Quiet => self.args.push(Arg::Quiet(text.to_owned())),
            Effect::Key => self.args.push(Arg::Key(whole())),
            Effect::KeyAndCwd => {
                self.holds_cwd = true;
                self.args.push(Arg::Key(whole()));
            }
            Effect::KeyPath => {
                self.holds_cwd |= Path::new(&value).is_relative();
                self.args.push(Arg::Key(whole()));
            }
        }
        Ok(())
    }

    fn take_source(&mut self, text: &str) -> Result<(), Bypass> {
        if text == "-" || text.is_empty() {
            return Err(Bypass::new("standard-input", text));
        }
        if self.source.replace(PathBuf::from(text)).is_some() {
            return Err(Bypass::new("several-sources", text));
        }
        self.holds_cwd |= Path::new(text).is_relative();
        self.args.push(Arg::Source);
        Ok(())
    }

    fn take_role(&mut self, role: Role, text: &str, value: String, modmap: bool) -> Result<(), Bypass> {
        match role {
            Role::Compile => {
                self.compile = true;
                self.args.push(Arg::Action("-c"));
            }
            Role::Precompile => {
                self.precompile = true;
                self.args.push(Arg::Action("--precompile"));
            }
            Role::Output => once(&mut self.output, value, text)?,
            Role::Language => {
                if self.source.is_some() || self.language.is_some() {
                    return Err(Bypass::new("language-order", text));
                }
                let language = Language::from_word(&value);
                self.language = Some(language.ok_or_else(|| Bypass::new("language", value))?);
            }
            Role::BmiBesideObject => once(&mut self.bmi_output, (None, modmap), text)?,
            Role::BmiOutput => once(&mut self.bmi_output, (Some(value), modmap), text)?,
            Role::BmiInput => {
                let (module, path) =
                    value.split_once('=').ok_or_else(|| Bypass::new("unnamed-module-file", text))?;
                self.bmis.push(BmiInput { module: module.to_owned(), path: PathBuf::from(path) });
                self.args.push(Arg::Bmi(text.to_owned()));
            }
            Role::PrebuiltPath => {
                self.prebuilt_paths.push(PathBuf::from(value));
                self.args.push(Arg::PrebuiltPath(text.to_owned()));
            }
            Role::Depfile => self.depfile = true,
            Role::UserDepfile => self.user_depfile = true,
            Role::DepfilePath => once(&mut self.depfile_path, value, text)?,
            Role::DepfileTarget => once(&mut self.depfile_target, ("-MT", value), text)?,
            Role::QuotedDepfileTarget => once(&mut self.depfile_target, ("-MQ", value), text)?,
            Role::DepfilePhony => self.phony = true,
        }
        Ok(())
    }

    fn finish(self) -> Result<Invocation, Bypass> {
        let source = self.source.ok_or_else(|| Bypass::new("not-a-compile", "no source"))?;
        let by_name = Language::of_source(&source);
        let language = match (self.language, by_name) {
            (Some(_), Some(Language::Bmi)) => return Err(Bypass::new("language", "-x with a BMI")),
            (Some(language), _) => language,
            (None, Some(language)) => language,
            (None, None) => return Err(Bypass::new("language", source.to_string_lossy())),
        };
        let kind = match (self.compile, self.precompile, language) {
            (true, true, _) => return Err(Bypass::new("several-actions", "-c and --precompile")),
            (false, false, _) => return Err(Bypass::new("not-a-compile", "neither -c nor --precompile")),
            (true, false, Language::Bmi) => Kind::BmiToObject,
            (true, false, _) => Kind::Object,
            (false, true, Language::CxxModule) => Kind::Precompile,
            (false, true, _) => return Err(Bypass::new("precompile", language.word())),
        };
        let output = match self.output.as_deref() {
            Some("" | "-") => return Err(Bypass::new("standard-output", "-o -")),
            Some(path) => PathBuf::from(path),
            None => default_output(&source, kind),
        };
        let bmi = match (kind, self.bmi_output) {
            (Kind::Precompile, None) => Some(BmiOutput { path: output.clone(), restat: false }),
            (Kind::Object, Some((path, restat))) if language == Language::CxxModule => Some(BmiOutput {
                path: path.map_or_else(|| output.with_extension("pcm"), PathBuf::from),
                restat,
            }),
            (Kind::Object, None) if language == Language::CxxModule => {
                // Whether a BMI is made, and where, depends on the compiler's version here.
                return Err(Bypass::new("implicit-bmi", source.to_string_lossy()));
            }
            (_, Some(_)) => return Err(Bypass::new("module-output", "not for this kind of compile")),
            (Kind::Object | Kind::BmiToObject, None) => None,
        };
        if kind == Kind::BmiToObject && !self.prebuilt_paths.is_empty() {
            // Nothing tells which BMIs this loads.
            return Err(Bypass::new("prebuilt-path-with-bmi-source", source.to_string_lossy()));
        }
        let wanted = self.depfile || self.user_depfile;
        if !wanted && (self.depfile_path.is_some() || self.depfile_target.is_some() || self.phony)
            || wanted && kind == Kind::BmiToObject
        {
            return Err(Bypass::new("unused-depfile-flag", "the compiler will say so"));
        }
        let depfile = wanted.then(|| Depfile {
            path: self.depfile_path.map_or_else(|| output.with_extension("d"), PathBuf::from),
            // The last of -MD and -MMD would win; both at once is rare enough to take the wider reading of none.
            system_headers: self.depfile,
            target: self.depfile_target,
            phony: self.phony,
        });
        if self.depfile && self.user_depfile {
            return Err(Bypass::new("several-depfiles", "-MD and -MMD"));
        }
        let object = (kind != Kind::Precompile).then(|| output.clone());
        Ok(Invocation {
            kind,
            language,
            source,
            object,
            bmi,
            depfile,
            bmis: self.bmis,
            prebuilt_paths: self.prebuilt_paths,
            holds_cwd: self.holds_cwd,
            args: self.args,
        })
    }
}

fn once<T>(place: &mut Option<T>, value: T, text: &str) -> Result<(), Bypass> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Bypass::new("flag-twice", text)),
    }
}

fn default_output(source: &Path, kind: Kind) -> PathBuf {
    let extension = if kind == Kind::Precompile { "pcm" } else { "o" };
    let name = source.file_name().unwrap_or(OsStr::new("a"));
    Path::new(name).with_extension(extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Invocation, Bypass> {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        Invocation::parse(&args, &|path| match path.to_str()? {
            "m.o.modmap" => Some(
                "-x c++-module\n-fmodule-output=\"d/m.pcm\"\n-fmodule-file=\"std=s/std.pcm\"\n".to_owned(),
            ),
            "nested.rsp" => Some("@m.o.modmap".to_owned()),
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
            ("-c a.cpp -fmodule-file=x.pcm", "unnamed-module-file"),
            ("-c a.pcm -fprebuilt-module-path=d", "prebuilt-path-with-bmi-source"),
            ("-c a.cpp @missing.rsp", "response-file"),
            ("-c a.cpp @nested.rsp", "nested-response-file"),
            ("-c --precompile a.cppm", "several-actions"),
            ("--precompile a.cpp", "precompile"),
            ("-c a.cpp -Xclang -ast-dump", "xclang"),
            ("-c a.cpp -gsplit-dwarf", "split-dwarf"),
        ] {
            assert_eq!(reason(line), expected, "{line}");
        }
    }
}
