//! A holder that vanishes is noticed at once, however it goes.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use pcmcache_shared::Digest;
use pcmcache_shared::api::limits::GRACE;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::wire::{Served, acquire, h1, h2, next_line, within};

/// From the holder's end to the next grant there is the grace, and next to nothing else.
const SOON: Duration = Duration::from_millis(700);

/// Waits for the claim, calls `vanish` on its holder, and tells how long the takeover took.
async fn takeover(served: &Served, claim: &str, vanish: impl FnOnce()) -> Duration {
    let mut sender = h1(served.addr).await;
    let mut lines = within(sender.send_request(acquire(claim, "waiter"))).await.unwrap().into_body();
    assert_eq!(next_line(&mut lines).await.unwrap()["state"], "busy");
    let from = Instant::now();
    vanish();
    loop {
        let line = next_line(&mut lines).await.unwrap();
        match line["state"].as_str().unwrap() {
            "busy" => assert!(from.elapsed() < Duration::from_secs(10), "never taken over"),
            "granted" => return from.elapsed(),
            _ => panic!("{line}"),
        }
    }
}

fn assert_soon(took: Duration) {
    assert!(took < GRACE + SOON, "{took:?}");
}

/// A holder that is nothing but a socket.
async fn raw_holder(served: &Served, claim: &str) -> TcpStream {
    let body = serde_json::json!({ "claim": claim, "request_id": "holder", "hold": true }).to_string();
    let request = format!(
        "POST /v1/scopes/main/acquire HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(served.addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    while !text.contains("granted") {
        let mut buffer = [0; 4096];
        let count = within(stream.read(&mut buffer)).await.unwrap();
        assert!(count > 0, "{text}");
        text += &String::from_utf8_lossy(&buffer[..count]);
    }
    assert!(text.contains("x-accel-buffering: no"), "{text}");
    stream
}

#[tokio::test]
async fn a_socket_that_closes() {
    let served = Served::start().await;
    let claim = Digest::of("fin").to_string();
    let holder = raw_holder(&served, &claim).await;
    assert_soon(takeover(&served, &claim, || drop(holder)).await);
}

#[tokio::test]
async fn a_socket_that_resets() {
    let served = Served::start().await;
    let claim = Digest::of("rst").to_string();
    let holder = raw_holder(&served, &claim).await;
    rustix::net::sockopt::set_socket_linger(&holder, Some(Duration::ZERO)).unwrap();
    assert_soon(takeover(&served, &claim, || drop(holder)).await);
}

#[tokio::test]
async fn a_process_that_is_killed() {
    let served = Served::start().await;
    let claim = Digest::of("kill").to_string();
    let body = serde_json::json!({ "claim": claim, "request_id": "holder", "hold": true }).to_string();
    // The shell's own sockets: a process like any other, and one that is everywhere.
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{}; printf 'POST /v1/scopes/main/acquire HTTP/1.1\\r\\nHost: localhost\\r\\n\
         Content-Type: application/json\\r\\nContent-Length: {}\\r\\n\\r\\n%s' '{body}' >&3; \
         while IFS= read -r line <&3; do case $line in *granted*) echo granted; exec cat <&3;; esac; done",
        served.addr.port(),
        body.len()
    );
    let mut child = tokio::process::Command::new("bash")
        .args(["-c", &script])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut granted = [0; 8];
    within(child.stdout.as_mut().unwrap().read_exact(&mut granted)).await.unwrap();
    assert_soon(takeover(&served, &claim, || child.start_kill().unwrap()).await);
}

#[tokio::test]
async fn an_http2_connection_that_closes() {
    let served = Served::start().await;
    let claim = Digest::of("h2").to_string();
    let mut client = h2(served.addr).await;
    let mut lines = within(client.sender.send_request(acquire(&claim, "holder"))).await.unwrap().into_body();
    assert_eq!(next_line(&mut lines).await.unwrap()["state"], "granted");
    assert_soon(takeover(&served, &claim, || client.socket.shutdown(Shutdown::Both).unwrap()).await);
}

#[tokio::test]
async fn an_http2_stream_that_is_reset_while_its_connection_lives() {
    let served = Served::start().await;
    let claim = Digest::of("h2 stream").to_string();
    let mut client = h2(served.addr).await;
    let mut lines = within(client.sender.send_request(acquire(&claim, "holder"))).await.unwrap().into_body();
    let granted: Value = next_line(&mut lines).await.unwrap();
    assert_eq!(granted["state"], "granted");
    assert_soon(takeover(&served, &claim, || drop(lines)).await);
    assert!(!client.task.is_finished());
}
