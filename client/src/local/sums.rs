//! Second digests of large blobs, by which a hit verifies them at a fraction of the cost.
//!
//! SHA-256 names a blob, and for a module of 35 MB it costs a hit more than all else together. So whoever verified a large
//! blob by its name took its BLAKE3 in the same pass and wrote that down, sealed; from then on a hit verifies by it. Every
//! byte that is placed is hashed on its way, as before. Invariant: a sum is that of bytes that matched the blob's name
//! while it was taken. A sum that is missing or damaged costs a SHA-256.

use std::io::{self, Write};

use pcmcache_shared::Digest;
use pcmcache_shared::digest::{Hashing, copy_chunks};

use super::sealed::{self, Sealed};
use super::{Kind, Store};

/// Smaller blobs are hashed in less time than a sum is looked up, in bytes.
const LARGE: u64 = 1024 * 1024;
/// A sum in hexadecimal digits.
const SUM_LEN: u64 = 64;

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
        from: &mut fs_err::File,
        to: &mut fs_err::File,
    ) -> io::Result<bool> {
        if size < LARGE {
            let mut named = Hashing::new(to);
            copy_chunks(from, &mut named)?;
            return Ok(named.finish().1 == name);
        }
        if let Some(sum) = self.sum(name) {
            let mut summed = Summing { inner: to, hash: blake3::Hasher::new() };
            copy_chunks(from, &mut summed)?;
            return Ok(summed.hash.finalize().to_hex().as_bytes() == sum);
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
