//! The few calls that differ by system: clocks that agree with file times, file identities, locks that die with
//! their process, placing a copy, killing a compiler's tree. A port is this file.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use pcmcache_shared::disk;
use rustix::fs::{AtFlags, CWD, FlockOperation, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::process::{Pid, Signal};
use rustix::time::ClockId;

/// A moment of the clock that the kernel stamps files with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    seconds: i64,
    nanos: i64,
}

impl Moment {
    /// Now, by the coarse clock: whatever is changed from here on has a change time that is not before this.
    pub fn now() -> Self {
        Self::by(ClockId::RealtimeCoarse)
    }

    /// Now, by the fine clock: whatever was changed up to here has a change time that is not after this. Of a file that
    /// somebody has looked at, Linux stamps the next change by this clock, which the coarse one may be two ticks behind.
    pub fn latest() -> Self {
        Self::by(ClockId::Realtime)
    }

    fn by(clock: ClockId) -> Self {
        let now = rustix::time::clock_gettime(clock);
        let now = Self { seconds: now.tv_sec, nanos: now.tv_nsec as i64 };
        #[cfg(feature = "failpoints")]
        let now = Self { seconds: now.seconds.saturating_add(pcmcache_shared::wall::shift_s()), ..now };
        now
    }

    /// When the file was last written, or renewed.
    pub fn modified(metadata: &std::fs::Metadata) -> Self {
        Self { seconds: metadata.mtime(), nanos: metadata.mtime_nsec() }
    }

    /// Whether it lies at least `age` before `now`.
    pub fn is_before(self, now: Self, age: Duration) -> bool {
        self.later(age) <= now
    }

    /// Whether it lies at least `age` before `now`, or as far ahead: then the clock was set back since, and such a time would
    /// stay young for as long as it was set back.
    pub fn is_apart(self, now: Self, age: Duration) -> bool {
        self.is_before(now, age) || now.is_before(self, age)
    }

    /// So much later.
    pub fn later(self, by: Duration) -> Self {
        let nanos = self.nanos + i64::from(by.subsec_nanos());
        let seconds = self.seconds.saturating_add_unsigned(by.as_secs());
        Self { seconds: seconds.saturating_add(nanos / 1_000_000_000), nanos: nanos % 1_000_000_000 }
    }

