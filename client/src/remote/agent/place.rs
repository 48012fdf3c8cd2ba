//! Where an agent lives: its socket and its lock.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use pcmcache_shared::{Digest, disk};
use rustix::fs::{Mode, OFlags};

use crate::os;

/// The longest name of a socket, in bytes: the kernel's 108 less the zero at its end.
const LONGEST: usize = 107;

/// As many characters of a digest are its name. The whole of it is compared when a launcher knocks.
const NAME: usize = 16;

/// The two files of one agent. They need not be there.
#[derive(Debug, Clone)]
pub(super) struct Place {
    directory: PathBuf,
    name: String,
}

/// A way to a socket, however long its name is.
#[derive(Debug)]
pub struct Address {
    path: PathBuf,
    /// What a short way by `/proc` leads through.
    _directory: Option<OwnedFd>,
}

impl Address {
    /// The path to bind or to connect to, as long as this lives.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Which file lies there: device and inode.
pub(super) type SocketId = (u64, u64);

impl Place {
    pub(super) fn new(root: &Path, serves: Digest) -> Self {
        let name = serves.to_string().chars().take(NAME).collect();
        Self { directory: root.join("agents"), name }
    }

    fn socket(&self) -> PathBuf {
        self.directory.join(&self.name)
    }

    fn lock_file(&self) -> PathBuf {
        self.directory.join(format!("{}.lock", self.name))
    }

    /// How the socket is reached.
    pub(super) fn address(&self) -> io::Result<Address> {
        let path = self.socket();
        if path.as_os_str().as_bytes().len() <= LONGEST {
            return Ok(Address { path, _directory: None });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&self.directory, flags, Mode::empty())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{}", directory.as_raw_fd(), self.name));
        Ok(Address { path, _directory: Some(directory) })
    }

    /// What lies where the socket is to be, if it is a socket.
    pub(super) fn socket_id(&self) -> Option<SocketId> {
        let metadata = fs_err::symlink_metadata(self.socket()).ok()?;
        metadata.file_type().is_socket().then(|| (metadata.dev(), metadata.ino()))
    }

    /// The lock, if nobody has it. The directory is made if it is missing, and refused if others may look into it.
    pub(super) fn lock(&self) -> io::Result<Option<File>> {
        match disk::create_private_dir(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let metadata = fs_err::symlink_metadata(&self.directory)?;
        if !metadata.is_dir() || metadata.uid() != os::user() || os::is_open_to_others(&metadata) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        take(&self.lock_file())
    }

    /// Whether this is the lock, and ours.
    pub(super) fn is_locked_by(&self, file: impl std::os::fd::AsFd + Copy) -> bool {
        let there = fs_err::symlink_metadata(self.lock_file()).map(|there| (there.dev(), there.ino()));
        let ours = rustix::fs::fstat(file).map(|stat| (stat.st_dev, stat.st_ino));
        matches!((there, ours), (Ok(there), Ok(ours)) if there == ours) && os::try_lock(file).unwrap_or(false)
    }

    /// Takes the socket out of everybody's way, and the lock with it: whoever has it keeps it, and a file that nobody
    /// finds keeps nobody from starting another agent.
    pub(super) fn remove(&self) {
        let _ = disk::remove_file(self.socket());
        let _ = disk::remove_file(self.lock_file());
    }

    /// Removes what agents that are gone have left, other than this one: those of earlier programs have other names.
    pub(super) fn sweep(&self) {
        for entry in fs_err::read_dir(&self.directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_other = path.extension().is_some_and(|extension| extension == "lock");
            if is_other
                && path != self.lock_file()
                && let Ok(Some(_lock)) = take(&path)
            {
                let _ = disk::remove_file(path.with_extension(""));
                let _ = disk::remove_file(&path);
            }
        }
    }
}

/// Takes the lock, if nobody has it and it still lies there.
fn take(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = disk::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path)?
        .into_file();
    let ours = os::try_lock(&file)? && file.metadata()?.nlink() > 0;
    Ok(ours.then_some(file))
}
