//! The flag table: what each of the compiler's flags means to a cache. A flag without a row means bypass.
//!
//! Every row is a fact that a test walks over. Where two rows match, the longer spelling wins.

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
    /// It changes neither outputs nor diagnostics.
    Quiet,
    /// It says what the command makes or reads.
    Role(Role),
    /// A command with it is not cached, for this reason.
    Bypass(&'static str),
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
    /// `-fmodule-file=NAME=F`
    BmiInput,
    /// `-fprebuilt-module-path=DIR`
    PrebuiltPath,
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

const fn row(spelling: &'static str, form: Form, effect: Effect) -> Row {
    Row { spelling, form, effect }
}

use Effect::{Bypass, Key, KeyAndCwd, KeyPath, Quiet};
use Form::{Either, Exact, Joined, Separate};

/// Every flag but those of [`LANGUAGE_FLAGS`] and [`LANGUAGE_VALUES`].
pub const TABLE: &[Row] = &[
    // What the command makes and reads.
    row("-c", Exact, Effect::Role(Role::Compile)),
    row("--compile", Exact, Effect::Role(Role::Compile)),
    row("--precompile", Exact, Effect::Role(Role::Precompile)),
    row("-o", Either, Effect::Role(Role::Output)),
    row("-x", Either, Effect::Role(Role::Language)),
    row("-fmodule-output", Exact, Effect::Role(Role::BmiBesideObject)),
    row("-fmodule-output=", Joined, Effect::Role(Role::BmiOutput)),
    row("-fmodule-file=", Joined, Effect::Role(Role::BmiInput)),
    row("-fprebuilt-module-path=", Joined, Effect::Role(Role::PrebuiltPath)),
    row("-MD", Exact, Effect::Role(Role::Depfile)),
    row("-MMD", Exact, Effect::Role(Role::UserDepfile)),
    row("-MF", Either, Effect::Role(Role::DepfilePath)),
    row("-MT", Either, Effect::Role(Role::DepfileTarget)),
    row("-MQ", Either, Effect::Role(Role::QuotedDepfileTarget)),
    row("-MP", Exact, Effect::Role(Role::DepfilePhony)),
    // The preprocessor.
    row("-D", Either, Key),
    row("-U", Either, Key),
    row("-I", Either, KeyPath),
    row("-isystem", Either, KeyPath),
    row("-iquote", Either, KeyPath),
    row("-idirafter", Either, KeyPath),
    row("-nostdinc", Exact, Key),
    row("-nostdinc++", Exact, Key),
    row("-nobuiltininc", Exact, Key),
    row("-undef", Exact, Key),
    // The language, the target, the optimiser.
    row("-std=", Joined, Key),
    row("-stdlib=", Joined, Key),
    row("-ansi", Exact, Key),
    row("-pthread", Exact, Key),
    row("-O", Joined, Key),
    row("-m", Joined, Key),
    row("--target=", Joined, Key),
    row("-target", Separate, Key),
    // Diagnostics are replayed, so what shapes them is in the key.
    row("-W", Joined, Key),
    row("-w", Exact, Key),
    row("-pedantic", Exact, Key),
    row("-pedantic-errors", Exact, Key),
    // Debug information holds the directory the compiler runs in.
    row("-g", Exact, KeyAndCwd),
    row("-g0", Exact, KeyAndCwd),
    row("-g1", Exact, KeyAndCwd),
    row("-g2", Exact, KeyAndCwd),
    row("-g3", Exact, KeyAndCwd),
    row("-ggdb", Exact, KeyAndCwd),
    row("-ggdb0", Exact, KeyAndCwd),
    row("-ggdb1", Exact, KeyAndCwd),
    row("-ggdb2", Exact, KeyAndCwd),
    row("-ggdb3", Exact, KeyAndCwd),
    row("-gdwarf", Exact, KeyAndCwd),
    row("-gdwarf-4", Exact, KeyAndCwd),
    row("-gdwarf-5", Exact, KeyAndCwd),
    row("-gline-tables-only", Exact, KeyAndCwd),
    row("-gcolumn-info", Exact, KeyAndCwd),
    row("-gno-column-info", Exact, KeyAndCwd),
    row("-gz", Joined, KeyAndCwd),
    // For the linker; here they at most make a warning.
    row("-L", Either, Key),
    row("-l", Joined, Key),
    row("-pipe", Exact, Quiet),
    // Not cached, and why.
    row("-E", Exact, Bypass("preprocess-only")),
    row("-S", Exact, Bypass("assembly-output")),
    row("-M", Exact, Bypass("preprocess-only")),
    row("-MM", Exact, Bypass("preprocess-only")),
    row("-MG", Exact, Bypass("missing-headers-allowed")),
    row("-MV", Exact, Bypass("depfile-format")),
    row("-MJ", Either, Bypass("compilation-database")),
    row("-###", Exact, Bypass("driver-query")),
    row("-v", Exact, Bypass("driver-query")),
    row("-Xclang", Separate, Bypass("xclang")),
    row("-Xpreprocessor", Separate, Bypass("xpreprocessor")),
    row("-Xassembler", Separate, Bypass("xassembler")),
    row("-Wp,", Joined, Bypass("xpreprocessor")),
    row("-Wa,", Joined, Bypass("xassembler")),
    row("-mllvm", Either, Bypass("mllvm")),
    row("-include", Either, Bypass("forced-include")),
    row("-imacros", Either, Bypass("forced-include")),
    row("-include-pch", Separate, Bypass("precompiled-header")),
    row("-isysroot", Either, Bypass("sysroot")),
    row("--sysroot", Either, Bypass("sysroot")),
    row("-B", Either, Bypass("program-path")),
    row("--gcc-toolchain=", Joined, Bypass("gcc-toolchain")),
    row("--gcc-install-dir=", Joined, Bypass("gcc-toolchain")),
    row("--config", Joined, Bypass("config-file")),
    row("-gsplit-dwarf", Joined, Bypass("split-dwarf")),
    row("-gmodules", Exact, Bypass("debug-modules")),
    row("-grecord-command-line", Exact, Bypass("command-line-in-output")),
    row("-frecord-command-line", Exact, Bypass("command-line-in-output")),
    row("-grecord-gcc-switches", Exact, Bypass("command-line-in-output")),
    row("-frecord-gcc-switches", Exact, Bypass("command-line-in-output")),
    row("--coverage", Exact, Bypass("coverage")),
    row("-fprofile", Joined, Bypass("profile")),
    row("-fcoverage", Joined, Bypass("coverage")),
    row("-ftest-coverage", Exact, Bypass("coverage")),
    row("-ftime-trace", Joined, Bypass("time-trace")),
    row("-fsave-optimization-record", Joined, Bypass("optimization-record")),
    row("-foptimization-record", Joined, Bypass("optimization-record")),
    row("-fstack-usage", Exact, Bypass("stack-usage")),
    row("-save-temps", Joined, Bypass("save-temps")),
    row("--save-temps", Joined, Bypass("save-temps")),
    row("--serialize-diagnostics", Separate, Bypass("serialized-diagnostics")),
    row("-serialize-diagnostics", Separate, Bypass("serialized-diagnostics")),
    row("-fplugin", Joined, Bypass("plugin")),
    row("-fpass-plugin", Joined, Bypass("plugin")),
    row("-fsanitize", Joined, Bypass("sanitizer")),
    row("-fxray", Joined, Bypass("xray")),
    row("-fmodules", Joined, Bypass("implicit-modules")),
    row("-fcxx-modules", Exact, Bypass("implicit-modules")),
    row("-fmodule-map-file=", Joined, Bypass("implicit-modules")),
    row("-fimplicit-modules", Exact, Bypass("implicit-modules")),
    row("-fmodule-name=", Joined, Bypass("implicit-modules")),
    row("-fmodule-header", Joined, Bypass("header-unit")),
    row("-emit-llvm", Exact, Bypass("llvm-output")),
    row("-fsyntax-only", Exact, Bypass("no-output")),
    row("--analyze", Exact, Bypass("analyzer")),
    row("-R", Joined, Bypass("remarks")),
];

/// Flags `-fNAME` and `-fno-NAME` that change what is generated or said, and neither name nor find a file.
pub const LANGUAGE_FLAGS: &[&str] = &[
    "PIC",
    "PIE",
    "access-control",
    "addrsig",
    "aligned-allocation",
    "aligned-new",
    "ansi-escape-codes",
    "approx-func",
    "associative-math",
    "asynchronous-unwind-tables",
    "autolink",
    "builtin",
    "caret-diagnostics",
    "char8_t",
    "color-diagnostics",
    "common",
    "complete-member-pointers",
    "constant-cfstrings",
    "coroutines",
    "cxx-exceptions",
    "data-sections",
    "debug-macro",
    "debug-types-section",
    "declspec",
    "delayed-template-parsing",
    "delete-null-pointer-checks",
    "diagnostics-color",
    "diagnostics-fixit-info",
    "diagnostics-show-hotness",
    "diagnostics-show-note-include-stack",
    "diagnostics-show-option",
    "diagnostics-show-template-tree",
    "digraphs",
    "dollars-in-identifiers",
    "elide-constructors",
    "elide-type",
    "eliminate-unused-debug-types",
    "exceptions",
    "experimental-library",
    "fast-math",
    "finite-loops",
    "finite-math-only",
    "fixed-point",
    "force-emit-vtables",
    "freestanding",
    "function-sections",
    "gnu-keywords",
    "gnu89-inline",
    "honor-infinities",
    "honor-nans",
    "hosted",
    "ident",
    "implicit-module-maps",
    "inline",
    "inline-functions",
    "inline-hint-functions",
    "integrated-as",
    "jump-tables",
    "keep-static-consts",
    "limit-debug-info",
    "lto",
    "math-errno",
    "merge-all-constants",
    "merge-constants",
    "modules-reduced-bmi",
    "ms-extensions",
    "omit-frame-pointer",
    "openmp",
    "openmp-simd",
    "operator-names",
    "optimize-sibling-calls",
    "pack-struct",
    "pch-timestamp",
    "pic",
    "pie",
    "plt",
    "pseudo-probe-for-profiling",
    "reciprocal-math",
    "relaxed-template-template-args",
    "rounding-math",
    "rtti",
    "rtti-data",
    "semantic-interposition",
    "short-enums",
    "short-wchar",
    "show-column",
    "show-source-location",
    "signaling-math",
    "signed-char",
    "signed-zeros",
    "sized-deallocation",
    "skip-odr-check-in-gmf",
    "slp-vectorize",
    "spell-checking",
    "split-lto-unit",
    "stack-check",
    "stack-clash-protection",
    "stack-protector",
    "stack-protector-all",
    "stack-protector-strong",
    "standalone-debug",
    "strict-aliasing",
    "strict-enums",
    "strict-float-cast-overflow",
    "strict-overflow",
    "strict-return",
    "strict-vtable-pointers",
    "threadsafe-statics",
    "trapping-math",
    "trigraphs",
    "unique-basic-block-section-names",
    "unique-section-names",
    "unroll-loops",
    "unsafe-math-optimizations",
    "unsigned-char",
    "unwind-tables",
    "use-cxa-atexit",
    "use-init-array",
    "vectorize",
    "virtual-function-elimination",
    "visibility-inlines-hidden",
    "visibility-inlines-hidden-static-local-var",
    "whole-program-vtables",
    "wrapv",
    "zero-initialized-in-bss",
];

/// Flags `-fNAME=VALUE` of the same kind.
pub const LANGUAGE_VALUES: &[&str] = &[
    "align-functions",
    "align-loops",
    "bracket-depth",
    "cf-protection",
    "constexpr-backtrace-limit",
    "constexpr-depth",
    "constexpr-steps",
    "debug-prefix-map",
    "diagnostics-color",
    "diagnostics-format",
    "diagnostics-show-category",
    "error-limit",
    "exec-charset",
    "ffp-contract",
    "file-prefix-map",
    "fp-contract",
    "fp-exception-behavior",
    "fp-model",
    "input-charset",
    "lax-vector-conversions",
    "lto",
    "lto-jobs",
    "macro-backtrace-limit",
    "macro-prefix-map",
    "max-type-align",
    "message-length",
    "openmp",
    "operator-arrow-depth",
    "pack-struct",
    "spell-checking-limit",
    "stack-protector",
    "strict-flex-arrays",
    "template-backtrace-limit",
    "template-depth",
    "tls-model",
    "trivial-auto-var-init",
    "use-ld",
    "veclib",
    "visibility",
    "wchar-type",
    "zero-call-used-regs",
];

/// A flag's meaning and, where the value is joined to it, its value.
pub fn find(arg: &str) -> Option<(Form, Effect, &str)> {
    let matches = |row: &&Row| match row.form {
        Exact | Separate => arg == row.spelling,
        Joined | Either => arg.starts_with(row.spelling),
    };
    let found = TABLE.iter().filter(matches).max_by_key(|row| row.spelling.len());
    // A language flag is listed by its whole name, so it is more exact than any family in the table.
    if language_flag(arg) {
        return Some((Exact, Key, ""));
    }
    found.map(|row| (row.form, row.effect, arg.strip_prefix(row.spelling).unwrap_or_default()))
}

fn language_flag(arg: &str) -> bool {
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
            let (form, effect, value) = find(row.spelling).unwrap();
            assert_eq!((form, effect, value), (row.form, row.effect, ""), "{}", row.spelling);
        }
    }

    #[test]
    fn the_longer_spelling_wins() {
        assert_eq!(find("-Wp,-MD,x"), Some((Joined, Bypass("xpreprocessor"), "-MD,x")));
        assert_eq!(find("-Wall"), Some((Joined, Key, "all")));
        assert_eq!(find("-mllvm"), Some((Either, Bypass("mllvm"), "")));
        assert_eq!(find("-march=native"), Some((Joined, Key, "arch=native")));
        assert_eq!(find("-isystem/opt"), Some((Either, KeyPath, "/opt")));
        assert_eq!(find("-Idir"), Some((Either, KeyPath, "dir")));
        assert_eq!(find("-fmodules-reduced-bmi"), Some((Exact, Key, "")));
        assert_eq!(
            find("-fmodules-cache-path=x"),
            Some((Joined, Bypass("implicit-modules"), "-cache-path=x"))
        );
        assert_eq!(find("-fno-builtin-memcpy"), Some((Exact, Key, "")));
        assert_eq!(find("-fprofile-use=x"), Some((Joined, Bypass("profile"), "-use=x")));
    }

    #[test]
    fn a_flag_without_a_row_is_not_found() {
        for arg in ["-fnever-heard-of-it", "-fvisibility", "--brand-new", "-Z", "-fno-", "-f"] {
            assert_eq!(find(arg), None, "{arg}");
        }
    }
}
