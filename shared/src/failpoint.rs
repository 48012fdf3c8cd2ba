//! Places and steps at which a test may kill, pause, fail or falsify this process; only in builds with the `failpoints`
//! feature.
//!
//! `PCMCACHE_FAILPOINT` is a list of rules `POINT=ACTION`, with commas between.
//!
//! * POINT is the name of a place (`failpoint!("publish.checked")`), of a step of a disk (`embedded/files.rename`, see
//!   [`disk`](crate::disk)), of a message (`http.publish`, `remote.renew`), or `*` for any step and any message, `*.write` for those
//!   whose name ends so, `*.change` for those that are no reading and no looking. `POINT.done` is behind it. `POINT@3` is its third passing in a process only, `POINT@3+` that and all after it.
//! * ACTION is `kill` (SIGKILL to this very process), `stop` (SIGSTOP), `note:PATH` (makes PATH), `wait:PATH` (makes PATH, and goes
//!   on when PATH is removed), `delay:MILLISECONDS`, `fail:EIO` (or another error; the step is not taken), `short` (half of
//!   what is to be written), `corrupt` (one bit of what is written or told is turned).
//!
//! `PCMCACHE_TEST_ARMED` is a path: the rules hold, and passings count, while something lies there.
//! `PCMCACHE_TEST_POINTS` is a file to which each process appends the points that it passes, each once.
//!
//! `PCMCACHE_TEST_MUTANT` is the name of one promise that this process breaks (where it says `mutant!`), all along: a test
//! that passes all the same does not hold that promise. `tests/mutants.sh` knows them all.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};

use crate::disk::Op;

/// How long `wait:PATH` waits at most: a test that died must not leave its processes behind.
const MAX_WAIT: Duration = Duration::from_secs(120);

static PLAN: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let Some(plan) = std::env::var_os("PCMCACHE_FAILPOINT") else { return Vec::new() };
    plan.as_bytes().split(|byte| *byte == b',').filter_map(Rule::parse).collect()
});

#[derive(Debug)]
struct Rule {
    point: String,
    /// From which passing on; the first is 1.
    from: u64,
    /// Whether it holds for all passings after that too.
    goes_on: bool,
    action: Action,
    passed: AtomicU64,
}

#[derive(Debug, Clone)]
enum Action {
    Kill,
    Stop,
    Wait(PathBuf),
    Note(PathBuf),
    Delay(Duration),
    Fail(Errno),
    Short,
    Corrupt,
}

/// What becomes of a step or a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It happens.
    Whole,
    /// It does not, with this error.
    Failed(Errno),
    /// Half of it does.
    Short,
    /// A bit of it is turned.
    Corrupt,
}

impl Outcome {
    /// The error, if it is one.
    pub fn error(self) -> io::Result<()> {
        match self {
            Self::Failed(errno) => Err(errno.into()),
            Self::Whole | Self::Short | Self::Corrupt => Ok(()),
        }
    }
}

impl Rule {
    fn parse(rule: &[u8]) -> Option<Self> {
        let equals = rule.iter().position(|byte| *byte == b'=')?;
        let (point, action) = (str::from_utf8(rule.get(..equals)?).ok()?, rule.get(equals + 1..)?);
        let (point, which) = point.split_once('@').unwrap_or((point, "1+"));
        let (from, goes_on) = which.strip_suffix('+').map_or((which, false), |from| (from, true));
        let (from, action) = (from.parse().ok()?, Action::parse(action)?);
        Some(Self { point: point.to_owned(), from, goes_on, action, passed: AtomicU64::new(0) })
    }

    fn applies(&self, point: &str, is_step: bool) -> bool {
        let is_one_of = |ending| match ending {
            ".change" => is_step && ![".read", ".look"].iter().any(|ending| point.ends_with(ending)),
            ending => is_step && point.ends_with(ending),
        };
        if !self.point.strip_prefix('*').map_or(self.point == point, is_one_of) {
            return false;
        }
        let passing = self.passed.fetch_add(1, Ordering::Relaxed) + 1;
        passing == self.from || self.goes_on && passing > self.from
    }
}

impl Action {
    fn parse(action: &[u8]) -> Option<Self> {
        let (name, value) = match action.iter().position(|byte| *byte == b':') {
            Some(colon) => (action.get(..colon)?, action.get(colon + 1..)?),
            None => (action, [].as_slice()),
        };
        Some(match name {
            b"kill" => Self::Kill,
            b"stop" => Self::Stop,
            b"wait" => Self::Wait(PathBuf::from(OsStr::from_bytes(value))),
            b"note" => Self::Note(PathBuf::from(OsStr::from_bytes(value))),
            b"delay" => Self::Delay(Duration::from_millis(str::from_utf8(value).ok()?.parse().ok()?)),
            b"fail" => Self::Fail(match value {
                b"ENOSPC" => Errno::NOSPC,
                b"EINTR" => Errno::INTR,
                b"EDQUOT" => Errno::DQUOT,
                b"EROFS" => Errno::ROFS,
                b"EACCES" => Errno::ACCESS,
                _ => Errno::IO,
            }),
            b"short" => Self::Short,
            b"corrupt" => Self::Corrupt,
            _ => return None,
        })
    }
}

/// Whether this process is to break the promise of that name.
pub fn mutant(name: &str) -> bool {
    static NAME: LazyLock<Option<OsString>> = LazyLock::new(|| std::env::var_os("PCMCACHE_TEST_MUTANT"));
    NAME.as_deref().is_some_and(|on| on == name)
}

