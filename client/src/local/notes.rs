//! Which results the launches of a build used, to publish them as a profile.
//!
//! ```text
//! profiles/NAME      appended to: a line for each use, an action key
//! profiles/NAME~     what was there before that became too long
//! ```
//!
//! A launch appends its line with one write, and takes no lock: lines of launchers side by side do not mix. What a kill or a
//! power cut leaves of a line is none, and passed over; a note that is lost is one result that a warm start does not fetch.
//! The names of profiles have no `~`.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use pcmcache_shared::{ActionKey, ProfileName, disk};

use super::Store;

/// A file becomes no longer than this, in bytes: a quarter of a million uses. Of those before it as many are kept.
const MAX_NOTES: u64 = 16 * 1024 * 1024;

impl Store {
    fn notes_path(&self, profile: &ProfileName, suffix: &str) -> PathBuf {
        self.root().join("profiles").join(format!("{profile}{suffix}"))
    }

    /// Notes that a launch used the result.
    pub fn note_use(&self, profile: &ProfileName, action: ActionKey) -> io::Result<()> {
        let path = self.notes_path(profile, "");
        let open = || disk::OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
        let mut file = open().or_else(|_| {
            disk::create_dir_all(self.root().join("profiles"))?;
            open()
        })?;
        let opened = file.metadata()?;
        if opened.len() >= MAX_NOTES {
            // Who comes second finds that it is another file by now.
            if disk::metadata(&path).is_ok_and(|named| named.ino() == opened.ino()) {
                disk::rename(&path, self.notes_path(profile, "~"))?;
            }
            file = open()?;
        }
        file.write_all(format!("{action}\n").as_bytes())
    }

    /// The results that were used, each once, in the order of their first use.
    pub fn noted_uses(&self, profile: &ProfileName) -> io::Result<Vec<ActionKey>> {
        let (mut seen, mut uses) = (HashSet::<ActionKey>::new(), Vec::new());
        for suffix in ["~", ""] {
            let mut bytes = Vec::new();
            match disk::File::open(self.notes_path(profile, suffix)) {
                // Launchers that found it short may have written at the same time.
                Ok(file) => file.take(2 * MAX_NOTES).read_to_end(&mut bytes)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let lines = bytes.split(|byte| *byte == b'\n').filter_map(|line| str::from_utf8(line).ok());
            uses.extend(lines.filter_map(|line| line.parse().ok()).filter(|action| seen.insert(*action)));
        }
        Ok(uses)
    }

    /// Forgets the notes of a profile. `false`: there were none.
    pub fn forget_notes(&self, profile: &ProfileName) -> io::Result<bool> {
        let mut had_any = false;
        for suffix in ["~", ""] {
            match disk::remove_file(self.notes_path(profile, suffix)) {
                Ok(()) => had_any = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(had_any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(name: &str) -> (Store, PathBuf) {
        let dir = std::env::temp_dir().join(format!("pcmcache-notes-{name}-{}", std::process::id()));
        (Store::open(&dir).unwrap(), dir)
    }

    fn name() -> ProfileName {
        "nightly".parse().unwrap()
    }

    #[test]
    fn uses_come_back_once_each_in_the_order_of_the_first() {
        let (store, dir) = store("order");
        assert_eq!(store.noted_uses(&name()).unwrap(), []);
        let [a, b, c] = ["a", "b", "c"].map(ActionKey::of);
        for action in [c, a, c, b, a] {
            store.note_use(&name(), action).unwrap();
        }
        store.note_use(&"other".parse().unwrap(), b).unwrap();
        assert_eq!(store.noted_uses(&name()).unwrap(), [c, a, b]);
        assert!(store.forget_notes(&name()).unwrap() && !store.forget_notes(&name()).unwrap());
        assert_eq!(store.noted_uses(&name()).unwrap(), []);
        assert_eq!(store.noted_uses(&"other".parse().unwrap()).unwrap(), [b]);
        fs_err::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_is_torn_or_no_key_is_passed_over() {
        let (store, dir) = store("torn");
        let [a, b] = ["a", "b"].map(ActionKey::of);
        store.note_use(&name(), a).unwrap();
        let path = dir.join("v1/profiles/nightly");
        let whole = fs_err::read(&path).unwrap();
        let second = format!("{b}\n");
        let torn = [&whole[..], &whole[..20], b"\n\0\0\0\xff\n\nX\n", second.as_bytes(), &whole[1..30]];
        fs_err::write(&path, torn.concat()).unwrap();
        assert_eq!(store.noted_uses(&name()).unwrap(), [a, b]);
        fs_err::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn they_do_not_grow_without_bound() {
        let (store, dir) = store("bound");
        let [a, b] = ["a", "b"].map(ActionKey::of);
        store.note_use(&name(), a).unwrap();
        let path = dir.join("v1/profiles/nightly");
        for round in 0..3 {
            let file = fs_err::OpenOptions::new().append(true).open(&path).unwrap();
            file.set_len(MAX_NOTES).unwrap();
            store.note_use(&name(), b).unwrap();
            assert_eq!(fs_err::metadata(&path).unwrap().len(), 65, "{round}");
        }
        assert_eq!(store.noted_uses(&name()).unwrap(), [b]);
        assert_eq!(fs_err::read_dir(dir.join("v1/profiles")).unwrap().count(), 2);
        fs_err::remove_dir_all(&dir).unwrap();
    }
}
