//! The breaker: one small file per server URL, by which all launchers of a host know that the server is away.
//!
//! Closed (no file): ask the server. Open: for a while nobody does, and nobody pays for it. Half-open (the while
//! is over): exactly one launcher probes, beside its compile, and the others go on without; a probe that succeeds
//! removes the file, one that fails opens it again for twice as long.
//!
//! ```text
//! breaker v1 001764000000000 010 5f0c91aa     when it opened (ms since 1970), for how many seconds, checksum
//! ```
//!
//! Invariants: the file is written under its flock, which a prober holds until it knows. Nonsense, a clock that
//! jumped back, a file that cannot be read or a directory that cannot be written count as closed: the worst a
//! broken breaker does is a timeout per launch.
//!
//! Crash story: a record is one small write over the old one, of the same length; torn, its checksum fails. A
//! prober that dies loses its flock, and the next launcher probes.

use std::fmt;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pcmcache_shared::Digest;
use pcmcache_shared::disk::{self, File};
use rustix::fs::{FlockOperation, OFlags, flock};

/// For how long a breaker opens at first, and at most.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(60);

/// By how much the clocks that two processes read may seem to differ.
const SLACK: Duration = Duration::from_secs(1);

/// The wall clock: the file outlives its writer, so nothing monotonic will do.
pub type Now = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// The breaker of one server.
#[derive(Clone)]
pub struct Breaker {
    path: PathBuf,
    now: Now,
}

/// What a launcher may do.
#[derive(Debug)]
pub enum State {
    /// Ask the server.
    Closed,
    /// Go on without it.
    Open,
    /// Go on without it, and find out meanwhile whether it is back.
    HalfOpen(ProbeTicket),
}

/// The right to probe; nobody else has it. Dropped, the next launcher gets it.
#[derive(Debug)]
pub struct ProbeTicket {
    breaker: Breaker,
    record: Record,
    file: File,
}

impl Breaker {
    /// The breaker of the server at `url`, in the cache directory `dir`. Touches nothing yet.
    pub fn new(dir: &Path, url: &str, now: Now) -> Self {
        Self { path: dir.join("breaker").join(Digest::of(url).to_string()), now }
    }

    /// What a launcher may do now.
    pub fn state(&self) -> State {
        match self.open(false).ok().and_then(|file| Record::read(&file)) {
            None => State::Closed,
            Some(record) => match record.phase((self.now)()) {
                Phase::Nonsense => State::Closed,
                Phase::Open => State::Open,
                Phase::Expired => self.take_ticket(),
            },
        }
    }

    /// The server is away: nobody shall ask it for a while. Does nothing where that is known already, and where
    /// it cannot be written down.
    pub fn trip(&self) {
        let _ = self.try_trip();
    }

    /// The server has answered: everybody may ask it again.
    pub fn close(&self) {
        let _ = disk::remove_file(&self.path);
    }

    fn try_trip(&self) -> io::Result<()> {
        // Only this one level: the cache directory itself is for the local store to make.
        if let Some(parent) = self.path.parent() {
            let _ = disk::create_private_dir(parent);
        }
        let file = self.open(true)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let now = (self.now)();
        let record = Record::read(&file);
        match record.as_ref().map_or(Phase::Nonsense, |record| record.phase(now)) {
            Phase::Open => Ok(()),
            Phase::Nonsense => Record::first(now).write(&file),
            Phase::Expired => record.unwrap_or_else(|| Record::first(now)).again(now).write(&file),
        }
    }

    fn take_ticket(&self) -> State {
        let Ok(file) = self.open(false) else { return State::Closed };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return State::Open,
            Err(_) => return State::Closed,
        }
        // Between the first look and the lock another prober may have come to its end.
        let removed = file.metadata().map_or(true, |metadata| metadata.nlink() == 0);
        match Record::read(&file).filter(|_| !removed) {
            None => State::Closed,
            Some(record) => match record.phase((self.now)()) {
                Phase::Nonsense => State::Closed,
                Phase::Open => State::Open,
                Phase::Expired => State::HalfOpen(ProbeTicket { breaker: self.clone(), record, file }),
            },
        }
    }

    /// Opens the file for reading and writing, if it is a plain file and no link.
    fn open(&self, create: bool) -> io::Result<File> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = disk::OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .mode(0o600)
            .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
            .open(&self.path)?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker").field("path", &self.path).finish_non_exhaustive()
    }
}

