//! Private places for what a compile writes, and the renames that make it visible.
//!
//! A stage is a directory `.NAME.pcmcache-*` beside the output it is for, flocked by its launcher. The compiler writes
//! into it under the output's own name, so whatever temporaries it derives from that name lie in it as well.
//! Invariant: a final name only ever changes by rename of a whole file. Crash story: a killed launcher leaves the
//! stage with its lock freed, and the next launcher that places in that directory removes it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::os;

const MARK: &str = ".pcmcache-";
/// The longest part of an output's name that goes into its stage's.
const MAX_NAME: usize = 200;
const TRIES: u32 = 16;

/// The stages of one compile: one for each directory it places in. Removed when dropped.
#[derive(Debug, Default)]
pub struct Stages {
    stages: Vec<Stage>,
}

#[derive(Debug)]
struct Stage {
    /// The directory that the outputs go to.
    target: PathBuf,
    path: PathBuf,
    /// Held for its flock.
    _lock: fs_err::File,
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs_err::remove_dir_all(&self.path);
    }
}

impl Stages {
    /// Where to write what will become `output`. Fails where the compiler could not write it either.
    pub fn path_for(&mut self, output: &Path) -> io::Result<PathBuf> {
        let target = directory_of(output);
        let name = output.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        if let Some(stage) = self.stages.iter().find(|stage| stage.target == target) {
            return Ok(stage.path.join(name));
        }
        sweep(&target);
        let stage = Stage::create(target, name)?;
        let path = stage.path.join(name);
        self.stages.push(stage);
        Ok(path)
    }

    /// What lies in the stages: each file with the final path it would have.
    pub fn contents(&self) -> Vec<(PathBuf, PathBuf)> {
        let list = |stage: &Stage| {
            let entries = fs_err::read_dir(&stage.path).into_iter().flatten().flatten();
            let target = stage.target.clone();
            entries.map(move |entry| (entry.path(), target.join(entry.file_name()))).collect::<Vec<_>>()
        };
        self.stages.iter().flat_map(list).collect()
    }
}

impl Stage {
    fn create(target: PathBuf, name: &OsStr) -> io::Result<Self> {
        let short = OsStr::from_bytes(name.as_bytes().get(..MAX_NAME).unwrap_or(name.as_bytes()));
        for _ in 0..TRIES {
            let random = u64::from_ne_bytes(os::random());
            let path = target.join(os::join_name(&[
                OsStr::new("."),
                short,
                format!("{MARK}{random:016x}").as_ref(),
            ]));
            std::fs::DirBuilder::new().mode(0o700).create(&path)?;
            // Between the making and the locking someone may take it for abandoned and remove it: then once more.
            match lock(&path) {
                Ok(Some(lock)) => return Ok(Self { target, path, _lock: lock }),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let _ = fs_err::remove_dir(&path);
                    return Err(error);
                }
            }
        }
        Err(io::Error::other(format!("no stage can be made in {}", target.display())))
    }
}

/// The directory's lock, if nobody has it and the directory is still there.
fn lock(path: &Path) -> io::Result<Option<fs_err::File>> {
    let directory = fs_err::File::open(path)?;
    if !os::try_lock(directory.file())? {
        return Ok(None);
    }
    let (held, named) = (directory.metadata()?, fs_err::symlink_metadata(path)?);
    Ok((held.ino() == named.ino() && held.dev() == named.dev()).then_some(directory))
}

/// Removes the stages that killed launchers left in this directory.
pub fn sweep(directory: &Path) {
    let Ok(entries) = fs_err::read_dir(directory) else { return };
    let is_stage = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with('.') && name.contains(MARK)
    };
    for entry in entries.flatten().filter(|entry| is_stage(&entry.file_name())) {
        let path = entry.path();
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_directory && let Ok(Some(_lock)) = lock(&path) {
            let _ = fs_err::remove_dir_all(&path);
        }
    }
}

/// The directory that `output` is in.
pub fn directory_of(output: &Path) -> PathBuf {
    match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

/// Makes a whole staged file visible under its final name.
pub fn place(staged: &Path, output: &Path) -> io::Result<()> {
    fs_err::rename(staged, output)
}

/// Whether a rename onto `output` replaces a file, and not a device, a directory or a link.
pub fn is_replaceable(output: &Path) -> bool {
    match fs_err::symlink_metadata(output) {
        Ok(metadata) => metadata.is_file(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("pcmcache-stage-{name}-{}", std::process::id()));
            fs_err::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs_err::read_dir(&self.0).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs_err::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn outputs_of_one_directory_share_a_stage_that_goes_with_its_launcher() {
        let dir = Scratch::new("share");
        let mut stages = Stages::default();
        let object = stages.path_for(&dir.0.join("m.o")).unwrap();
        let bmi = stages.path_for(&dir.0.join("m.pcm")).unwrap();
        assert_eq!(object.parent(), bmi.parent());
        fs_err::write(&object, "object").unwrap();
        place(&object, &dir.0.join("m.o")).unwrap();
        drop(stages);
        assert_eq!(dir.names(), ["m.o"]);
    }

    #[test]
    fn an_abandoned_stage_is_removed_and_a_living_one_is_not() {
        let dir = Scratch::new("sweep");
        let abandoned = dir.0.join(".m.pcm.pcmcache-0123");
        fs_err::create_dir(&abandoned).unwrap();
        fs_err::write(abandoned.join("m.pcm"), "torn").unwrap();
        let mut living = Stages::default();
        let staged = living.path_for(&dir.0.join("other.o")).unwrap();
        assert!(!abandoned.exists());
        sweep(&dir.0);
        assert!(staged.parent().unwrap().exists());
    }

    #[test]
    fn what_is_no_plain_file_is_never_replaced() {
        let dir = Scratch::new("special");
        assert!(!is_replaceable(Path::new("/dev/null")));
        assert!(!is_replaceable(&dir.0));
        assert!(is_replaceable(&dir.0.join("new")));
        std::os::unix::fs::symlink("/dev/null", dir.0.join("link")).unwrap();
        assert!(!is_replaceable(&dir.0.join("link")));
    }
}
