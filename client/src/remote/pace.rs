//! Whether blobs travel packed: where nobody says, while the link to the server is slow, as the last large blob showed.
//!
//! ```text
//! PCMCACHE_DIR/v1/slow/SERVER      empty; there while the link to that server is slow
//! ```
//!
//! Invariant: it decides how bytes travel, never which they are. A mark that is lost, left behind or cannot be written costs
//! time. What travels packed is measured as it travels, so a link that becomes fast is found out as well as one that
//! becomes slow. This very host is never far away: what is slow there is the processor, which packing would only keep busier.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pcmcache_shared::packed::LEAST;
use pcmcache_shared::{Digest, disk};

use super::is_this_host;
use crate::settings::When;

/// A link is slow that brings fewer bytes a second. One processor packs several times as much.
const SLOW: f64 = 50e6;
/// Of less, what is measured is the way there and back.
const TELLING: u64 = 1024 * 1024;
/// The same of what is sent: who takes it makes it durable before they answer.
const TELLING_UP: u64 = 8 * TELLING;

/// How fast the link to one server is.
#[derive(Debug, Clone)]
pub struct Pace {
    when: When,
    /// There while it is slow.
    mark: PathBuf,
}

impl Pace {
    /// Of the link to the server at `url`; `root` is where the store's files are.
    pub fn of(when: When, root: &Path, url: &str) -> Self {
        let when = if when == When::Auto && is_this_host(url) { When::Off } else { when };
        Self { when, mark: root.join("slow").join(Digest::of(url).to_string()) }
    }

    /// Of a link over which nothing travels packed.
    pub fn never() -> Self {
        Self { when: When::Off, mark: PathBuf::new() }
    }

    /// Whether a blob of so many bytes had better travel packed.
    pub(super) fn packs(&self, size: u64) -> bool {
        let packs = || match self.when {
            When::Off => false,
            When::On => true,
            When::Auto => self.mark.exists(),
        };
        size > LEAST && packs()
    }

    /// So many bytes were sent, and taken, in that time.
    pub(super) fn note_upload(&self, bytes: u64, took: Duration) {
        if bytes >= TELLING_UP {
            self.note(bytes, took);
        }
    }

    /// So many bytes came in that time.
    pub(super) fn note(&self, bytes: u64, took: Duration) {
        if self.when != When::Auto || bytes < TELLING {
            return;
        }
        let is_slow = bytes as f64 / took.as_secs_f64() < SLOW;
        if is_slow != self.mark.exists() {
            let _ = if is_slow { self.set() } else { disk::remove_file(&self.mark) };
        }
    }

    fn set(&self) -> std::io::Result<()> {
        // Only this one level: the cache directory itself is for the local store to make.
        if let Some(parent) = self.mark.parent() {
            let _ = disk::create_private_dir(parent);
        }
        // Nothing that lies there is followed, or touched.
        disk::OpenOptions::new().write(true).create_new(true).open(&self.mark).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MB: u64 = 1_000_000;

    #[test]
    fn the_last_large_blob_says_how_fast_a_link_is() {
        let root = std::env::temp_dir().join(format!("pcmcache-pace-{}", std::process::id()));
        fs_err::create_dir_all(&root).unwrap();
        let pace = |when, url: &str| Pace::of(when, &root, url);
        let auto = pace(When::Auto, "https://cache.example");
        assert!(!auto.packs(MB), "nothing is known of it");
        for (bytes, took, packs) in [
            (100 * MB, SECOND, false),
            (12 * MB, SECOND, true),
            // Too little to tell.
            (MB / 2, SECOND / 1000, true),
            (100 * MB, SECOND, false),
            (MB / 2, SECOND, false),
            (2 * MB, SECOND, true),
        ] {
            auto.note(bytes, took);
            assert_eq!(pace(When::Auto, "https://cache.example").packs(MB), packs, "{bytes} in {took:?}");
        }
        assert!(!auto.packs(LEAST) && auto.packs(LEAST + 1));
        assert!(!pace(When::Auto, "https://other.example").packs(MB));
        assert!(pace(When::On, "https://other.example").packs(MB));
        assert!(!pace(When::Off, "https://cache.example").packs(MB));
        let here = pace(When::Auto, "http://127.0.0.1:7878");
        here.note(2 * MB, SECOND);
        assert!(!here.packs(MB));
        fs_err::remove_dir_all(&root).unwrap();
        auto.note(2 * MB, SECOND);
        assert!(!auto.packs(MB), "where nothing can be noted nothing is");
    }
}