impl ProbeTicket {
    /// The server is back: everybody may ask it again.
    pub fn succeeded(self) {
        self.breaker.close();
    }

    /// It is still away: nobody asks it for twice as long as before.
    pub fn failed(self) {
        let _ = self.record.again((self.breaker.now)()).write(&self.file);
    }
}

/// When a breaker opened, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    opened: SystemTime,
    delay: Duration,
}

/// What a record says at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It is from the future: the clock jumped.
    Nonsense,
    Open,
    Expired,
}

impl Record {
    const MAGIC: &str = "breaker v1";

    fn first(now: SystemTime) -> Self {
        Self { opened: now, delay: FIRST }
    }

    fn again(self, now: SystemTime) -> Self {
        Self { opened: now, delay: (self.delay * 2).min(LONGEST) }
    }

    fn phase(&self, now: SystemTime) -> Phase {
        match now.duration_since(self.opened) {
            Ok(age) if age < self.delay => Phase::Open,
            Ok(_) => Phase::Expired,
            Err(early) if early.duration() <= SLACK => Phase::Open,
            Err(_) => Phase::Nonsense,
        }
    }

    /// Always of the same length, so that a new one covers the old one.
    fn text(&self) -> String {
        let opened_ms = self.opened.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let fields = format!("{} {opened_ms:015} {:03}", Self::MAGIC, self.delay.as_secs());
        format!("{fields} {}\n", checksum(&fields))
    }

    fn parse(text: &str) -> Option<Self> {
        let (fields, sum) = text.strip_suffix('\n')?.rsplit_once(' ')?;
        if sum != checksum(fields) {
            return None;
        }
        let (opened_ms, delay_s) = fields.strip_prefix(Self::MAGIC)?.trim_start().split_once(' ')?;
        let opened = UNIX_EPOCH.checked_add(Duration::from_millis(opened_ms.parse().ok()?))?;
        let delay = Duration::from_secs(delay_s.parse().ok()?);
        (FIRST..=LONGEST).contains(&delay).then_some(Self { opened, delay })
    }

    fn read(file: &File) -> Option<Self> {
        let mut text = String::new();
        file.file().take(128).read_to_string(&mut text).ok()?;
        Self::parse(&text)
    }

    fn write(&self, file: &File) -> io::Result<()> {
        let text = self.text();
        file.write_all_at(text.as_bytes(), 0)?;
        file.set_len(text.len() as u64)
    }
}

