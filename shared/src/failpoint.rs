//! Named places where a test may kill or pause the process; only in builds with the `failpoints` feature.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

/// How long `wait:PATH` waits at most: a test that died must not leave its processes behind.
const MAX_WAIT: Duration = Duration::from_secs(120);

/// Does what `PCMCACHE_FAILPOINT` (`name=action,...`) says of this place.
pub fn reached(name: &str) {
    let Some(plan) = std::env::var_os("PCMCACHE_FAILPOINT") else { return };
    for rule in plan.as_bytes().split(|b| *b == b',') {
        let Some(action) = rule.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")) else {
            continue;
        };
        match action {
            b"kill" => signal_self(Signal::KILL),
            b"stop" => signal_self(Signal::STOP),
            other => {
                if let Some(path) = other.strip_prefix(b"wait:") {
                    wait_while(Path::new(OsStr::from_bytes(path)));
                }
            }
        }
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
