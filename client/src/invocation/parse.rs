//! Reading a command line, argument by argument, by the flag table.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::flags::{self, Effect, Form, Role};
use super::{Arg, BmiInput, BmiOutput, Bypass, Depfile, Invocation, Kind, Language, response};

/// Reads the arguments behind the compiler's name.
pub(super) fn parse(
    args: &[OsString],
    read_response: &dyn Fn(&Path) -> Option<String>,
) -> Result<Invocation, Bypass> {
    let words = expand(args, read_response)?;
    let mut parser = Parser::default();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        parser.take(word, &mut rest)?;
    }
    parser.finish()
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
        let source = self.source.clone().ok_or_else(|| Bypass::new("not-a-compile", "no source"))?;
        let language = self.language_of(&source)?;
        let kind = self.kind(language)?;
        if kind == Kind::BmiToObject && !self.prebuilt_paths.is_empty() {
            // Nothing tells which BMIs this loads.
            return Err(Bypass::new("prebuilt-path-with-bmi-source", source.to_string_lossy()));
        }
        let output = match self.output.as_deref() {
            Some("" | "-") => return Err(Bypass::new("standard-output", "-o -")),
            Some(path) => PathBuf::from(path),
            None => default_output(&source, kind),
        };
        Ok(Invocation {
            kind,
            language,
            bmi: self.bmi_output(kind, language, &output)?,
            depfile: self.depfile(kind, &output)?,
            object: (kind != Kind::Precompile).then_some(output),
            source,
            bmis: self.bmis,
            prebuilt_paths: self.prebuilt_paths,
            holds_cwd: self.holds_cwd,
            args: self.args,
        })
    }

    fn language_of(&self, source: &Path) -> Result<Language, Bypass> {
        match (self.language, Language::of_source(source)) {
            (Some(_), Some(Language::Bmi)) => Err(Bypass::new("language", "-x with a BMI")),
            (Some(language), _) | (None, Some(language)) => Ok(language),
            (None, None) => Err(Bypass::new("language", source.to_string_lossy())),
        }
    }

    fn kind(&self, language: Language) -> Result<Kind, Bypass> {
        match (self.compile, self.precompile, language) {
            (true, true, _) => Err(Bypass::new("several-actions", "-c and --precompile")),
            (false, false, _) => Err(Bypass::new("not-a-compile", "neither -c nor --precompile")),
            (true, false, Language::Bmi) => Ok(Kind::BmiToObject),
            (true, false, Language::C | Language::Cxx | Language::CxxModule) => Ok(Kind::Object),
            (false, true, Language::CxxModule) => Ok(Kind::Precompile),
            (false, true, Language::C | Language::Cxx | Language::Bmi) => {
                Err(Bypass::new("precompile", language.word()))
            }
        }
    }

    fn bmi_output(&self, kind: Kind, language: Language, output: &Path) -> Result<Option<BmiOutput>, Bypass> {
        let is_interface = language == Language::CxxModule;
        match (kind, &self.bmi_output) {
            (Kind::Precompile, None) => Ok(Some(BmiOutput { path: output.to_owned(), restat: false })),
            (Kind::Object, Some((path, restat))) if is_interface => {
                let path = path.as_ref().map_or_else(|| output.with_extension("pcm"), PathBuf::from);
                Ok(Some(BmiOutput { path, restat: *restat }))
            }
            // Whether a BMI is made, and where, depends on the compiler's version here.
            (Kind::Object, None) if is_interface => {
                Err(Bypass::new("implicit-bmi", output.to_string_lossy()))
            }
            (_, Some(_)) => Err(Bypass::new("module-output", "not for this kind of compile")),
            (Kind::Object | Kind::BmiToObject, None) => Ok(None),
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
        Ok(wanted.then(|| Depfile {
            path: self.depfile_path.as_ref().map_or_else(|| output.with_extension("d"), PathBuf::from),
            system_headers: self.depfile,
            target: self.depfile_target.clone(),
            phony: self.phony,
        }))
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
