//! What a power cut could leave of a directory: from what was recorded, a disk that keeps apart what was not synced.
//!
//! What is synced stays. Of the rest any part may have reached the disk, in any order: of a directory's entries any, of a
//! file's writes any, each of them whole, or only some of its sectors, or only its length, with zeros. Only two things
//! are taken for granted: that a rename happens or does not, and that a sector of 512 bytes is written or is not.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::record::{Change, Entry, Inode};

const SECTOR: usize = 512;

/// A file, whatever names it has.
type Number = usize;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Directory,
    File(Number),
}

/// A change that is not certain yet.
#[derive(Debug, Clone)]
enum Pending {
    /// These names have these files, and those have none; both or neither.
    Entry {
        named: Option<(PathBuf, Node)>,
        gone: Option<PathBuf>,
    },
    Written(Number, u64, Vec<u8>),
    Cut(Number, u64),
}

/// A directory as it is on the disk for certain, and what may or may not be there besides.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    root: PathBuf,
    /// What is there for certain.
    tree: BTreeMap<PathBuf, Node>,
    contents: Vec<Vec<u8>>,
    pending: Vec<Pending>,
    /// What is there as programs see it.
    seen: BTreeMap<PathBuf, Node>,
    inodes: HashMap<Inode, Number>,
}

impl Disk {
    /// All that is below the directory now, for certain.
    pub fn of(root: &Path) -> io::Result<Self> {
        let mut disk = Self { root: root.to_owned(), ..Self::default() };
        let mut directories = vec![root.to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs_err::read_dir(&directory)? {
                let (path, metadata) = (
                    entry.as_ref().map(fs_err::DirEntry::path),
                    entry.as_ref().map(fs_err::DirEntry::metadata),
                );
                let (Ok(path), Ok(Ok(metadata))) = (path, metadata) else { continue };
                if metadata.is_dir() {
                    directories.push(path.clone());
                    disk.tree.insert(path, Node::Directory);
                } else if metadata.is_file() {
                    let number = match disk.inodes.get(&metadata.ino()) {
                        Some(number) => *number,
                        None => disk.make(metadata.ino(), fs_err::read(&path)?),
                    };
                    disk.tree.insert(path, Node::File(number));
                }
            }
        }
        disk.seen = disk.tree.clone();
        Ok(disk)
    }

    fn make(&mut self, inode: Inode, bytes: Vec<u8>) -> Number {
        self.contents.push(bytes);
        self.inodes.insert(inode, self.contents.len() - 1);
        self.contents.len() - 1
    }

    /// How many changes a power cut could undo.
    pub fn uncertain(&self) -> usize {
        self.pending.len()
    }

    /// Goes on by what was recorded.
    pub fn follow(&mut self, entry: &Entry) {
        match &entry.change {
            Change::Made(path, inode) if path.starts_with(&self.root) => {
                let number = self.make(*inode, Vec::new());
                self.enter(Some((path.clone(), Node::File(number))), None);
            }
            Change::Written(inode, at, bytes) => {
                let written = |number| Pending::Written(number, *at, bytes.clone());
                self.pending.extend(self.inodes.get(inode).copied().map(written));
            }
            Change::Cut(inode, length) => {
                self.pending.extend(self.inodes.get(inode).map(|number| Pending::Cut(*number, *length)));
            }
            Change::Synced(inode) => {
                let synced = self.inodes.get(inode).copied();
                self.settle(|change| matches!(change, Pending::Written(of, ..) | Pending::Cut(of, _) if Some(*of) == synced));
            }
            Change::SyncedDirectory(directory) => self.settle(|change| change.is_in(directory)),
            Change::SyncedAll => self.settle(|_| true),
            Change::Renamed(from, to) => {
                let node = self.seen.get(from).cloned();
                self.enter(node.map(|node| (to.clone(), node)), Some(from.clone()));
            }
            Change::Linked(from, to) => {
                let node = self.seen.get(from).cloned();
                self.enter(node.map(|node| (to.clone(), node)), None);
            }
            Change::Removed(path) => {
                let gone: Vec<_> = below(&self.seen, path);
                gone.into_iter().for_each(|path| self.enter(None, Some(path)));
            }
            Change::MadeDirectory(path) => {
                let missing = |path: &&Path| {
                    path.starts_with(&self.root) && **path != self.root && !self.seen.contains_key(*path)
                };
                let made: Vec<_> = path.ancestors().filter(missing).map(Path::to_owned).collect();
                made.into_iter().rev().for_each(|path| self.enter(Some((path, Node::Directory)), None));
            }
            Change::Made(..) | Change::Mark(_) => {}
        }
    }

