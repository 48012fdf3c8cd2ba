//! Reading a command line, argument by argument, by the flag table.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::flags::{self, Effect, Form, Role};
use super::{
    Arg, BmiInput, BmiOutput, Bypass, Depfile, Dialect, Extra, Family, Invocation, Kind, Language, PathArg,
    response,
};

/// Reads the arguments behind the compiler's name.
pub(super) fn parse(
    args: &[OsString],
    dialect: Dialect,
    read_response: &dyn Fn(&Path) -> Option<String>,
) -> Result<Invocation, Bypass> {
    read(Parser::new(dialect), args, read_response)
}

/// Reads the arguments of a compiler that is scanned for.
pub(super) fn parse_scan(
    args: &[OsString],
    read_response: &dyn Fn(&Path) -> Option<String>,
) -> Result<Invocation, Bypass> {
    let mut parser = Parser::new(Dialect { family: Family::Clang, is_cxx: true });
    parser.scan = true;
    read(parser, args, read_response)
}

fn read(
    mut parser: Parser,
    args: &[OsString],
    read_response: &dyn Fn(&Path) -> Option<String>,
) -> Result<Invocation, Bypass> {
    let words = response::expand(args, read_response)?;
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        parser.take(&word.text, word.modmap, &mut rest.by_ref().map(|word| word.text.clone()))?;
    }
    parser.finish()
}

/// What an argument must not hold: its value is not in the key.
const NOT_IN_KEY: [(&str, &str); 5] = [
    ("__DATE__", "time-macro"),
    ("__TIME__", "time-macro"),
    ("__TIMESTAMP__", "time-macro"),
    ("__has_include", "computed-probe"),
    ("__has_embed", "computed-probe"),
];

