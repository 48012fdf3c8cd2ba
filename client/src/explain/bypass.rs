//! Why a command is not cached, in words, and what can be done about it.

/// What a reason means, and its remedy.
#[derive(Debug, Clone, Copy)]
pub struct Advice {
    /// The reason, in the words of the statistics.
    reason: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

const fn row(reason: &'static str, meaning: &'static str, remedy: &'static str) -> Advice {
    Advice { reason, meaning, remedy }
}

const NOTHING: &str = "nothing: the compiler runs as without pcmcache";
const LEAVE_OUT: &str = "leave the flag out where the build is to be cached";
const REPORT: &str = "ask for it: a flag table row may be all that is missing";

impl Advice {
    /// The advice on this reason.
    pub fn on(reason: &str) -> Self {
        let unknown = row("", "this is not cached", "see the detail");
        TABLE.iter().find(|advice| advice.reason == reason).copied().unwrap_or(unknown)
    }
}

/// A row for every reason that anything in the launcher gives.
const TABLE: &[Advice] = &[
    row("analyzer", "it runs the analyzer, which makes reports", NOTHING),
    row("assembly-output", "it makes assembly", NOTHING),
    row("ast-output", "it makes a syntax tree", NOTHING),
    row(
        "base-in-source",
        "the source names a base directory where it may say what to read",
        "name it relative to the source",
    ),
    row("base-mark", "a word of the command looks like a spelled base directory", "name the file otherwise"),
    row("cannot-run", "the compiler cannot be started", "look at its permissions"),
    row("command-line-in-output", "the command line gets into outputs", LEAVE_OUT),
    row("compilation-database", "it writes a part of a compilation database", "let the build tool write it"),
    row("compiler-wrapper", "the compiler is a script or another launcher", "name the compiler itself"),
    row(
        "computed-include",
        "a macro says what the source includes, and GCC may take a precompiled header for it",
        "include it by its name",
    ),
    row("computed-probe", "the source probes for a file by a computed name", "probe for a literal name"),
    row(
        "config-file",
        "the driver's configuration file asks for what is not followed",
        "put it on the command line",
    ),
    row("debug-modules", "the debug information refers to module files", LEAVE_OUT),
    row("depfile", "its depfile could not be written again", NOTHING),
    row("depfile-format", "the depfile's format is another than make's", LEAVE_OUT),
    row("depfile-not-understood", "the depfile could not be read", "name files without odd characters"),
    row("driver-query", "it asks the driver something", NOTHING),
    row(
        "driver-query-failed",
        "the driver refuses to say what it would run",
        "run the command with -### to see why",
    ),
    row("environment", "a variable makes the compiler do what is not followed", "unset it for the build"),
    row("extra-outputs-of-module", "a module's side outputs are not followed", LEAVE_OUT),
    row("flag-twice", "a flag that counts once is there twice", "name it once"),
    row(
        "foreign-bmi",
        "it imports a BMI that pcmcache did not make, so its sources may not be embedded",
        "build that module through pcmcache as well",
    ),
    row("header-unit", "this kind of header unit is not followed", NOTHING),
    row("implicit-bmi", "an interface unit without -fmodule-output", "add -fmodule-output=FILE"),
    row(
        "implicit-modules",
        "header modules in a module cache are made by the compiler itself",
        "leave -fmodules out",
    ),
    row("incbin", "the source has the assembler read a file (.incbin)", "use #embed"),
    row("input-changed", "an input changed while it was compiled", "nothing: the next compile is cached"),
    row("internal", "a fault in pcmcache", "report it, please"),
    row("language", "a language that is not cached", NOTHING),
    row("language-order", "-x stands where it would apply to something else", "put it before the source"),
    row("llvm-output", "it makes LLVM's intermediate language", NOTHING),
    row("missing-headers-allowed", "the depfile may name headers that are not there (-MG)", LEAVE_OUT),
    row("missing-output", "the compiler did not make an output that was asked for", NOTHING),
    row("missing-value", "a flag without its value", "the compiler will say so"),
    row("mllvm", "-mllvm changes what is not followed", LEAVE_OUT),
    row("module-output", "-fmodule-output for what makes no BMI", "leave it out"),
    row("nested-response-file", "a response file names another", "name both on the command line"),
    row("no-output", "it makes no output", NOTHING),
    row(
        "not-a-compile",
        "it links, or does something else than to compile one source",
        "nothing: links are not cached",
    ),
    row("not-utf8", "an argument is not UTF-8", "name files in UTF-8"),
    row("optimization-record", "this form of optimization record is not followed", LEAVE_OUT),
    row(
        "output-directory",
        "outputs cannot be placed where they belong",
        "look at the directory's permissions",
    ),
    row("plugin", "a plugin may do anything", LEAVE_OUT),
    row("precompile", "the driver would make what is not followed", NOTHING),
    row(
        "precompiled-header",
        "it makes or uses a precompiled header",
        "turn PCH off where the build is to be cached",
    ),
    row("preprocess-only", "it only preprocesses", NOTHING),
    row("profile", "it writes or reads a profile in a way that is not followed", LEAVE_OUT),
    row("remarks", "remarks name paths of module files", LEAVE_OUT),
    row("response-file", "a response file cannot be read", "look whether it is there"),
    row("save-temps", "intermediate files are kept (-save-temps)", LEAVE_OUT),
    row("scan", "a scan in a form that is not followed", "scan with -format=p1689, as CMake does"),
    row(
        "search-directory",
        "a directory of headers is named by what other flags say (=DIR, -iprefix)",
        "name it by its whole path",
    ),
    row("several-actions", "it asks for several things at once", "one command for each"),
    row("several-depfiles", "-MD and -MMD", "name one of them"),
    row("several-sources", "it compiles several sources", "one command for each"),
    row("special-output", "an output is a link, a device or a directory", "write to a plain file"),
    row("split-dwarf", "this form of split debug information is not followed", LEAVE_OUT),
    row("standard-input", "the source comes from standard input", "compile a file"),
    row("standard-output", "the output goes to standard output", "write to a file"),
    row("store-full", "the local store was full while a trim was under way", "a larger PCMCACHE_MAX_SIZE"),
    row(
        "ms-header-search",
        "quoted headers are looked for beside every file that is being included",
        "leave -fms-extensions and -fms-compatibility out",
    ),
    row(
        "pragma-dependency",
        "the source compares the times of files",
        "leave `#pragma GCC dependency` to the build",
    ),
    row(
        "pragma-once",
        "two of its headers are equal and to be read once, which a link between them decides",
        "guard them by macros of their own",
    ),
    row(
        "terminal-diagnostics",
        "its diagnostics were wrapped to the terminal's width",
        "nothing: it is cached when the compiler has nothing to say, or not on a terminal",
    ),
    row("time-macro", "the source uses __DATE__, __TIME__ or __TIMESTAMP__", "take the time from the build"),
    row("time-report", "it reports times", LEAVE_OUT),
    row("time-trace", "it writes a trace of times", LEAVE_OUT),
    row("too-many-arguments", "the command is too long", NOTHING),
    row("unexpected-output", "the compiler made a file that nobody asked for", REPORT),
    row("unexplained-bmi", "a BMI was loaded that no argument leads to", "name it, or its directory"),
    row("unknown-compiler", "no compiler that pcmcache knows", "use Clang or GCC by a usual name"),
    row("unknown-flag", "a flag that pcmcache does not know", REPORT),
    row("unreadable-input", "an input cannot be read", "the compiler will say so"),
    row("unused-depfile-flag", "a depfile flag that is not used", "leave it out"),
    row("vfs-overlay", "a file system overlay is not followed", LEAVE_OUT),
    row("working-directory", "-working-directory is not followed", "change the directory instead"),
    row("xassembler", "words for the assembler are not followed", LEAVE_OUT),
    row("xclang", "a word for the compiler proper that is not followed", REPORT),
    row("xpreprocessor", "a word for the preprocessor that is not followed", LEAVE_OUT),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// The reasons that stand in the sources.
    fn reasons(dir: &Path, found: &mut BTreeSet<String>) {
        for entry in fs_err::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                reasons(&path, found);
                continue;
            }
            let text = fs_err::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap();
            for start in ["Bypass::new(", "Uncacheable::new(", "Bypass(", "bypass("] {
                for rest in text.split(start).skip(1) {
                    let word = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
                    found.extend(word.map(str::to_owned));
                }
            }
        }
    }

    #[test]
    fn every_reason_has_its_advice() {
        let mut found = BTreeSet::new();
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for room in ["invocation", "compiler"] {
            reasons(&sources.join(room), &mut found);
        }
        reasons(&sources, &mut found);
        // These never reach a person as reasons: they are what `verify --rebuild` says.
        let of_rebuild = ["changed", "scratch", "failed"];
        let missing: Vec<_> = found
            .iter()
            .filter(|reason| !of_rebuild.contains(&reason.as_str()))
            .filter(|reason| !TABLE.iter().any(|advice| advice.reason == reason.as_str()))
            .collect();
        assert!(found.len() > 50 && missing.is_empty(), "no advice on {missing:?}");
    }
}
