//! A server that is killed while it writes, again and again: whatever it acknowledged is there and verifies.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use pcmcache_shared::ActionKey;

use crate::bench::{Bench, Module, Scratch, scope};

const DIRECTORY: &str = "PCMCACHE_TEST_KILLED_DIRECTORY";
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

fn publish_until_killed(directory: &std::path::Path, after: Duration) -> Vec<ActionKey> {
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args(["rules::kill::publisher", "--exact", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
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
            let found = bench.cache.result(&scope(), *key).await.unwrap();
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
