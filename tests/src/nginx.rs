//! A real nginx before a server, by the project's own configuration, as an unprivileged process with all its files in a
//! scratch directory.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::patience::within;
use crate::{Process, Scratch, deployed, tool};

const SITE: &str = "deploy/nginx/pcmcache.conf";

/// What the site belongs into. One process, so that the test's end of it is the end of all of it.
const AROUND: &str = "
daemon off;
master_process off;
pid nginx.pid;
error_log stderr error;
events { worker_connections 4096; }
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include pcmcache.conf;
}
";

/// A running nginx: it is killed with its process.
#[derive(Debug)]
struct Nginx {
    directory: PathBuf,
    process: Process,
}

impl Nginx {
    /// One that listens at `N` free addresses, by the site that `site` writes for them.
    fn start<const N: usize>(
        scratch: &Scratch,
        site: impl Fn([SocketAddr; N]) -> String,
    ) -> (Self, [SocketAddr; N]) {
        // A port that was free a moment ago may be taken: by then nginx has ended, and other ports are tried.
        for _ in 0..5 {
            let addresses = std::array::from_fn(|_| free_port());
            let directory = put(scratch, &site(addresses));
            let mut process = Process::start(nginx(&directory, &[]));
            let up = within(Duration::from_secs(20), "nginx to listen or to end", || {
                if process.ended() {
                    return Some(false);
                }
                addresses.iter().all(|at| TcpStream::connect(at).is_ok()).then_some(true)
            });
            if up {
                return (Self { directory, process }, addresses);
            }
            assert!(process.stderr().contains("Address already in use"), "{}", process.stderr());
        }
        panic!("nginx found no port of five that it could listen on");
    }
}

/// Nginx as a team's builds meet it: TLS, with a certificate made for the test.
#[derive(Debug)]
pub struct Front {
    address: SocketAddr,
    nginx: Nginx,
}

impl Front {
    /// One before this server.
    pub fn before(scratch: &Scratch, server: SocketAddr) -> Self {
        let (nginx, [address]) = Nginx::start(scratch, |[address]| with_tls(scratch, server, address));
        Self { address, nginx }
    }

    /// What nginx itself says of the configuration.
    pub fn check(scratch: &Scratch) -> Process {
        let nowhere = ([127, 0, 0, 1], 1).into();
        let directory = put(scratch, &with_tls(scratch, nowhere, nowhere));
        Process::start(nginx(&directory, &["-t"]))
    }

    /// `curl` that trusts it, with these arguments, and then a path of the server's.
    pub fn curl<'a>(&self, arguments: impl IntoIterator<Item = &'a str>, path: &str) -> Command {
        let mut command = Command::new(tool::installed("PCMCACHE_TEST_CURL", "curl"));
        command.args(["--silent", "--show-error", "--no-buffer", "--cacert"]);
        command.arg(self.nginx.directory.join("pcmcache.crt")).args(arguments);
        command.arg(format!("https://localhost:{}{path}", self.address.port()));
        command
    }

    /// Whether it wrote any part of a request or an answer to its own disk.
    pub fn kept_something(&self) -> bool {
        ["body", "proxy"]
            .iter()
            .any(|name| !crate::scratch::files_below(&self.nginx.directory.join(name)).is_empty())
    }
}

/// The same without TLS, so that a test may send any bytes; it lets its clients go after a third of a second of silence.
#[derive(Debug)]
pub struct Plain {
    /// Where it speaks HTTP/1.
    pub http1: SocketAddr,
    /// Where it speaks HTTP/2, and nothing else.
    pub http2: SocketAddr,
    nginx: Nginx,
}

impl Plain {
    /// One before this server.
    pub fn before(scratch: &Scratch, server: SocketAddr) -> Self {
        let (nginx, [http1, http2]) = Nginx::start(scratch, |[http1, http2]| {
            let mut site = changed(server, &format!("{http1};\n    listen {http2} http2"), "_");
            site = site
                .lines()
                .filter(|line| !line.trim_start().starts_with("ssl_"))
                .collect::<Vec<_>>()
                .join("\n");
            let hasty = [
                ("client_header_timeout 10s", "client_header_timeout 300ms"),
                ("client_body_timeout 10s", "client_body_timeout 300ms"),
                ("    keepalive_timeout 60s", "    keepalive_timeout 300ms"),
            ];
            deployed::changed(SITE, site, &hasty)
        });
        Self { http1, http2, nginx }
    }

    /// What it complained about.
    pub fn log(&self) -> String {
        self.nginx.process.stderr()
    }
}

/// The site with TLS at this address.
fn with_tls(scratch: &Scratch, server: SocketAddr, address: SocketAddr) -> String {
    let directory = scratch.dir("nginx");
    if !directory.join("pcmcache.crt").exists() {
        tool::certificate(&directory, "pcmcache");
    }
    // Names of files are looked for where the configuration lies.
    changed(server, &format!("{address} ssl http2"), "localhost").replace("/etc/nginx/tls/", "")
}

/// The project's site, for this server, to listen so under this name.
fn changed(server: SocketAddr, listen: &str, name: &str) -> String {
    let changes = [
        ("server 127.0.0.1:7733;", &*format!("server {server};")),
        ("listen 443 ssl http2;", &*format!("listen {listen};")),
        ("    listen [::]:443 ssl http2;\n", ""),
        ("server_name pcmcache.example.com;", &*format!("server_name {name};")),
    ];
    deployed::changed(SITE, deployed::text(SITE), &changes)
}

/// Writes all that nginx needs, and gives the directory.
fn put(scratch: &Scratch, site: &str) -> PathBuf {
    scratch.file("nginx/pcmcache.conf", site);
    scratch.file("nginx/nginx.conf", AROUND);
    scratch.dir("nginx")
}

/// `nginx ARGUMENTS` in that directory.
fn nginx(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(tool::nginx());
    command.env_clear().arg("-p").arg(directory).args(["-e", "stderr", "-c", "nginx.conf"]).args(arguments);
    command
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}
