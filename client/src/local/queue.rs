//! The queue: results made here that are yet to be uploaded, since the server was away or nobody was to wait for it.
//!
//! ```text
//! queue/NAME     sealed JSON, one result; NAME is a digest of server, scope and action, so none is queued twice
//! sync.lock      flocked by who uploads; its time says when an upload was last begun in passing
//! ```
//!
//! It is the one thing of the store that survives a power cut: an entry is fsynced, renamed, and its directory fsynced. What
//! it names is not, and a trim may take it: then the entry ends as `queue_gone`, which costs another a compile. Bounded
//! in number and in age; the oldest go, and are counted.
//!
//! Crash story: an entry goes only after the server has said what became of its result. Who is killed before that leaves it
//! to the next, who uploads it again: the same result twice is one result.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use pcmcache_shared::api::leases::Hold;
use pcmcache_shared::{ActionKey, ActionResult, Claim, Digest, Scope, disk};
use serde::{Deserialize, Serialize};

use super::inventory::Found;
use super::origin::ServerId;
use super::sealed::{self, Sealed};
use super::stats::Counts;
use super::{Kind, MAX_RESULT, Store};
use crate::os::{self, Moment};

/// As many wait at most, and for so long.
const MAX_QUEUED: usize = 10_000;
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A launch begins an upload in passing at most this often.
const IN_PASSING: Duration = Duration::from_secs(30);

/// A result that is yet to be uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// Where to.
    pub server: ServerId,
    /// As part of what.
    pub scope: Scope,
    /// Its key; the recipe is the blob of that name.
    pub action: ActionKey,
    /// What a lease on it would have been on.
    pub claim: Claim,
    /// The lease that it was made under, if that may live on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Handed>,
    /// What the action made. Not signed yet.
    pub result: ActionResult,
}

/// A lease that its launcher handed over to who uploads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handed {
    /// What proves it.
    pub hold: Hold,
    /// Which request it was granted for: who asks under this id gets the stream that holds it.
    pub request_id: String,
    /// What people call what was built.
    pub subject: String,
}

impl Queued {
    fn name(&self) -> String {
        let Self { server, scope, action, .. } = self;
        Digest::of(format!("{server} {scope} {action}")).to_string()
    }
}

/// The right to upload what is queued: one process at a time.
#[derive(Debug)]
pub struct SyncLock(disk::File);

impl SyncLock {
    /// The locked file, to hand it on to another process.
    pub fn into_file(self) -> std::fs::File {
        self.0.into_parts().0
    }
}

impl Store {
    /// Queues a result. It is there after a power cut once this returns.
    pub fn enqueue(&self, queued: &Queued) -> io::Result<()> {
        let directory = self.directory(Kind::Queue);
        if disk::metadata(&directory).is_err() {
            disk::create_dir_all(&directory)?;
            disk::sync_directory(self.root())?;
        }
        self.keep_queue_below(MAX_QUEUED)?;
        let body = serde_json::to_vec(queued)?;
        self.grew_by(body.len() as u64);
        sealed::write_durably(&directory.join(queued.name()), &body)
    }

    fn keep_queue_below(&self, bound: usize) -> io::Result<()> {
        if disk::read_dir(self.directory(Kind::Queue))?.count() < bound {
            return Ok(());
        }
        let queue = self.queue();
        // Room for some more at once, so that not each of a long build counts them all.
        let going = queue.len().saturating_sub(bound - bound / 100 - 1);
        self.drop_queued(queue.iter().take(going), "queue_full");
        Ok(())
    }

    /// What is queued, the oldest first.
    pub fn queue(&self) -> Vec<Found> {
        let mut queue = self.inventory(Kind::Queue);
        queue.retain(|found| !found.is_stage());
        queue.sort_by(|a, b| (a.used, &a.name).cmp(&(b.used, &b.name)));
        queue
    }

    /// Whether something may be queued.
    pub fn has_queue(&self) -> bool {
        disk::read_dir(self.directory(Kind::Queue)).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// The entry, as it was written. One that is damaged is set aside.
    pub fn queued(&self, found: &Found) -> Option<Queued> {
        match sealed::peek(&found.path, 2 * MAX_RESULT) {
            Sealed::Whole(body) => serde_json::from_slice(&body).ok(),
            Sealed::Missing => None,
            Sealed::Damaged => {
                self.set_aside(&found.path);
                None
            }
        }
    }

    /// Removes what has waited for too long, and counts it.
    pub fn expire_queue(&self) {
        let now = Moment::now();
        let queue = self.queue();
        self.drop_queued(queue.iter().filter(|found| found.used.is_before(now, MAX_AGE)), "queue_expired");
    }

    fn drop_queued<'a>(&self, going: impl Iterator<Item = &'a Found>, why: &str) {
        let mut counts = Counts::default();
        going.filter(|found| found.remove()).for_each(|_| counts.error(why));
        if counts != Counts::default() {
            let _ = self.count(&counts);
        }
    }

    fn sync_lock_path(&self) -> PathBuf {
        self.root().join("sync.lock")
    }

