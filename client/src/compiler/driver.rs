//! What the driver makes of arguments on this host, asked of the driver itself (`-###`), and remembered for as long as the
//! directories it looks through are unchanged.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pcmcache_shared::Digest;
use pcmcache_shared::recipe::{escape, unescape};

use super::{Compiler, KEY_VARIABLES, MAX_MEMO, find, id_of};
use crate::bases::Bases;
use crate::invocation::{Bypass, Family, Invocation, Kind, response};
use crate::local::Store;
use crate::local::sealed::{self, Sealed};
use crate::mask::Launchers;
use crate::os::{FileId, Moment};
use crate::search::{self, SearchPath};

/// What the driver makes of a command's arguments on this host.
#[derive(Debug, Clone)]
pub struct Driver {
    /// The digest of the lines it would run, without what is keyed elsewhere.
    pub lines: Digest,
    /// The words that the digest is of.
    pub words: Vec<String>,
    /// Where headers are looked for.
    pub search: SearchPath,
    /// Files that the lines name: lists, profiles and the like.
    pub inputs: Vec<PathBuf>,
    /// Other programs than the compiler itself that the lines run.
    pub programs: Vec<PathBuf>,
    /// Whether depfiles list the BMIs that were loaded, unasked.
    pub lists_bmis: bool,
}

/// Words of the compiler's own line that mean what we do not follow, whoever put them there.
const REFUSED: [(&str, &str); 9] = [
    // Quoted headers are looked for beside every file that is being included.
    ("-fms-compatibility", "ms-header-search"),
    ("-fms-extensions", "ms-header-search"),
    ("-include-pch", "precompiled-header"),
    ("-load", "plugin"),
    ("-plugin", "plugin"),
    ("-add-plugin", "plugin"),
    ("-ivfsoverlay", "vfs-overlay"),
    ("-vfsoverlay", "vfs-overlay"),
    ("-fmodules-cache-path", "implicit-modules"),
];

/// The jobs that make a BMI and nothing else.
const MAKES_BMI: [&str; 3] =
    ["-emit-module-interface", "-emit-reduced-module-interface", "-emit-header-unit"];

/// What a configuration file must not ask for: we look for that on the command line only.
const REFUSED_IN_CONFIG: [&str; 22] = [
    "-include",
    "-imacros",
    "-dependency-file",
    "-sys-header-deps",
    "-module-file-deps",
    "-dependency-dot",
    "-header-include-file",
    "-split-dwarf-output",
    "-opt-record-file",
    "-coverage-notes-file",
    "-coverage-data-file",
    "-ftime-trace",
    "-diagnostic-log-file",
    "-serialize-diagnostic-file",
    "-stack-usage-file",
    "-fmodule-file",
    "-fprebuilt-module-path",
    "-fmodule-map-file",
    "-fmodules",
    "-emit-llvm",
    "-fsyntax-only",
    "-E",
];

/// The driver's configuration files; GCC's are files of specs.
#[derive(Debug, PartialEq, Eq)]
enum Configuration {
    /// None was read. These are the directories where one would be looked for.
    None(Vec<PathBuf>),
    /// The driver read one. Which others that one names is not said, so its answer is not remembered.
    Read,
}

