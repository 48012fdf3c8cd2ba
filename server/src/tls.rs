//! TLS: who the server is, by files that may change while it runs.
//!
//! A connection takes the certificate that is there when it comes, and keeps it. The files are looked at every few
//! seconds, and at once when someone asks ([`Tls::look_now`]). A change counts when it stands still from one look to the
//! next: who renews a certificate writes two files, and between the two they do not belong together.
//!
//! Invariant: what serves is a pair that belonged together when it was read. One that cannot be used is logged as an
//! error, once, and the one before it stays.
//!
//! Nothing is resumed, no session is kept and no ticket given: a launcher lives for one connection, and a client whose
//! certificate authority was taken away must not come back by an old session.

mod files;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

pub use files::{Files, Loaded, Stamp, TlsError};

use crate::clock::Clock;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The present certificate and key, and where the next ones will come from.
#[derive(Debug)]
pub struct Tls {
    files: Files,
    clock: Arc<dyn Clock>,
    first: Stamp,
    present: Mutex<Loaded>,
    now: Notify,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] if no server could be run with them.
    pub fn open(files: Files, clock: Arc<dyn Clock>) -> Result<Arc<Self>, TlsError> {
        let first = files.stamp();
        let present = Mutex::new(files.load()?);
        Ok(Arc::new(Self { files, clock, first, present, now: Notify::new() }))
    }

    /// What the next connection is accepted with.
    pub fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.present().config).into()
    }

    /// When the certificate that is shown now ends, in seconds since 1970, if that can be told.
    pub fn expires_s(&self) -> Option<u64> {
        self.present().expires_s
    }

    fn present(&self) -> MutexGuard<'_, Loaded> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the files read again, changed or not.
    pub fn look_now(&self) {
        self.now.notify_one();
    }

    /// Follows the files for as long as it is polled.
    pub async fn follow(self: Arc<Self>) {
        let mut looks = Looks { served: self.first.clone(), last: self.first.clone() };
        loop {
            let asked = tokio::select! {
                () = self.clock.sleep(LOOK_EVERY) => false,
                () = self.now.notified() => true,
            };
            let tls = Arc::clone(&self);
            let look = move || {
                tls.look(&mut looks, asked);
                looks
            };
            // The disk may be slow, or a network's.
            match tokio::task::spawn_blocking(look).await {
                Ok(after) => looks = after,
                Err(_) => return,
            }
        }
    }

    fn look(&self, looks: &mut Looks, asked: bool) {
        if !looks.changed(self.files.stamp(), asked) {
            return;
        }
        match self.files.load() {
            Ok(loaded) => {
                *self.present() = loaded;
                tracing::info!(certificate = %self.files.cert.display(), "the certificate was read again");
            }
            Err(error) => {
                tracing::error!(%error, "the new certificate is of no use; the one before it stays")
            }
        }
    }
}

/// What the files looked like.
struct Looks {
    /// When they were last read, for better or worse.
    served: Stamp,
    /// At the last look.
    last: Stamp,
}

impl Looks {
    /// Whether to read the files: they are others, and no one is writing them just now.
    fn changed(&mut self, now: Stamp, asked: bool) -> bool {
        let stands = now == self.last;
        self.last = now;
        let due = asked || (stands && self.last != self.served);
        if due {
            self.served = self.last.clone();
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(size: u64) -> Stamp {
        Stamp::of_sizes(&[size])
    }

    #[test]
    fn a_change_counts_once_it_stands_and_only_once() {
        let mut looks = Looks { served: stamp(1), last: stamp(1) };
        for (size, asked, read) in [
            (1, false, false),
            (2, false, false), // written just now
            (3, false, false), // and again
            (3, false, true),
            (3, false, false),
            (4, true, true), // someone asked
            (4, false, false),
            (4, true, true),
            (3, false, false),
            (4, false, false), // there and back
            (4, false, false),
        ] {
            assert_eq!(looks.changed(stamp(size), asked), read, "{size} {asked}");
        }
    }
}
