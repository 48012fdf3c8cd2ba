//! The contract of a blob store: immutable bytes by their SHA-256.
//!
//! - **No reader can observe a partial blob.** Bytes are staged where nobody reads, and take their own name only when whole and
//!   equal to it. Nobody reads by that name either before they and it are durable ([`Placed::show`]).
//! - **Putting is idempotent, and heals.** The same bytes put again take the place of what is there, so a copy that
//!   was damaged meanwhile is replaced.
//! - **Who put a blob is kept with it**: its scope and writer. Who may see it is not a store's business, and that the bytes
//!   are stored once is nobody's.
//! - **A store keeps its bounds** ([`Bounds`](crate::space::Bounds)): room is taken for all of a stage before its first
//!   byte, and given back with the stage.
//! - A store does not vouch for bytes at rest: a disk lies. Who reads verifies, and [`Blobs::condemn`]s what
//!   is damaged. For that the store gives each stored copy a [`Version`].

use std::fmt;
use std::ops::{AddAssign, Range};
use std::os::fd::AsFd;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use pcmcache_shared::{Digest, Scope, Writer};

use crate::fault::Fault;
use crate::space::{Shortage, Usage};

/// Tells one stored copy of a blob from another: it changes whenever the stored bytes may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version(pub Digest);

/// What the store knows of a copy without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Bytes that are there now.
    pub size: u64,
    /// Bytes that there were when it was put. A copy of another size is damaged, no hash needed.
    pub promised: u64,
    /// Which copy this is.
    pub version: Version,
}

impl Stat {
    /// Whether no byte is missing or too many. What the bytes are is another question.
    pub fn has_its_size(&self) -> bool {
        self.size == self.promised
    }
}

/// What putting a blob did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is the first time that this writer puts it in this scope.
    Stored,
    /// The writer had put it there before; its bytes were refreshed.
    Existed,
}

/// What asking for a stage gave.
#[derive(Debug)]
pub enum Staging {
    /// A place for bytes that nobody reads yet.
    Open(Box<dyn Stage>),
    /// There is no room for them.
    Short(Shortage),
}

/// What a removal took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freed {
    /// How many files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl AddAssign for Freed {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
    }
}

/// A set of blobs by digest. See the module for what every store promises.
#[async_trait]
pub trait Blobs: Send + Sync + fmt::Debug {
    /// A place for at most `length` bytes, which are to become visible in `scope`.
    async fn stage(&self, scope: &Scope, length: u64) -> Result<Staging, Fault>;

    /// What is known of the blob without reading it; `None` if nobody put it.
    async fn stat(&self, digest: Digest) -> Result<Option<Stat>, Fault>;

    /// The same of each of these, in their order.
    async fn stat_all(&self, digests: Vec<Digest>) -> Result<Vec<Option<Stat>>, Fault> {
        let mut stats = Vec::with_capacity(digests.len());
        for digest in digests {
            stats.push(self.stat(digest).await?);
        }
        Ok(stats)
    }

    /// Opens the copy that is there now. It stays readable when it is replaced, condemned or removed meanwhile.
    async fn open(&self, digest: Digest) -> Result<Option<Box<dyn Opened>>, Fault>;

    /// Whether this writer put all bytes of the blob in this scope.
    async fn was_put(&self, scope: &Scope, writer: &Writer, digest: Digest) -> Result<bool, Fault>;

    /// Moves a damaged copy aside and says whether it did: a copy that is no longer `version` has
    /// been replaced, and stays.
    async fn condemn(&self, digest: Digest, version: Version) -> Result<bool, Fault>;

    /// The same, to be read from the disk itself and not from what the system has in memory, as far as it lets us.
    async fn open_on_disk(&self, digest: Digest) -> Result<Option<Box<dyn Opened>>, Fault> {
        self.open(digest).await
    }

    /// The blobs whose digest starts with `shard`; also those that nobody put, which a crash may leave.
    async fn list(&self, shard: u8) -> Result<Vec<Digest>, Fault>;

    /// Forgets who put each blob but in these scopes. One for which there are none is removed; one that is not there is none
    /// that fails.
    async fn retain(&self, blobs: Vec<(Digest, Vec<Scope>)>) -> Result<Freed, Fault>;

    /// What the store has taken. A store without bounds says nothing.
    fn usage(&self) -> Usage {
        Usage::default()
    }

    /// The largest blob that may ever fit into the scope, in bytes.
    fn largest(&self, _scope: &Scope) -> u64 {
        u64::MAX
    }

    /// The shard at which the scrub goes on.
    async fn scrub_at(&self) -> Result<u8, Fault> {
        Ok(0)
    }

    /// Notes at which shard the scrub goes on, also after a restart.
    async fn set_scrub_at(&self, _shard: u8) -> Result<(), Fault> {
        Ok(())
    }

    /// Removes what was moved aside, all of it.
    async fn discard_damaged(&self) -> Result<Freed, Fault> {
        Ok(Freed::default())
    }
}

/// Bytes on their way to become a blob. Dropped at any point, nothing of them is left.
#[async_trait]
pub trait Stage: Send + fmt::Debug {
    /// Appends, no more than the stage was asked for. After an error, or if the future was dropped, the stage is good for nothing but dropping.
    async fn write(&mut self, bytes: Bytes) -> Result<(), Fault>;

    /// Ends the writing: the bytes are whole, but still without a name.
    async fn seal(self: Box<Self>) -> Result<Box<dyn Sealed>, Fault>;
}

/// A whole stage, which can be compared with what was promised. Dropped without [`Sealed::commit`], nothing is left.
#[async_trait]
pub trait Sealed: Send + fmt::Debug {
    /// The digest of all bytes that were written.
    fn digest(&self) -> Digest;

    /// How many were.
    fn size(&self) -> u64;

    /// Gives the bytes their name. Nobody has put them yet.
    async fn place(self: Box<Self>) -> Result<Box<dyn Placed>, Fault>;

    /// The same, as put in this scope by this writer. What is acknowledged survives a power cut.
    async fn commit(self: Box<Self>, scope: &Scope, writer: &Writer) -> Result<Put, Fault> {
        self.place().await?.show(scope, writer).await
    }
}

/// Bytes under their name that nobody has put; a sweep takes them.
#[async_trait]
pub trait Placed: Send + fmt::Debug {
    /// Notes that this writer put them in this scope. From then on they and their name survive a power cut. Several may be on
    /// their way at once, and share what being durable costs.
    async fn show(self: Box<Self>, scope: &Scope, writer: &Writer) -> Result<Put, Fault>;
}

/// A file that bytes of a blob lie in, at the same places. It is kept open.
pub trait InFile: AsFd + Send + Sync + fmt::Debug {}

impl<T: AsFd + Send + Sync + fmt::Debug> InFile for T {}

/// A copy of a blob, open for reading.
#[async_trait]
pub trait Opened: Send + Sync + fmt::Debug {
    /// What is known of this very copy.
    fn stat(&self) -> Stat;

    /// At most `at_most` bytes from `offset` on; empty at the end and nowhere else.
    async fn read(&self, offset: u64, at_most: usize) -> Result<Bytes, Fault>;

    /// The file that these bytes lie in, if they lie in one; by then they are in the system's memory, as far as it keeps them.
    async fn in_file(self: Arc<Self>, _range: Range<u64>) -> Result<Option<Arc<dyn InFile>>, Fault> {
        Ok(None)
    }

    /// Which copy this is now: the same as in [`Opened::stat`] if nobody wrote to it meanwhile.
    async fn version(&self) -> Result<Version, Fault>;
}
