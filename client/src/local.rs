//! The store on disk.
//!
//! ```text
//! PCMCACHE_DIR/            0700 and the user's own
//!   v1/                    another version of the format neither reads nor harms it
//!     units/ab/KEY         sealed: the include sets known for a unit, newest first
//!     results/ab/KEY       sealed: what an action made, and where that comes from, see `origin`
//!     commands/ab/KEY      sealed: the command behind a result, for who wants to know or to run it again
//!     blobs/ab/DIGEST      bytes by their digest; recipes are blobs as well
//!     embedded/ab/DIGEST   sealed: this BMI was made by us, with its sources embedded; what it imports
//!     near/ab/NAME         sealed: the newest actions of one source, output or BMI, to explain a miss by
//!     servers/ab/URL       sealed: what is known of a server, see `origin`
//!     memo/ab/NAME         sealed: what was hashed or asked of the compiler before, see `memo`
//!     locks/ab/CLAIM       flocked while a launcher works on the claim
//!     counts               a line for each launch, see `stats`
//!     profiles/NAME        which results a build used, see `notes`
//!     agents/              sockets of those who keep connections open, see `remote::agent`
//!     slow/SERVER          there while the link to that server is slow, see `remote::pace`
//!     queue/NAME           sealed: a result that is yet to be uploaded, see `queue`
//!     damaged/             what did not match its name or seal, moved aside for a person to look at
//!     fill, trim.lock      how full the store is, see `fill`; who trims it, and when that was
//!     sync.lock            who uploads what is queued
//! ```
//!
//! Invariant: an entry is used only after it was verified against its name or its seal, so a torn, cut or flipped
//! one is a miss with a reason. Any entry may be gone at any moment, since `trim` keeps the store within its bound: that
//! is a miss as well. The modification time of a sealed entry says when it was last used. Crash story: everything is
//! written to a `.stage-*` file beside its place and renamed there; a killed launcher leaves at most a stage, and blobs
//! that no result names. Nothing is fsynced but the queue and what servers took back: a power cut costs entries, never
//! correctness.

mod blobs;
pub mod embedded;
mod fill;
pub mod history;
pub mod inventory;
pub mod lock;
pub mod memo;
mod notes;
pub mod origin;
pub mod queue;
pub mod sealed;
pub mod stats;
mod sums;
pub mod trim;
pub mod verify;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pcmcache_shared::{ActionKey, Digest, IncludeSet, UnitKey, api::limits, disk};

use crate::os;
use fill::Ledger;
use origin::Kept;
use sealed::Sealed;

pub use blobs::Lost;
pub use fill::{Room, TrimLock};

/// The largest file of include sets, in bytes, and the largest result.
const MAX_UNIT: u64 = 64 * 1024 * 1024;
const MAX_RESULT: u64 = 1024 * 1024;
/// How many damaged entries are kept to look at.
const MAX_DAMAGED: usize = 100;

/// The store, open for use.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    ledger: Arc<Ledger>,
}

/// A kind of entry, which is a directory of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Include sets.
    Units,
    /// What actions made.
    Results,
    /// The commands behind the results.
    Commands,
    /// Bytes by their digest.
    Blobs,
    /// Marks of BMIs.
    Embedded,
    /// What is alike: actions of one source, or of one output.
    Near,
    /// What is known of servers.
    Servers,
    /// What was hashed or asked before.
    Memo,
    /// One a claim.
    Locks,
    /// What is yet to be uploaded.
    Queue,
    /// What was set aside.
    Damaged,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Units,
        Self::Results,
        Self::Commands,
        Self::Blobs,
        Self::Embedded,
        Self::Near,
        // After the results: without what is known of its server, none that was fetched is used.
        Self::Servers,
        Self::Memo,
        Self::Locks,
        Self::Queue,
        Self::Damaged,
    ];

    /// The name of its directory.
    pub const fn directory(self) -> &'static str {
        match self {
            Self::Units => "units",
            Self::Results => "results",
            Self::Commands => "commands",
            Self::Blobs => "blobs",
            Self::Embedded => "embedded",
            Self::Near => "near",
            Self::Servers => "servers",
            Self::Memo => "memo",
            Self::Locks => "locks",
            Self::Queue => "queue",
            Self::Damaged => "damaged",
        }
    }
}

