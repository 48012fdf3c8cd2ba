//! Servers that sccache shares by: Redis in memory, WebDAV by nginx. Each on the loopback interface, with its files in a
//! scratch directory, ended with its process.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pcmcache_tests::{Process, Scratch, tool, within};

/// A server, and the variable by which sccache finds it.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) variable: &'static str,
    scheme: &'static str,
    address: SocketAddr,
    _process: Process,
}

impl Peer {
    /// Redis, if it is there: nothing is written to the disk, nothing is removed.
    pub(crate) fn redis(scratch: &Scratch) -> Option<Self> {
        let mut command = Command::new(tool::if_installed("redis-server")?);
        let address = free_port();
        // Debian installs it as another program's name: it looks at its own.
        std::os::unix::process::CommandExt::arg0(&mut command, "redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--save", ""]);
        command.args(["--appendonly", "no", "--dir"]).arg(scratch.dir("redis"));
        let process = started(command, address)?;
        let (name, variable, scheme) = ("sccache with Redis", "SCCACHE_REDIS_ENDPOINT", "redis");
        Some(Self { name, variable, scheme, address, _process: process })
    }

    /// WebDAV by nginx, if its module is there.
    pub(crate) fn webdav(scratch: &Scratch) -> Option<Self> {
        let (module, address) = (dav_module()?, free_port());
        let directory = scratch.dir("webdav");
        scratch.dir("webdav/files");
        scratch.dir("webdav/body");
        scratch.file("webdav/nginx.conf", configuration(&module, address));
        let mut command = Command::new(tool::nginx());
        command.env_clear().arg("-p").arg(&directory).args(["-e", "stderr", "-c", "nginx.conf"]);
        let process = started(command, address)?;
        let (name, variable, scheme) = ("sccache with WebDAV", "SCCACHE_WEBDAV_ENDPOINT", "http");
        Some(Self { name, variable, scheme, address, _process: process })
    }

    /// Where it is, from sccache's side.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }
}

fn configuration(module: &Path, address: SocketAddr) -> String {
    format!(
        "load_module {};
daemon off;
master_process off;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    sendfile on;
    tcp_nodelay on;
    server {{
        listen {address};
        root files;
        location / {{
            dav_methods PUT DELETE MKCOL COPY MOVE;
            dav_ext_methods PROPFIND OPTIONS;
            create_full_put_path on;
        }}
    }}
}}
",
        module.display()
    )
}

fn dav_module() -> Option<PathBuf> {
    const MODULE: &str = "usr/lib/nginx/modules/ngx_http_dav_ext_module.so";
    let link = tool::nginx();
    let unpacked = fs_err::canonicalize(link).ok()?;
    // nginx is either the system's or lies in TOOLCHAIN/nginx/usr/sbin.
    let toolchain = unpacked.ancestors().nth(4)?.join("libnginx-mod-http-dav-ext");
    [PathBuf::from("/"), toolchain].iter().map(|root| root.join(MODULE)).find(|path| path.is_file())
}

/// It runs, once it listens; `None` if it ended instead.
fn started(command: Command, address: SocketAddr) -> Option<Process> {
    let mut process = Process::start(command);
    let listens = within(Duration::from_secs(20), "a peer's server to listen or to end", || {
        let listens = TcpStream::connect(address).is_ok();
        (listens || process.ended()).then_some(listens)
    });
    if !listens {
        eprintln!("going on without a server: {}{}", process.stdout(), process.stderr());
    }
    listens.then_some(process)
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}