    /// The right to upload, if nobody has it.
    pub fn lock_for_sync(&self) -> io::Result<Option<SyncLock>> {
        let mut options = disk::OpenOptions::new();
        let file =
            options.write(true).create(true).truncate(false).mode(0o600).open(self.sync_lock_path())?;
        Ok(os::try_lock(file.file())?.then_some(SyncLock(file)))
    }

    /// The same in passing: only if nobody began to upload for a while.
    pub fn lock_for_sync_in_passing(&self) -> Option<SyncLock> {
        let path = self.sync_lock_path();
        let is_due = |metadata: std::fs::Metadata| {
            let age = Moment::now().seconds() - metadata.mtime();
            // A time that lies ahead is of a clock that was set back.
            age < 0 || age >= IN_PASSING.as_secs() as i64
        };
        if !disk::metadata(&path).map_or(true, is_due) {
            return None;
        }
        let lock = self.lock_for_sync().ok().flatten()?;
        os::renew(&path);
        Some(lock)
    }
}

#[cfg(test)]
mod tests {
    use pcmcache_shared::{Cost, Fence, Secret};

    use super::*;

    fn store(name: &str) -> (Store, PathBuf) {
        let dir = std::env::temp_dir().join(format!("pcmcache-queue-{name}-{}", std::process::id()));
        (Store::open(&dir).unwrap(), dir)
    }

    fn queued(action: &str) -> Queued {
        let result = ActionResult {
            outputs: Vec::new(),
            cost: Cost::default(),
            builder: "here".to_owned(),
            signature: None,
        };
        Queued {
            server: ServerId::of("http://cache"),
            scope: Scope::default(),
            action: ActionKey::of(action),
            claim: Claim::of(action),
            lease: None,
            result,
        }
    }

    #[test]
    fn what_is_queued_comes_back_once() {
        let (store, dir) = store("once");
        assert!(!store.has_queue() && store.queue().is_empty());
        for action in ["a", "b", "a"] {
            store.enqueue(&queued(action)).unwrap();
        }
        let handed = Handed {
            hold: Hold { fence: Fence(7), secret: Secret::from_random([7; 16]) },
            request_id: "request-1".to_owned(),
            subject: "m".to_owned(),
        };
        let b = Queued { lease: Some(handed), ..queued("b") };
        store.enqueue(&b).unwrap();
        let mut actions: Vec<_> = store.queue().iter().map(|f| store.queued(f).unwrap()).collect();
        actions.sort_by_key(|queued| queued.action != ActionKey::of("a"));
        assert_eq!(actions, [queued("a"), b]);
        let elsewhere = Queued { scope: "other".parse().unwrap(), ..queued("a") };
        store.enqueue(&elsewhere).unwrap();
        assert_eq!(store.queue().len(), 3);
        fs_err::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_damaged_entry_is_none_and_set_aside() {
        let (store, dir) = store("damaged");
        store.enqueue(&queued("a")).unwrap();
        let [found] = &store.queue()[..] else { panic!("one") };
        let mut bytes = fs_err::read(&found.path).unwrap();
        bytes[20] ^= 1;
        fs_err::write(&found.path, bytes).unwrap();
        assert_eq!(store.queued(found), None);
        assert!(!store.has_queue());
        fs_err::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_oldest_go_and_are_counted() {
        let (store, dir) = store("bound");
        let age = |action: &str, seconds: i64| {
            let queued = queued(action);
            store.enqueue(&queued).unwrap();
            let path = store.directory(Kind::Queue).join(queued.name());
            let then = Moment::now().seconds() - seconds;
            let file = std::fs::File::options().write(true).open(path).unwrap();
            let then = std::time::UNIX_EPOCH + Duration::from_secs(then as u64);
            file.set_modified(then).unwrap();
        };
        let actions =
            || -> Vec<_> { store.queue().iter().map(|f| store.queued(f).unwrap().action).collect() };
        let of = |names: &[&str]| -> Vec<_> { names.iter().map(ActionKey::of).collect() };
        for (action, seconds) in [("b", 200), ("a", 300), ("d", 50), ("c", 100)] {
            age(action, seconds);
        }
        assert_eq!(actions(), of(&["a", "b", "c", "d"]));
        store.keep_queue_below(5).unwrap();
        assert_eq!(actions().len(), 4);
        store.keep_queue_below(4).unwrap();
        assert_eq!(actions(), of(&["b", "c", "d"]));
        age("old", 7 * 24 * 3600 + 1);
        store.expire_queue();
        assert_eq!(actions(), of(&["b", "c", "d"]));
        let errors = store.counts().errors;
        assert_eq!((errors["queue_full"], errors["queue_expired"]), (1, 1));
        fs_err::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn one_uploads_at_a_time_and_in_passing_now_and_then() {
        let (store, dir) = store("lock");
        let lock = store.lock_for_sync_in_passing().unwrap();
        assert!(store.lock_for_sync().unwrap().is_none());
        drop(lock);
        assert!(store.lock_for_sync_in_passing().is_none(), "one began just now");
        assert!(store.lock_for_sync().unwrap().is_some(), "who asks for it gets it");
        fs_err::remove_dir_all(&dir).unwrap();
    }
}
