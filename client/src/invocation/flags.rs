//! The flag table: what each of the compiler's flags means to a cache. A flag without a row means bypass.
//!
//! Every row is a fact that a test walks over. Where two rows match, the longer spelling wins.

mod language;
mod table;

pub use language::{LANGUAGE_FLAGS, LANGUAGE_VALUES};
pub use table::{CC1_TABLE, GCC_BYPASS, LONG_FORMS, TABLE};

use super::Family;

/// How a flag is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The spelling and nothing else.
    Exact,
    /// The value follows without a space; it may be empty.
    Joined,
    /// The value is the next argument.
    Separate,
    /// Either of these two.
    Either,
}

/// What a flag means to a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It enters the key as it is given, and where it is given.
    Key,
    /// Like [`Effect::Key`]; and the output holds the directory the compiler runs in.
    KeyAndCwd,
    /// Like [`Effect::Key`]; the value is a path, and a relative one is relative to the directory the compiler runs in.
    KeyPath,
    /// Like [`Effect::KeyPath`]; and what it leads the driver to may change without it, so the driver is asked anew each
    /// time. Files that the driver then names are inputs.
    KeyInput,
    /// Like [`Effect::Key`]; and the driver is asked anew each time.
    AskAnew,
    /// Like [`Effect::Key`]; the value is `OLD=NEW` or a path, which is written into outputs and never opened.
    PrefixMap,
    /// Like [`Effect::AskAnew`]; and outputs hold the absolute names of the directory and of the main output, so that
    /// neither base directories nor another name of the output apply.
    Absolute,
    /// It changes neither outputs nor diagnostics.
    Quiet,
    /// It says what the command makes or reads.
    Role(Role),
    /// A command with it is not cached, for this reason.
    Bypass(&'static str),
}

impl Effect {
    /// Whether a flag with it enters the key as it is given.
    pub const fn is_keyed(self) -> bool {
        match self {
            Self::Key
            | Self::KeyAndCwd
            | Self::KeyPath
            | Self::KeyInput
            | Self::AskAnew
            | Self::PrefixMap
            | Self::Absolute => true,
            Self::Quiet | Self::Role(_) | Self::Bypass(_) => false,
        }
    }
}

/// The flags that say what a command makes or reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `-c`
    Compile,
    /// `--precompile`
    Precompile,
    /// `-o F`
    Output,
    /// `-x LANGUAGE`
    Language,
    /// `-fmodule-output`
    BmiBesideObject,
    /// `-fmodule-output=F`
    BmiOutput,
    /// `-fmodule-file=NAME=F`, `-fmodule-file=F`
    BmiInput,
    /// `-fprebuilt-module-path=DIR`
    PrebuiltPath,
    /// `-fmodule-header[=user|system]`
    HeaderUnit,
    /// `-MD`
    Depfile,
    /// `-MMD`
    UserDepfile,
    /// `-MF F`
    DepfilePath,
    /// `-MT TARGET`
    DepfileTarget,
    /// `-MQ TARGET`
    QuotedDepfileTarget,
    /// `-MP`
    DepfilePhony,
    /// `-include F`, `-imacros F`
    ForcedInclude,
    /// `-gsplit-dwarf`
    SplitDwarf,
    /// `--coverage`, `-ftest-coverage`
    Coverage,
    /// `-fsave-optimization-record`
    OptimizationRecord,
    /// `-fstack-usage`
    StackUsage,
    /// `--serialize-diagnostics F`
    SerializedDiagnostics,
    /// `-Xclang WORD`
    CompilerWord,
    /// `-Xpreprocessor WORD`, `-Wp,WORD,...`
    PreprocessorWord,
}

/// One flag, or one family of flags that share a spelling.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// What it starts with, or is.
    pub spelling: &'static str,
    /// How its value is given.
    pub form: Form,
    /// What it means.
    pub effect: Effect,
}

/// A flag's meaning and, where the value is joined to it, its value.
pub fn find(arg: &str, family: Family) -> Option<(Form, Effect, &str)> {
    if family == Family::Gcc
        && let Some((_, reason)) = GCC_BYPASS.iter().find(|(spelling, _)| arg.starts_with(spelling))
    {
        return Some((Form::Exact, Effect::Bypass(reason), ""));
    }
    // A language flag is listed by its whole name, so it is more exact than any family in the table.
    if is_language_flag(arg) {
        return Some((Form::Exact, Effect::Key, ""));
    }
    find_row(TABLE, arg)
}

