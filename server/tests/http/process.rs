//! The program itself: what it prints, how it ends.

use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::authority::Authority;
use super::tls::connect;
use super::wire::{Scratch, h2, within};

pub(super) fn command(data_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pcmcache-server"));
    command.env_clear().arg("--data-dir").arg(data_dir).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A server that is killed when the test ends before it does.
pub(super) struct Process(Child);

impl Process {
    fn start(data_dir: &Path) -> (Self, String) {
        Self::start_with(data_dir, &[])
    }

    fn start_with(data_dir: &Path, arguments: &[&str]) -> (Self, String) {
        let listen: &[_] = if arguments.contains(&"--listen") { &[] } else { &["--listen", "127.0.0.1:0"] };
        let arguments = [listen, arguments].concat();
        Self::run(command(data_dir, &arguments))
    }

    /// Starts this command, and gives its first line.
    pub(super) fn run(mut command: Command) -> (Self, String) {
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        child.stdout = Some(stdout.into_inner());
        (Self(child), line)
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Waits for its end: the status, and what else it said on stdout.
    pub(super) fn end(mut self) -> (Option<i32>, String) {
        let from = Instant::now();
        let status = loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                break status;
            }
            assert!(from.elapsed() < Duration::from_secs(20), "does not end");
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut rest = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
        (status.code(), rest)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// It ends at once, with this status and one line that says this.
fn assert_refuses(output: &Output, status: i32, says: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    assert!(output.stdout.is_empty());
    assert!(says.iter().all(|part| stderr.contains(part)), "{stderr}");
    if status == 1 {
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn the_first_line_says_where_and_a_signal_ends_it_well() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = Scratch::new();
        let (process, line) = Process::start(&dir.0);
        let address = line.strip_prefix("listening on http://").unwrap().strip_suffix('\n').unwrap();
        assert!(std::net::TcpStream::connect(address).is_ok(), "{line}");
        process.signal(signal);
        assert_eq!(process.end(), (Some(0), String::new()));
    }
}

#[test]
fn what_it_cannot_use_is_told_in_one_line() {
    let dir = Scratch::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().to_string();
    let output = command(&dir.0, &["--listen", &port]).output().unwrap();
    assert_refuses(&output, 1, &["--listen", &port]);

    let file = dir.0.join("file");
    fs_err::write(&file, "").unwrap();
    let output = command(&file, &["--listen", "127.0.0.1:0"]).output().unwrap();
    assert_refuses(&output, 1, &["--data-dir", file.to_str().unwrap()]);
}

#[tokio::test]
async fn a_hangup_has_a_new_certificate_taken_up() {
    let (dir, authority) = (Scratch::new(), Authority::new("the team's"));
    let (cert, key) = authority.sign(&["localhost"]).write_to(&dir.0);
    let tls = ["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let (process, line) = Process::start_with(&dir.0.join("data"), &tls);
    let address = line.strip_prefix("listening on https://").unwrap().trim_end().parse().unwrap();
    let renewed = authority.sign(&["localhost"]);
    renewed.write_to(&dir.0);
    process.signal(Signal::HUP);
    within(async {
        loop {
            let stream = connect(address, authority.client(&["h2"])).await.unwrap();
            if stream.get_ref().1.peer_certificates().unwrap()[0] == renewed.der() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    process.signal(Signal::TERM);
    assert_eq!(process.end().0, Some(0));

    // A key of another certificate, that everyone may read.
    fs_err::write(&key, authority.sign(&["localhost"]).key).unwrap();
    let arguments = [&["--listen", "127.0.0.1:0"][..], &tls].concat();
    let output = command(&dir.0.join("data"), &arguments).output().unwrap();
    assert_refuses(&output, 1, &["--tls-cert", cert.to_str().unwrap(), key.to_str().unwrap()]);
    fs_err::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let output = command(&dir.0.join("data"), &arguments).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("chmod 600"), "{output:?}");
}

#[test]
fn two_servers_do_not_share_a_directory() {
    let dir = Scratch::new();
    let (first, _) = Process::start(&dir.0);
    let output = command(&dir.0, &["--listen", "127.0.0.1:0"]).output().unwrap();
    assert_refuses(&output, 1, &["another server", dir.0.to_str().unwrap()]);
    first.signal(Signal::KILL);
    let _ = first.end();
    let (second, line) = Process::start(&dir.0);
    assert!(line.starts_with("listening on "), "the kernel lets go of a killed server's directory");
    second.signal(Signal::TERM);
    assert_eq!(second.end().0, Some(0));
}

#[test]
fn wrong_flags_are_told_with_their_name() {
    let dir = Scratch::new();
    for (arguments, says) in [
        (&["--listen", "0.0.0.0:0"][..], "--listen"),
        (&["--max-blob", "many"], "--max-blob"),
        (&["--log", "=,="], "--log"),
        (&["--nonsense"], "--nonsense"),
        (&["--tls-cert", "cert.pem"], "--tls-key"),
        (&["--tls-key", "key.pem"], "--tls-cert"),
        (&["--tls-client-ca", "ca.pem"], "--tls-cert"),
    ] {
        let output = command(&dir.0, arguments).output().unwrap();
        assert_refuses(&output, 2, &[says]);
    }
    let output = Command::new(env!("CARGO_BIN_EXE_pcmcache-server"))
        .env("PCMCACHE_SERVER_LISTEN", "[::]:0")
        .output()
        .unwrap();
    assert_refuses(&output, 2, &["--listen", "loopback"]);
}

#[test]
fn help_teaches_and_version_is_one_line() {
    let dir = Scratch::new();
    let help = String::from_utf8(command(&dir.0, &["--help"]).output().unwrap().stdout).unwrap();
    for part in ["Examples:", "PCMCACHE_SERVER_DATA_DIR", "127.0.0.1:7733", "loopback", "Exit status"] {
        assert!(help.contains(part), "{part} is not in\n{help}");
    }
    let version = String::from_utf8(command(&dir.0, &["--version"]).output().unwrap().stdout).unwrap();
    assert_eq!(version, format!("pcmcache-server {}\n", env!("CARGO_PKG_VERSION")));
}

fn output(data_dir: &Path, arguments: &[&str]) -> Output {
    command(data_dir, arguments).output().unwrap()
}

#[tokio::test]
async fn a_token_is_printed_alone_and_once_and_is_in_no_log() {
    let scratch = Scratch::new();
    let created =
        output(&scratch.0, &["token", "create", "--name", "ci", "--write", "main", "--expires", "90d"]);
    let token = String::from_utf8(created.stdout).unwrap();
    let token = token.strip_suffix('\n').unwrap();
    assert!(token.starts_with("pcmc_") && !token.contains(char::is_whitespace), "{token}");
    let said = String::from_utf8(created.stderr).unwrap();
    assert!(said.contains("ci  writes main  ends in 90d") && !said.contains(token), "{said}");

    // Beyond loopback is well with tokens, and the log says what that means without TLS.
    let (mut process, line) = Process::start_with(&scratch.0, &["--listen", "0.0.0.0:0", "--log", "trace"]);
    // Read all the while: a log that nobody reads holds the server up.
    let stderr = process.0.stderr.take().unwrap();
    let log = std::thread::spawn(|| std::io::read_to_string(stderr).unwrap());
    let port = line.trim_end().rsplit(':').next().unwrap().to_owned();
    let mut peer = std::net::TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    for credential in [token, "pcmc_wrong", token] {
        let request = format!(
            "GET /v1/token HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {credential}\r\nX-Token: {credential}\r\n\r\n"
        );
        std::io::Write::write_all(&mut peer, request.as_bytes()).unwrap();
        let mut answer = [0; 4096];
        let length = peer.read(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert_eq!(answer.starts_with("HTTP/1.1 200 "), credential == token, "{answer}");
        assert!(!answer.contains(token));
    }
    drop(peer);
    let addr = format!("127.0.0.1:{port}").parse().unwrap();
    for credential in [token, "pcmc_wrong", token] {
        let request =
            http::Request::get("http://h/v1/token").header("authorization", format!("Bearer {credential}"));
        let request = request.body(http_body_util::Full::new(bytes::Bytes::new())).unwrap();
        let answer = within(h2(addr).await.sender.send_request(request)).await.unwrap();
        assert_eq!(answer.status() == 200, credential == token);
    }
    let revoked = output(&scratch.0, &["token", "revoke", "ci"]);
    assert_eq!(revoked.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&revoked.stderr).contains("its results are taken back"));
    let list = output(&scratch.0, &["token", "list"]);
    assert!(String::from_utf8_lossy(&list.stdout).contains("revoked"));
    process.signal(Signal::TERM);
    assert_eq!(process.end().0, Some(0));
    let log = log.join().unwrap();
    assert!(log.contains("in the clear") && log.contains("/v1/token"), "{log}");
    let secret = token.strip_prefix("pcmc_").unwrap();
    assert!(!log.contains(secret), "a token is in the log");
    for file in scratch.files(".") {
        let bytes = fs_err::read(&file).unwrap();
        let is_there = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!is_there, "{} holds the token", file.display());
    }
}

#[test]
fn what_cannot_be_done_with_tokens_is_said() {
    let scratch = Scratch::new();
    for (arguments, says) in [
        (&["create", "--name", "a b", "--read", "main"][..], "a token's name is"),
        (&["create", "--name", "a"], "--read, --write, --admin or --observe"),
        (&["revoke", "nobody"], "token list"),
    ] {
        let refused = output(&scratch.0, &[&["token"], arguments].concat());
        assert_refuses(&refused, 1, &[says, "tokens.json"]);
    }
    let wrong = output(&scratch.0, &["token", "create", "--name", "a", "--read", "Main"]);
    assert_refuses(&wrong, 2, &["--read", "a scope name is"]);
    let wrong =
        output(&scratch.0, &["token", "create", "--name", "a", "--read", "main", "--expires", "soon"]);
    assert_refuses(&wrong, 2, &["--expires", "90d"]);
}