/// Does what the plan says of this place. What would be failed there goes on: a place is not something that can fail.
pub fn reached(name: &str) {
    pass(name, false);
}

/// Does what the plan says of this message or step, and says what becomes of it.
pub fn passed(name: &str) -> Outcome {
    pass(name, true)
}

/// Takes a step of the disk as the plan has it.
pub(crate) fn step(
    point: &str,
    op: &Op<'_>,
    bytes: &[u8],
    act: &mut dyn FnMut(&[u8]) -> io::Result<usize>,
) -> io::Result<usize> {
    let done = take(passed(point), op, bytes, act)?;
    pass(&format!("{point}.done"), false);
    Ok(done)
}

/// Takes a step so that this becomes of it. What fails or is cut short after half of a write of a library, which writes all or
/// nothing, has written half.
pub fn take(
    outcome: Outcome,
    op: &Op<'_>,
    bytes: &[u8],
    act: &mut dyn FnMut(&[u8]) -> io::Result<usize>,
) -> io::Result<usize> {
    let half = bytes.get(..bytes.len().div_ceil(2)).unwrap_or_default();
    match outcome {
        Outcome::Whole => act(bytes),
        Outcome::Failed(errno) => Err(errno.into()),
        Outcome::Short if matches!(op, Op::Write { at: Some(_), .. }) => act(half).and(Err(Errno::IO.into())),
        Outcome::Short => act(half),
        Outcome::Corrupt => {
            let mut bytes = bytes.to_vec();
            turn_a_bit(&mut bytes);
            act(&bytes)
        }
    }
}

/// Turns one bit in the middle, if there is any.
pub fn turn_a_bit(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
}

/// Whether the rules hold now.
fn is_armed() -> bool {
    static ARMED: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os("PCMCACHE_TEST_ARMED").map(PathBuf::from));
    ARMED.as_ref().is_none_or(|path| path.exists())
}

fn pass(point: &str, is_step: bool) -> Outcome {
    if !is_armed() {
        return Outcome::Whole;
    }
    tell_seen(point);
    let mut outcome = Outcome::Whole;
    for rule in PLAN.iter().filter(|rule| rule.applies(point, is_step)) {
        match &rule.action {
            Action::Kill => signal_self(Signal::KILL),
            Action::Stop => signal_self(Signal::STOP),
            Action::Wait(path) => wait_while(path),
            Action::Note(path) => drop(fs_err::write(path, "")),
            Action::Delay(time) => std::thread::sleep(*time),
            Action::Fail(errno) => outcome = Outcome::Failed(*errno),
            Action::Short => outcome = Outcome::Short,
            Action::Corrupt => outcome = Outcome::Corrupt,
        }
    }
    outcome
}

fn tell_seen(point: &str) {
    static SEEN: LazyLock<Option<(PathBuf, Mutex<HashSet<String>>)>> =
        LazyLock::new(|| Some((std::env::var_os("PCMCACHE_TEST_POINTS")?.into(), Mutex::default())));
    let Some((file, seen)) = &*SEEN else { return };
    if seen.lock().unwrap_or_else(PoisonError::into_inner).insert(point.to_owned()) {
        let opened = OpenOptions::new().append(true).create(true).open(file);
        let _ = opened.and_then(|mut file| file.write_all(format!("{point}\n").as_bytes()));
    }
}

fn signal_self(signal: Signal) {
    let _ = kill_process(getpid(), signal);
    // SIGKILL is delivered before the call returns to this thread, but another thread may run on meanwhile.
    std::thread::sleep(Duration::from_millis(50));
}

/// Announces itself by creating the file, and goes on once somebody removed it.
fn wait_while(announcement: &Path) {
    if fs_err::write(announcement, "").is_err() {
        return;
    }
    let step = Duration::from_millis(5);
    let mut waited = Duration::ZERO;
    while announcement.exists() && waited < MAX_WAIT {
        std::thread::sleep(step);
        waited += step;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_holds_for_the_passings_that_it_names() {
        let holds = |rule: &str, point: &str, is_step: bool| {
            let rule = Rule::parse(rule.as_bytes()).unwrap();
            (1..=4).map(|_| rule.applies(point, is_step)).collect::<Vec<_>>()
        };
        assert_eq!(holds("a.b=kill", "a.b", false), [true; 4]);
        assert_eq!(holds("a.b@2=kill", "a.b", false), [false, true, false, false]);
        assert_eq!(holds("a.b@2+=fail:ENOSPC", "a.b", false), [false, true, true, true]);
        assert_eq!(holds("a.b=kill", "a.b.done", false), [false; 4]);
        assert_eq!(holds("*@3=short", "a.b", true), [false, false, true, false]);
        assert_eq!(holds("*=short", "a.b", false), [false; 4]);
        let holds_once = |rule: &str, point: &str| holds(rule, point, true).contains(&true);
        assert_eq!(["a.read", "a.write"].map(|point| holds_once("*.write=short", point)), [false, true]);
        let points = ["a.read", "a.look", "a.write", "remote.renew"];
        assert_eq!(points.map(|point| holds_once("*.change=short", point)), [false, false, true, true]);
    }

    #[test]
    fn a_rule_that_is_none_is_left_out() {
        for rule in ["", "a.b", "a.b=", "a.b=burn", "a.b@x=kill", "a.b=delay:soon"] {
            assert!(Rule::parse(rule.as_bytes()).is_none(), "{rule}");
        }
    }
}
