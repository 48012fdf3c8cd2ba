//! The compiler: where it is, what identifies it, what its driver makes of arguments on this host.
//!
//! A version string does not identify a compiler (two builds of one release reject each other's BMIs), so its
//! identity is the content of its binary and of every library it loads. What the driver adds to a command line is
//! asked of the driver itself (`-###`) and remembered for as long as the directories it looks through are unchanged.

pub mod run;

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pcmcache_shared::Digest;
use pcmcache_shared::recipe::{escape, unescape};

use crate::invocation::{Arg, Bypass, Invocation, response};
use crate::local::Store;
use crate::local::memo::Memo;
use crate::local::sealed::{self, Sealed};
use crate::os::{self, FileId, Moment};
use crate::search::SearchPath;

/// A compiler that was found and identified.
#[derive(Debug, Clone)]
pub struct Compiler {
    /// The program to run.
    pub program: PathBuf,
    /// The directory its binary is in, links followed.
    directory: PathBuf,
    /// The content of its binary and of the libraries it loads.
    pub identity: Digest,
}

/// What the driver makes of a command's arguments on this host.
#[derive(Debug, Clone)]
pub struct Cc1 {
    /// The digest of the lines it would run.
    pub lines: Digest,
    /// Where headers are looked for.
    pub search: SearchPath,
}

/// Variables that enter the key because the compiler reads them.
pub const KEY_VARIABLES: &[&str] = &[
    "CPATH",
    "C_INCLUDE_PATH",
    "CPLUS_INCLUDE_PATH",
    "OBJC_INCLUDE_PATH",
    "OBJCPLUS_INCLUDE_PATH",
    "SOURCE_DATE_EPOCH",
    "NO_COLOR",
    "CLICOLOR_FORCE",
];

/// Variables that make the compiler write or read what we do not follow.
pub const BYPASS_VARIABLES: &[&str] = &[
    "CCC_OVERRIDE_OPTIONS",
    "CCC_ADD_ARGS",
    "CC_PRINT_OPTIONS",
    "CC_PRINT_OPTIONS_FILE",
    "CC_PRINT_HEADERS",
    "CC_PRINT_HEADERS_FILE",
    "CC_LOG_DIAGNOSTICS",
    "CC_LOG_DIAGNOSTICS_FILE",
    "CC_PRINT_PROC_STAT",
    "CC_PRINT_INTERNAL_STAT",
    "DEPENDENCIES_OUTPUT",
    "SUNPRO_DEPENDENCIES",
    "COMPILER_PATH",
    "GCC_EXEC_PREFIX",
    "CLANG_CONFIG_FILE_SYSTEM_DIR",
    "CLANG_CONFIG_FILE_USER_DIR",
    "CLANG_SPAWN_CC1",
    "SDKROOT",
];

/// Finds a program as a shell would. `is_us` tells our own file, which a link in PATH may lead to.
pub fn find(name: &OsStr, path: Option<&OsStr>, is_us: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let runnable = |file: &Path| {
        fs_err::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
            && !is_us(file)
    };
    if name.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(name)).filter(|file| runnable(file));
    }
    std::env::split_paths(path?).map(|directory| directory.join(name)).find(|file| runnable(file))
}

impl Compiler {
    /// Identifies the program, if it is a compiler we know.
    pub fn identify(program: PathBuf, store: Option<&Store>, memo: &mut Memo) -> Result<Self, Bypass> {
        let unknown = |detail: String| Bypass::new("unknown-compiler", detail);
        let real = fs_err::canonicalize(&program).map_err(|error| unknown(error.to_string()))?;
        let name = real.file_name().unwrap_or_default().as_bytes();
        if !name.starts_with(b"clang") {
            return Err(unknown(real.display().to_string()));
        }
        let directory = real.parent().unwrap_or(Path::new("/")).to_owned();
        let identity = remembered_identity(&real, store, memo)
            .or_else(|| identify_anew(&real, store, memo))
            .ok_or_else(|| Bypass::new("compiler-wrapper", real.display().to_string()))?;
        Ok(Self { program, directory, identity })
    }

