//! Looking whether everything that is stored is what its name or its seal says.
//!
//! A hit looks at what it uses, so nothing here is needed for safety. What is bad is set aside, and made anew by the next
//! compile that wants it. Beside running launchers and trims: what is gone when it is its turn is nobody's fault.

use std::path::PathBuf;

use pcmcache_shared::digest::hash_reader;
use pcmcache_shared::disk;

use super::inventory::Found;
use super::sealed::{self, Sealed};
use super::{Kind, Store};

/// The largest sealed entry of any kind, in bytes.
const MAX_SEALED: u64 = 64 * 1024 * 1024;

/// What a verification came to.
#[derive(Debug, Default)]
pub struct Verified {
    /// Blobs that were read and hashed.
    pub blobs: u64,
    /// Their size, in bytes.
    pub bytes: u64,
    /// Sealed entries that were read.
    pub entries: u64,
    /// What was bad.
    pub bad: Vec<Bad>,
}

/// Something that was bad, and is not there any more.
#[derive(Debug)]
pub struct Bad {
    /// Where it was.
    pub path: PathBuf,
    /// What was wrong with it.
    pub what: String,
}

impl Store {
    /// Reads all of it. What is bad is set aside.
    pub fn verify(&self) -> Verified {
        let mut verified = Verified::default();
        for blob in self.whole(Kind::Blobs) {
            self.verify_blob(&blob, &mut verified);
        }
        // After the blobs: a result whose blob was just set aside is bad as well.
        let sealed =
            Kind::ALL.into_iter().filter(|kind| !matches!(kind, Kind::Blobs | Kind::Locks | Kind::Damaged));
        for kind in sealed {
            for entry in self.whole(kind) {
                match sealed::peek(&entry.path, MAX_SEALED) {
                    Sealed::Whole(_) => {}
                    Sealed::Missing => continue,
                    Sealed::Damaged => self.reject(&entry, "does not match its seal", &mut verified),
                }
                verified.entries += 1;
            }
        }
        for result in self.whole(Kind::Results) {
            self.verify_result(&result, &mut verified);
        }
        verified
    }

    fn whole(&self, kind: Kind) -> impl Iterator<Item = Found> {
        self.inventory(kind).into_iter().filter(|found| !found.is_stage())
    }

    fn verify_blob(&self, blob: &Found, verified: &mut Verified) {
        let Ok(file) = disk::File::open(&blob.path) else { return };
        match hash_reader(file) {
            Ok((digest, size)) => {
                verified.blobs += 1;
                verified.bytes += size;
                if digest.to_string() != blob.name {
                    self.reject(blob, "is not what its name says", verified);
                }
            }
            Err(error) => self.reject(blob, &format!("cannot be read: {error}"), verified),
        }
    }

    fn verify_result(&self, result: &Found, verified: &mut Verified) {
        let Some(action) = result.name.parse().ok() else {
            return self.reject(result, "is no result's name", verified);
        };
        let lost = |store: &Self| {
            let known = store.peek_result(action)?.result;
            known.outputs.into_iter().find(|output| !store.has_blob(output.digest, output.size))
        };
        // Looked at twice: a trim removes a result before its blobs.
        if lost(self).is_some()
            && let Some(output) = lost(self)
        {
            let what = format!("names {} {}, which is not there", output.role, output.digest);
            verified.bad.push(Bad { path: result.path.clone(), what });
            self.forget_result(action);
        }
    }

    fn reject(&self, found: &Found, what: &str, verified: &mut Verified) {
        self.set_aside(&found.path);
        verified.bad.push(Bad { path: found.path.clone(), what: what.to_owned() });
    }
}
