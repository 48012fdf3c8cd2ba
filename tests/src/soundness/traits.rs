//! All that a user sees of a command: its end, what it says, and the files that are there afterwards.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::Finished;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Directory,
    Link(PathBuf),
    File { mode: u32, bytes: Vec<u8> },
}

/// All that a user sees of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traits {
    end: String,
    stdout: String,
    stderr: String,
    tree: BTreeMap<PathBuf, Entry>,
}

impl Traits {
    /// Of a command that has ended, and of the tree it leaves.
    pub fn of(finished: &Finished, root: &Path) -> Self {
        let mut tree = BTreeMap::new();
        gather(root, root, &mut tree);
        let (stdout, stderr) = (finished.stdout.clone(), finished.stderr.clone());
        Self { end: finished.status.to_string(), stdout, stderr, tree }
    }

    /// Forgets all of the files' modes but whether they can be executed.
    pub fn without_modes(mut self) -> Self {
        for entry in self.tree.values_mut() {
            if let Entry::File { mode, .. } = entry {
                *mode &= 0o111;
            }
        }
        self
    }

    /// Forgets the bytes of files whose names end so.
    pub fn loosely(mut self, endings: &[String]) -> Self {
        for (path, entry) in &mut self.tree {
            let name = path.to_string_lossy();
            if let Entry::File { bytes, .. } = entry
                && endings.iter().any(|ending| name.ends_with(ending.as_str()))
            {
                bytes.clear();
            }
        }
        self
    }

    /// Whether the two differ only in BMIs.
    pub fn differs_only_in_bmis(&self, other: &Self) -> bool {
        let without = |traits: &Self| {
            let mut traits = traits.clone();
            traits.tree.retain(|path, _| path.extension().is_none_or(|extension| extension != "pcm"));
            traits
        };
        without(self) == without(other)
    }

    /// What differs, in words; nothing if nothing does.
    pub fn difference(&self, right: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (what, mine, theirs) in [
            ("exit", &self.end, &right.end),
            ("stdout", &self.stdout, &right.stdout),
            ("stderr", &self.stderr, &right.stderr),
        ] {
            if mine != theirs {
                found.push(format!("{what}: {}", contrast(mine.as_bytes(), theirs.as_bytes())));
            }
        }
        let names: std::collections::BTreeSet<_> = self.tree.keys().chain(right.tree.keys()).collect();
        let differing = names.into_iter().filter(|name| self.tree.get(*name) != right.tree.get(*name));
        found.extend(differing.map(|name| {
            format!("{}: {}", name.display(), describe(self.tree.get(name), right.tree.get(name)))
        }));
        found
    }
}

fn gather(root: &Path, dir: &Path, tree: &mut BTreeMap<PathBuf, Entry>) {
    for entry in fs_err::read_dir(dir).expect("a directory of a world").flatten() {
        let path = entry.path();
        let name = path.strip_prefix(root).expect("below").to_owned();
        let metadata = fs_err::symlink_metadata(&path).expect("a file of a world");
        let entry = if metadata.is_dir() {
            gather(root, &path, tree);
            Entry::Directory
        } else if metadata.is_symlink() {
            Entry::Link(fs_err::read_link(&path).expect("a link"))
        } else {
            let bytes = if metadata.is_file() { fs_err::read(&path).unwrap_or_default() } else { Vec::new() };
            Entry::File { mode: metadata.permissions().mode() & 0o7777, bytes }
        };
        tree.insert(name, entry);
    }
}

fn describe(mine: Option<&Entry>, right: Option<&Entry>) -> String {
    match (mine, right) {
        (None, _) => "is missing".to_owned(),
        (_, None) => "should not be there".to_owned(),
        (Some(Entry::File { mode: mine, .. }), Some(Entry::File { mode: right, .. })) if mine != right => {
            format!("has mode {mine:o}, should have {right:o}")
        }
        (Some(Entry::File { bytes: mine, .. }), Some(Entry::File { bytes: right, .. })) => {
            contrast(mine, right)
        }
        _ => "is of another kind".to_owned(),
    }
}

/// Where two texts part, or where two files do.
fn contrast(mine: &[u8], right: &[u8]) -> String {
    let at = mine.iter().zip(right).take_while(|(mine, right)| mine == right).count();
    let piece = |bytes: &[u8]| {
        let from = at.saturating_sub(16);
        let to = bytes.len().min(at + 64);
        bytes.get(from..to).unwrap_or_default().escape_ascii().to_string()
    };
    format!(
        "differs at byte {at} (of {}, right {}): `{}`, right `{}`",
        mine.len(),
        right.len(),
        piece(mine),
        piece(right)
    )
}
