//! A test's own directory.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A directory that goes away with its test, unless `PCMCACHE_TEST_KEEP` is set.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _removed: Option<TempDir>,
}

impl Scratch {
    /// An empty directory; its path has no link in it, and does not look like an output of a compiler.
    pub fn new(name: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix(&format!("pcmcache-{name}-"))
            .tempdir()
            .expect("a temporary directory");
        let path = fs_err::canonicalize(dir.path()).expect("the temporary directory's path");
        if std::env::var_os("PCMCACHE_TEST_KEEP").is_some() {
            eprintln!("kept: {}", path.display());
            let _ = dir.keep();
            return Self { path, _removed: None };
        }
        Self { path, _removed: Some(dir) }
    }

    /// A directory in another scratch directory, with which it goes.
    pub fn of(dir: &Path) -> Self {
        Self { path: dir.to_owned(), _removed: None }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A directory in it, made if it is not there.
    pub fn dir(&self, name: &str) -> PathBuf {
        let dir = self.path.join(name);
        fs_err::create_dir_all(&dir).expect("a directory in the scratch directory");
        dir
    }

    /// A file in it with this text.
    pub fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path.join(name);
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent).expect("a directory in the scratch directory");
        }
        fs_err::write(&path, text).expect("a file in the scratch directory");
        path
    }
}

/// Every file below `dir`, sorted, by its path from there; links and special files too.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        // What another process removes while we look is not there.
        for entry in fs_err::read_dir(&next).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(_) => found.push(entry.path().strip_prefix(dir).expect("below").to_owned()),
                Err(_) => {}
            }
        }
    }
    found.sort();
    found
}

/// The names directly in `dir`, sorted.
pub fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs_err::read_dir(dir)
        .expect("a directory to list")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
