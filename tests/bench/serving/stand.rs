//! The servers that are compared, each a process that is looked at through `/proc`.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pcmcache_tests::{Process, Scratch, tool, within};
use rustix::process::Signal;

/// What no server takes to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// The release server that the script built.
pub(crate) fn program() -> PathBuf {
    let path = std::env::var_os("PCMCACHE_BENCH_SERVER").map(PathBuf::from);
    path.expect("PCMCACHE_BENCH_SERVER: run this by tests/bench/server")
}

/// The first line in which a program says what it is.
pub(crate) fn version(program: &Path, flag: &str) -> String {
    let output = Command::new(program).arg(flag).output();
    let output = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or("unknown").to_owned()
}

/// What is asked for blobs.
pub(crate) trait Stand {
    fn address(&self) -> SocketAddr;
    fn process(&self) -> &Process;

    /// What all its threads took of the processors so far, in seconds.
    fn cpu(&self) -> f64 {
        let pid = self.process().pid().as_raw_nonzero().get();
        let children = fs_err::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let all = children.split_whitespace().filter_map(|child| child.parse().ok()).chain([pid]);
        all.map(cpu_of).sum()
    }

    /// What it has in memory, in MB.
    fn memory(&self) -> f64 {
        let pid = self.process().pid().as_raw_nonzero();
        let status = fs_err::read_to_string(format!("/proc/{pid}/status")).expect("the server lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024.0 / 1e6
    }
}

/// User and system time of a process, in seconds: the 14th and 15th field, after the name, which ends with `)`.
fn cpu_of(pid: i32) -> f64 {
    let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// The server, with no bound on what one client may ask.
#[derive(Debug)]
pub(crate) struct Cached {
    process: Process,
    address: SocketAddr,
}

impl Cached {
    /// One with an empty store of this name.
    pub(crate) fn start(scratch: &Scratch, name: &str) -> Self {
        Self::over(&scratch.dir(name), &[])
    }

    /// One over this store, with these flags too.
    pub(crate) fn over(store: &Path, flags: &[&str]) -> Self {
        let mut command = Command::new(program());
        command.env_clear().args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(store).args(flags);
        command.args(["--rate", "0", "--concurrency", "0", "--waits", "0"]);
        command.args(["--max-connections-per-address", "0", "--max-connections", "20000"]);
        let process = Process::start(command);
        let address = within(PATIENCE, "the server's first line", || {
            let (line, _) = process.stdout().split_once('\n').map(|(a, b)| (a.to_owned(), b.to_owned()))?;
            line.rsplit_once('/')?.1.parse().ok()
        });
        Self { process, address }
    }

    /// SIGTERM, and its end.
    pub(crate) fn stop(mut self) {
        self.process.signal(Signal::TERM);
        within(PATIENCE, "the server to end", || self.process.ended().then_some(()));
    }
}

impl Stand for Cached {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn process(&self) -> &Process {
        &self.process
    }
}

/// nginx over a directory of files, as Debian's own configuration would serve them, without a log of each request.
#[derive(Debug)]
pub(crate) struct Files {
    process: Process,
    address: SocketAddr,
}

impl Files {
    pub(crate) fn start(scratch: &Scratch, root: &Path) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
        let root = root.display();
        let text = format!(
            "daemon off; user root; worker_processes auto; pid nginx.pid; error_log stderr error;
             events {{ worker_connections 4096; }}
             http {{
                 sendfile on; tcp_nopush on; access_log off; keepalive_requests 1000000000;
                 client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
                 uwsgi_temp_path uwsgi; scgi_temp_path scgi;
                 server {{ listen {address}; root {root}; }}
             }}\n"
        );
        scratch.file("nginx/nginx.conf", text);
        let mut command = Command::new(tool::nginx());
        command.env_clear().arg("-p").arg(scratch.dir("nginx")).args(["-e", "stderr", "-c", "nginx.conf"]);
        let process = Process::start(command);
        within(PATIENCE, "nginx to listen", || TcpStream::connect(address).ok());
        Self { process, address }
    }
}

impl Stand for Files {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn process(&self) -> &Process {
        &self.process
    }
}

/// SIGTERM: a master that is killed leaves its workers.
impl Drop for Files {
    fn drop(&mut self) {
        self.process.signal(Signal::TERM);
        within(PATIENCE, "nginx to end", || self.process.ended().then_some(()));
    }
}