impl Compiler {
    /// What the driver makes of this invocation, without what is keyed elsewhere: the
    /// source, the outputs, the BMIs, the directory the compiler runs in.
    pub fn ask(
        &self,
        invocation: &Invocation,
        store: Option<&Store>,
        cwd: &Path,
        bases: &Bases,
    ) -> Result<Driver, Bypass> {
        let args = probe_arguments(invocation);
        // What is native is asked anew each time: a cache directory may move from host to host.
        let is_native = args.iter().any(|arg| arg.contains("=native"));
        let store = store.filter(|_| !is_native && !invocation.asks_anew);
        let memo = store.map(|store| store.memo_file(&self.probe_name(&args, cwd, bases)));
        if let Some(known) = memo.as_deref().and_then(|path| read_memo(path, cwd)) {
            return Ok(known);
        }
        let start = Moment::now();
        let (driver, configuration) = self.ask_anew(&args, cwd, bases)?;
        if let (Some(path), Configuration::None(directories)) = (memo, configuration) {
            let mut looked_at = self.looked_at();
            looked_at.extend(directories);
            looked_at.extend(
                invocation
                    .forced_includes
                    .iter()
                    .flat_map(|header| ["pch", "gch"].map(|end| cwd.join(header).with_added_extension(end))),
            );
            looked_at.extend(driver.programs.iter().flat_map(|program| in_path(program)));
            if looked_at.iter().all(|path| id_of(path).is_none_or(|id| id.untouched_since(start))) {
                let _ = store.map(|store| store.seal(&path, write_memo(&driver, &looked_at).as_bytes()));
            }
        }
        Ok(driver)
    }

