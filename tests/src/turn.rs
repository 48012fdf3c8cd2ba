//! Who may use the machine now. Two cores are not many: a test that measures a time, or that starts more
//! compilers than there are cores, waits until nobody else runs, in this test program or another.

use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};

/// A turn; ends when dropped, or with its process.
#[derive(Debug)]
pub struct Turn {
    _lock: fs_err::File,
}

/// A turn that others may have at the same time.
pub fn beside_others() -> Turn {
    take(FlockOperation::LockShared)
}

/// A turn that nobody else has.
pub fn alone() -> Turn {
    take(FlockOperation::LockExclusive)
}

fn take(how: FlockOperation) -> Turn {
    let beside = std::env::current_exe().expect("the path of this test");
    let path: PathBuf = beside.with_file_name("pcmcache-tests.turn");
    let lock = fs_err::OpenOptions::new().create(true).append(true).open(path).expect("the turn's file");
    flock(&lock, how).expect("a turn");
    Turn { _lock: lock }
}
