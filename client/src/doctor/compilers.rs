//! The compilers: those in PATH that we know, or the one that was named.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::Finding;
use crate::compiler::{self, Compiler};
use crate::local::Store;
use crate::local::memo::Memo;
use crate::mask::Launchers;
use crate::settings::Settings;

const WHAT: &str = "compiler";
/// Names of compilers, before a version.
const NAMES: [&str; 4] = ["clang++", "clang", "g++", "gcc"];
/// Other launchers, which hide behind compilers' names.
const LAUNCHERS: [&str; 3] = ["ccache", "sccache", "distcc"];

pub(super) fn examine(settings: &Settings, named: Option<&OsStr>) -> Vec<Finding> {
    let path = std::env::var_os("PATH");
    let launchers = Launchers::known();
    let found = match named {
        Some(name) => {
            compiler::find(name, path.as_deref(), |file| launchers.contain(file)).into_iter().collect()
        }
        None => in_path(path.as_ref(), &launchers),
    };
    if found.is_empty() {
        let what =
            named.map_or("no Clang or GCC in PATH".to_owned(), |name| format!("no {}", name.display()));
        return vec![Finding::care(WHAT, what, "install one, or name it: pcmcache doctor /path/to/clang++")];
    }
    let store = Store::open(&settings.dir).ok();
    let mut memo = Memo::new(store.clone());
    let findings = found.into_iter().map(|program| identify(program, store.as_ref(), &mut memo)).collect();
    memo.save();
    findings
}

/// One path for each program, however many names it has. Links to a pcmcache stand before compilers, and are none.
fn in_path(path: Option<&OsString>, launchers: &Launchers) -> Vec<PathBuf> {
    let mut programs: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    let directories = path.map(|path| std::env::split_paths(path).collect::<Vec<_>>()).unwrap_or_default();
    for entry in directories.iter().filter_map(|dir| fs_err::read_dir(dir).ok()).flatten().flatten() {
        let file = entry.path();
        if is_compilers_name(&entry.file_name())
            && !launchers.contain(&file)
            && let Ok(real) = fs_err::canonicalize(&file)
        {
            programs.entry(real).or_insert(file);
        }
    }
    programs.into_values().collect()
}

fn is_compilers_name(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let is_digits = |version: &str| version.bytes().all(|c| c.is_ascii_digit());
    let is_version = |rest: &str| rest.is_empty() || rest.strip_prefix('-').is_some_and(is_digits);
    NAMES.iter().any(|known| name.strip_prefix(known).is_some_and(is_version))
}

fn identify(program: PathBuf, store: Option<&Store>, memo: &mut Memo) -> Finding {
    let shown = program.display().to_string();
    if let Some(launcher) = hidden_launcher(&program) {
        return Finding::care(
            WHAT,
            format!("{shown} is {launcher} by another name"),
            "take its directory out of PATH: one launcher before a compiler is enough",
        );
    }
    match Compiler::identify(program, store, memo) {
        Ok(compiler) => {
            let identity: String = compiler.identity.to_string().chars().take(12).collect();
            Finding::ok(WHAT, format!("{shown}, identity {identity}"))
        }
        Err(bypass) => Finding::care(
            WHAT,
            format!("{shown} cannot be identified: {} ({})", bypass.reason, bypass.detail),
            "its commands are not cached; name the compiler's own program instead",
        ),
    }
}

/// The other launcher that this compiler's name leads to.
pub(super) fn hidden_launcher(program: &Path) -> Option<&'static str> {
    let real = fs_err::canonicalize(program).ok()?;
    let name = real.file_name()?.to_string_lossy().into_owned();
    LAUNCHERS.into_iter().find(|launcher| name == *launcher)
}
