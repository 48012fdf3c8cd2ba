//! A real nginx before a server, as an unprivileged process with all its files in a scratch directory.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::patience::within;
use crate::{Process, Scratch, tool};

/// A running nginx: it is killed with its process.
#[derive(Debug)]
pub struct Nginx {
    /// Where it speaks HTTP/1.
    pub http1: SocketAddr,
    /// Where it speaks HTTP/2, and nothing else.
    pub http2: SocketAddr,
    process: Process,
}

impl Nginx {
    /// One that hands all it gets to this server, over few connections that are used again. It lets its clients go after
    /// a third of a second of silence.
    pub fn start(scratch: &Scratch, server: SocketAddr) -> Self {
        // A port that was free a moment ago may be taken: by then nginx has ended, and other ports are tried.
        for _ in 0..5 {
            let (http1, http2) = (free_port(), free_port());
            let directory = scratch.dir("nginx");
            fs_err::write(directory.join("nginx.conf"), configuration(http1, http2, server))
                .expect("nginx.conf");
            let mut process = run(&directory);
            let is_there = |at| TcpStream::connect(at).is_ok();
            let up = within(Duration::from_secs(20), "nginx", || {
                if process.ended() {
                    Some(false)
                } else {
                    (is_there(http1) && is_there(http2)).then_some(true)
                }
            });
            if up {
                return Self { http1, http2, process };
            }
        }
        panic!("nginx does not start: see the error.log in {}", scratch.path().display());
    }

    /// What it complained about.
    pub fn log(&self) -> String {
        self.process.stderr()
    }
}

fn run(directory: &Path) -> Process {
    let mut command = Command::new(tool::nginx());
    command.env_clear().arg("-p").arg(directory).args(["-c", "nginx.conf", "-e", "stderr"]);
    Process::start(command)
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// What matters is as in a proxy before a real server: HTTP/1.1 upstream, kept alive, nothing buffered.
fn configuration(http1: SocketAddr, http2: SocketAddr, server: SocketAddr) -> String {
    format!(
        "daemon off;
master_process off;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    upstream pcmcache {{ server {server}; keepalive 2; }}
    server {{
        listen {http1};
        listen {http2} http2;
        client_header_timeout 300ms;
        client_body_timeout 300ms;
        keepalive_timeout 300ms;
        client_max_body_size 0;
        location / {{
            proxy_pass http://pcmcache;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_read_timeout 20s;
        }}
    }}
}}
"
    )
}
