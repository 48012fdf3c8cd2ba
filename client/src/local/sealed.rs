//! A small file that tells when it is damaged: its body, then a line with the body's digest.
//!
//! Invariant: [`read`] gives bytes that [`write`] was given, or nothing. Files are written beside their place and
//! renamed there, mostly without fsync: what a power cut tears does not match its seal.
//!
//! To read is to use: the file's modification time says when it was last used, and tells a trim what to keep. It is
//! renewed once it is ten minutes old, so that a hit costs no write.

use std::fs::Metadata;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use pcmcache_shared::staged::{Durability, StagedFile};
use pcmcache_shared::{Digest, disk};

use crate::os::{self, Moment};

const MARK: &str = "\nsha256 ";
/// The mark, 64 digits, the end of the line.
pub(super) const SEAL_LEN: usize = MARK.len() + 64 + 1;
const USUAL_LEN: usize = 16 * 1024;

/// What is at a path.
#[derive(Debug, PartialEq, Eq)]
pub enum Sealed {
    /// The body, as it was written.
    Whole(Vec<u8>),
    /// Nothing is there.
    Missing,
    /// Something is there that does not match its seal.
    Damaged,
}

/// How old the time of a file in use may become.
pub const RENEW_AFTER: Duration = Duration::from_secs(600);

/// Reads a sealed file of at most `limit` bytes.
pub fn read(path: &Path, limit: u64) -> Sealed {
    look(path, limit, |file| {
        if let Ok(metadata) = file.metadata() {
            renew_if_old(&metadata, || os::renew_open(file.file()));
        }
    })
}

/// The same for who only looks: the time stays.
pub fn peek(path: &Path, limit: u64) -> Sealed {
    look(path, limit, |_| ())
}

/// Calls `renew` if the time of last use is old, or of a clock that was ahead.
fn renew_if_old(metadata: &Metadata, renew: impl FnOnce()) {
    if Moment::modified(metadata).is_apart(Moment::now(), RENEW_AFTER) {
        renew();
    }
}

fn look(path: &Path, limit: u64, seen: impl FnOnce(&disk::File)) -> Sealed {
    // Most are smaller than this, and then read at once.
    let mut bytes = Vec::with_capacity(USUAL_LEN);
    let read = disk::File::open(path).and_then(|file| {
        seen(&file);
        file.take(limit + 1).read_to_end(&mut bytes)
    });
    match read {
        Ok(_) if bytes.len() as u64 > limit => Sealed::Damaged,
        Ok(_) => open(bytes).map_or(Sealed::Damaged, Sealed::Whole),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Sealed::Missing,
        Err(_) => Sealed::Damaged,
    }
}

fn open(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let body_len = bytes.len().checked_sub(SEAL_LEN)?;
    let seal = bytes.split_off(body_len);
    (seal == seal_of(&bytes).as_bytes()).then_some(bytes)
}

fn seal_of(body: &[u8]) -> String {
    format!("{MARK}{}\n", Digest::of(body))
}

/// Puts a sealed file at `path`, in place of what is there. Its directory is made if it is missing.
pub fn write(path: &Path, body: &[u8]) -> io::Result<()> {
    write_as(path, body, Durability::None)
}

/// The same, for what a power cut must not undo.
pub fn write_durably(path: &Path, body: &[u8]) -> io::Result<()> {
    write_as(path, body, Durability::Fsync)
}

fn write_as(path: &Path, body: &[u8], durability: Durability) -> io::Result<()> {
    let mut staged = create_beside(path)?;
    staged.write_all(body)?;
    staged.write_all(seal_of(body).as_bytes())?;
    staged.finish(durability)?.commit(path)
}

/// A stage beside `path`, whose directory is made if it is missing.
pub fn create_beside(path: &Path) -> io::Result<StagedFile> {
    let name = format!(".stage-{:016x}", u64::from_ne_bytes(os::random()));
    let stage = path.with_file_name(name);
    match StagedFile::create(stage.clone(), 0o600) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            disk::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
            StagedFile::create(stage, 0o600)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_lies_long_ago_or_ahead_is_renewed_by_use() {
        let dir = std::env::temp_dir().join(format!("pcmcache-sealed-times-{}", std::process::id()));
        let path = dir.join("file");
        write(&path, b"hello\n").unwrap();
        let modified = || Moment::modified(&fs_err::metadata(&path).unwrap());
        let (now, far) = (modified(), RENEW_AFTER + Duration::from_secs(60));
        let system = |moment: Moment| std::time::UNIX_EPOCH + Duration::from_secs(moment.seconds() as u64);
        for then in [system(now) - far, system(now) + far] {
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(then).unwrap();
            assert!(modified().is_apart(Moment::now(), RENEW_AFTER));
            peek(&path, 1000);
            assert!(modified().is_apart(Moment::now(), RENEW_AFTER), "who only looks leaves it");
            read(&path, 1000);
            assert!(!modified().is_apart(Moment::now(), RENEW_AFTER));
        }
        fs_err::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn only_what_was_written_comes_back() {
        let dir = std::env::temp_dir().join(format!("pcmcache-sealed-{}", std::process::id()));
        let path = dir.join("deep/file");
        assert_eq!(read(&path, 1000), Sealed::Missing);
        write(&path, b"hello\n").unwrap();
        assert_eq!(read(&path, 1000), Sealed::Whole(b"hello\n".to_vec()));
        assert_eq!(read(&path, 10), Sealed::Damaged, "larger than the limit");
        let good = fs_err::read(&path).unwrap();
        for index in 0..good.len() {
            let mut flipped = good.clone();
            flipped[index] ^= 1;
            fs_err::write(&path, &flipped).unwrap();
            assert_eq!(read(&path, 1000), Sealed::Damaged, "byte {index}");
            fs_err::write(&path, &good[..index]).unwrap();
            assert_eq!(read(&path, 1000), Sealed::Damaged, "cut at {index}");
        }
        fs_err::write(&path, [&good[..], b"x"].concat()).unwrap();
        assert_eq!(read(&path, 1000), Sealed::Damaged);
        fs_err::remove_dir_all(&dir).unwrap();
    }
}