/// The meaning of a word for the compiler proper: what the driver passes on unseen.
pub fn find_compiler_word(word: &str, family: Family) -> Option<(Form, Effect, &str)> {
    let own = find_row(CC1_TABLE, word);
    own.or_else(|| {
        find(word, family)
            .filter(|(_, effect, _)| matches!(effect, Effect::Key | Effect::KeyAndCwd | Effect::KeyPath))
    })
}

fn find_row<'a>(table: &[Row], arg: &'a str) -> Option<(Form, Effect, &'a str)> {
    let matches = |row: &&Row| match row.form {
        Form::Exact | Form::Separate => arg == row.spelling,
        Form::Joined | Form::Either => arg.starts_with(row.spelling),
    };
    let found = table.iter().filter(matches).max_by_key(|row| row.spelling.len());
    found.map(|row| (row.form, row.effect, arg.strip_prefix(row.spelling).unwrap_or_default()))
}

/// The short spelling of a long one: `--define-macro=X` is `-DX`.
pub fn short_form(arg: &str) -> Option<String> {
    let long = arg.starts_with("--");
    long.then(|| {
        LONG_FORMS.iter().find_map(|(long, short)| {
            let value = arg.strip_prefix(long)?;
            if value.is_empty() {
                return Some((*short).to_owned());
            }
            value.strip_prefix('=').map(|value| format!("{short}{value}"))
        })
    })?
}

fn is_language_flag(arg: &str) -> bool {
    let Some(name) = arg.strip_prefix("-f") else { return false };
    match name.split_once('=') {
        Some((name, _)) => LANGUAGE_VALUES.contains(&name),
        None => {
            let positive = name.strip_prefix("no-").unwrap_or(name);
            let builtin = name.strip_prefix("no-builtin-").is_some_and(|function| !function.is_empty());
            builtin || LANGUAGE_FLAGS.contains(&positive)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Effect::{Bypass, Key, KeyPath};
    use super::Form::{Either, Exact, Joined};
    use super::*;

    #[test]
    fn no_row_is_there_twice() {
        for (index, row) in TABLE.iter().enumerate() {
            assert!(!TABLE[..index].iter().any(|other| other.spelling == row.spelling), "{}", row.spelling);
        }
        for list in [LANGUAGE_FLAGS, LANGUAGE_VALUES] {
            assert!(list.is_sorted(), "the list is kept sorted");
        }
    }

    #[test]
    fn every_row_is_found_by_its_own_spelling() {
        for row in TABLE {
            let (form, effect, value) = find(row.spelling, Family::Clang).unwrap();
            assert_eq!((form, effect, value), (row.form, row.effect, ""), "{}", row.spelling);
        }
    }

    #[test]
    fn the_longer_spelling_wins() {
        assert_eq!(
            find("-Wp,-MD,x", Family::Clang),
            Some((Joined, Effect::Role(Role::PreprocessorWord), "-MD,x"))
        );
        assert_eq!(find("-Wall", Family::Clang), Some((Joined, Key, "all")));
        assert_eq!(find("-mllvm", Family::Clang), Some((Either, Bypass("mllvm"), "")));
        assert_eq!(find("-march=native", Family::Clang), Some((Joined, Key, "arch=native")));
        assert_eq!(find("-isystem/opt", Family::Clang), Some((Either, KeyPath, "/opt")));
        assert_eq!(find("-Idir", Family::Clang), Some((Either, KeyPath, "dir")));
        assert_eq!(find("-fmodules-reduced-bmi", Family::Clang), Some((Exact, Key, "")));
        assert_eq!(
            find("-fmodules-cache-path=x", Family::Clang),
            Some((Joined, Bypass("implicit-modules"), "-cache-path=x"))
        );
        assert_eq!(find("-fno-builtin-memcpy", Family::Clang), Some((Exact, Key, "")));
        assert_eq!(find("-fprofile-use=x", Family::Clang), Some((Joined, Effect::Absolute, "-use=x")));
    }

    #[test]
    fn a_flag_without_a_row_is_not_found() {
        for arg in ["-fnever-heard-of-it", "-fvisibility", "--brand-new", "-Z", "-fno-", "-f"] {
            assert_eq!(find(arg, Family::Clang), None, "{arg}");
        }
    }
}
