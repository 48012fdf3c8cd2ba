//! Second digests of large blobs, by which a hit verifies them at a fraction of the cost.
//!
//! SHA-256 names a blob, and for a module of 35 MB it costs a hit more than all else together. So whoever verified a large
//! blob by its name took its BLAKE3 in the same pass and wrote that down, sealed; from then on a hit verifies by it. Every
//! byte that is placed is hashed on its way, as before, by a thread of its own. Invariant: a sum is that of bytes that matched the blob's name
//! while it was taken. A sum that is missing or damaged costs a SHA-256.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{channel, sync_channel};
use std::thread;

use pcmcache_shared::digest::{Hashing, copy_chunks};
use pcmcache_shared::{Digest, disk};

use super::sealed::{self, Sealed};
use super::{Kind, Store};

/// Smaller blobs are hashed in less time than a sum is looked up, in bytes.
const LARGE: u64 = 1024 * 1024;
/// A sum in hexadecimal digits.
const SUM_LEN: u64 = 64;
/// What is read, written and hashed at once, in bytes: it stays in a core's own cache.
const CHUNK: usize = 512 * 1024;
/// How many chunks may be written before they are hashed.
const AHEAD: usize = 4;

/// Hashes what is written through it.
struct Summing<W> {
    inner: W,
    hash: blake3::Hasher,
}

impl<W: Write> Write for Summing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Store {
    /// Copies all of `from`, which should be the blob of this name and size, and tells whether it was.
    pub(super) fn copy_verified(
        &self,
        name: Digest,
        size: u64,
        from: &mut disk::File,
        to: &mut disk::File,
    ) -> io::Result<bool> {
        if size < LARGE {
            let mut named = Hashing::new(to);
            copy_chunks(from, &mut named)?;
            return Ok(named.finish().1 == name);
        }
        if let Some(sum) = self.sum(name) {
            return Ok(copy_summed(from, to)?.to_hex().as_bytes() == sum);
        }
        let mut both = Hashing::new(Summing { inner: to, hash: blake3::Hasher::new() });
        copy_chunks(from, &mut both)?;
        let (summed, found, _) = both.finish();
        if found == name {
            // Not being able to costs the next hit a SHA-256.
            let sum = summed.hash.finalize().to_hex();
            let _ = self.write_sealed(Kind::Memo, &sum_name(name), sum.as_bytes());
        }
        Ok(found == name)
    }

    fn sum(&self, name: Digest) -> Option<Vec<u8>> {
        match sealed::read(&self.entry(Kind::Memo, &sum_name(name)), SUM_LEN + sealed::SEAL_LEN as u64) {
            Sealed::Whole(sum) => Some(sum),
            Sealed::Missing | Sealed::Damaged => None,
        }
    }
}

/// Copies all of `from`, and gives the sum of what was written: one thread writes while the other hashes.
fn copy_summed(from: &mut impl Read, to: &mut impl Write) -> io::Result<blake3::Hash> {
    thread::scope(|scope| {
        let (written, to_hash) = sync_channel::<Arc<Vec<u8>>>(AHEAD);
        let (hashed, to_fill) = channel();
        let hashing = thread::Builder::new().spawn_scoped(scope, move || {
            let mut hash = blake3::Hasher::new();
            for chunk in to_hash {
                hash.update(&chunk);
                // Nobody fills it again if all was read.
                let _ = hashed.send(chunk);
            }
            hash.finalize()
        })?;
        let stopped = || io::Error::other("the thread that hashes ended");
        loop {
            // A buffer that comes back is this thread's alone again: what it wrote from it, it has let go of.
            let mut chunk = to_fill.try_recv().ok().and_then(Arc::into_inner).unwrap_or_default();
            chunk.clear();
            if from.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)? == 0 {
                break;
            }
            let chunk = Arc::new(chunk);
            written.send(Arc::clone(&chunk)).map_err(|_| stopped())?;
            to.write_all(&chunk)?;
        }
        drop(written);
        hashing.join().map_err(|_| stopped())
    })
}

fn sum_name(name: Digest) -> String {
    Digest::of(format!("blake3 of\n{name}")).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::Lost;
    use pcmcache_shared::staged::StagedFile;
    use pcmcache_shared::{Output, Role};

    #[test]
    fn what_is_copied_is_what_is_hashed() {
        for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, (AHEAD + 3) * CHUNK + 5] {
            let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            let mut copy = Vec::new();
            assert_eq!(copy_summed(&mut &bytes[..], &mut copy).unwrap(), blake3::hash(&bytes), "{size}");
            assert_eq!(copy, bytes);
        }
        // A disk that is full is an error, and no thread waits for more.
        assert!(copy_summed(&mut &vec![0; 3 * CHUNK][..], &mut &mut [0; CHUNK + 1][..]).is_err());
    }

    #[test]
    fn damage_is_found_by_the_name_and_by_the_sum() {
        let dir = std::env::temp_dir().join(format!("pcmcache-sums-{}", std::process::id()));
        let store = Store::open(&dir).unwrap();
        let bytes: Vec<u8> = (0..LARGE + 7).map(|n| (n % 251) as u8).collect();
        let place = |digest| {
            let output = Output { role: Role::Bmi, digest, size: bytes.len() as u64 };
            let copied =
                store.copy_blob(&output, StagedFile::create(dir.join("stage"), 0o600).unwrap()).unwrap();
            copied.map(|whole| whole.commit(&dir.join("placed")).unwrap())
        };
        for verified_before in [0, 1, 2] {
            let digest = store.put_blob(&bytes).unwrap();
            for _ in 0..verified_before {
                assert_eq!(place(digest), Ok(()));
                assert_eq!(fs_err::read(dir.join("placed")).unwrap(), bytes);
            }
            assert_eq!(store.sum(digest).is_some(), verified_before > 0);
            let mut damaged = bytes.clone();
            damaged[LARGE as usize / 2] ^= 1;
            fs_err::write(store.blob_path(digest), &damaged).unwrap();
            assert_eq!(place(digest), Err(Lost::Damaged));
            assert!(!dir.join("stage").exists());
        }
        // A sum that is damaged is none.
        let digest = store.put_blob(&bytes).unwrap();
        fs_err::write(store.entry(Kind::Memo, &sum_name(digest)), "0".repeat(64)).unwrap();
        assert_eq!(place(digest), Ok(()));
        fs_err::remove_dir_all(&dir).unwrap();
    }
}