    /// What the driver makes of this invocation, without what is keyed elsewhere: the
    /// source, the outputs, the BMIs, the directory the compiler runs in.
    pub fn cc1(&self, invocation: &Invocation, store: Option<&Store>, cwd: &Path) -> Result<Cc1, Bypass> {
        let args = probe_arguments(invocation);
        let memo = store.map(|store| memo_file(store, &self.probe_name(&args, cwd)));
        if let Some(known) = memo.as_deref().and_then(|path| read_cc1(path, cwd)) {
            return Ok(known);
        }
        let start = Moment::now();
        let cc1 = self.ask_driver(&args, cwd)?;
        if let Some(path) = memo {
            let looked_at = self.looked_at();
            if looked_at.iter().all(|path| id_of(path).is_none_or(|id| id.untouched_since(start))) {
                let _ = sealed::write(&path, write_cc1(&cc1, &looked_at).as_bytes());
            }
        }
        Ok(cc1)
    }

    fn probe_name(&self, args: &[String], cwd: &Path) -> Digest {
        let path = |path: &Path| escape(path.as_os_str().as_bytes());
        let mut text = format!("cc1\n{}\n{}\n{}\n", self.identity, path(&self.program), path(cwd));
        for arg in args {
            let _ = writeln!(text, "{}", escape(arg.as_bytes()));
        }
        Digest::of(text)
    }

    fn ask_driver(&self, args: &[String], cwd: &Path) -> Result<Cc1, Bypass> {
        let refused = |detail: String| Bypass::new("driver-query-failed", detail);
        let output = Command::new(&self.program)
            .arg("-###")
            .args(args)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| refused(error.to_string()))?;
        let text = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(refused(text.lines().next().unwrap_or_default().to_owned()));
        }
        if text.lines().any(|line| line.starts_with("Configuration file:")) {
            return Err(Bypass::new("config-file", "the driver reads one"));
        }
        let commands = text.lines().filter(|line| line.starts_with(" \""));
        let words = commands.map(response::split).collect::<Result<Vec<_>, _>>()?.concat();
        if words.is_empty() {
            return Err(refused("the driver shows no command".to_owned()));
        }
        let holds_cwd = |word: &&String| {
            ["-fdebug-compilation-dir=", "-fcoverage-compilation-dir="]
                .iter()
                .any(|flag| word.starts_with(flag))
        };
        let keyed: Vec<&str> = words.iter().filter(|word| !holds_cwd(word)).map(String::as_str).collect();
        Ok(Cc1 { lines: Digest::of(keyed.join("\n")), search: SearchPath::of_cc1(&words, cwd) })
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
            paths.extend(subdirectories(&triple));
            paths.push(triple);
        }
        paths
    }
}

/// The arguments that the driver is asked about: those in the key, with the outputs and the source at `/dev/null`.
fn probe_arguments(invocation: &Invocation) -> Vec<String> {
    let mut args = Vec::new();
    for arg in &invocation.args {
        match arg {
            Arg::Key(words) => args.extend(words.iter().cloned()),
            Arg::Action(action) => args.push((*action).to_owned()),
            Arg::Quiet(_) | Arg::Bmi(_) | Arg::PrebuiltPath(_) | Arg::Source => {}
        }
    }
    if invocation.object.is_some() && invocation.bmi.is_some() {
        args.push("-fmodule-output=/dev/null".to_owned());
    }
    args.extend(["-x", invocation.language.word(), "/dev/null", "-o", "/dev/null"].map(str::to_owned));
    args
}

fn subdirectories(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs_err::read_dir(path) else { return Vec::new() };
    let mut paths: Vec<_> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    paths.sort();
    paths
}

fn id_of(path: &Path) -> Option<FileId> {
    fs_err::metadata(path).ok().map(|metadata| FileId::of(&metadata))
}

const MAX_MEMO: u64 = 1024 * 1024;

fn memo_file(store: &Store, name: &Digest) -> PathBuf {
    let name = name.to_string();
    store.root().join("memo").join(name.get(..2).unwrap_or_default()).join(&name)
}

