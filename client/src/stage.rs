//! Private places for what a compile writes, and the renames that make it visible.
//!
//! A stage is a directory `.NAME.pcmcache-*` beside the output it is for, flocked by its launcher. The compiler writes
//! into it under the output's own name, so whatever temporaries it derives from that name lie in it as well. What a hit
//! places derives none, and to make and remove a directory costs it more than all the rest: its stage is a file.
//! Invariant: a final name only ever changes by rename of a whole file. Crash story: a killed launcher leaves the
//! stage with its lock freed, and the next launcher that places in that directory removes it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use pcmcache_shared::disk;
use pcmcache_shared::staged::StagedFile;

use crate::os;

const MARK: &str = ".pcmcache-";
/// The longest part of an output's name that goes into its stage's.
const MAX_NAME: usize = 200;
const TRIES: u32 = 16;

/// The stages of one compile or hit: a compile has one for each directory it places in. Removed when dropped.
#[derive(Debug, Default)]
pub struct Stages {
    stages: Vec<Stage>,
    /// The files of a hit, held for their flocks, and the directories that they go to.
    files: Vec<disk::File>,
    swept: Vec<PathBuf>,
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
        let _ = disk::remove_dir_all(&self.path);
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

    /// A file that will become `output`, and that nothing else lies beside. Fails where the compiler could not write it
    /// either.
    pub fn file_for(&mut self, output: &Path) -> io::Result<StagedFile> {
        let target = directory_of(output);
        let name = output.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        if !self.swept.contains(&target) {
            sweep(&target);
            self.swept.push(target.clone());
        }
        for _ in 0..TRIES {
            let staged = StagedFile::create(stage_path(&target, name), 0o666)?;
            let file = staged.handle()?;
            // As with a directory, someone may have taken it for abandoned before it was locked: it has no name then.
            if os::try_lock(file.file())? && file.metadata()?.nlink() > 0 {
                self.files.push(file);
                return Ok(staged);
            }
        }
        Err(io::Error::other(format!("no stage can be made in {}", target.display())))
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
        for _ in 0..TRIES {
            let path = stage_path(&target, name);
            disk::create_private_dir(&path)?;
            // Between the making and the locking someone may take it for abandoned and remove it: then once more.
            match lock(&path) {
                Ok(Some(lock)) => return Ok(Self { target, path, _lock: lock }),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let _ = disk::remove_dir(&path);
                    return Err(error);
                }
            }
        }
        Err(io::Error::other(format!("no stage can be made in {}", target.display())))
    }
}

/// A name for a stage in this directory, which nobody else has.
fn stage_path(target: &Path, name: &OsStr) -> PathBuf {
    let short = OsStr::from_bytes(name.as_bytes().get(..MAX_NAME).unwrap_or(name.as_bytes()));
    let random = u64::from_ne_bytes(os::random());
    target.join(os::join_name(&[OsStr::new("."), short, format!("{MARK}{random:016x}").as_ref()]))
}

/// The stage's lock, if nobody has it and the stage is still there.
fn lock(path: &Path) -> io::Result<Option<fs_err::File>> {
    let stage = fs_err::File::open(path)?;
    if !os::try_lock(stage.file())? {
        return Ok(None);
    }
    let (held, named) = (stage.metadata()?, fs_err::symlink_metadata(path)?);
    Ok((held.ino() == named.ino() && held.dev() == named.dev()).then_some(stage))
}

/// Removes the stages that killed launchers left in this directory.
pub fn sweep(directory: &Path) {
    let Ok(entries) = fs_err::read_dir(directory) else { return };
    let is_stage = |name: &OsString| {
        let name = name.to_string_lossy();
        let behind = name.rsplit_once(MARK).map_or("", |(_, behind)| behind);
        name.starts_with('.') && !behind.is_empty() && behind.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    for entry in entries.flatten().filter(|entry| is_stage(&entry.file_name())) {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if (kind.is_dir() || kind.is_file())
            && let Ok(Some(_lock)) = lock(&path)
        {
            let _ = if kind.is_dir() { disk::remove_dir_all(&path) } else { disk::remove_file(&path) };
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
    disk::rename(staged, output)
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
    use pcmcache_shared::staged::Durability;

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
    fn a_file_is_a_stage_too() {
        let dir = Scratch::new("file");
        let output = dir.0.join("m.o");
        drop(Stages::default().file_for(&output).unwrap());
        assert_eq!(dir.names(), [""; 0], "dropped, it is gone");
        fs_err::write(dir.0.join(".m.o.pcmcache-0123"), "torn").unwrap();
        let mut living = Stages::default();
        let staged = living.file_for(&output).unwrap();
        sweep(&dir.0);
        assert_eq!(
            dir.names().len(),
            1,
            "the abandoned one is gone, the locked one is not: {:?}",
            dir.names()
        );
        staged.finish(Durability::None).unwrap().commit(&output).unwrap();
        sweep(&dir.0);
        assert_eq!(dir.names(), ["m.o"]);
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