    /// Seconds since 1970, for expiries that outlive the process.
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// Waits until the coarse clock shows a later moment than this one: a few milliseconds at most.
    pub fn let_pass(self) {
        for _ in 0..100 {
            if Self::now() > self {
                return;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}

/// The wall clock, for expiries that several processes share.
#[expect(clippy::disallowed_methods, reason = "the one place where the wall clock enters the launcher")]
pub fn wall_clock() -> std::time::SystemTime {
    let now = std::time::SystemTime::now();
    #[cfg(feature = "failpoints")]
    let now = match pcmcache_shared::wall::shift_s() {
        ahead @ 0.. => now + Duration::from_secs(ahead.unsigned_abs()),
        behind => now - Duration::from_secs(behind.unsigned_abs()),
    };
    now
}

/// Starts measuring a duration.
#[expect(clippy::disallowed_methods, reason = "a compile's cost is real time; nothing is decided by it")]
pub fn stopwatch() -> std::time::Instant {
    std::time::Instant::now()
}

/// What tells that a file was not replaced or written to: compared, never interpreted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileId {
    /// The identity in this metadata.
    pub fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Reads an identity and the space behind it, as they were displayed; gives what follows as well.
    pub fn parse(text: &str) -> Option<(Self, &str)> {
        let mut parts = text.splitn(8, ' ');
        let id = Self {
            device: parts.next()?.parse().ok()?,
            inode: parts.next()?.parse().ok()?,
            size: parts.next()?.parse().ok()?,
            modified: (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?),
            changed: (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?),
        };
        Some((id, parts.next()?))
    }

    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether the file was certainly not touched at `moment` or later.
    pub fn untouched_since(&self, moment: Moment) -> bool {
        let (seconds, nanos) = self.changed;
        Moment { seconds, nanos } < moment
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((m, mn), (c, cn)) = (self.modified, self.changed);
        write!(f, "{} {} {} {m} {mn} {c} {cn}", self.device, self.inode, self.size)
    }
}

/// Tries to take the lock; it is freed by the kernel when its file is closed, so also when the process dies.
pub fn try_lock(file: impl AsFd) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The time of last access stays, that of the last modification becomes now.
const USED_NOW: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
};

/// Makes an open file's modification time now, if it is ours.
pub fn renew_open(file: impl AsFd) {
    let _ = rustix::fs::futimens(file, &USED_NOW);
}

/// Makes a file's modification time now, if it is there and ours.
pub fn renew(path: &Path) {
    let _ = rustix::fs::utimensat(CWD, path, &USED_NOW, AtFlags::SYMLINK_NOFOLLOW);
}

/// Lets go of the lock, which whoever has the same opening of the file lets go of with us.
pub fn unlock(file: impl AsFd) {
    let _ = rustix::fs::flock(file, FlockOperation::Unlock);
}

/// Tries to take the lock together with others who take it so.
pub fn try_lock_shared(file: impl AsFd) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The bytes that this user may still write to the file system that the path is on.
pub fn free_space(path: &Path) -> io::Result<u64> {
    let system = rustix::fs::statvfs(path)?;
    Ok(system.f_bavail.saturating_mul(system.f_frsize))
}

/// Whether the file `to` can be made to share its blocks with `from`. Both are there, and `to` is overwritten.
pub fn can_reflink(from: &Path, to: &Path) -> bool {
    let files = fs_err::File::open(from).and_then(|from| {
        let to = disk::OpenOptions::new().write(true).create(true).truncate(true).open(to)?;
        Ok((from, to))
    });
    files.is_ok_and(|(from, to)| rustix::fs::ioctl_ficlone(to.file(), from.file()).is_ok())
}

/// Whether others than the file's owner may read or write it.
pub fn is_open_to_others(metadata: &std::fs::Metadata) -> bool {
    metadata.mode() & 0o077 != 0
}

/// This process's user.
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Connects to a socket by its path without waiting for anyone: where more wait already than may, that is an error.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// The user and the process at the other end of the socket.
pub fn peer(socket: &impl AsFd) -> io::Result<(u32, i32)> {
    let peer = nix::sys::socket::getsockopt(socket, nix::sys::socket::sockopt::PeerCredentials)?;
    Ok((peer.uid(), peer.pid()))
}

/// Whether the process does not run, and will not by itself: somebody stopped it.
pub fn is_stopped(process: i32) -> bool {
    let stat = fs_err::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name before it may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't', 'Z', 'X']))
}

/// What tells this host, since it was started, and the network and the processes that its processes see from others.
pub fn network() -> String {
    let boot = fs_err::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespaces = ["net", "pid"].map(|kind| {
        let link = fs_err::read_link(format!("/proc/self/ns/{kind}")).unwrap_or_default();
        link.to_string_lossy().into_owned()
    });
    format!("{} {}", boot.trim(), namespaces.join(" "))
}

/// Leaves the session, the process group and the terminal of whoever started this process, and closes what they passed
/// on besides the standard streams: a lock, a pipe of make's. Nothing else may have been opened yet.
pub fn leave_everything() {
    let _ = rustix::process::setsid();
    let open = fs_err::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers: Vec<i32> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // The directory itself is among them, and closed already.
        let _ = nix::unistd::close(number);
    }
}

/// Starts this program as a process that nobody waits for, with one hidden argument and with this as its standard input: a
/// lock, which it has as long as it lives. It stays in this directory, so that relative names of keys and certificates
/// mean the same to it; all else it leaves itself, see [`leave_everything`].
pub fn start_apart(as_what: &str, input: impl Into<Stdio>) {
    let mut command = Command::new(own_program());
    command.arg0("pcmcache").arg(as_what);
    let _ = command.stdin(input).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
}

