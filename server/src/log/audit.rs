//! The audit's file: appended to a line at a time, and opened anew when it was renamed away, so that whoever rotates
//! logs need not tell the server.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use pcmcache_shared::disk;
use tracing_subscriber::fmt::MakeWriter;

/// A file that lines are appended to.
#[derive(Debug)]
pub struct AuditFile {
    path: PathBuf,
    file: Mutex<disk::File>,
}

impl AuditFile {
    /// Opens the file, or makes it: for its owner only, since it tells who did what.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let file = append(&path)?;
        Ok(Self { path, file: Mutex::new(file) })
    }

    fn write_line(&self, line: &[u8]) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_there(&file) {
            *file = append(&self.path)?;
        }
        file.write_all(line)
    }

    /// Whether the file that is open is the one that has the name.
    fn is_there(&self, file: &disk::File) -> bool {
        let of = |metadata: io::Result<std::fs::Metadata>| metadata.map(|file| (file.dev(), file.ino())).ok();
        of(fs_err::metadata(&self.path)) == of(file.metadata())
    }
}

fn append(path: &std::path::Path) -> io::Result<disk::File> {
    disk::OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// A line on its way to the file: the log writes each with one call.
#[derive(Debug)]
pub struct Line<'a>(&'a AuditFile);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_line(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for AuditFile {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_renamed_away_is_opened_anew() {
        let dir = std::env::temp_dir().join(format!("pcmcache-audit-{}", std::process::id()));
        fs_err::create_dir_all(&dir).unwrap();
        let (path, old) = (dir.join("audit.log"), dir.join("audit.log.1"));
        let audit = AuditFile::open(path.clone()).unwrap();
        audit.make_writer().write_all(b"one\n").unwrap();
        fs_err::rename(&path, &old).unwrap();
        audit.make_writer().write_all(b"two\n").unwrap();
        fs_err::remove_file(&path).unwrap();
        audit.make_writer().write_all(b"three\n").unwrap();
        AuditFile::open(path.clone()).unwrap().make_writer().write_all(b"four\n").unwrap();
        let (path, old) = (fs_err::read_to_string(path).unwrap(), fs_err::read_to_string(old).unwrap());
        fs_err::remove_dir_all(&dir).unwrap();
        assert_eq!((path.as_str(), old.as_str()), ("three\nfour\n", "one\n"));
    }
}
