//! Blobs: bytes by their digest.
//!
//! A blob may go at any moment, by a trim: whoever opened it reads on, whoever finds it gone has a miss.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use pcmcache_shared::digest::copy_chunks;
use pcmcache_shared::staged::{Durability, StagedFile, Whole};
use pcmcache_shared::{Digest, Output, disk, mutant};

use super::{Kind, Store, sealed};
use crate::os;

/// Why there is no such blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// It is not here (any more).
    Gone,
    /// It was not what its name says, and is here no longer.
    Damaged,
}

impl Store {
    /// Whether there is a blob of this name and size; its bytes are verified when it is used.
    pub fn has_blob(&self, digest: Digest, size: u64) -> bool {
        disk::symlink_metadata(self.blob_path(digest)).is_ok_and(|m| m.is_file() && m.len() == size)
    }

    /// Where a blob of this name is, or would be.
    pub fn blob_path(&self, digest: Digest) -> PathBuf {
        self.entry(Kind::Blobs, &digest.to_string())
    }

    /// A stage for a blob whose name will be known when it is whole.
    pub fn stage_blob(&self, digest: Digest) -> io::Result<StagedFile> {
        sealed::create_beside(&self.blob_path(digest))
    }

    /// Keeps a blob that was staged and is what it should be.
    pub fn keep_blob(&self, whole: Whole) -> io::Result<()> {
        let path = self.blob_path(whole.digest());
        self.grew_by(whole.size());
        whole.commit(&path)
    }

    /// Keeps these bytes as a blob.
    pub fn put_blob(&self, bytes: &[u8]) -> io::Result<Digest> {
        let digest = Digest::of(bytes);
        if self.has_blob(digest, bytes.len() as u64) {
            // A trim that counts it among the unused looks at its time once more before it removes it.
            os::renew(&self.blob_path(digest));
            return Ok(digest);
        }
        let mut staged = self.stage_blob(digest)?;
        staged.write_all(bytes)?;
        self.keep_blob(staged.finish(Durability::None)?)?;
        Ok(digest)
    }

    /// Keeps a copy of the file as a blob, and tells its digest and size.
    pub fn put_file(&self, path: &Path) -> io::Result<(Digest, u64)> {
        // Its name is known only when it was read, so it is staged on the level above.
        let mut staged = sealed::create_beside(&self.directory(Kind::Blobs).join("unnamed"))?;
        copy_chunks(&mut disk::File::open(path)?, &mut staged)?;
        let whole = staged.finish(Durability::None)?;
        let (digest, size) = (whole.digest(), whole.size());
        let target = self.blob_path(digest);
        if let Some(shard) = target.parent().filter(|shard| disk::metadata(shard).is_err()) {
            disk::create_dir_all(shard)?;
        }
        self.keep_blob(whole)?;
        Ok((digest, size))
    }

    /// Copies a blob to `staged`, verified.
    pub fn copy_blob(&self, output: &Output, staged: StagedFile) -> io::Result<Result<Whole, Lost>> {
        let path = self.blob_path(output.digest);
        let mut file = match disk::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Err(Lost::Gone)),
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() == output.size {
            let copied = staged.fill(output.digest, output.size, |to| {
                let is_right = self.copy_verified(output.digest, output.size, &mut file, to)?;
                Ok(is_right || mutant!("no-local-hash"))
            })?;
            if let Some(whole) = copied {
                if mutant!("hard-link-placed") {
                    disk::remove_file(whole.path())?;
                    disk::hard_link(&path, whole.path())?;
                }
                return Ok(Ok(whole));
            }
        }
        self.set_aside(&path);
        Ok(Err(Lost::Damaged))
    }

    /// A small blob's bytes, verified.
    pub fn read_blob(&self, output: &Output) -> Result<Vec<u8>, Lost> {
        let path = self.blob_path(output.digest);
        let bytes = disk::read(&path).map_err(|_| Lost::Gone)?;
        if Digest::of(&bytes) == output.digest {
            return Ok(bytes);
        }
        self.set_aside(&path);
        Err(Lost::Damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcmcache_shared::Role;

    #[test]
    fn who_writes_into_what_was_placed_writes_into_no_blob() {
        let dir = std::env::temp_dir().join(format!("pcmcache-blobs-{}", std::process::id()));
        let store = Store::open(&dir).unwrap();
        let digest = store.put_blob(b"a module").unwrap();
        let output = Output { role: Role::Bmi, digest, size: 8 };
        for _ in 0..2 {
            let stage = StagedFile::create(dir.join("stage"), 0o600).unwrap();
            store.copy_blob(&output, stage).unwrap().unwrap().commit(&dir.join("placed")).unwrap();
            assert_eq!(fs_err::read(dir.join("placed")).unwrap(), b"a module");
            fs_err::write(dir.join("placed"), "as compilers do").unwrap();
        }
        assert_eq!(store.read_blob(&output), Ok(b"a module".to_vec()));
        fs_err::remove_dir_all(&dir).unwrap();
    }
}