    fn probe_name(&self, args: &[String], cwd: &Path, bases: &Bases) -> Digest {
        let path = |path: &Path| escape(path.as_os_str().as_bytes());
        // The number rises when what is remembered changes its meaning.
        let mut text = format!("driver 2\n{}\n{}\n{}\n", self.identity, path(&self.program), path(cwd));
        let _ = writeln!(text, "{}", bases.directories().join(":"));
        for arg in args {
            let _ = writeln!(text, "{}", escape(arg.as_bytes()));
        }
        // The driver turns some of them into search directories.
        for (name, value) in KEY_VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?))) {
            let _ = writeln!(text, "{name}={}", escape(value.as_bytes()));
        }
        // Assemblers are looked for as a shell would.
        let assembles = self.family == Family::Gcc || args.iter().any(|arg| arg == "-fno-integrated-as");
        if let Some(path) = std::env::var_os("PATH").filter(|_| assembles) {
            let _ = writeln!(text, "PATH={}", escape(path.as_bytes()));
        }
        Digest::of(text)
    }

    fn ask_anew(
        &self,
        args: &[String],
        cwd: &Path,
        bases: &Bases,
    ) -> Result<(Driver, Configuration), Bypass> {
        let text = self.say(&[&["-###", "-v", "-pipe"], &words_of(args)[..]].concat())?;
        let said = |key: &'static str| {
            text.lines().filter_map(move |line| line.strip_prefix(key)).map(PathBuf::from)
        };
        let directories = ["System configuration file directory: ", "User configuration file directory: "];
        let mut read = ["Configuration file: ", "Reading specs from "].into_iter().flat_map(said);
        let configuration = match read.next() {
            Some(_) => Configuration::Read,
            None => Configuration::None(directories.into_iter().flat_map(said).collect()),
        };
        let begin = if self.family == Family::Clang { " \"" } else { " " };
        let commands = text.lines().filter(|line| line.starts_with(begin) && line.len() > begin.len());
        let commands = commands
            .map(|line| response::split(line.trim_end_matches(['|', ' '])))
            .collect::<Result<Vec<_>, _>>()?;
        let words = commands.concat();
        if words.is_empty() {
            return Err(refused("the driver shows no command".to_owned()));
        }
        refuse(&words, configuration == Configuration::Read)?;
        let programs = commands.iter().filter_map(|words| words.first()).filter_map(|name| self.other(name));
        let search = match self.family {
            Family::Clang => SearchPath::of_cc1(&words, cwd),
            Family::Gcc => self.gcc_search(args, cwd)?,
        };
        let keyed = keyed_words(&words, bases);
        let driver = Driver {
            lines: Digest::of(keyed.join("\n")),
            words: keyed,
            search,
            inputs: inputs_of(&words, cwd),
            programs: programs.collect(),
            lists_bmis: words.iter().any(|word| MAKES_BMI.contains(&word.as_str())),
        };
        Ok((driver, configuration))
    }

    /// GCC has its directories built in, and tells them only when it preprocesses.
    fn gcc_search(&self, args: &[String], cwd: &Path) -> Result<SearchPath, Bypass> {
        let args: Vec<&str> = words_of(args).into_iter().filter(|arg| *arg != "-c").collect();
        let text = self.say(&[&["-v", "-E"], &args[..]].concat())?;
        let command = text.lines().find(|line| line.starts_with(' ') && line.contains(" -E "));
        let mut words = response::split(command.unwrap_or_default())?;
        words.extend(directories_in_environment());
        Ok(SearchPath::of_gcc(&words, &text, cwd))
    }

    /// What the driver says on its standard error, in English.
    fn say(&self, args: &[&str]) -> Result<String, Bypass> {
        let mut command = Command::new(&self.program);
        Launchers::known().pass_on(&mut command);
        let output = command
            .args(args)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| refused(error.to_string()))?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            return Err(refused(text.lines().next().unwrap_or_default().to_owned()));
        }
        Ok(text)
    }

    /// The program of this name, unless it is the compiler itself.
    fn other(&self, name: &str) -> Option<PathBuf> {
        let path = std::env::var_os("PATH");
        let found = find(OsStr::new(name), path.as_deref(), |_| false)?;
        let own = fs_err::canonicalize(&self.program).ok();
        (fs_err::canonicalize(&found).ok() != own).then_some(found)
    }

    /// The directories whose entries decide what the driver finds: GCC installations, C++ libraries, its own
    /// configuration files.
    fn looked_at(&self) -> Vec<PathBuf> {
        let own = |relative: &str| self.directory.join(relative);
        let mut paths: Vec<PathBuf> = [
            "/usr/include",
            "/usr/include/c++",
            "/usr/local/include",
            "/usr/lib/gcc",
            "/usr/lib64/gcc",
            "/usr/lib32/gcc",
            "/usr/libx32/gcc",
            "/usr/lib/gcc-cross",
            "/usr/local/lib/gcc",
            "/opt/rh",
        ]
        .into_iter()
        .map(PathBuf::from)
        .chain([own("."), own("../include"), own("../include/c++"), own("../lib"), own("../lib/gcc")])
        .collect();
        // Installations lie two levels down: /usr/lib/gcc/TRIPLE/VERSION.
        let roots: Vec<_> = paths
            .iter()
            .filter(|path| path.ends_with("gcc") || path.ends_with("gcc-cross"))
            .cloned()
            .collect();
        for triple in roots.iter().flat_map(|root| subdirectories(root)) {
            paths
                .push(PathBuf::from("/usr/include").join(triple.file_name().unwrap_or_default()).join("c++"));
            let versions = subdirectories(&triple);
            // GCC looks there for an assembler and for specs as well.
            let beside = triple.join("../../..").join(triple.file_name().unwrap_or_default());
            paths.extend([beside.join("bin"), beside.join("lib")]);
            paths.extend(versions);
            paths.push(triple);
        }
        paths
    }
}

/// What GCC's compiler proper takes from variables, as if it stood behind its arguments: Clang's driver says so itself. An
/// empty name is that of the directory it runs in.
fn directories_in_environment() -> Vec<String> {
    let mut words = Vec::new();
    for (name, flag) in [("CPATH", "-I"), ("C_INCLUDE_PATH", "-isystem"), ("CPLUS_INCLUDE_PATH", "-isystem")]
    {
        let Some(list) = std::env::var_os(name).filter(|list| !list.is_empty()) else { continue };
        for directory in std::env::split_paths(&list) {
            words.extend([flag.to_owned(), directory.to_string_lossy().into_owned()]);
        }
    }
    words
}

/// Where a shell would look for a program of this name.
fn in_path(program: &Path) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let name = program.file_name().unwrap_or_default();
    std::env::split_paths(&path).map(|directory| directory.join(name)).collect()
}

