//! Links in PATH that stand before compilers ("masks"): this program under a compiler's name takes the next program of that
//! name that is no launcher.
//!
//! A launcher is known as this program itself (by its file, whatever links lead there), as a copy of it (by its bytes), by
//! its name `pcmcache*` behind all links, or because it told us: each launcher hands on, to whatever it runs, the list of
//! launchers that were passed on the way. So two installations that mask each other come to an end after at most one
//! turn each.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::os;

/// The variable with the launchers that were passed: device and inode of each.
pub const PASSED: &str = "PCMCACHE_PASSED";

/// What must not be taken for a compiler.
#[derive(Debug, Clone)]
pub struct Launchers {
    own: PathBuf,
    size: u64,
    /// This launcher first.
    passed: Vec<String>,
}

impl Launchers {
    /// This launcher, and those that were passed before it.
    pub fn known() -> Self {
        let own = os::own_program();
        let (id, size) =
            fs_err::metadata(&own).map_or((None, 0), |metadata| (Some(id_of(&metadata)), metadata.size()));
        let told = std::env::var(PASSED).unwrap_or_default();
        let told = told.split(',').filter(|id| !id.is_empty()).map(str::to_owned);
        let mut passed: Vec<String> = id.into_iter().collect();
        passed.extend(told.filter(|id| !passed.contains(id)).collect::<Vec<_>>());
        Self { own, size, passed }
    }

    /// Whether the file is one of them.
    pub fn contain(&self, file: &Path) -> bool {
        let Ok(metadata) = fs_err::metadata(file) else { return false };
        self.passed.contains(&id_of(&metadata))
            || is_named_like_us(file)
            || metadata.size() == self.size && same_bytes(file, &self.own)
    }

    /// Tells them to the command.
    pub fn pass_on(&self, command: &mut Command) {
        command.env(PASSED, self.passed.join(","));
    }
}

fn id_of(metadata: &std::fs::Metadata) -> String {
    format!("{}:{}", metadata.dev(), metadata.ino())
}

fn is_named_like_us(file: &Path) -> bool {
    let real = fs_err::canonicalize(file).unwrap_or_default();
    real.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pcmcache"))
}

fn same_bytes(one: &Path, other: &Path) -> bool {
    fs_err::read(one).ok().zip(fs_err::read(other).ok()).is_some_and(|(one, other)| one == other)
}
