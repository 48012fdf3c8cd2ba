//! The compiler: where it is, what identifies it, what its driver makes of arguments on this host.
//!
//! A version string does not identify a compiler (two builds of one release reject each other's BMIs), so its
//! identity is the content of its binary and of every library it loads. What the driver adds to a command line is
//! asked of the driver itself (`-###`) and remembered for as long as the directories it looks through are unchanged.

mod driver;
mod identity;
pub mod run;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pcmcache_shared::Digest;

pub use driver::Driver;

use crate::invocation::scan::Scan;
use crate::invocation::{Bypass, Dialect, Family};
use crate::local::Store;
use crate::local::memo::Memo;
use crate::mask::Launchers;
use crate::os::FileId;

/// A compiler that was found and identified.
#[derive(Debug, Clone)]
pub struct Compiler {
    /// The program to run.
    pub program: PathBuf,
    /// Whose flags it takes.
    pub family: Family,
    /// The directory its binary is in, links followed.
    directory: PathBuf,
    /// The content of its binary and of the libraries it loads.
    pub identity: Digest,
    /// What runs instead of it, if it is only scanned for.
    pub scanner: Option<Scanner>,
}

/// A program that says which modules a source provides and requires.
#[derive(Debug, Clone)]
pub struct Scanner {
    /// The program to run.
    pub program: PathBuf,
    /// What it is told before the compiler's arguments: the compiler's name comes last.
    pub words: Vec<OsString>,
    /// The content of its binary and of the libraries it loads.
    pub identity: Digest,
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

/// Variables that GCC reads besides: its diagnostics speak the user's language.
pub const GCC_VARIABLES: &[&str] = &[
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_MESSAGES",
    "LC_CTYPE",
    "GCC_COLORS",
    "GCC_URLS",
    "TERM_URLS",
    "GCC_EXTRA_DIAGNOSTIC_OUTPUT",
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
    "GCC_COMPARE_DEBUG",
    "GCC_EXEC_PREFIX",
    "CLANG_CONFIG_FILE_SYSTEM_DIR",
    "CLANG_CONFIG_FILE_USER_DIR",
    "CLANG_NO_DEFAULT_CONFIG",
    "CLANG_MODULE_CACHE_PATH",
    "CLANG_SPAWN_CC1",
    "FORCE_CLANG_DIAGNOSTICS_CRASH",
    "QA_OVERRIDE_GCC3_OPTIONS",
    "RC_DEBUG_OPTIONS",
    "SDKROOT",
];

/// Finds a program as a shell would. `is_us` tells launchers, which a link in PATH may lead to: one that is named by its
/// path stands before what PATH has under its name.
pub fn find(name: &OsStr, path: Option<&OsStr>, is_us: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let runnable = |file: &Path| {
        fs_err::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
            && !is_us(file)
    };
    let mut name = Path::new(name);
    if name.as_os_str().as_bytes().contains(&b'/') {
        if !is_us(name) {
            return Some(name.to_owned()).filter(|file| runnable(file));
        }
        name = Path::new(name.file_name()?);
    }
    std::env::split_paths(path?).map(|directory| directory.join(name)).find(|file| runnable(file))
}

impl Compiler {
    /// Whose flags the program takes, if it is a compiler we know, and what it takes a source for.
    pub fn dialect_of(program: &Path) -> Result<(Dialect, PathBuf), Bypass> {
        let unknown = |detail: String| Bypass::new("unknown-compiler", detail);
        let real = fs_err::canonicalize(program).map_err(|error| unknown(error.to_string()))?;
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Clang goes by the name it is called by, GCC is another file for each language.
        let dialect = match tool(&name(&real)) {
            "clang" | "clang++" => match tool(&name(program)) {
                "clang" | "gcc" | "cc" => Some(Dialect { family: Family::Clang, is_cxx: false }),
                "clang++" | "g++" | "c++" => Some(Dialect { family: Family::Clang, is_cxx: true }),
                _ => None,
            },
            "gcc" => Some(Dialect { family: Family::Gcc, is_cxx: false }),
            "g++" => Some(Dialect { family: Family::Gcc, is_cxx: true }),
            _ => None,
        };
        dialect.map(|dialect| (dialect, real)).ok_or_else(|| unknown(program.display().to_string()))
    }

