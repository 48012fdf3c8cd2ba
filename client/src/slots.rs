//! How many compilers run at once under the launchers that share a cache directory.
//!
//! A build may run more launchers than there are cores: those that wait for a compile of another machine then idle nobody,
//! and the cores are shared by slots. A slot is an flock on one of the files `jobs/0` to `jobs/N-1`, so the kernel frees it
//! when its holder dies, however it dies. It is held while a compiler runs, and while a server is asked for the right to
//! run one; never while waiting for anybody.
//!
//! Nothing but the host's peace rests on the limit: where the files cannot be had, or a wait was long enough, a compiler
//! runs without a slot.
//!
//! Who waits looks at all slots now and then. One of them, who holds `jobs/next`, looks often, so that a slot does not lie
//! idle and not everybody watches for it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcmcache_shared::disk;

use crate::os;

/// Between two looks of the one who looks often, and of the others.
const OFTEN: Duration = Duration::from_millis(4);
const SELDOM: Duration = Duration::from_millis(50);

/// The most compilers that anyone limits a host to.
pub const MOST: usize = 1024;

/// The slots of this host, as one launch sees them.
#[derive(Debug)]
pub struct Slots {
    /// Where their files are; none if there is no limit.
    directory: Option<PathBuf>,
    count: usize,
    /// How long this launch still waits for one.
    patience: Duration,
}

/// The right to run a compiler now; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    /// Locked for as long as it is open; none where nothing limits.
    _lock: Option<disk::File>,
}

impl Slots {
    /// `count` slots in the store at `root`; no limit without either. Whoever waits does so for `patience` in all.
    pub fn new(root: Option<&Path>, count: Option<usize>, patience: Duration) -> Self {
        let directory = root.filter(|_| count.is_some()).map(|root| root.join("jobs"));
        Self { directory, count: count.unwrap_or_default(), patience }
    }

    /// A slot, if one is free.
    pub fn try_take(&mut self) -> Option<Slot> {
        let Some(directory) = &self.directory else { return Some(Slot { _lock: None }) };
        let first = usize::try_from(std::process::id()).unwrap_or_default();
        for index in 0..self.count {
            match lock(directory, &((first + index) % self.count).to_string()) {
                Ok(Some(file)) => return Some(Slot { _lock: Some(file) }),
                Ok(None) => {}
                Err(_) => {
                    self.directory = None;
                    return Some(Slot { _lock: None });
                }
            }
        }
        None
    }

    /// Waits for a slot, at most this long. Once this launch has waited long enough in all it goes on without one. `None`:
    /// none was free, or `interrupted` said so.
    pub fn wait(&mut self, at_most: Duration, interrupted: &dyn Fn() -> bool) -> Option<Slot> {
        let mut left = at_most;
        let mut next = None;
        loop {
            if let Some(slot) = self.try_take() {
                return Some(slot);
            }
            if self.patience.is_zero() {
                return Some(Slot { _lock: None });
            }
            if left.is_zero() || interrupted() {
                return None;
            }
            next = next.or_else(|| lock(self.directory.as_deref()?, "next").ok()?);
            let pause = if next.is_some() { OFTEN } else { SELDOM };
            std::thread::sleep(pause);
            left = left.saturating_sub(pause);
            self.patience = self.patience.saturating_sub(pause);
        }
    }
}

/// The file of this name, locked; none if someone else holds it.
fn lock(directory: &Path, name: &str) -> io::Result<Option<disk::File>> {
    let open = || {
        let mut options = disk::OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).open(directory.join(name))
    };
    let file = open().or_else(|_| {
        disk::create_dir_all(directory)?;
        open()
    })?;
    Ok(os::try_lock(file.file())?.then_some(file))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("pcmcache-slots-{name}-{}", std::process::id()));
            fs_err::create_dir_all(&dir).unwrap();
            Self(dir)
        }

        fn slots(&self, count: usize, patience: Duration) -> Slots {
            Slots::new(Some(&self.0), Some(count), patience)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs_err::remove_dir_all(&self.0);
        }
    }

    fn is_held(slot: &Slot) -> bool {
        slot._lock.is_some()
    }

    #[test]
    fn there_are_so_many_and_one_given_back_is_free() {
        let scratch = Scratch::new("so-many");
        let mut slots = scratch.slots(2, LONG);
        let (first, second) = (slots.try_take().unwrap(), slots.try_take().unwrap());
        assert!(is_held(&first) && is_held(&second) && slots.try_take().is_none());
        assert!(scratch.slots(2, LONG).try_take().is_none(), "the launchers of a host share them");
        assert!(scratch.slots(3, LONG).try_take().is_some());
        drop(first);
        assert!(slots.try_take().is_some_and(|slot| is_held(&slot)));
    }

    #[test]
    fn who_waits_gets_the_slot_that_is_given_back() {
        let scratch = Scratch::new("given-back");
        let held = scratch.slots(1, LONG).try_take().unwrap();
        std::thread::scope(|scope| {
            let wait = || scratch.slots(1, LONG).wait(LONG, &|| false).is_some_and(|slot| is_held(&slot));
            let waiting = [(); 3].map(|()| scope.spawn(wait));
            while !scratch.0.join("jobs/next").exists() {
                std::thread::yield_now();
            }
            assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
            drop(held);
            assert_eq!(
                waiting.map(|waiting| waiting.join().unwrap()),
                [true; 3],
                "each gives it to the next"
            );
        });
    }

    #[test]
    fn a_wait_ends_with_its_time_with_all_patience_and_with_an_interrupt() {
        let scratch = Scratch::new("ends");
        let _held = scratch.slots(1, LONG).try_take().unwrap();
        let mut slots = scratch.slots(1, Duration::from_millis(200));
        assert!(slots.wait(Duration::from_millis(10), &|| false).is_none());
        assert!(slots.wait(Duration::from_millis(10), &|| false).is_none());
        assert!(slots.wait(LONG, &|| false).is_some_and(|slot| !is_held(&slot)), "on without one");
        let stop = AtomicBool::new(false);
        let interrupted = || stop.swap(true, Ordering::SeqCst);
        assert!(scratch.slots(1, LONG).wait(LONG, &interrupted).is_none());
    }

    #[test]
    fn without_a_limit_or_a_place_for_it_a_slot_is_always_free() {
        let scratch = Scratch::new("unlimited");
        let root = scratch.0.as_path();
        fs_err::write(root.join("jobs"), "no directory").unwrap();
        for (root, count) in [(None, Some(1)), (Some(root), None), (Some(root), Some(1))] {
            let mut slots = Slots::new(root, count, LONG);
            let all = [(); 3].map(|()| slots.try_take().unwrap());
            assert!(!all.iter().any(is_held), "{count:?}");
        }
    }
}