    fn enter(&mut self, named: Option<(PathBuf, Node)>, gone: Option<PathBuf>) {
        let in_here = |path: &PathBuf| path.starts_with(&self.root);
        let named = named.filter(|(path, _)| in_here(path));
        let change = Pending::Entry { named, gone: gone.filter(in_here) };
        change.apply(&mut self.seen, &mut []);
        self.pending.push(change);
    }

    fn settle(&mut self, is_synced: impl Fn(&Pending) -> bool) {
        for change in std::mem::take(&mut self.pending) {
            if is_synced(&change) {
                change.apply(&mut self.tree, &mut self.contents);
            } else {
                self.pending.push(change);
            }
        }
    }

    /// Writes to the directory `to`, which is empty, what a power cut could leave now. `below(n)` chooses a number below `n`.
    pub fn cut_to(&self, to: &Path, below: &mut dyn FnMut(usize) -> usize) -> io::Result<()> {
        let (mut tree, mut contents) = (self.tree.clone(), self.contents.clone());
        // Of all that is uncertain nothing, everything, or some.
        let share = below(5);
        for change in &self.pending {
            let happens = match share {
                0 => false,
                1 => true,
                _ => below(share) == 0,
            };
            if happens {
                change.apply(&mut tree, &mut contents);
            } else if share > 1 {
                change.tear(&mut contents, below);
            }
        }
        for (path, node) in &tree {
            let Ok(rest) = path.strip_prefix(&self.root) else { continue };
            let target = to.join(rest);
            // A directory that was lost took with it what was in it. The order is that of the tree from its root.
            if !target.parent().is_some_and(Path::is_dir) {
                continue;
            }
            match node {
                Node::Directory => std::fs::DirBuilder::new().mode(0o700).create(&target)?,
                Node::File(number) => {
                    fs_err::write(&target, contents.get(*number).map(Vec::as_slice).unwrap_or_default())?;
                }
            }
        }
        Ok(())
    }
}

fn below(tree: &BTreeMap<PathBuf, Node>, path: &Path) -> Vec<PathBuf> {
    tree.keys().filter(|other| other.starts_with(path)).rev().cloned().collect()
}

impl Pending {
    fn is_in(&self, directory: &Path) -> bool {
        let is_child = |path: &Path| path.parent() == Some(directory);
        match self {
            Self::Entry { named: Some((path, _)), .. } => is_child(path),
            Self::Entry { gone: Some(path), .. } => is_child(path),
            Self::Entry { .. } | Self::Written(..) | Self::Cut(..) => false,
        }
    }

    fn apply(&self, tree: &mut BTreeMap<PathBuf, Node>, contents: &mut [Vec<u8>]) {
        match self {
            Self::Entry { named, gone } => {
                if let Some(gone) = gone {
                    tree.remove(gone);
                }
                if let Some((path, node)) = named {
                    tree.insert(path.clone(), node.clone());
                }
            }
            Self::Written(number, at, bytes) => {
                if let Some(content) = contents.get_mut(*number) {
                    put(content, *at, bytes);
                }
            }
            Self::Cut(number, length) => {
                if let Some(content) = contents.get_mut(*number) {
                    content.resize(usize::try_from(*length).unwrap_or_default(), 0);
                }
            }
        }
    }

    /// A write that was lost may have left some of its sectors, or the length that the file has with it.
    fn tear(&self, contents: &mut [Vec<u8>], below: &mut dyn FnMut(usize) -> usize) {
        let Self::Written(number, at, bytes) = self else { return };
        let Some(content) = contents.get_mut(*number) else { return };
        match below(4) {
            0 => {
                let end = usize::try_from(*at).unwrap_or_default() + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
            }
            1 => {
                // Sectors are the disk's, not the write's.
                let mut from = 0;
                while from < bytes.len() {
                    let into = usize::try_from(*at).unwrap_or_default() + from;
                    let length = (SECTOR - into % SECTOR).min(bytes.len() - from);
                    if below(2) == 0 {
                        put(content, into as u64, bytes.get(from..from + length).unwrap_or_default());
                    }
                    from += length;
                }
            }
            _ => {}
        }
    }
}

fn put(content: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let at = usize::try_from(at).unwrap_or_default();
    if content.len() < at + bytes.len() {
        content.resize(at + bytes.len(), 0);
    }
    if let Some(place) = content.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}