/// Why there is no store to use. The build goes on without.
#[derive(Debug, thiserror::Error)]
pub enum NoStore {
    /// A link, a special file, or someone else's.
    #[error("{path} is not a directory of this user's own; remove it or set PCMCACHE_DIR to another place")]
    NotOurs {
        /// What is there.
        path: PathBuf,
    },
    /// It cannot be made or looked at.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Where the store's files are, of this version of its format.
pub fn root(dir: &Path) -> PathBuf {
    dir.join("v1")
}

impl Store {
    /// Opens the store in `dir`, and makes it if it is missing.
    pub fn open(dir: &Path) -> Result<Self, NoStore> {
        let root = root(dir);
        // The common case first: one look at each level, no attempt to make anything.
        for path in [dir, &root] {
            match disk::symlink_metadata(path) {
                Ok(metadata) if metadata.is_dir() && metadata.uid() == os::user() => {}
                Ok(_) => return Err(NoStore::NotOurs { path: path.to_owned() }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => make_directory(path)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self { root, ledger: Arc::default() })
    }

    /// Where the store's files are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn directory(&self, kind: Kind) -> PathBuf {
        self.root.join(kind.directory())
    }

    fn entry(&self, kind: Kind, name: &str) -> PathBuf {
        let shard = name.get(..2).unwrap_or(name);
        self.directory(kind).join(shard).join(name)
    }

    /// Where what is remembered under this name is, or would be.
    pub fn memo_file(&self, name: &Digest) -> PathBuf {
        self.entry(Kind::Memo, &name.to_string())
    }

    /// The include sets known for the unit, newest first.
    pub fn include_sets(&self, unit: UnitKey) -> Vec<IncludeSet> {
        let path = self.entry(Kind::Units, &unit.to_string());
        let Some(body) = self.read_sealed(&path, MAX_UNIT) else { return Vec::new() };
        let sets = std::str::from_utf8(&body).ok().and_then(|text| {
            text.split_terminator("end\n").map(|set| IncludeSet::parse(set).ok()).collect::<Option<Vec<_>>>()
        });
        sets.unwrap_or_else(|| {
            self.set_aside(&path);
            Vec::new()
        })
    }

    /// Adds an include set behind those that are known: whoever compiled here learnt theirs later.
    pub fn add_older_set(&self, unit: UnitKey, set: &IncludeSet) -> io::Result<()> {
        let mut sets = self.include_sets(unit);
        if sets.contains(set) {
            return Ok(());
        }
        sets.truncate(limits::MAX_SETS - 1);
        sets.push(set.clone());
        self.put_sets(unit, &sets)
    }

    /// Adds an include set as the unit's newest.
    pub fn add_include_set(&self, unit: UnitKey, set: &IncludeSet) -> io::Result<()> {
        let mut sets = self.include_sets(unit);
        if sets.first() == Some(set) {
            return Ok(());
        }
        sets.retain(|known| known != set);
        sets.insert(0, set.clone());
        sets.truncate(limits::MAX_SETS);
        self.put_sets(unit, &sets)
    }

    fn put_sets(&self, unit: UnitKey, sets: &[IncludeSet]) -> io::Result<()> {
        let body: String = sets.iter().map(|set| set.text() + "end\n").collect();
        self.write_sealed(Kind::Units, &unit.to_string(), body.as_bytes())
    }

    /// What the action made, if it is known here.
    pub fn result(&self, action: ActionKey) -> Option<Kept> {
        let path = self.entry(Kind::Results, &action.to_string());
        let kept = Kept::parse(&self.read_sealed(&path, MAX_RESULT)?);
        if kept.is_none() {
            self.set_aside(&path);
        }
        kept
    }

    /// Remembers what the action made. Its blobs are here already.
    pub fn put_result(&self, action: ActionKey, kept: &Kept) -> io::Result<()> {
        self.write_sealed(Kind::Results, &action.to_string(), &kept.text()?)
    }

    /// Forgets a result: its blobs turned out to be missing or damaged, or its server took it back.
    pub fn forget_result(&self, action: ActionKey) {
        let _ = disk::remove_file(self.entry(Kind::Results, &action.to_string()));
    }

    /// Puts a sealed entry of this store in its place.
    pub fn seal(&self, path: &Path, body: &[u8]) -> io::Result<()> {
        self.grew_by(body.len() as u64);
        sealed::write(path, body)
    }

    fn write_sealed(&self, kind: Kind, name: &str, body: &[u8]) -> io::Result<()> {
        self.seal(&self.entry(kind, name), body)
    }

    fn read_sealed(&self, path: &Path, limit: u64) -> Option<Vec<u8>> {
        match sealed::read(path, limit) {
            Sealed::Whole(body) => Some(body),
            Sealed::Missing => None,
            Sealed::Damaged => {
                self.set_aside(path);
                None
            }
        }
    }

    /// Moves a damaged entry out of the way: it is a miss from here on, and a person can look at it.
    pub fn set_aside(&self, path: &Path) {
        let damaged = self.directory(Kind::Damaged);
        let name = path.file_name().unwrap_or_default();
        let _ = disk::create_dir_all(&damaged);
        let is_free = |target: &PathBuf| {
            disk::symlink_metadata(target).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        let free = (0..MAX_DAMAGED)
            .map(|n| damaged.join(os::join_name(&[name, format!(".{n}").as_ref()])))
            .find(is_free);
        let crowded = disk::read_dir(&damaged).map_or(0, Iterator::count) >= MAX_DAMAGED;
        let moved = free.filter(|_| !crowded).is_some_and(|target| disk::rename(path, target).is_ok());
        if !moved {
            let _ = disk::remove_file(path);
        }
    }

    /// Removes everything that is stored, but for the locks that someone may hold.
    pub fn clear(&self) -> io::Result<()> {
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Locks) {
            match disk::remove_dir_all(self.directory(kind)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        self.set_pages(self.pages(), 0)
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        disk::create_dir_all(parent)?;
    }
    let made = disk::create_private_dir(path);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}
