//! Blobs in memory, with a way to damage them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use pcmcache_shared::{Digest, Scope, Writer};

use crate::blobs::{Blobs, Freed, Opened, Placed, Put, Sealed, Stage, Staging, Stat, Version};
use crate::fault::Fault;

/// Blobs in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryBlobs {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    copies: BTreeMap<Digest, Copied>,
    promised: HashMap<Digest, u64>,
    puts: HashSet<(Scope, Writer, Digest)>,
    versions: u64,
}

#[derive(Debug, Clone)]
struct Copied {
    bytes: Bytes,
    version: Version,
}

impl State {
    fn place(&mut self, digest: Digest, bytes: Bytes) {
        self.versions += 1;
        let version = Version(Digest::of(self.versions.to_le_bytes()));
        self.copies.insert(digest, Copied { bytes, version });
    }

    fn find(&self, digest: Digest) -> Option<MemoryOpened> {
        let promised = *self.promised.get(&digest)?;
        let copy = self.copies.get(&digest)?.clone();
        Some(MemoryOpened { promised, copy })
    }
}

impl MemoryBlobs {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the stored bytes behind the store's back, as a bad disk does. Says whether there were any.
    pub fn damage(&self, digest: Digest, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut state = self.state();
        let Some(copy) = state.copies.get(&digest) else { return false };
        let mut bytes = copy.bytes.to_vec();
        change(&mut bytes);
        state.place(digest, bytes.into());
        true
    }
}

#[async_trait]
impl Blobs for MemoryBlobs {
    async fn stage(&self, _: &Scope, _: u64) -> Result<Staging, Fault> {
        Ok(Staging::Open(Box::new(MemoryStage { store: self.clone(), bytes: BytesMut::new() })))
    }

    async fn stat(&self, digest: Digest) -> Result<Option<Stat>, Fault> {
        Ok(self.state().find(digest).map(|opened| opened.stat()))
    }

    async fn open(&self, digest: Digest) -> Result<Option<Box<dyn Opened>>, Fault> {
        Ok(self.state().find(digest).map(|opened| Box::new(opened) as Box<dyn Opened>))
    }

    async fn was_put(&self, scope: &Scope, writer: &Writer, digest: Digest) -> Result<bool, Fault> {
        Ok(self.state().puts.contains(&(scope.clone(), writer.clone(), digest)))
    }

    async fn condemn(&self, digest: Digest, version: Version) -> Result<bool, Fault> {
        let mut state = self.state();
        let same = state.copies.get(&digest).is_some_and(|copy| copy.version == version);
        if same {
            state.copies.remove(&digest);
        }
        Ok(same)
    }

    async fn list(&self, shard: u8) -> Result<Vec<Digest>, Fault> {
        let first = |digest: &&Digest| digest.as_bytes().first() == Some(&shard);
        Ok(self.state().copies.keys().filter(first).copied().collect())
    }

    async fn retain(&self, blobs: Vec<(Digest, Vec<Scope>)>) -> Result<Freed, Fault> {
        let mut state = self.state();
        let mut freed = Freed::default();
        for (blob, scopes) in blobs {
            let is_kept =
                |(scope, _, digest): &(Scope, Writer, Digest)| *digest != blob || scopes.contains(scope);
            let put_in_kept =
                state.puts.iter().any(|(scope, _, digest)| *digest == blob && scopes.contains(scope));
            if scopes.is_empty() || put_in_kept {
                state.puts.retain(is_kept);
            }
            if scopes.is_empty() {
                state.promised.remove(&blob);
                if let Some(copy) = state.copies.remove(&blob) {
                    freed += Freed { files: 1, bytes: copy.bytes.len() as u64 };
                }
            }
        }
        Ok(freed)
    }
}

#[derive(Debug)]
struct MemoryStage {
    store: MemoryBlobs,
    bytes: BytesMut,
}

#[async_trait]
impl Stage for MemoryStage {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Fault> {
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    async fn seal(self: Box<Self>) -> Result<Box<dyn Sealed>, Fault> {
        let bytes = self.bytes.freeze();
        Ok(Box::new(MemorySealed { store: self.store, digest: Digest::of(&bytes), bytes }))
    }
}

#[derive(Debug)]
struct MemorySealed {
    store: MemoryBlobs,
    digest: Digest,
    bytes: Bytes,
}

#[async_trait]
impl Sealed for MemorySealed {
    fn digest(&self) -> Digest {
        self.digest
    }

    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    async fn place(self: Box<Self>) -> Result<Box<dyn Placed>, Fault> {
        let Self { store, digest, bytes } = *self;
        let size = bytes.len() as u64;
        store.state().place(digest, bytes);
        Ok(Box::new(MemoryPlaced { store, digest, size }))
    }
}

#[derive(Debug)]
struct MemoryPlaced {
    store: MemoryBlobs,
    digest: Digest,
    size: u64,
}

#[async_trait]
impl Placed for MemoryPlaced {
    async fn show(self: Box<Self>, scope: &Scope, writer: &Writer) -> Result<Put, Fault> {
        let mut state = self.store.state();
        state.promised.insert(self.digest, self.size);
        match state.puts.insert((scope.clone(), writer.clone(), self.digest)) {
            true => Ok(Put::Stored),
            false => Ok(Put::Existed),
        }
    }
}

/// A copy that was opened; it shares the bytes, and what happens to the store does not reach it.
#[derive(Debug)]
struct MemoryOpened {
    promised: u64,
    copy: Copied,
}

#[async_trait]
impl Opened for MemoryOpened {
    fn stat(&self) -> Stat {
        Stat { size: self.copy.bytes.len() as u64, promised: self.promised, version: self.copy.version }
    }

    async fn read(&self, offset: u64, at_most: usize) -> Result<Bytes, Fault> {
        let length = self.copy.bytes.len();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(length);
        let end = start.saturating_add(at_most).min(length);
        Ok(self.copy.bytes.slice(start..end))
    }

    async fn version(&self) -> Result<Version, Fault> {
        Ok(self.copy.version)
    }
}
