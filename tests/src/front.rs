//! nginx before a server, by the project's own configuration, with a certificate made for the test.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::patience::within;
use crate::{Process, Scratch, deployed, tool};

/// What the configuration belongs into. One process, so that the test's end of it is the end of all of it.
const AROUND: &str = "
daemon off;
master_process off;
pid nginx.pid;
error_log stderr info;
events { worker_connections 8192; }
http {
    access_log access.log;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include pcmcache.conf;
}
";

/// A running nginx.
#[derive(Debug)]
pub struct Front {
    address: SocketAddr,
    prefix: PathBuf,
    process: Process,
}

impl Front {
    /// Starts one before `server`, on a free port of the loopback interface.
    pub fn before(scratch: &Scratch, server: SocketAddr) -> Self {
        // The port is free when it is picked; somebody may take it before nginx does.
        let started = (0..5).find_map(|_| Self::start(scratch, server));
        started.expect("an nginx that listens")
    }

    fn start(scratch: &Scratch, server: SocketAddr) -> Option<Self> {
        let address = free_port();
        let prefix = configure(scratch, server, address);
        let mut process = Process::start(nginx(&prefix, &[]));
        let up = within(Duration::from_secs(20), "nginx to listen or to end", || {
            let ended = process.ended();
            (ended || TcpStream::connect(address).is_ok()).then_some(!ended)
        });
        if !up {
            assert!(process.stderr().contains("Address already in use"), "{}", process.stderr());
        }
        up.then_some(Self { address, prefix, process })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// The certificate by which its clients know it.
    pub fn ca(&self) -> PathBuf {
        self.prefix.join("pcmcache.crt")
    }

    /// `curl` that trusts it, with these arguments, and then a path of the server's.
    pub fn curl<'a>(&self, arguments: impl IntoIterator<Item = &'a str>, path: &str) -> Command {
        let mut command = Command::new(tool::installed("PCMCACHE_TEST_CURL", "curl"));
        command.args(["--silent", "--show-error", "--no-buffer", "--cacert"]).arg(self.ca());
        command.args(arguments).arg(format!("{}{path}", self.url()));
        command
    }

    /// What it logged.
    pub fn log(&self) -> String {
        self.process.stderr()
    }
}

/// `nginx ARGUMENTS` in the directory that [`configure`] made.
pub fn nginx(prefix: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(tool::nginx());
    command.arg("-p").arg(prefix).args(["-e", "stderr", "-c", "nginx.conf"]).args(arguments);
    command
}

/// Writes all that nginx needs to listen at `address` for `server`, and gives the directory.
pub fn configure(scratch: &Scratch, server: SocketAddr, address: SocketAddr) -> PathBuf {
    let prefix = scratch.dir("nginx");
    let at = |name: &str| prefix.join(name).display().to_string();
    let site = deployed::changed(
        "deploy/nginx/pcmcache.conf",
        &[
            ("server 127.0.0.1:7733;", format!("server {server};")),
            ("listen 443 ", format!("listen {address} ")),
            ("    listen [::]:443 ssl http2;\n", String::new()),
            ("server_name pcmcache.example.com;", "server_name localhost;".to_owned()),
            ("/etc/nginx/tls/pcmcache.crt", at("pcmcache.crt")),
            ("/etc/nginx/tls/pcmcache.key", at("pcmcache.key")),
        ],
    );
    scratch.file("nginx/pcmcache.conf", site);
    scratch.file("nginx/nginx.conf", AROUND);
    if !prefix.join("pcmcache.crt").exists() {
        certificate(&prefix);
    }
    prefix
}

fn certificate(dir: &Path) {
    let mut command = Command::new(tool::installed("PCMCACHE_TEST_OPENSSL", "openssl"));
    command.current_dir(dir).args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    command.args([
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
    ]);
    command.args(["-keyout", "pcmcache.key", "-out", "pcmcache.crt"]);
    Process::start(command).finish().ok();
}

fn free_port() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address")
}
