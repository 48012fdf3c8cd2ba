//! A server that runs, and bytes that come over a connection to it: heads, bodies, HTTP/2. Whatever they are, the server answers
//! in HTTP or hangs up, and answers the next one.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;

use pcmcache_server::{Config, Server};

use crate::scratch;

/// What follows an input: it ends what the input left open, and after it the server hangs up. A body that is longer waits on.
const LAST: &[u8] = b"\r\n\r\nGET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
/// What is silent for so long waits for more.
const SILENT: Duration = Duration::from_millis(100);
/// No request of this kind takes as long, however busy the host is.
const EVER: Duration = Duration::from_secs(10);
/// No answer to so little is as long.
const LONGEST: usize = 32 * 1024 * 1024;

pub(crate) fn run(input: &[u8]) {
    static SERVER: OnceLock<SocketAddr> = OnceLock::new();
    let address = *SERVER.get_or_init(start);
    let said = say(address, &[input, LAST].concat(), SILENT);
    let is_http = said.is_empty() || said.starts_with(b"HTTP/1.") || is_http2(&said);
    assert!(is_http, "it answered {:?}", String::from_utf8_lossy(&said[..said.len().min(200)]));
    let text = String::from_utf8_lossy(&said);
    assert!(!text.contains("HTTP/1.1 500"), "it failed: {text}");
    if input.len().is_multiple_of(16) {
        let well =
            say(address, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", EVER);
        assert!(well.starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&well));
    }
}

fn is_well(address: SocketAddr) {
    let well = say(address, LAST.trim_ascii_start(), EVER);
    assert!(well.starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&well));
}

/// A frame of settings comes first.
fn is_http2(said: &[u8]) -> bool {
    said.get(3) == Some(&4) && said.get(5..9) == Some(&[0; 4])
}

fn start() -> SocketAddr {
    let mut config = Config::for_dir(scratch::directory("http"));
    // Accounts would have an input's answer depend on those before it.
    (config.rate, config.concurrency, config.waits) = (0, 0, 0);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a listener");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let server = Server::open(&config).await.expect("a server");
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            server.run(listener, std::future::pending()).await;
        });
    });
    // Until it is up, a connection that is given up is one that was never seen.
    is_well(address);
    address
}

/// What is answered before the server hangs up or falls silent.
fn say(address: SocketAddr, bytes: &[u8], silent: Duration) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(silent)).expect("a socket");
    let mut said = Vec::new();
    // Who was cut off before all was said may have an answer all the same.
    let _ = stream.write_all(bytes);
    let mut is_ended = false;
    loop {
        let mut some = [0; 16 * 1024];
        match stream.read(&mut some) {
            Ok(0) => return said,
            Ok(count) => said.extend_from_slice(&some[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock && !is_ended => {
                let _ = stream.shutdown(Shutdown::Write);
                is_ended = true;
            }
            Err(_) => return said,
        }
        assert!(said.len() < LONGEST, "an answer without an end");
    }
}
