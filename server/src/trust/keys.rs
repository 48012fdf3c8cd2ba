//! The keys that session tokens are signed with: this server's own, so that those of another are nothing here.
//!
//! A new one is made every day; the old ones are kept for as long as a session of theirs may live. The file is replaced
//! whole, and is written before anything is signed with what is in it. Losing it costs the sessions that live, which
//! can be had again.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pcmcache_shared::disk;
use pcmcache_shared::staged::{Durability, StagedFile};
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::session::MAX_LIFE;
use crate::clock::Entropy;

/// How long a key signs.
const SIGNS_FOR: Duration = Duration::from_secs(24 * 3600);
/// The largest file that is read.
const MAX_BYTES: u64 = 64 * 1024;
/// The version of the file's form.
const VERSION: u32 = 1;

/// The keys. Their `Debug` shows none of them.
#[derive(Debug)]
pub(super) struct Keys {
    path: PathBuf,
    keys: RwLock<Vec<Key>>,
}

#[derive(Clone)]
struct Key {
    made_s: u64,
    /// Tells it from the others; a session names it.
    id: String,
    secret: [u8; 32],
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    keys: Vec<StoredKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    id: String,
    made_s: u64,
    secret: String,
}

impl Keys {
    /// The keys in the file, which is made if it is not there. The data directory is this process's alone.
    pub(super) fn open(path: PathBuf, now_s: u64, entropy: &dyn Entropy) -> io::Result<Self> {
        let keys = RwLock::new(read(&path)?);
        let keys = Self { path, keys };
        keys.renew(now_s, entropy)?;
        Ok(keys)
    }

    /// Makes a new key if the newest signed for long enough, and forgets those whose last session has ended.
    pub(super) fn renew(&self, now_s: u64, entropy: &dyn Entropy) -> io::Result<()> {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let is_young = |key: &Key| now_s < key.made_s.saturating_add(SIGNS_FOR.as_secs());
        if keys.last().is_some_and(is_young) {
            return Ok(());
        }
        let living = SIGNS_FOR + MAX_LIFE;
        let is_of_use = |key: &&Key| now_s < key.made_s.saturating_add(living.as_secs());
        let mut renewed: Vec<Key> = keys.iter().filter(is_of_use).cloned().collect();
        renewed.push(Key::generate(now_s, entropy)?);
        write(&self.path, &renewed)?;
        *keys = renewed;
        Ok(())
    }

    /// Signs with the newest key: its id and the tag.
    pub(super) fn sign(&self, text: &[u8]) -> Option<(String, Vec<u8>)> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let key = keys.last()?;
        Some((key.id.clone(), hmac::sign(&key.hmac(), text).as_ref().to_vec()))
    }

    /// Whether the tag is that of the text under this key; compared in constant time.
    pub(super) fn verifies(&self, id: &str, text: &[u8], tag: &[u8]) -> bool {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let key = keys.iter().find(|key| key.id == id);
        key.is_some_and(|key| hmac::verify(&key.hmac(), text, tag).is_ok())
    }
}

impl Key {
    fn generate(now_s: u64, entropy: &dyn Entropy) -> io::Result<Self> {
        let mut secret = [0; 32];
        let (first, second) = secret.split_at_mut(16);
        first.copy_from_slice(&entropy.bytes()?);
        second.copy_from_slice(&entropy.bytes()?);
        let id = entropy.bytes()?.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { made_s: now_s, id, secret })
    }

    fn hmac(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.secret)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

fn read(path: &Path) -> io::Result<Vec<Key>> {
    let file = match fs_err::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut text)?;
    let wrong = || {
        let path = path.display();
        io::Error::other(format!("{path} holds no keys of this version; remove it, and sessions begin anew"))
    };
    let stored: Stored = serde_json::from_slice(&text).map_err(|_| wrong())?;
    if stored.version != VERSION {
        return Err(wrong());
    }
    let key = |StoredKey { id, made_s, secret }: StoredKey| {
        let secret = STANDARD.decode(secret).ok()?.try_into().ok()?;
        Some(Key { made_s, id, secret })
    };
    stored.keys.into_iter().map(|stored| key(stored).ok_or_else(wrong)).collect()
}

fn write(path: &Path, keys: &[Key]) -> io::Result<()> {
    let keys = keys.iter().map(|key| StoredKey {
        id: key.id.clone(),
        made_s: key.made_s,
        secret: STANDARD.encode(key.secret),
    });
    let text = serde_json::to_vec(&Stored { version: VERSION, keys: keys.collect() })?;
    let stage = path.with_extension("stage");
    match disk::remove_file(&stage) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut staged = StagedFile::create(stage, 0o600)?;
    staged.write_all(&text)?;
    staged.finish(Durability::Fsync)?.commit(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::clock::CountedEntropy;

    #[test]
    fn keys_outlive_a_restart_and_go_when_no_session_can_be_theirs() {
        let path = std::env::temp_dir().join(format!("pcmcache-keys-{}.json", std::process::id()));
        let entropy = CountedEntropy::default();
        let keys = Keys::open(path.clone(), 0, &entropy).unwrap();
        let (id, tag) = keys.sign(b"text").unwrap();
        drop(keys);
        assert_eq!(fs_err::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let day = SIGNS_FOR.as_secs();
        let keys = Keys::open(path.clone(), day - 1, &entropy).unwrap();
        assert_eq!(keys.sign(b"text").unwrap(), (id.clone(), tag.clone()));
        keys.renew(day, &entropy).unwrap();
        assert_ne!(keys.sign(b"text").unwrap().0, id, "a new one signs");
        assert!(keys.verifies(&id, b"text", &tag), "the old one still verifies");
        assert!(!keys.verifies(&id, b"other", &tag) && !keys.verifies("other", b"text", &tag));
        assert!(!keys.verifies(&id, b"text", &tag[1..]) && !keys.verifies(&id, b"text", b""));
        keys.renew(2 * day, &entropy).unwrap();
        assert!(!keys.verifies(&id, b"text", &tag));
        assert!(!format!("{keys:?}").contains("secret"));

        fs_err::write(&path, "nonsense").unwrap();
        let error = Keys::open(path.clone(), 0, &entropy).unwrap_err().to_string();
        assert!(error.contains("remove it"), "{error}");
        fs_err::remove_file(&path).unwrap();
    }
}