    /// Identifies the program, if it is a compiler we know.
    pub fn identify(program: PathBuf, store: Option<&Store>, memo: &mut Memo) -> Result<Self, Bypass> {
        let (Dialect { family, .. }, real) = Self::dialect_of(&program)?;
        let directory = real.parent().unwrap_or(Path::new("/")).to_owned();
        let identity = identity::identity(&real, store, memo)
            .ok_or_else(|| Bypass::new("compiler-wrapper", real.display().to_string()))?;
        Ok(Self { program, family, directory, identity, scanner: None })
    }

    /// Identifies the compiler that a scanner scans for, and the scanner. They must be of one installation: the
    /// scanner is a driver of its own, and only then that compiler's driver can speak for it.
    pub fn identify_scanned(
        scan: &Scan,
        scanner: &Path,
        store: Option<&Store>,
        memo: &mut Memo,
    ) -> Result<Self, Bypass> {
        if Launchers::known().contain(&scan.compiler) {
            // The scanner would look for headers beside the launcher.
            return Err(Bypass::new("scan", "for a launcher"));
        }
        let mut compiler = Self::identify(scan.compiler.clone(), store, memo)?;
        let real = fs_err::canonicalize(scanner).map_err(|error| Bypass::new("scan", error.to_string()))?;
        if compiler.family != Family::Clang || real.parent() != Some(&compiler.directory) {
            return Err(Bypass::new("scan", "the scanner is not the compiler's own"));
        }
        let identity = Self::identify_program(&real, store, memo)?;
        let words = scan.own.iter().cloned().chain([scan.compiler.clone().into()]).collect();
        compiler.scanner = Some(Scanner { program: scanner.to_owned(), words, identity });
        // The scanner does not follow the link that the compiler's name may be.
        compiler.directory = scan.compiler.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(compiler)
    }
}

impl Compiler {
    /// The identity of a program that the compiler runs: an assembler, the compiler proper.
    pub fn identify_program(
        program: &Path,
        store: Option<&Store>,
        memo: &mut Memo,
    ) -> Result<Digest, Bypass> {
        let real = fs_err::canonicalize(program).ok();
        real.and_then(|real| identity::identity(&real, store, memo))
            .ok_or_else(|| Bypass::new("compiler-wrapper", program.display().to_string()))
    }
}

/// The tool in a compiler's name: `clang-22` is `clang`, `x86_64-linux-gnu-g++-12` is `g++`.
fn tool(name: &str) -> &str {
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-'));
    name.rsplit_once('-').map_or(name, |(_, tool)| tool)
}

/// The variables of this environment that enter the key, or the one that forbids caching.
pub fn key_variables(
    family: Family,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Vec<(&'static str, OsString)>, Bypass> {
    if let Some(name) = BYPASS_VARIABLES.iter().find(|name| variable(name).is_some()) {
        return Err(Bypass::new("environment", *name));
    }
    let own = if family == Family::Gcc { GCC_VARIABLES } else { &[] };
    let found: Vec<_> =
        KEY_VARIABLES.iter().chain(own).filter_map(|name| Some((*name, variable(name)?))).collect();
    // Names of directories come out of the driver as text.
    match found.iter().find(|(_, value)| value.to_str().is_none()) {
        Some((name, _)) => Err(Bypass::new("environment", *name)),
        None => Ok(found),
    }
}

/// The largest memo of this room, in bytes.
const MAX_MEMO: u64 = 1024 * 1024;

fn id_of(path: &Path) -> Option<FileId> {
    fs_err::metadata(path).ok().map(|metadata| FileId::of(&metadata))
}
