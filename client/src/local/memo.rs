//! What was hashed before, so that a hit costs a stat a file instead of a read.
//!
//! One sealed file for each directory whose files were hashed: name, identity, digest. An identity (device, inode,
//! size, mtime, ctime) stands for bytes only if the file was not touched within the clock's granularity of being
//! hashed, since a later write could leave it as it is; such a file is hashed again next time.
//! Two launchers that write one memo lose some of each other's lines, which costs a hash.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use pcmcache_shared::digest::hash_reader;
use pcmcache_shared::recipe::{escape, unescape};
use pcmcache_shared::{Digest, disk, mutant};
use rustix::fs::OFlags;

use super::sealed::{self, Sealed};
use super::{Kind, Store};
use crate::os::{FileId, Moment};

/// The largest memo of a directory, in bytes and in files.
const MAX_MEMO: u64 = 16 * 1024 * 1024;
const MAX_FILES: usize = 20_000;

/// Digests of files, remembered from launch to launch where there is a store.
#[derive(Debug)]
pub struct Memo {
    store: Option<Store>,
    /// By the bytes of their names.
    directories: HashMap<OsString, Directory>,
}

#[derive(Debug, Default)]
struct Directory {
    files: BTreeMap<Vec<u8>, (FileId, Digest)>,
    changed: bool,
}

impl Memo {
    /// A memo kept in this store, or for this process only.
    pub fn new(store: Option<Store>) -> Self {
        Self { store, directories: HashMap::new() }
    }

    /// The digest of a regular file, and the identity it had when it was hashed. `path` is absolute.
    pub fn digest(&mut self, path: &Path) -> io::Result<(FileId, Digest)> {
        let (parent, name) =
            (path.parent().unwrap_or(Path::new("/")), path.file_name().unwrap_or(OsStr::new("")));
        let known = |store: &Store| load(store, parent);
        let directory = match self.directories.entry(parent.as_os_str().to_owned()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(self.store.as_ref().map(known).unwrap_or_default()),
        };
        let metadata = disk::metadata(path)?;
        let id = FileId::of(&metadata);
        if let Some((known, digest)) = directory.files.get(name.as_bytes())
            && *known == id
        {
            return Ok((id, *digest));
        }
        let (id, digest, certain) = hash(path)?;
        if certain {
            directory.files.insert(name.as_bytes().to_owned(), (id, digest));
            directory.changed = true;
        }
        Ok((id, digest))
    }

    /// Writes down what was learnt. A fault costs hashing it again.
    pub fn save(&mut self) {
        let Some(store) = &self.store else { return };
        for (path, directory) in self.directories.iter_mut().filter(|(_, directory)| directory.changed) {
            if directory.files.len() > MAX_FILES {
                directory.files.clear();
            }
            directory.changed = false;
            let _ = store.seal(&memo_path(store, Path::new(path)), write(directory).as_bytes());
        }
    }
}

/// Hashes a regular file, and tells whether its identity stands for these bytes from now on.
fn hash(path: &Path) -> io::Result<(FileId, Digest, bool)> {
    let now = Moment::now();
    // A pipe that nobody writes to, or a file of the kernel's that waits, is an error at once and no wait.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = disk::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let before = file.metadata()?;
    if !before.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} is no regular file", path.display()),
        ));
    }
    let id = FileId::of(&before);
    let (digest, _) = hash_reader(&file)?;
    let unchanged = FileId::of(&file.metadata()?) == id;
    if !unchanged {
        return Err(io::Error::other(format!("{} changes while it is read", path.display())));
    }
    Ok((id, digest, id.untouched_since(now) || mutant!("memo-trusted-too-early")))
}

fn memo_path(store: &Store, directory: &Path) -> PathBuf {
    store.entry(Kind::Memo, &Digest::of(directory.as_os_str().as_bytes()).to_string())
}

fn load(store: &Store, directory: &Path) -> Directory {
    let path = memo_path(store, directory);
    let body = match sealed::read(&path, MAX_MEMO) {
        Sealed::Whole(body) => body,
        Sealed::Missing => return Directory::default(),
        Sealed::Damaged => {
            store.set_aside(&path);
            return Directory::default();
        }
    };
    let text = String::from_utf8(body).unwrap_or_default();
    Directory { files: text.lines().filter_map(read_line).collect(), changed: false }
}

fn write(directory: &Directory) -> String {
    directory.files.iter().fold(String::new(), |mut text, (name, (id, digest))| {
        let _ = writeln!(text, "{digest} {id} {}", escape(name));
        text
    })
}

fn read_line(line: &str) -> Option<(Vec<u8>, (FileId, Digest))> {
    let (digest, rest) = line.split_once(' ')?;
    let (id, name) = FileId::parse(rest)?;
    Some((unescape(name)?, (id, digest.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_hashed_again_when_it_changed_and_only_then() {
        let dir = std::env::temp_dir().join(format!("pcmcache-memo-{}", std::process::id()));
        fs_err::create_dir_all(&dir).unwrap();
        let store = Store::open(&dir.join("cache")).unwrap();
        let file = dir.join("a b");
        fs_err::write(&file, "one").unwrap();
        Moment::latest().let_pass();

        let mut memo = Memo::new(Some(store.clone()));
        assert_eq!(memo.digest(&file).unwrap().1, Digest::of("one"));
        memo.save();

        let mut later = Memo::new(Some(store.clone()));
        assert_eq!(later.digest(&file).unwrap().1, Digest::of("one"));
        assert!(!later.directories.values().any(|directory| directory.changed), "it was remembered");
        fs_err::write(&file, "two").unwrap();
        assert_eq!(later.digest(&file).unwrap().1, Digest::of("two"));
        assert!(!later.directories.values().any(|directory| directory.changed), "too fresh to be remembered");
        fs_err::remove_dir_all(&dir).unwrap();
    }
}
