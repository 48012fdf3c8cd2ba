//! What an upload came to, for people.

use std::fmt;
use std::io::Write as _;
use std::path::Path;

use pcmcache_shared::disk;

use crate::size::ByteSize;

/// What an upload came to.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Results that the server has now.
    pub uploaded: u64,
    /// Results that lost to another that was published first.
    pub diverged: u64,
    /// Results that the server does not take.
    pub refused: u64,
    /// Why not, the first of them.
    pub refusal: Option<String>,
    /// Results of which something is gone from the local store.
    pub gone: u64,
    /// Results that are still queued.
    pub left: u64,
    /// Why they are.
    pub why_left: Option<String>,
    /// It is of no use to try again soon.
    pub is_over: bool,
    /// What was sent, in bytes of blobs.
    pub bytes: u64,
}

impl Tally {
    /// Something stays queued; where it `is_over`, all the rest would fare the same.
    pub(super) fn stay(&mut self, why: String, is_over: bool) {
        self.why_left.get_or_insert(why);
        self.is_over |= is_over;
    }

    /// One line for a log, so that launchers that log side by side do not mix theirs.
    pub(super) fn log(&self, to: Option<&Path>) {
        let (said, pid) = (self.to_string(), std::process::id());
        let left = self.why_left.as_ref().filter(|_| self.left > 0);
        let left = left.map(|why| format!("; {} are still queued: {why}", self.left)).unwrap_or_default();
        if let Some(path) = to.filter(|_| !said.is_empty() || !left.is_empty()) {
            let line = format!("pcmcache[{pid}] uploader: {said}{left}\n");
            let opened = disk::OpenOptions::new().append(true).create(true).open(path);
            let _ = opened.and_then(|mut file| file.write_all(line.as_bytes()));
        }
    }
}

/// What there is to say of it, for people; nothing, where nothing was done.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.uploaded + self.diverged + self.gone + self.refused == 0 {
            return Ok(());
        }
        write!(f, "{} results uploaded ({})", self.uploaded, ByteSize(self.bytes))?;
        let refused = format!("refused: {}", self.refusal.as_deref().unwrap_or_default());
        for (count, what) in [
            (self.diverged, "lost to others that were published first"),
            (self.gone, "gone from the local store"),
            (self.refused, refused.as_str()),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}
