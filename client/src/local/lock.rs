//! Single flight on one host: one launcher works on a claim, the others wait for it, but not without bound.
//!
//! The lock is an flock, so the kernel frees it when its holder dies, however it dies. Safety never rests on it.
//! A holder whose compile failed leaves a note in the file: who waits then compiles at once and for itself, so
//! that a broken source makes nobody wait in line to see the same error.
//!
//! A trim removes locks that nobody holds. It holds the lock as it does so, and who gets it then looks whether the
//! file is still the one of that name, and opens it anew if it is not.

use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use pcmcache_shared::{Claim, api::limits, disk};

use super::inventory::Found;
use super::{Kind, Store};
use crate::os::{self, Moment};

/// What came of trying to be the one who works on a claim.
#[derive(Debug)]
pub enum Turn {
    /// This launcher works on it.
    Ours(Lock),
    /// Go on without: somebody reported a failure a short while ago, the wait is over, or there are no locks here.
    Alone,
    /// The launcher was told to stop.
    Interrupted,
}

/// The lock, freed when dropped.
#[derive(Debug)]
pub struct Lock {
    file: disk::File,
    waited: bool,
}

const FAILED: &[u8] = b"failed";
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

impl Store {
    /// Waits for the claim's lock, at most as long as `wait`.
    pub fn lock(&self, claim: Claim, wait: Duration, interrupted: &dyn Fn() -> bool) -> Turn {
        let path = self.entry(Kind::Locks, &claim.to_string());
        let Ok(mut file) = open(&path) else { return Turn::Alone };
        let mut waited = Duration::ZERO;
        let mut pause = FIRST_PAUSE;
        loop {
            if failed_lately(&mut file) {
                return Turn::Alone;
            }
            let Ok(is_free) = os::try_lock(file.file()) else { return Turn::Alone };
            if is_free {
                match is_named(file.file(), &path) {
                    Ok(true) => return Turn::Ours(Lock { file, waited: !waited.is_zero() }),
                    // A trim removed it: there may be a new one. A loop of these ends as a wait does.
                    Ok(false) if waited <= wait => match open(&path) {
                        Ok(opened) => file = opened,
                        Err(_) => return Turn::Alone,
                    },
                    // Or nobody can tell whether it is the lock that others hold.
                    Ok(false) | Err(_) => return Turn::Alone,
                }
            } else if interrupted() {
                return Turn::Interrupted;
            } else if waited >= wait {
                return Turn::Alone;
            }
            std::thread::sleep(pause);
            waited += pause;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

impl Store {
    /// Removes a lock that nobody holds. `false`: it is still there.
    pub(super) fn remove_lock(&self, lock: &Found) -> bool {
        let Ok(file) = disk::File::open(&lock.path) else { return false };
        let is_ours =
            os::try_lock(file.file()).unwrap_or(false) && is_named(file.file(), &lock.path).unwrap_or(false);
        is_ours && lock.remove()
    }
}

fn open(path: &Path) -> io::Result<disk::File> {
    let open = || {
        let mut options = disk::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
    };
    open().or_else(|_| {
        disk::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        open()
    })
}

/// Whether the open file is the one that has this name.
fn is_named(file: &std::fs::File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match disk::symlink_metadata(path) {
        Ok(named) => Ok((held.dev(), held.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn failed_lately(file: &mut disk::File) -> bool {
    let recent = file.metadata().is_ok_and(|metadata| {
        metadata.len() > 0
            && (0..limits::ALONE_FOR.as_secs() as i64).contains(&(Moment::now().seconds() - metadata.mtime()))
    });
    let mut note = [0; FAILED.len()];
    recent && file.rewind().is_ok() && file.read_exact(&mut note).is_ok() && note == FAILED
}

impl Lock {
    /// Whether someone else held it first.
    pub fn waited(&self) -> bool {
        self.waited
    }

    /// Frees it, and tells who waits whether the compile failed.
    pub fn release(mut self, failed: bool) {
        let noted = self.file.metadata().is_ok_and(|metadata| metadata.len() > 0);
        if failed || noted {
            let _ = self.file.set_len(0);
        }
        if failed {
            let _ = self.file.rewind().and_then(|()| self.file.write_all(FAILED));
        }
    }
}

#[cfg(test)]
mod tests {
    use pcmcache_shared::UnitKey;

    use super::*;

    /// How often this process has the file open.
    fn openings(path: &Path) -> usize {
        let open = fs_err::read_dir("/proc/self/fd").unwrap().flatten();
        open.filter(|entry| fs_err::read_link(entry.path()).is_ok_and(|to| to == path)).count()
    }

    #[test]
    fn who_waited_for_a_lock_that_was_removed_holds_the_one_that_has_the_name() {
        let dir = std::env::temp_dir().join(format!("pcmcache-lock-{}", std::process::id()));
        let store = Store::open(&dir).unwrap();
        let claim = Claim::from(UnitKey::of("unit"));
        let lock = |wait| store.lock(claim, Duration::from_secs(wait), &|| false);
        let Turn::Ours(first) = lock(0) else { panic!("nobody has it") };
        let path = store.entry(Kind::Locks, &claim.to_string());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| lock(20));
            while openings(&path) < 2 {
                assert!(!waiting.is_finished());
                std::thread::yield_now();
            }
            // It looks abandoned, and is not: a trim leaves it alone.
            let [found] = &store.inventory(Kind::Locks)[..] else { panic!("one lock") };
            assert!(!store.remove_lock(found));
            fs_err::remove_file(&path).unwrap();
            drop(first);
            let Turn::Ours(second) = waiting.join().unwrap() else { panic!("it waited long enough") };
            assert!(is_named(second.file.file(), &path).unwrap());
            assert!(matches!(lock(0), Turn::Alone), "one at a time");
        });
        let [found] = &store.inventory(Kind::Locks)[..] else { panic!("one lock") };
        assert!(store.remove_lock(found) && !path.exists());
        fs_err::remove_dir_all(dir).unwrap();
    }
}
