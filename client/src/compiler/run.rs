//! Running the compiler so that it never outlives its launcher.
//!
//! The launcher starts a watcher (this program again), the leader of a process group of its own, which starts the
//! compiler and holds the reading end of a pipe whose writing end only the launcher has. However the launcher dies,
//! the kernel closes the pipe, and the watcher kills its whole group: driver, cc1, itself. Output is relayed
//! as it comes, and kept.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::interrupt::{self, Interrupt};
use crate::mask::Launchers;
use crate::os;

/// The hidden first argument that makes this program a watcher.
pub const WATCH: &str = "--pcmcache-watch";

/// The most output that is kept for replaying, in bytes, on each of stdout and stderr.
const MAX_KEPT: usize = 4 * 1024 * 1024;

/// How a compiler ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it wrote to stdout; `None` if that was more than anyone keeps.
    pub stdout: Option<Vec<u8>>,
    /// What it wrote to stderr; `None` if that was more than anyone keeps.
    pub stderr: Option<Vec<u8>>,
    /// How long it ran.
    pub wall: Duration,
}

/// Runs the compiler under a watcher, and relays its output and the signals that come in.
pub fn run(program: &Path, args: &[OsString], interrupt: &Interrupt) -> io::Result<Ran> {
    let watch = os::stopwatch();
    let mut child = start(program, args)?;
    // Kept until the compiler has ended: its closing is what tells the watcher that we died.
    let lifeline = child.stdin.take();
    let leader = child.id();
    let (done, is_done) = mpsc::channel::<()>();
    let (status, stdout, stderr) = thread::scope(|scope| {
        scope.spawn(move || pass_signals_on(leader, interrupt, &is_done));
        let stdout = child.stdout.take().map(|pipe| scope.spawn(|| relay(pipe, io::stdout())));
        let stderr = child.stderr.take().map(|pipe| scope.spawn(|| relay(pipe, io::stderr())));
        let stdout = stdout.and_then(|relay| relay.join().ok()).flatten();
        let stderr = stderr.and_then(|relay| relay.join().ok()).flatten();
        let status = child.wait();
        drop(done);
        (status, stdout, stderr)
    });
    drop(lifeline);
    let status = status?;
    if !status.success() {
        // The watcher itself may have been killed: nothing of its group goes on.
        os::signal_group(leader, os::KILL);
    }
    Ok(Ran { status, stdout, stderr, wall: watch.elapsed() })
}

fn start(program: &Path, args: &[OsString]) -> io::Result<Child> {
    let launchers = Launchers::known();
    let spawn = |command: &mut Command| {
        launchers.pass_on(command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn()
    };
    spawn(Command::new(os::own_program()).arg0("pcmcache").arg(WATCH).arg(program).args(args))
        .or_else(|_| spawn(Command::new(program).args(args).stdin(Stdio::null())))
}

fn pass_signals_on(leader: u32, interrupt: &Interrupt, is_done: &mpsc::Receiver<()>) {
    let pause = Duration::from_millis(20);
    let mut passed = None;
    while let Err(mpsc::RecvTimeoutError::Timeout) = is_done.recv_timeout(pause) {
        if let Some(signal) = interrupt.signal().filter(|signal| passed != Some(*signal)) {
            os::signal_group(leader, signal);
            passed = Some(signal);
        }
    }
}

/// Copies all of `pipe` to `to`, and gives it back if it is not too much to keep. A reader of ours that went away
/// does not stop the compiler.
fn relay(mut pipe: impl Read, mut to: impl Write) -> Option<Vec<u8>> {
    let mut kept = Some(Vec::new());
    let mut chunk = [0; 16 * 1024];
    loop {
        let bytes = match pipe.read(&mut chunk) {
            Ok(0) => return kept,
            Ok(count) => chunk.get(..count).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return None,
        };
        let _ = to.write_all(bytes).and_then(|()| to.flush());
        kept = kept.filter(|kept| kept.len() + bytes.len() <= MAX_KEPT);
        if let Some(kept) = &mut kept {
            kept.extend_from_slice(bytes);
        }
    }
}

/// The watcher: runs the compiler, ends as it ended, and kills everything when the launcher is gone.
pub fn watch(mut args: impl Iterator<Item = OsString>) -> u8 {
    let Some(program) = args.next() else { return 2 };
    // The launcher passes signals to the whole group: the compiler dies of them, the watcher stays to tell.
    interrupt::survive();
    let Ok(mut compiler) = Command::new(&program).args(args).stdin(Stdio::null()).spawn() else { return 127 };
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        os::kill_own_group();
    });
    compiler.wait().map_or(1, os::exit_code_of)
}
