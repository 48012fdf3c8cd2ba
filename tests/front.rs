//! A server behind nginx, as `deploy/nginx/pcmcache.conf` puts it there: holds, uploads and downloads are what they are
//! without it, over HTTP/1.1 and HTTP/2.

use std::path::PathBuf;
use std::time::Duration;

use pcmcache_shared::api::acquire::AcquireLine;
use pcmcache_shared::{ActionKey, Claim, Digest, Scope, api};
use pcmcache_tests::nginx::Front;
use pcmcache_tests::scratch::files_below;
use pcmcache_tests::{Process, Scratch, Server, turn, within};
use serde_json::json;

const VERSIONS: [&str; 2] = ["--http1.1", "--http2"];
/// A lease lives 15 s without a sign of life, and 1 s after its holder's connection ended: this tells them apart.
const BEFORE_THE_LEASE_RUNS_OUT: Duration = Duration::from_secs(9);
const SOON: Duration = Duration::from_secs(10);

#[test]
fn nginx_finds_nothing_wrong_with_it() {
    let scratch = Scratch::new("front-check");
    let end = Front::check(&scratch).finish();
    assert!(end.status.success() && end.stderr.contains("test is successful"), "{}", end.transcript());
    for word in ["[warn]", "[emerg]"] {
        assert!(!end.stderr.contains(word), "{}", end.transcript());
    }
}

#[test]
fn a_hold_is_granted_at_once_and_ends_with_its_client() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("front-hold");
    let server = Server::start(&scratch);
    let front = Front::before(&scratch, server.address());
    for (dropped, version) in [2.0, 4.0].into_iter().zip(VERSIONS) {
        let mut first = acquire(&scratch, &front, version, "first");
        assert!(matches!(line(&first), AcquireLine::Granted { .. }), "{version}: {}", first.stdout());
        let mut second = acquire(&scratch, &front, version, "second");
        assert!(matches!(line(&second), AcquireLine::Busy { .. }), "{version}: {}", second.stdout());
        assert!(!first.ended() && !second.ended(), "{version}: a stream ended before its time");

        first.kill();
        within(BEFORE_THE_LEASE_RUNS_OUT, "the lease of a killed holder to go to who waits", || {
            second.stdout().lines().nth(1).map(|line| assert!(line.contains("granted"), "{line}"))
        });
        second.kill();
        within(SOON, "the server to see both go", || {
            (server.metric("pcmcache_dropped_holds_total") == dropped).then_some(())
        });
    }
}

#[test]
fn an_upload_reaches_the_server_while_it_is_sent() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("front-upload");
    let server = Server::start(&scratch);
    let front = Front::before(&scratch, server.address());
    let (blob, path) = blob(&scratch);
    let blob = blob.to_str().expect("a path");
    let stages = || files_below(&server.data().join("stages"));
    for version in VERSIONS {
        // All of it would take far longer than is waited for a part.
        let mut upload =
            Process::start(front.curl([version, "--limit-rate", "50K", "--upload-file", blob], &path));
        within(SOON, "a part of the upload on the server's disk", || (!stages().is_empty()).then_some(()));
        assert!(!upload.ended(), "{version}: it was over before it was seen: {}", upload.stderr());
        upload.kill();
        within(SOON, "the part to go with its client", || stages().is_empty().then_some(()));
    }
    assert_eq!(server.metric("pcmcache_uploads_total"), 0.0);
}

#[test]
fn uploads_and_downloads_pass_whole_and_in_ranges() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("front-bytes");
    let server = Server::start(&scratch);
    let front = Front::before(&scratch, server.address());
    let (blob, path) = blob(&scratch);
    let bytes = fs_err::read(&blob).expect("the blob");
    for version in VERSIONS {
        let blob = blob.to_str().expect("a path");
        Process::start(front.curl([version, "--fail", "--upload-file", blob], &path)).finish().ok();
        let get = |arguments: &[&str]| {
            let to = scratch.path().join("fetched");
            let mut command = front.curl([&[version][..], arguments].concat(), &path);
            command.args(["--dump-header", "-", "--output"]).arg(&to);
            let head = Process::start(command).finish().ok().stdout.to_lowercase();
            (head, fs_err::read(&to).expect("what was fetched"))
        };
        let (head, body) = get(&[]);
        assert!(head.contains(&format!("etag: \"{}\"", Digest::of(&bytes))), "{version}: {head}");
        assert!(head.contains("content-length: 2000000") && body == bytes, "{version}: {head}");
        assert!(head.starts_with(&version.replace("--http", "http/")), "{version}: {head}");
        let (head, body) = get(&["--range", "1000000-1000009"]);
        assert!(head.contains("content-range: bytes 1000000-1000009/2000000"), "{version}: {head}");
        assert_eq!(body, bytes[1_000_000..=1_000_009], "{version}");
    }
    assert!(!front.kept_something(), "nginx wrote to its own disk");
}

#[test]
fn what_the_server_refuses_is_told_in_its_own_words() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("front-refusals");
    let server = Server::start(&scratch);
    let front = Front::before(&scratch, server.address());
    let wrong = api::blobs::path(&Scope::default(), Digest::of("other"));
    let blob = scratch.file("blob", "hello");
    for version in VERSIONS {
        let put = front.curl([version, "--upload-file", blob.to_str().expect("a path")], &wrong);
        let said = Process::start(put).finish().ok().stdout;
        assert!(said.contains("\"code\":\"digest_mismatch\""), "{version}: {said}");
        let said = Process::start(front.curl([version], &wrong)).finish().ok().stdout;
        assert!(said.contains("\"code\":\"no_blob\""), "{version}: {said}");
    }
}

/// Two megabytes, and their place at the server.
fn blob(scratch: &Scratch) -> (PathBuf, String) {
    let bytes: Vec<u8> = (0..2_000_000_u32).map(|n| (n % 251) as u8).collect();
    (scratch.file("blob", &bytes), api::blobs::path(&Scope::default(), Digest::of(&bytes)))
}

/// Asks to build the one thing that everyone here wants, and to hold it.
fn acquire(scratch: &Scratch, front: &Front, version: &str, who: &str) -> Process {
    let request = json!({
        "claim": Claim::from(ActionKey::of(version)),
        "request_id": format!("{who}-{}", version.trim_matches('-').replace('.', "-")),
        "holder": who,
        "wait_ms": 60_000,
        "hold": true,
    });
    let body = scratch.file(who, request.to_string());
    let body = format!("@{}", body.display());
    let arguments = [version, "--header", "Content-Type: application/json", "--data-binary", &body];
    Process::start(front.curl(arguments, &api::acquire::path(&Scope::default())))
}

fn line(stream: &Process) -> AcquireLine {
    within(SOON, "the first line of a stream", || {
        let said = stream.stdout();
        let line = said.lines().next()?;
        Some(serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {said}")))
    })
}
