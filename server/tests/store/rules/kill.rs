//! A server that is killed while it writes, again and again: whatever it acknowledged is there and verifies.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use pcmcache_shared::ActionKey;

use crate::bench::{Bench, Module, Scratch, view};

pub(super) const DIRECTORY: &str = "PCMCACHE_TEST_KILLED_DIRECTORY";
const ROUNDS: u64 = 12;

/// A module that no other round has.
fn module(name: String) -> Module {
    let object = name.repeat(20_000).into_bytes();
    let mut module = Module::new(Box::leak(name.into_boxed_str()));
    module.outputs[1] = object;
    module
}

/// What is killed: it publishes for ever, four at a time, and says what was acknowledged.
#[tokio::test]
#[ignore = "it is run, and killed, by the test below"]
async fn publisher() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let bench = Bench::on_disk(directory.as_ref());
    let round = bench.cache.results().await.unwrap();
    for batch in 0.. {
        let modules: Vec<_> = (0..4).map(|n| module(format!("from {round}, {batch}, {n}"))).collect();
        let published = modules.iter().map(|module| async {
            let held = bench.acquire(module.request("a")).await.granted().await;
            bench.share(module, Some(&held)).await.unwrap();
            println!("\nacknowledged {}", module.key());
        });
        futures::future::join_all(published).await;
    }
}

/// This very program, running one of the tests that are to be killed.
pub(super) fn server(test: &str, directory: &Path) -> Command {
    let mut server = Command::new(std::env::current_exe().unwrap());
    server
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    server
}

fn publish_until_killed(directory: &Path, after: Duration) -> Vec<ActionKey> {
    let mut server = server("rules::kill::publisher", directory).spawn().unwrap();
    let lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let reader = std::thread::spawn(move || {
        let keys = lines.map_while(Result::ok);
        keys.filter_map(|line| line.strip_prefix("acknowledged ")?.parse().ok()).collect()
    });
    std::thread::sleep(after);
    server.kill().unwrap();
    server.wait().unwrap();
    reader.join().unwrap()
}

#[tokio::test]
async fn whatever_was_acknowledged_survives_kills() {
    let scratch = Scratch::new();
    let mut acknowledged: Vec<ActionKey> = Vec::new();
    for round in 0..ROUNDS {
        let (path, after) = (scratch.path().to_owned(), Duration::from_millis(300 + round * 37));
        let killed = tokio::task::spawn_blocking(move || publish_until_killed(&path, after));
        acknowledged.extend(killed.await.unwrap());
        let bench = Bench::on_disk(scratch.path());
        for key in &acknowledged {
            let found = bench.cache.result(&view(), *key).await.unwrap();
            let found = found.unwrap_or_else(|| panic!("{key} was acknowledged, and is not there"));
            for output in &found.result.outputs {
                let bytes = bench.read(output.digest).await.unwrap().unwrap();
                assert_eq!(bytes.len() as u64, output.size);
            }
            assert!(bench.read(key.recipe()).await.unwrap().is_some());
        }
        assert_eq!(bench.cache.counters().damaged_blobs, 0);
    }
    assert!(acknowledged.len() > 20, "it was killed before it did anything: {}", acknowledged.len());
}

/// Where a publish can be killed, and whether its result is there then. (Its uploads come first.)
#[cfg(feature = "failpoints")]
const STEPS: [(&str, bool); 7] = [
    ("upload.staged", false),
    ("upload.renamed", false),
    ("upload.committed", false),
    ("publish.checked", false),
    ("publish.blobs", false),
    ("publish.committed", true),
    ("publish.discharged", true),
];

/// What is killed at a step.
#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it is run, and killed, by the test below"]
async fn one_publish() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let (bench, module) = (Bench::on_disk(directory.as_ref()), Module::new("m"));
    let held = bench.acquire(module.request("holder")).await.granted().await;
    bench.share(&module, Some(&held)).await.unwrap();
    panic!("it was not killed");
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn killed_at_any_step_the_next_one_completes() {
    use std::os::unix::process::ExitStatusExt;

    use pcmcache_server::leases::RESTART_GRACE;
    use pcmcache_shared::Digest;
    use pcmcache_shared::api::acquire::AcquireLine;

    for (step, is_there) in STEPS {
        let (scratch, module) = (Scratch::new(), Module::new("m"));
        let mut server = server("rules::kill::one_publish", scratch.path());
        server.env("PCMCACHE_FAILPOINT", format!("{step}=kill"));
        let status = tokio::task::spawn_blocking(move || server.status().unwrap()).await.unwrap();
        assert_eq!(status.signal(), Some(9), "{step}: {status}");

        let bench = Bench::on_disk(scratch.path());
        let found = bench.cache.result(&view(), module.key()).await.unwrap();
        assert_eq!(found.is_some(), is_there, "{step}");
        let mut next = bench.acquire(module.request("next")).await;
        if is_there {
            assert!(matches!(next.next().await, Some(AcquireLine::Sets { .. })), "{step}");
        } else {
            next.busy().await;
            bench.clock.advance(RESTART_GRACE);
            let held = next.granted().await;
            bench.share(&module, Some(&held)).await.unwrap();
        }
        for bytes in &module.outputs {
            assert_eq!(bench.read(Digest::of(bytes)).await.unwrap().as_ref(), Some(bytes), "{step}");
        }
        let stages = fs_err::read_dir(scratch.path().join("stages")).unwrap().count();
        assert_eq!(stages, 0, "{step}");
    }
}