fn write_cc1(cc1: &Cc1, looked_at: &[PathBuf]) -> String {
    let mut text = format!("{}\n", cc1.lines);
    for (is_system, directory) in cc1.search.lines() {
        let kind = if is_system { "system" } else { "user" };
        let _ = writeln!(text, "{kind} {}", escape(directory.as_os_str().as_bytes()));
    }
    for path in looked_at {
        let id = id_of(path).map_or_else(|| "absent".to_owned(), |id| format!("is {id}"));
        let _ = writeln!(text, "{id} {}", escape(path.as_os_str().as_bytes()));
    }
    text
}

fn read_cc1(path: &Path, cwd: &Path) -> Option<Cc1> {
    let Sealed::Whole(body) = sealed::read(path, MAX_MEMO) else { return None };
    let text = String::from_utf8(body).ok()?;
    let (digest, lines) = text.split_once('\n')?;
    let path_of = |escaped| Some(PathBuf::from(OsStr::from_bytes(&unescape(escaped)?)));
    let mut search = Vec::new();
    for line in lines.lines() {
        let (kind, rest) = line.split_once(' ')?;
        let (expected, path) = match kind {
            "system" | "user" => {
                search.push((kind == "system", path_of(rest)?));
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
    Some(Cc1 { lines: digest.parse().ok()?, search: SearchPath::from_lines(search.into_iter(), cwd) })
}

/// What decides, besides the libraries themselves, which libraries are loaded.
fn loader_facts(real: &Path) -> String {
    let variable = |name| std::env::var_os(name).map(|value| escape(value.as_bytes())).unwrap_or_default();
    let lib = real.parent().unwrap_or(Path::new("/")).join("../lib");
    let ids = [Path::new("/etc/ld.so.cache"), &lib].map(|path| id_of(path).map(|id| id.to_string()));
    format!("{:?} {} {}", ids, variable("LD_LIBRARY_PATH"), variable("LD_PRELOAD"))
}

fn identity_file(store: &Store, real: &Path) -> PathBuf {
    let text = format!("libraries\n{}\n{}", escape(real.as_os_str().as_bytes()), loader_facts(real));
    memo_file(store, &Digest::of(text))
}

/// The identity, if the libraries that were loaded last time are all as they were.
fn remembered_identity(real: &Path, store: Option<&Store>, memo: &mut Memo) -> Option<Digest> {
    let Sealed::Whole(body) = sealed::read(&identity_file(store?, real), MAX_MEMO) else { return None };
    let text = String::from_utf8(body).ok()?;
    for line in text.lines() {
        let (digest, path) = line.split_once(' ')?;
        let path = PathBuf::from(OsStr::from_bytes(&unescape(path)?));
        if memo.digest(&path).ok()?.1.to_string() != digest {
            return None;
        }
    }
    Some(identity_of(&text))
}

fn identify_anew(real: &Path, store: Option<&Store>, memo: &mut Memo) -> Option<Digest> {
    let mut magic = [0; 4];
    fs_err::File::open(real).ok()?.read_exact(&mut magic).ok()?;
    if magic != *b"\x7fELF" {
        return None;
    }
    let mut files = vec![real.to_owned()];
    files.extend(os::loaded_libraries(real).ok()?.unwrap_or_default());
    let mut text = String::new();
    for file in files {
        let file = fs_err::canonicalize(file).ok()?;
        let (_, digest) = memo.digest(&file).ok()?;
        let _ = writeln!(text, "{digest} {}", escape(file.as_os_str().as_bytes()));
    }
    if let Some(store) = store {
        let _ = sealed::write(&identity_file(store, real), text.as_bytes());
    }
    Some(identity_of(&text))
}

/// Contents only, in the order of loading: two hosts with the same files in different places share.
fn identity_of(text: &str) -> Digest {
    let digests: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    Digest::of(digests.join("\n"))
}

/// The variables of this environment that enter the key, or the one that forbids caching.
pub fn key_variables(
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Vec<(&'static str, OsString)>, Bypass> {
    if let Some(name) = BYPASS_VARIABLES.iter().find(|name| variable(name).is_some()) {
        return Err(Bypass::new("environment", *name));
    }
    Ok(KEY_VARIABLES.iter().filter_map(|name| Some((*name, variable(name)?))).collect())
}