fn refused(detail: String) -> Bypass {
    Bypass::new("driver-query-failed", detail)
}

fn words_of(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

fn refuse(words: &[String], by_configuration: bool) -> Result<(), Bypass> {
    let is = |word: &str, flag: &str| {
        word == flag || word.strip_prefix(flag).is_some_and(|rest| rest.starts_with('='))
    };
    for word in words {
        if let Some((_, reason)) = REFUSED.iter().find(|(flag, _)| is(word, flag)) {
            return Err(Bypass::new(reason, word));
        }
        if by_configuration && REFUSED_IN_CONFIG.iter().any(|flag| is(word, flag)) {
            return Err(Bypass::new("config-file", word));
        }
    }
    match search::not_followed(words) {
        Some(word) => Err(Bypass::new("search-directory", word)),
        None => Ok(()),
    }
}

/// The words that enter the key. The directory the compiler runs in does so elsewhere, and only where outputs hold it.
fn keyed_words(words: &[String], bases: &Bases) -> Vec<String> {
    let holds_cwd = |word: &str| {
        word.starts_with("-fdebug-compilation-dir=") || word.starts_with("-fcoverage-compilation-dir=")
    };
    let before = std::iter::once("").chain(words.iter().map(String::as_str));
    let kept = before.zip(words).filter(|(_, word)| !holds_cwd(word));
    kept.map(|(before, word)| if matches!(before, "-D" | "-U") { word.clone() } else { spell(word, bases) })
        .collect()
}

/// A word with its path spelled: the whole of it, or what stands behind `-flag=` or `-I`.
fn spell(word: &str, bases: &Bases) -> String {
    let Some(flag) = word.strip_prefix('-') else { return bases.spell(word) };
    match (flag.split_once('='), flag.strip_prefix('I')) {
        (_, Some(directory)) => format!("-I{}", bases.spell(directory)),
        (Some((name, value)), None) if !name.starts_with(['D', 'U']) => {
            let (old, rest) = value.split_at(value.find('=').unwrap_or(value.len()));
            format!("-{name}={}{rest}", bases.spell(old))
        }
        (Some(_) | None, None) => word.to_owned(),
    }
}

/// The files among the words, and among the values of words: `-flag=FILE`, `-flag=list=FILE`, `-flag=FILE,FILE`.
fn inputs_of(words: &[String], cwd: &Path) -> Vec<PathBuf> {
    let values = words.iter().skip(1).flat_map(|word| {
        let behind = word.match_indices('=').filter_map(|(at, _)| word.get(at + 1..));
        behind.flat_map(|value| value.split(',').chain([value])).chain([word.as_str()])
    });
    let files = values.filter(|value| !value.is_empty()).map(Path::new);
    let mut files: Vec<PathBuf> = files.filter(|path| cwd.join(path).is_file()).map(Path::to_owned).collect();
    files.sort();
    files.dedup();
    files
}

/// The arguments that the driver is asked about: those in the key, with the outputs and the source at `/dev/null`. The
/// name of a header unit is looked for, not opened.
fn probe_arguments(invocation: &Invocation) -> Vec<String> {
    let mut args = invocation.keyed_words(str::to_owned);
    if invocation.object.is_some() && invocation.bmi.is_some() {
        args.push("-fmodule-output=/dev/null".to_owned());
    }
    if invocation.kind == Kind::Scan {
        // A scanner takes the compiler's name as it stands.
        args.push("-no-canonical-prefixes".to_owned());
    }
    let source = match invocation.source_file() {
        Some(_) => "/dev/null".to_owned(),
        None => invocation.source.to_string_lossy().into_owned(),
    };
    args.extend(["-x".to_owned(), invocation.language.word().to_owned(), source]);
    args.extend(["-o", "/dev/null"].map(str::to_owned));
    args
}

fn subdirectories(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs_err::read_dir(path) else { return Vec::new() };
    let mut paths: Vec<_> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    paths.sort();
    paths
}

fn write_memo(driver: &Driver, looked_at: &[PathBuf]) -> String {
    let mut text = format!("{}\n{}", driver.lines, if driver.lists_bmis { "lists\n" } else { "" });
    let system = |is_system| if is_system { "system" } else { "user" };
    let directories = driver.search.lines().map(|(is_system, path)| (system(is_system), path));
    let inputs = driver.inputs.iter().map(|path| ("input", path.as_path()));
    let programs = driver.programs.iter().map(|path| ("program", path.as_path()));
    let words = driver.words.iter().map(|word| ("word", Path::new(word)));
    for (kind, path) in directories.chain(inputs).chain(programs).chain(words) {
        let _ = writeln!(text, "{kind} {}", escape(path.as_os_str().as_bytes()));
    }
    for path in looked_at {
        let id = id_of(path).map_or_else(|| "absent".to_owned(), |id| format!("is {id}"));
        let _ = writeln!(text, "{id} {}", escape(path.as_os_str().as_bytes()));
    }
    text
}

fn read_memo(path: &Path, cwd: &Path) -> Option<Driver> {
    let Sealed::Whole(body) = sealed::read(path, MAX_MEMO) else { return None };
    let text = String::from_utf8(body).ok()?;
    let (digest, lines) = text.split_once('\n')?;
    let (lists_bmis, lines) = lines.strip_prefix("lists\n").map_or((false, lines), |rest| (true, rest));
    let path_of = |escaped| Some(PathBuf::from(OsStr::from_bytes(&unescape(escaped)?)));
    let (mut search, mut inputs, mut programs, mut words) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for line in lines.lines() {
        let (kind, rest) = line.split_once(' ')?;
        let (expected, path) = match kind {
            "system" | "user" => {
                search.push((kind == "system", path_of(rest)?));
                continue;
            }
            "word" => {
                words.push(String::from_utf8(unescape(rest)?).ok()?);
                continue;
            }
            "input" => {
                // What is no file any more is no input.
                inputs.push(path_of(rest).filter(|path| cwd.join(path).is_file())?);
                continue;
            }
            "program" => {
                programs.push(path_of(rest)?);
                continue;
            }
            "is" => FileId::parse(rest).map(|(id, path)| (Some(id), path))?,
            "absent" => (None, rest),
            _ => return None,
        };
        if id_of(&path_of(path)?) != expected {
            return None;
        }
    }
    let search = SearchPath::from_lines(search.into_iter(), cwd);
    Some(Driver { lines: digest.parse().ok()?, words, search, inputs, programs, lists_bmis })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn paths_below_a_base_are_spelled_but_not_in_macros() {
        let bases = Bases::parse("/a/p").unwrap().at(Path::new("/a/p/build"));
        let line =
            "clang -I /a/p/i -I/a/p/j -D X=/a/p -fdebug-prefix-map=/a/p=. -fdebug-compilation-dir=/a/p /b";
        assert_eq!(
            keyed_words(&words(line), &bases),
            words("clang -I <base>/i -I<base>/j -D X=/a/p -fdebug-prefix-map=<base>=. /b")
        );
    }

    #[test]
    fn what_we_do_not_follow_is_refused_whoever_asked_for_it() {
        assert!(refuse(&words("clang -load x.so"), false).is_err());
        assert!(refuse(&words("clang -O2 -split-dwarf-output x"), false).is_ok());
        assert!(refuse(&words("clang -O2 -split-dwarf-output x"), true).is_err());
        assert!(refuse(&words("clang -fmodule-file=m=x"), true).is_err());
        assert!(refuse(&words("clang -I =/x"), false).is_err());
        assert!(refuse(&words("clang -I/x=/y -isystem /z"), false).is_ok());
        assert!(refuse(&words("clang -iwithprefixbefore x"), false).is_err());
    }
}
