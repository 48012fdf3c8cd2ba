//! The whole story of one compile, or of one scan for modules.
//!
//! Read [`story`] top to bottom and you know what the launcher does. Each step is one call into one room. A fault of
//! the cache at any step leads to the same end as no cache: the compiler runs, and its status and output are ours.

mod build;
pub mod contact;
mod keep;
pub mod look;
mod offer;
mod plan;
pub mod rebuild;
mod restore;
mod session;
pub mod sync;
mod task;
mod trust;
mod turn;
pub mod warm;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;

use pcmcache_shared::failpoint;

use crate::compiler::{self, Compiler};
use crate::invocation::scan::{self, Scan};
use crate::invocation::{Bypass, Invocation, response};
use crate::local::lock::Turn as LocalTurn;
use crate::mask::Launchers;
use crate::os;
use crate::settings::{Mode, Settings};
use session::Session;
use turn::Turn;

/// Why a story ends before its end.
#[derive(Debug)]
enum Stop {
    /// The compiler gets the command unchanged.
    Bypass(Bypass),
    /// A signal told the launcher to stop.
    Interrupted(i32),
}

impl From<Bypass> for Stop {
    fn from(bypass: Bypass) -> Self {
        Self::Bypass(bypass)
    }
}

/// Runs one compiler command and gives the exit code for it, if the command is not handed over for good.
pub fn launch(name: &OsStr, args: &[OsString], settings: Settings) -> u8 {
    let Some(program) = find(name) else { return not_found(name) };
    if settings.mode == Mode::Off {
        return hand_over(&program, name, args);
    }
    let mut session = Session::open(settings);
    session.args = args.to_vec();
    // A fault in our own code is a fault of the cache: it costs the hit, not the build, and adds nothing to its output.
    std::panic::set_hook(Box::new(|_| {}));
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| story(&mut session, &program, args)));
    let ended = told.unwrap_or_else(|_| Err(Bypass::new("internal", "a panic; please report it").into()));
    session.close(&program, args, &ended);
    match ended {
        Ok(code) => code,
        Err(Stop::Interrupted(signal)) => {
            os::die_by(signal);
            128u8.saturating_add(u8::try_from(signal).unwrap_or(0))
        }
        Err(Stop::Bypass(_)) => hand_over(&program, name, args),
    }
}

/// The program of this name that is no launcher.
fn find(name: &OsStr) -> Option<PathBuf> {
    let launchers = Launchers::known();
    compiler::find(name, std::env::var_os("PATH").as_deref(), |file| launchers.contain(file))
}

/// What happens to a compile, from its command line to its outputs in place.
fn story(session: &mut Session, program: &std::path::Path, args: &[OsString]) -> Result<u8, Stop> {
    let (invocation, compiler) = understand(session, program, args)?;
    let mut task = session.task(invocation, compiler)?;

    if session.is_shareable(&mut task)
        && let Some(hit) = session.find(&mut task)
        && session.restore(&task, &hit)?
    {
        return Ok(session.local_hit(&task));
    }
    failpoint!("launch.looked");

    let lock = match session.wait_locally(&task) {
        LocalTurn::Ours(lock) => Some(lock),
        LocalTurn::Alone => None,
        LocalTurn::Interrupted => return Err(session.interrupted()),
    };
    failpoint!("launch.locked");
    // Checked again once the lock is taken: whoever held it before has most likely made what we want. What was edited
    // since it was looked at is no longer what we want.
    if lock.is_some()
        && session.inputs.still_as_seen()
        && let Some(hit) = session.find(&mut task)
        && session.restore(&task, &hit)?
    {
        return Ok(session.local_hit(&task));
    }

    let (lease, slot) = match session.ask(&mut task)? {
        Turn::Found(hit) if session.inputs.still_as_seen() && session.restore(&task, &hit)? => {
            return Ok(session.remote_hit(&task));
        }
        Turn::Found(_) => (None, None),
        Turn::Lead(lease, slot) => (Some(lease), Some(slot)),
        Turn::Alone(slot) => (None, slot),
    };
    failpoint!("launch.granted");

    let built = session.build_in(slot, &task)?;
    if !built.succeeded() {
        return session.fail(&task, &built, lease, lock);
    }
    let winner = session.keep(&mut task, &built, lease);
    if let Some(lock) = lock {
        lock.release(false);
    }
    if let Some(winner) = winner
        && session.adopt(&task, &winner)?
    {
        return Ok(0);
    }
    session.place(&task, built)
}

/// What the command is, and the compiler that it runs or scans for.
fn understand(
    session: &mut Session,
    program: &std::path::Path,
    args: &[OsString],
) -> Result<(Invocation, Compiler), Bypass> {
    let store = session.store.as_ref();
    if scan::is_scanner(program) {
        let scan = Scan::parse(args, &read_response)?;
        let compiler = Compiler::identify_scanned(&scan, program, store, session.inputs.memo())?;
        return Ok((scan.invocation, compiler));
    }
    let (dialect, _) = Compiler::dialect_of(program)?;
    let invocation = Invocation::parse(args, dialect, &read_response)?;
    let compiler = Compiler::identify(program.to_owned(), store, session.inputs.memo())?;
    Ok((invocation, compiler))
}

fn read_response(path: &std::path::Path) -> Option<String> {
    let small = fs_err::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= response::MAX_FILE);
    small.then(|| fs_err::read_to_string(path).ok())?
}

/// Becomes the compiler.
fn hand_over(program: &std::path::Path, name: &OsStr, args: &[OsString]) -> u8 {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program);
    command.arg0(name).args(args);
    Launchers::known().pass_on(&mut command);
    let error = os::exec(&mut command);
    complain(&format!("pcmcache: cannot run {}: {error}", PathBuf::from(name).display()));
    126
}

fn not_found(name: &OsStr) -> u8 {
    complain(&format!(
        "pcmcache: {}: no such compiler; name one by its path, or one that is in PATH",
        PathBuf::from(name).display()
    ));
    127
}

#[expect(clippy::print_stderr, reason = "there is no compiler to speak for itself")]
fn complain(message: &str) {
    eprintln!("{message}");
}
