//! The cache directory and the directory at hand: may they be written, how much fits, what their file systems can do.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcmcache_shared::disk;

use super::Finding;
use crate::local::Store;
use crate::os::{self, Moment};
use crate::settings::Settings;
use crate::size::ByteSize;

/// How long file times may take to change, before that is called coarse.
const FINE: Duration = Duration::from_millis(100);

pub(super) fn examine(settings: &Settings, cwd: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    match Store::open(&settings.dir) {
        Ok(store) => {
            findings.push(room(&store, settings));
            findings.extend(file_system("cache directory", store.root()));
        }
        Err(error) => findings.push(Finding::care(
            "cache directory",
            error.to_string(),
            "without it every command is compiled: set PCMCACHE_DIR to a directory of your own",
        )),
    }
    findings.extend(file_system("this directory", cwd));
    findings.push(clock());
    findings
}

/// How much is stored, and whether as much as the bound allows would fit.
fn room(store: &Store, settings: &Settings) -> Finding {
    let what = "room";
    let used = store.estimate();
    let Ok(free) = os::free_space(store.root()) else {
        return Finding::ok(what, format!("about {used} stored; how much is free is not known"));
    };
    match settings.max_size {
        Some(bound) if used.0.saturating_add(free) < bound.0 => Finding::care(
            what,
            format!("the bound is {bound}, but only {} are free and {used} stored", ByteSize(free)),
            format!("set PCMCACHE_MAX_SIZE below {}, or make room", ByteSize((used.0 + free) / 10 * 9)),
        ),
        Some(bound) => Finding::ok(what, format!("about {used} of {bound} stored, {} free", ByteSize(free))),
        None => Finding::ok(what, format!("about {used} stored without a bound, {} free", ByteSize(free))),
    }
}

/// What the launcher needs of a file system, tried out.
fn file_system(what: &'static str, dir: &Path) -> Vec<Finding> {
    let probe = match Probe::in_directory(dir) {
        Ok(probe) => probe,
        Err(error) => return vec![Finding::care(what, error.to_string(), "make it writable for this user")],
    };
    let mut findings = Vec::new();
    let local = "use a local file system for it";
    match probe.lock_excludes() {
        Ok(true) => {}
        Ok(false) => findings.push(Finding::care(what, "locks (flock) do not exclude each other", local)),
        Err(error) => findings.push(Finding::care(what, format!("no locks (flock): {error}"), local)),
    }
    if let Err(error) = probe.rename_replaces() {
        findings.push(Finding::care(what, format!("a rename does not replace a file: {error}"), local));
    }
    match probe.finest_step() {
        Ok(step) if step <= FINE => {}
        Ok(_) => findings.push(Finding::care(
            what,
            "file times are coarse: whether a file was touched since a compile began cannot be told",
            "use a file system with times finer than a second; else fresh files are hashed again and again",
        )),
        Err(error) => findings.push(Finding::care(what, error.to_string(), local)),
    }
    if findings.is_empty() {
        let copies =
            if probe.reflinks() { "copies share blocks (reflink)" } else { "copies are whole (no reflink)" };
        findings.push(Finding::ok(
            what,
            format!("{} is writable; locks, renames and times work; {copies}", dir.display()),
        ));
    }
    findings
}

/// The clock that file times come from.
fn clock() -> Finding {
    let start = Moment::now();
    let watch = os::stopwatch();
    start.let_pass();
    let tick = watch.elapsed();
    let found = format!("file times advance by {} ms at most", tick.as_millis().max(1));
    if tick <= FINE {
        Finding::ok("clock", found)
    } else {
        Finding::care("clock", found, "the system's clock stands still")
    }
}

/// Files of our own in a directory, gone when dropped.
struct Probe {
    files: [PathBuf; 2],
}

impl Drop for Probe {
    fn drop(&mut self) {
        for file in &self.files {
            let _ = disk::remove_file(file);
        }
    }
}

impl Probe {
    fn in_directory(dir: &Path) -> io::Result<Self> {
        let name = format!(".pcmcache-doctor-{:016x}", u64::from_ne_bytes(os::random()));
        let probe = Self { files: ["a", "b"].map(|end| dir.join(format!("{name}.{end}"))) };
        for file in &probe.files {
            disk::OpenOptions::new().write(true).create_new(true).open(file)?.write_all(&[b'x'; 4096])?;
        }
        Ok(probe)
    }

    fn lock_excludes(&self) -> io::Result<bool> {
        let [file, _] = &self.files;
        let (first, second) = (fs_err::File::open(file)?, fs_err::File::open(file)?);
        Ok(os::try_lock(first.file())? && !os::try_lock(second.file())?)
    }

    fn rename_replaces(&self) -> io::Result<()> {
        let [old, new] = &self.files;
        disk::write(old, "old")?;
        disk::rename(old, new)?;
        if fs_err::read(new)? == b"old" { Ok(()) } else { Err(io::Error::other("the other bytes are there")) }
    }

    /// How soon a file that is written again has another time.
    fn finest_step(&self) -> io::Result<Duration> {
        let [_, file] = &self.files;
        let watch = os::stopwatch();
        let mut open = disk::OpenOptions::new().append(true).open(file)?;
        let first = Moment::modified(&open.metadata()?);
        while watch.elapsed() <= FINE {
            open.write_all(b"x")?;
            if Moment::modified(&open.metadata()?) != first {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(watch.elapsed())
    }

    fn reflinks(&self) -> bool {
        let [to, from] = &self.files;
        os::can_reflink(from, to)
    }
}
