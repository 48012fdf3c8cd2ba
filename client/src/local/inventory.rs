//! What lies in the store: every file of a kind, as it is found. Nothing here counts as use, and nothing is changed.

use std::io;
use std::path::PathBuf;

use pcmcache_shared::{ActionKey, disk};

use super::fill::PAGE;
use super::origin::Kept;
use super::sealed::{self, Sealed};
use super::{Kind, MAX_RESULT, Store};
use crate::os::Moment;

/// What a stage's name starts with.
pub(super) const STAGE: &str = ".stage-";

/// A file of the store.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its name: a key, a digest.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// What it takes on the disk, in pages.
    pub pages: u64,
    /// When it was last used or written.
    pub used: Moment,
}

impl Found {
    fn at(path: PathBuf) -> Option<Self> {
        let metadata = disk::symlink_metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
        let name = path.file_name()?.to_str()?.to_owned();
        let pages = metadata.len().div_ceil(PAGE);
        Some(Self { name, path, pages, used: Moment::modified(&metadata) })
    }

    /// Whether nobody used or replaced it since it was found.
    pub fn is_as_found(&self) -> bool {
        disk::symlink_metadata(&self.path).is_ok_and(|metadata| Moment::modified(&metadata) == self.used)
    }

    /// Whether it is a stage: not whole yet, or left by a launcher that died.
    pub fn is_stage(&self) -> bool {
        self.name.starts_with(STAGE)
    }

    /// Removes it. `false`: it is still there.
    pub fn remove(&self) -> bool {
        match disk::remove_file(&self.path) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

impl Store {
    /// Every file of this kind, stages as well.
    pub fn inventory(&self, kind: Kind) -> Vec<Found> {
        let mut found = Vec::new();
        let list = |path: PathBuf| disk::read_dir(path).into_iter().flatten().flatten();
        for entry in list(self.directory(kind)) {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.extend(list(entry.path()).filter_map(|entry| Found::at(entry.path())));
            } else {
                found.extend(Found::at(entry.path()));
            }
        }
        found
    }

    /// The files that lie in no directory of a kind.
    pub(super) fn loose_files(&self) -> Vec<Found> {
        let entries = disk::read_dir(self.root()).into_iter().flatten().flatten();
        entries.filter_map(|entry| Found::at(entry.path())).collect()
    }

    /// The sealed entry of this name, as it is: not renewed, not set aside.
    pub fn peek(&self, kind: Kind, name: &str, limit: u64) -> Sealed {
        sealed::peek(&self.entry(kind, name), limit)
    }

    /// What the action made, without counting as use.
    pub fn peek_result(&self, action: ActionKey) -> Option<Kept> {
        match self.peek(Kind::Results, &action.to_string(), MAX_RESULT) {
            Sealed::Whole(body) => Kept::parse(&body),
            Sealed::Missing | Sealed::Damaged => None,
        }
    }
}
