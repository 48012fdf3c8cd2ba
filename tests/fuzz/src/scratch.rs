//! Directories of this process's own, below `TMPDIR`, which `tests/fuzz.sh` removes with all that is in it.

use std::path::PathBuf;

/// A directory of this name; what an earlier process of this number left there is gone.
pub(crate) fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("pcmcache-fuzz-{name}-{}", std::process::id()));
    let _ = fs_err::remove_dir_all(&path);
    fs_err::create_dir_all(&path).expect("a scratch directory");
    path
}
