//! `scrub` and `check`: by themselves, and through the server that has the store.

use std::path::Path;
use std::process::{Command, Output};

use http::Request;
use pcmcache_shared::Digest;

use super::wire::Served;

async fn run(data_dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pcmcache-server"));
    command.env_clear().args(arguments).arg("--data-dir").arg(data_dir);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn out(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

async fn put(served: &Served, bytes: &[u8]) {
    let request = Request::put(format!("/v1/scopes/main/blobs/{}", Digest::of(bytes)));
    assert_eq!(served.send(request.body(bytes.to_vec()).unwrap()).await.status, 201);
}

fn damage(data_dir: &Path, digest: Digest) {
    let name = digest.to_string();
    fs_err::write(data_dir.join("blobs").join(&name[..2]).join(name), "?????").unwrap();
}

#[tokio::test]
async fn a_running_server_scrubs_and_checks_when_it_is_asked() {
    let mut served = Served::start().await;
    let dir = served.dir.0.clone();
    for bytes in ["hello", "there"] {
        put(&served, bytes.as_bytes()).await;
    }
    let (status, stdout, _) = out(&run(&dir, &["scrub"]).await);
    assert_eq!((status, stdout.as_str()), (Some(0), "2 blobs, 10 bytes, 0 of them damaged\n"));
    damage(&dir, Digest::of("hello"));
    let (status, stdout, stderr) = out(&run(&dir, &["check"]).await);
    assert_eq!((status, stdout.as_str()), (Some(0), "0 results, 2 blobs, 0 findings\n"), "{stderr}");
    let (status, stdout, _) = out(&run(&dir, &["check", "--full"]).await);
    assert_eq!(status, Some(1));
    assert!(stdout.contains("its bytes are not those of its name; `scrub` moves it aside"), "{stdout}");
    let (status, stdout, _) = out(&run(&dir, &["scrub"]).await);
    assert_eq!(status, Some(1));
    assert!(stdout.starts_with(&format!("{}: was damaged", Digest::of("hello"))), "{stdout}");
    assert_eq!(served.metric("pcmcache_damaged_blobs_total").await, 1);
    let (status, stdout, stderr) = out(&run(&dir, &["check", "--full"]).await);
    assert_eq!((status, stdout.as_str()), (Some(0), "0 results, 1 blobs, 0 findings\n"), "{stderr}");
    assert!(stderr.contains("1 blobs were moved aside"), "{stderr}");
    served.tell_to_stop();
    served.ended().await;
    assert!(!dir.join("control").exists());

    // And the same without a server.
    damage(&dir, Digest::of("there"));
    let (status, stdout, _) = out(&run(&dir, &["check", "--full"]).await);
    assert_eq!(status, Some(1), "{stdout}");
    let (status, stdout, stderr) = out(&run(&dir, &["scrub"]).await);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stdout.ends_with("1 blobs, 5 bytes, 1 of them damaged\n"), "{stdout}");
    assert!(stderr.ends_with("100 %, 1 blobs\n"), "{stderr}");
    assert_eq!(out(&run(&dir, &["scrub"]).await).0, Some(0));
}

#[tokio::test]
async fn a_running_server_makes_a_backup_that_becomes_a_server_elsewhere() {
    let served = Served::start().await;
    put(&served, b"hello").await;
    let (backup, other) = (served.dir.0.join("backup"), served.dir.0.join("other"));
    let (status, stdout, stderr) = out(&run(&served.dir.0, &["backup", backup.to_str().unwrap()]).await);
    assert_eq!((status, stdout.as_str()), (Some(0), "0 results, 1 blobs, 1 of them new\n"), "{stderr}");
    let (status, stdout, stderr) = out(&run(&other, &["restore", backup.to_str().unwrap()]).await);
    assert_eq!((status, stdout.as_str()), (Some(0), "0 results\n"), "{stderr}");
    assert!(stderr.contains("tokens are no part of a backup"), "{stderr}");
    let (status, stdout, stderr) = out(&run(&other, &["check", "--full"]).await);
    assert_eq!((status, stdout.as_str()), (Some(0), "0 results, 1 blobs, 0 findings\n"), "{stderr}");
    let (status, _, stderr) = out(&run(&served.dir.0, &["backup", served.dir.0.to_str().unwrap()]).await);
    assert_eq!(status, Some(2));
    assert!(stderr.contains("has files in it, and no backup"), "{stderr}");
}

#[tokio::test]
async fn an_index_that_was_lost_is_made_again() {
    let mut served = Served::start().await;
    let dir = served.dir.0.clone();
    let (status, _, stderr) = out(&run(&dir, &["rebuild-index"]).await);
    assert_eq!(status, Some(2));
    assert!(stderr.contains("another server uses the data directory"), "{stderr}");
    served.tell_to_stop();
    served.ended().await;
    fs_err::remove_file(dir.join("index.redb")).unwrap();
    let (status, _, stderr) = out(&run(&dir, &["--listen", "127.0.0.1:0"]).await);
    assert_eq!(status, Some(1));
    assert!(stderr.contains("is gone: `pcmcache-server rebuild-index` makes it again"), "{stderr}");
    let (status, stdout, stderr) = out(&run(&dir, &["rebuild-index"]).await);
    assert_eq!((status, stdout.as_str(), stderr.as_str()), (Some(0), "0 results\n", ""));
    assert_eq!(out(&run(&dir, &["check"]).await).0, Some(0));
}

#[tokio::test]
async fn where_there_is_no_store_none_is_made() {
    let served = Served::start().await;
    let nowhere = served.dir.0.join("nowhere");
    for command in ["scrub", "check", "rebuild-index"] {
        let (status, _, stderr) = out(&run(&nowhere, &[command]).await);
        assert_eq!(status, Some(2));
        assert!(stderr.contains("there is no store in") && stderr.contains("--data-dir"), "{stderr}");
    }
    assert!(!nowhere.exists());
}

#[tokio::test]
async fn whoever_says_nothing_sensible_is_not_answered() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let served = Served::start().await;
    for text in [&b"nonsense\n"[..], b"{\"check\":{}}\n", b"\n", &[b'x'; 100_000]] {
        let mut stream = tokio::net::UnixStream::connect(served.dir.0.join("control")).await.unwrap();
        let _ = stream.write_all(text).await;
        let mut answer = Vec::new();
        let _ = super::wire::within(stream.read_to_end(&mut answer)).await;
        assert_eq!(answer, b"");
    }
    let (status, _, stderr) = out(&run(&served.dir.0, &["check"]).await);
    assert_eq!(status, Some(0), "{stderr}");
}