struct Parser {
    dialect: Dialect,
    /// Whether the command is only scanned.
    scan: bool,
    args: Vec<Arg>,
    precompile: bool,
    compile: bool,
    header_unit: bool,
    source: Option<PathBuf>,
    /// A second source, as a link has them.
    more: Option<String>,
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
    forced_includes: Vec<PathBuf>,
    /// Files beside the object that are named after it.
    beside: Vec<(pcmcache_shared::Role, &'static str)>,
    serialized: Option<String>,
    /// What goes to the compiler proper unseen by the driver.
    compiler_words: Vec<String>,
    holds_cwd: bool,
    absolute: bool,
    asks_anew: bool,
}

impl Parser {
    fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            scan: false,
            args: Vec::new(),
            precompile: false,
            compile: false,
            header_unit: false,
            source: None,
            more: None,
            language: None,
            output: None,
            bmi_output: None,
            bmis: Vec::new(),
            prebuilt_paths: Vec::new(),
            depfile: false,
            user_depfile: false,
            depfile_path: None,
            depfile_target: None,
            phony: false,
            forced_includes: Vec::new(),
            beside: Vec::new(),
            serialized: None,
            compiler_words: Vec::new(),
            holds_cwd: false,
            absolute: false,
            asks_anew: false,
        }
    }

    fn take(
        &mut self,
        given: &str,
        modmap: bool,
        rest: &mut dyn Iterator<Item = String>,
    ) -> Result<(), Bypass> {
        if given == "-" || !given.starts_with('-') {
            return self.take_source(given);
        }
        if let Some((_, reason)) = NOT_IN_KEY.iter().find(|(word, _)| given.contains(word)) {
            return Err(Bypass::new(reason, given));
        }
        let short = flags::short_form(given);
        let text = short.as_deref().unwrap_or(given);
        let (form, effect, joined) =
            flags::find(text, self.dialect.family).ok_or_else(|| Bypass::new("unknown-flag", text))?;
        let separate = form == Form::Separate || form == Form::Either && joined.is_empty();
        let value = match (effect, separate) {
            (Effect::Bypass(reason), _) => return Err(Bypass::new(reason, text)),
            (_, false) => joined.to_owned(),
            (_, true) => rest.next().ok_or_else(|| Bypass::new("missing-value", text))?,
        };
        if let Some((_, reason)) = NOT_IN_KEY.iter().find(|(word, _)| value.contains(word)) {
            return Err(Bypass::new(reason, given));
        }
        if let Effect::Role(role) = effect {
            // As a word of its own, which some of them become, it would name a response file.
            if value.starts_with('@') {
                return Err(Bypass::new("response-file", given));
            }
            return self.take_role(role, text, value, modmap);
        }
        if effect.is_keyed() {
            return self.take_key(effect, text, value, separate);
        }
        self.args.push(Arg::Quiet(text.to_owned()));
        Ok(())
    }

    /// A flag that enters the key.
    fn take_key(&mut self, effect: Effect, text: &str, value: String, separate: bool) -> Result<(), Bypass> {
        self.holds_cwd |= matches!(effect, Effect::KeyAndCwd | Effect::Absolute);
        self.absolute |= effect == Effect::Absolute;
        self.asks_anew |= matches!(effect, Effect::KeyInput | Effect::AskAnew | Effect::Absolute);
        let flag = if separate { text } else { text.strip_suffix(&value).unwrap_or(text) }.to_owned();
        match effect {
            Effect::KeyPath | Effect::KeyInput => {
                self.holds_cwd |= Path::new(&value).is_relative();
                self.args.push(Arg::Path(PathArg { flag, path: value, separate }));
            }
            Effect::PrefixMap => {
                let at = value.find('=').unwrap_or(value.len());
                let (old, rest) = value.split_at(at);
                self.args.push(Arg::PrefixMap { flag, old: old.to_owned(), rest: rest.to_owned() });
            }
            Effect::Key | Effect::KeyAndCwd | Effect::AskAnew | Effect::Absolute => {
                let words = if separate { vec![text.to_owned(), value] } else { vec![text.to_owned()] };
                self.args.push(Arg::Key(words));
            }
            Effect::Quiet | Effect::Role(_) | Effect::Bypass(_) => return Err(Bypass::new("internal", text)),
        }
        Ok(())
    }

    fn take_source(&mut self, text: &str) -> Result<(), Bypass> {
        if text == "-" || text.is_empty() {
            return Err(Bypass::new("standard-input", text));
        }
        if self.source.is_some() {
            self.more.get_or_insert_with(|| text.to_owned());
            return Ok(());
        }
        self.source = Some(PathBuf::from(text));
        self.holds_cwd |= Path::new(text).is_relative();
        self.args.push(Arg::Source);
        Ok(())
    }

    fn take_role(&mut self, role: Role, text: &str, value: String, modmap: bool) -> Result<(), Bypass> {
        use pcmcache_shared::Role as Made;
        match role {
            Role::Compile => {
                self.compile = true;
                self.args.push(Arg::Action("-c"));
            }
            Role::Precompile => {
                self.precompile = true;
                self.args.push(Arg::Action("--precompile"));
            }
            Role::HeaderUnit => {
                self.header_unit = true;
                self.args.push(Arg::Key(vec![text.to_owned()]));
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
                let (module, path) = value.split_once('=').unwrap_or(("", &value));
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
            Role::ForcedInclude => {
                self.holds_cwd |= Path::new(&value).is_relative();
                self.forced_includes.push(PathBuf::from(&value));
                let flag = if text.starts_with("-imacros") { "-imacros" } else { "-include" };
                self.args.push(Arg::Path(PathArg { flag: flag.to_owned(), path: value, separate: true }));
            }
            Role::SplitDwarf => {
                self.take_absolute(text);
                self.beside.push((Made::SplitDwarf, "dwo"));
            }
            Role::Coverage => {
                self.take_absolute(text);
                if !self.beside.contains(&(Made::CoverageNotes, "gcno")) {
                    self.beside.push((Made::CoverageNotes, "gcno"));
                }
            }
            Role::OptimizationRecord => {
                self.args.push(Arg::Key(vec![text.to_owned()]));
                self.beside.push((Made::OptimizationRecord, "opt.yaml"));
            }
            Role::StackUsage => {
                self.args.push(Arg::Key(vec![text.to_owned()]));
                self.beside.push((Made::StackUsage, "su"));
            }
            Role::SerializedDiagnostics => once(&mut self.serialized, value, text)?,
            Role::CompilerWord => {
                self.compiler_words.push(value.clone());
                self.args.push(Arg::Key(vec![text.to_owned(), value]));
            }
            Role::PreprocessorWord => self.take_preprocessor_words(text, value)?,
        }
        Ok(())
    }

    fn take_absolute(&mut self, text: &str) {
        (self.holds_cwd, self.absolute, self.asks_anew) = (true, true, true);
        self.args.push(Arg::Key(vec![text.to_owned()]));
    }

    /// `-Wp,-MD,F` asks for a depfile; all else goes to the compiler proper.
    fn take_preprocessor_words(&mut self, text: &str, value: String) -> Result<(), Bypass> {
        if text != "-Xpreprocessor" {
            let mut words = value.split(',');
            let first = words.next().unwrap_or_default();
            if let flag @ ("-MD" | "-MMD") = first {
                let [Some(path), None] = [words.next(), words.next()] else {
                    return Err(Bypass::new("xpreprocessor", text));
                };
                *(if flag == "-MD" { &mut self.depfile } else { &mut self.user_depfile }) = true;
                return once(&mut self.depfile_path, path.to_owned(), text);
            }
            self.compiler_words.extend(value.split(',').map(str::to_owned));
            self.args.push(Arg::Key(vec![text.to_owned()]));
            return Ok(());
        }
        self.compiler_words.push(value.clone());
        self.args.push(Arg::Key(vec![text.to_owned(), value]));
        Ok(())
    }

    /// What goes past the driver must be no more than a key either.
    fn check_compiler_words(&mut self) -> Result<(), Bypass> {
        let words = std::mem::take(&mut self.compiler_words);
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            let unknown = || Bypass::new("xclang", word);
            let (form, effect, joined) =
                flags::find_compiler_word(word, self.dialect.family).ok_or_else(unknown)?;
            let separate = form == Form::Separate || form == Form::Either && joined.is_empty();
            let value = if separate { rest.next().ok_or_else(unknown)? } else { joined };
            match effect {
                Effect::Key => {}
                Effect::KeyAndCwd => self.holds_cwd = true,
                Effect::KeyPath => self.holds_cwd |= Path::new(value).is_relative(),
                Effect::Bypass(reason) => return Err(Bypass::new(reason, word)),
                Effect::KeyInput
                | Effect::AskAnew
                | Effect::PrefixMap
                | Effect::Absolute
                | Effect::Quiet
                | Effect::Role(_) => return Err(unknown()),
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Invocation, Bypass> {
        self.check_compiler_words()?;
        if !self.compile && !self.precompile && !self.header_unit {
            return Err(Bypass::new("not-a-compile", "neither -c nor --precompile"));
        }
        if let Some(more) = self.more {
            return Err(Bypass::new("several-sources", more));
        }
        let source = self.source.clone().ok_or_else(|| Bypass::new("not-a-compile", "no source"))?;
        let language = self.language_of(&source)?;
        let kind = self.kind(language)?;
        let output = match self.output.as_deref() {
            Some("" | "-") => return Err(Bypass::new("standard-output", "-o -")),
            Some(path) => PathBuf::from(path),
            None => default_output(&source, kind),
        };
        if output.as_os_str().as_encoded_bytes().starts_with(b"@") {
            return Err(Bypass::new("response-file", output.to_string_lossy()));
        }
        Ok(Invocation {
            family: self.dialect.family,
            says_language: self.language.is_some(),
            kind,
            language,
            bmi: self.bmi_output(kind, language, &output)?,
            depfile: self.depfile(kind, &output)?,
            extras: self.extras(kind, &output)?,
            object: matches!(kind, Kind::Object | Kind::BmiToObject).then(|| output.clone()),
            scanned: (kind == Kind::Scan).then_some(output),
            source,
            forced_includes: self.forced_includes,
            bmis: self.bmis,
            prebuilt_paths: self.prebuilt_paths,
            holds_cwd: self.holds_cwd,
            absolute: self.absolute,
            asks_anew: self.asks_anew,
            args: self.args,
        })
    }

    fn language_of(&self, source: &Path) -> Result<Language, Bypass> {
        match (self.language, Language::of_source(source, self.dialect.is_cxx)) {
            (Some(_), Some(Language::Bmi)) => Err(Bypass::new("language", "-x with a BMI")),
            (Some(language), _) | (None, Some(language)) => Ok(language),
            (None, None) => Err(Bypass::new("language", source.to_string_lossy())),
        }
    }

    fn kind(&self, language: Language) -> Result<Kind, Bypass> {
        use Language::{Bmi, C, Cxx, CxxModule, Header, SystemHeader, UserHeader};
        match (self.compile, self.precompile, language) {
            (true, true, _) => Err(Bypass::new("several-actions", "-c and --precompile")),
            // Without -fmodule-header a header makes a precompiled header.
            (_, true, UserHeader | SystemHeader) => Ok(Kind::HeaderUnit),
            (false, _, Header | UserHeader | SystemHeader) if self.header_unit => Ok(Kind::HeaderUnit),
            (false, true, Header) => Err(Bypass::new("precompile", language.word())),
            (_, _, Header | UserHeader | SystemHeader) => Err(Bypass::new("language", language.word())),
            (_, _, _) if self.header_unit => Err(Bypass::new("header-unit", language.word())),
            (true, false, C | Cxx | CxxModule) if self.scan => Ok(Kind::Scan),
            (_, _, _) if self.scan => Err(Bypass::new("scan", "of another command than a compile")),
            (true, false, Bmi) => Ok(Kind::BmiToObject),
            (true, false, C | Cxx | CxxModule) => Ok(Kind::Object),
            (false, _, CxxModule) => Ok(Kind::Precompile),
            (false, _, C | Cxx | Bmi) => Err(Bypass::new("precompile", language.word())),
        }
    }

    fn bmi_output(&self, kind: Kind, language: Language, output: &Path) -> Result<Option<BmiOutput>, Bypass> {
        let is_interface = language == Language::CxxModule;
        match (kind, &self.bmi_output) {
            (Kind::Precompile | Kind::HeaderUnit, None) => {
                Ok(Some(BmiOutput { path: output.to_owned(), restat: false }))
            }
            (Kind::Object, Some((path, restat))) if is_interface => {
                let path = path.as_ref().map_or_else(|| output.with_extension("pcm"), PathBuf::from);
                Ok(Some(BmiOutput { path, restat: *restat }))
            }
            // Whether a BMI is made, and where, depends on the compiler's version here.
            (Kind::Object, None) if is_interface => {
                Err(Bypass::new("implicit-bmi", output.to_string_lossy()))
            }
            (_, Some(_)) => Err(Bypass::new("module-output", "not for this kind of compile")),
            (Kind::Object | Kind::BmiToObject | Kind::Scan, None) => Ok(None),
        }
    }

    fn depfile(&self, kind: Kind, output: &Path) -> Result<Option<Depfile>, Bypass> {
        let wanted = self.depfile || self.user_depfile;
        let is_described = self.depfile_path.is_some() || self.depfile_target.is_some() || self.phony;
        if !wanted && is_described || wanted && kind == Kind::BmiToObject {
            return Err(Bypass::new("unused-depfile-flag", "the compiler will say so"));
        }
        if self.depfile && self.user_depfile {
            return Err(Bypass::new("several-depfiles", "-MD and -MMD"));
        }
        if self.depfile_path.as_deref() == Some("-") {
            return Err(Bypass::new("standard-output", "-MF -"));
        }
        Ok(wanted.then(|| Depfile {
            path: self.depfile_path.as_ref().map_or_else(|| output.with_extension("d"), PathBuf::from),
            system_headers: self.depfile,
            target: self.depfile_target.clone(),
            phony: self.phony,
        }))
    }

    fn extras(&self, kind: Kind, output: &Path) -> Result<Vec<Extra>, Bypass> {
        if kind == Kind::Scan && self.serialized.is_none() {
            // Nothing is generated, and nothing beside it.
            return Ok(Vec::new());
        }
        // What else these make beside a BMI, and with two jobs, was not looked into.
        let is_plain = kind == Kind::Object && self.bmi_output.is_none();
        if (!self.beside.is_empty() || kind == Kind::Scan) && !is_plain {
            return Err(Bypass::new("extra-outputs-of-module", output.to_string_lossy()));
        }
        let beside = self.beside.iter();
        let beside = beside.map(|(role, end)| Extra { role: *role, path: output.with_extension(end) });
        let role = pcmcache_shared::Role::SerializedDiagnostics;
        let serialized = self.serialized.iter().map(|path| Extra { role, path: PathBuf::from(path) });
        let mut extras: Vec<Extra> = beside.chain(serialized).collect();
        extras.sort_by_key(|extra| extra.role);
        extras.dedup();
        Ok(extras)
    }
}

fn once<T>(place: &mut Option<T>, value: T, text: &str) -> Result<(), Bypass> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Bypass::new("flag-twice", text)),
    }
}

fn default_output(source: &Path, kind: Kind) -> PathBuf {
    let extension = match kind {
        Kind::Precompile | Kind::HeaderUnit => "pcm",
        Kind::Object | Kind::BmiToObject | Kind::Scan => "o",
    };
    let name = source.file_name().unwrap_or(OsStr::new("a"));
    Path::new(name).with_extension(extension)
}