/// Random bits for names of temporaries, request ids and the like.
#[expect(clippy::disallowed_methods, reason = "the one place where randomness enters the launcher")]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if getrandom::fill(&mut bytes).is_err() {
        // No entropy: names only need to differ, and every taker of a name copes with one that is taken.
        let seed = rustix::process::getpid().as_raw_nonzero().get() as u64 ^ Moment::now().nanos as u64;
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = (seed.rotate_left(index as u32 * 7) & 0xff) as u8;
        }
    }
    bytes
}

/// The host's name, for people.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Replaces this process by the command. Returns only if that failed.
pub fn exec(command: &mut Command) -> io::Error {
    command.exec()
}

/// The signal that cannot be caught.
pub const KILL: i32 = signal_hook::consts::SIGKILL;

/// Sends the signal to the whole process group that `leader` leads.
pub fn signal_group(leader: u32, signal: i32) {
    let pid = i32::try_from(leader).ok().and_then(Pid::from_raw);
    if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(signal)) {
        let _ = rustix::process::kill_process_group(pid, signal);
    }
}

/// Kills every process of the group that this process leads, this one included.
pub fn kill_own_group() {
    let _ = rustix::process::kill_current_process_group(Signal::KILL);
}

/// Ends this process as `status` tells that the other one ended: by the same code or the same signal.
pub fn exit_code_of(status: ExitStatus) -> u8 {
    if let Some(signal) = status.signal() {
        die_by(signal);
        return 128u8.saturating_add(u8::try_from(signal).unwrap_or(0));
    }
    u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)
}

/// Dies by this signal, if its default is to end the process.
pub fn die_by(signal: i32) {
    let _ = signal_hook::low_level::emulate_default_handler(signal);
}

/// The directory this process runs in, by the name a compiler would write into debug information: `PWD` where it names
/// that directory (a link to it perhaps), else the name without links.
pub fn working_directory() -> io::Result<PathBuf> {
    let named = std::env::var_os("PWD").map(PathBuf::from).filter(|path| path.is_absolute());
    let same = |path: &PathBuf| {
        let (Ok(a), Ok(b)) = (fs_err::metadata(path), fs_err::metadata(".")) else { return false };
        (a.dev(), a.ino()) == (b.dev(), b.ino())
    };
    named.filter(same).map_or_else(std::env::current_dir, Ok)
}

/// The program file of this process.
pub fn own_program() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

/// The dynamic linker's list of libraries that the program would load now, or `None` for a static one.
pub fn loaded_libraries(program: &Path) -> io::Result<Option<Vec<PathBuf>>> {
    let output = Command::new("ldd").arg(program).env("LC_ALL", "C").output()?;
    if !output.status.success() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let path = |line: &str| {
        let target = line.split_once("=>").map_or(line, |(_, target)| target).trim();
        let path = target.rsplit_once(" (").map_or(target, |(path, _)| path);
        path.starts_with('/').then(|| PathBuf::from(path))
    };
    Ok(Some(text.lines().filter_map(path).collect()))
}

/// Whether something with a terminal behind it reads our standard error.
pub fn stderr_is_terminal() -> bool {
    use std::io::IsTerminal;
    io::stderr().is_terminal()
}

/// How many columns the terminal has that stderr is, as the compiler would find out.
pub fn stderr_columns() -> Option<u32> {
    if !stderr_is_terminal() {
        return None;
    }
    let named = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse::<u32>().ok());
    let asked = || rustix::termios::tcgetwinsize(io::stderr()).ok().map(|size| u32::from(size.ws_col));
    named.filter(|columns| *columns > 0).or_else(asked).filter(|columns| *columns > 0)
}

/// A name's bytes, for building another name from it.
pub fn join_name(parts: &[&std::ffi::OsStr]) -> OsString {
    parts.iter().fold(OsString::new(), |mut name, part| {
        name.push(part);
        name
    })
}