fn checksum(fields: &str) -> String {
    Digest::of(fields).to_string().chars().take(8).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const URL: &str = "http://127.0.0.1:1";

    /// A cache directory and a clock that stands still.
    struct Host {
        dir: PathBuf,
        seconds: Arc<AtomicU64>,
    }

    impl Host {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("pcmcache-breaker-{name}-{}", std::process::id()));
            fs_err::create_dir_all(&dir).unwrap();
            Self { dir, seconds: Arc::new(AtomicU64::new(1_764_000_000)) }
        }

        fn breaker(&self) -> Breaker {
            let seconds = Arc::clone(&self.seconds);
            let now = move || UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::SeqCst));
            Breaker::new(&self.dir, URL, Arc::new(now))
        }

        fn pass(&self, seconds: u64) {
            self.seconds.fetch_add(seconds, Ordering::SeqCst);
        }

        fn ticket(&self) -> ProbeTicket {
            let state = self.breaker().state();
            let State::HalfOpen(ticket) = state else { panic!("{state:?}") };
            ticket
        }

        fn is_closed(&self) -> bool {
            matches!(self.breaker().state(), State::Closed)
        }

        fn is_open(&self) -> bool {
            matches!(self.breaker().state(), State::Open)
        }
    }

    impl Drop for Host {
        fn drop(&mut self) {
            let _ = fs_err::remove_dir_all(&self.dir);
        }
    }

    #[test]
    fn tripped_it_is_open_for_all_until_a_probe_succeeds() {
        let host = Host::new("life");
        assert!(host.is_closed());
        assert!(!host.breaker().path.exists(), "looking leaves nothing");
        host.breaker().trip();
        assert!(host.is_open());
        host.pass(9);
        host.breaker().trip();
        assert!(host.is_open());
        host.pass(1);
        host.ticket().succeeded();
        assert!(host.is_closed());
        assert!(!host.breaker().path.exists());
    }

    #[test]
    fn each_failed_probe_doubles_the_while_up_to_a_minute() {
        let host = Host::new("doubling");
        host.breaker().trip();
        for delay in [10, 20, 40, 60, 60] {
            assert!(host.is_open());
            host.pass(delay - 1);
            assert!(host.is_open(), "{delay}");
            host.pass(1);
            host.ticket().failed();
        }
    }

    #[test]
    fn one_probes_and_the_others_go_on_without() {
        let host = Host::new("single");
        host.breaker().trip();
        host.pass(10);
        let ticket = host.ticket();
        assert!(host.is_open());
        host.breaker().trip();
        drop(ticket);
        let next = host.ticket();
        assert!(host.is_open());
        next.failed();
        assert!(host.is_open());
    }

    #[test]
    fn of_many_at_once_exactly_one_probes() {
        let host = Host::new("many");
        host.breaker().trip();
        host.pass(10);
        let barrier = std::sync::Barrier::new(8);
        let tickets: Vec<_> = std::thread::scope(|scope| {
            let look = || {
                barrier.wait();
                host.breaker().state()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(look)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(tickets.iter().filter(|state| matches!(state, State::HalfOpen(_))).count(), 1);
        assert_eq!(tickets.iter().filter(|state| matches!(state, State::Open)).count(), 7);
    }

    #[test]
    fn a_launch_that_was_under_way_opens_an_expired_one_for_longer() {
        let host = Host::new("late");
        host.breaker().trip();
        host.pass(10);
        host.breaker().trip();
        host.pass(19);
        assert!(host.is_open());
        host.pass(1);
        drop(host.ticket());
    }

    #[test]
    fn nonsense_counts_as_closed_and_can_be_tripped() {
        let host = Host::new("nonsense");
        host.breaker().trip();
        let good = fs_err::read_to_string(&host.breaker().path).unwrap();
        let bad_sum = good.replace("010", "020");
        let far = Record { opened: UNIX_EPOCH + Duration::from_secs(99_999_999_999), delay: FIRST }.text();
        let long = Record { opened: UNIX_EPOCH, delay: Duration::from_secs(999) }.text();
        for bad in
            ["", "\n", "breaker v1", &good[..20], &bad_sum, &far, &long, &"x".repeat(100_000), "\u{0}\u{0}"]
        {
            fs_err::write(&host.breaker().path, bad).unwrap();
            assert!(host.is_closed(), "{bad:?}");
            host.breaker().trip();
            assert!(host.is_open(), "{bad:?}");
            assert_eq!(fs_err::read_to_string(&host.breaker().path).unwrap(), good);
        }
        fs_err::write(&host.breaker().path, [0xff; 40]).unwrap();
        assert!(host.is_closed());
    }

    #[test]
    fn a_clock_that_jumped_back_closes_it() {
        let host = Host::new("clock");
        host.breaker().trip();
        host.seconds.fetch_sub(1, Ordering::SeqCst);
        assert!(host.is_open(), "a second is no jump");
        host.seconds.fetch_sub(3600, Ordering::SeqCst);
        assert!(host.is_closed());
    }

    #[test]
    fn where_nothing_can_be_written_it_stays_closed_in_silence() {
        let host = Host::new("unwritable");
        let file = host.dir.join("a-file");
        fs_err::write(&file, "").unwrap();
        for dir in [file, host.dir.join("missing"), PathBuf::from("/proc/nothing")] {
            let breaker = Breaker::new(&dir, URL, Arc::new(|| UNIX_EPOCH));
            breaker.trip();
            assert!(matches!(breaker.state(), State::Closed), "{}", dir.display());
        }
    }

    #[test]
    fn links_and_special_files_are_not_followed() {
        let host = Host::new("links");
        let (breaker, victim) = (host.breaker(), host.dir.join("victim"));
        fs_err::create_dir_all(breaker.path.parent().unwrap()).unwrap();
        fs_err::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &breaker.path).unwrap();
        breaker.trip();
        assert!(host.is_closed());
        assert_eq!(fs_err::read_to_string(&victim).unwrap(), "precious");
        fs_err::remove_file(&breaker.path).unwrap();
        fs_err::create_dir_all(&breaker.path).unwrap();
        breaker.trip();
        assert!(host.is_closed());
    }

    #[test]
    fn each_url_has_its_own() {
        let host = Host::new("urls");
        host.breaker().trip();
        let other = Breaker::new(&host.dir, "http://127.0.0.1:2", host.breaker().now);
        assert!(matches!(other.state(), State::Closed));
    }
}
