//! Blobs: large ones by their throughput and what a byte costs, small ones by how many are served in a second, and how fast a
//! large one is taken in.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use pcmcache_shared::Digest;
use pcmcache_tests::{Process, Scratch};

use crate::figures::{Figures, Report};
use crate::stand::{Cached, Files, Stand};
use crate::wire::{Wire, request, run};

/// A BMI of the standard library is as large.
const LARGE: usize = 32 << 20;
/// How often the large one is asked for in a round.
const GETS: usize = 40;
/// An object file is about as large.
const SMALL: usize = 20 << 10;
/// Small blobs, asked for in turns.
const SMALLS: u32 = 64;
/// Small requests in a round.
const REQUESTS: usize = 40_000;
/// Connections that ask for small ones.
const CONNECTIONS: usize = 32;

pub(crate) fn measure(scratch: &Scratch, rounds: usize, report: &mut Report) {
    let files = scratch.dir("files");
    let (server, nginx) = (Cached::start(scratch, "blobs"), Files::start(scratch, &files));
    let large = vec![store(&server, &files, &bytes(0, LARGE))];
    let small: Vec<_> = (1..=SMALLS).map(|seed| store(&server, &files, &bytes(seed, SMALL))).collect();
    let stands: [(&dyn Stand, &str); 2] = [(&server, "/v1/scopes/main/blobs/"), (&nginx, "/")];

    let mut speed = [Vec::new(), Vec::new()];
    let mut cost = [Vec::new(), Vec::new()];
    let mut rate = [Vec::new(), Vec::new()];
    for round in 0..=rounds {
        for turn in [round % 2, (round + 1) % 2] {
            let (stand, prefix) = stands[turn];
            let (took, cpu) = timed(stand, || get_all(stand, prefix, &large, 1, GETS));
            let (took_small, _) = timed(stand, || get_all(stand, prefix, &small, CONNECTIONS, REQUESTS));
            // The first round warms up.
            if round > 0 {
                speed[turn].push((GETS * LARGE) as f64 / took / 1e6);
                cost[turn].push(cpu * 1e12 / (GETS * LARGE) as f64);
                rate[turn].push(REQUESTS as f64 / took_small);
            }
        }
    }
    let [speed, cost, rate] = [speed, cost, rate].map(|both| both.map(Figures::of));
    report.compare("GET of 32 MB", "MB/s", &speed[0], ("nginx", &speed[1]));
    report.compare("GET of 32 MB, processor time", "ms/GB", &cost[0], ("nginx", &cost[1]));
    report.compare("GET of 20 KB, 32 connections", "1/s", &rate[0], ("nginx", &rate[1]));

    let (mut puts, mut allowed) = (Vec::new(), Vec::new());
    for round in 0..=rounds as u32 {
        let bytes = bytes(1000 + round, LARGE);
        let file = scratch.file("put", &bytes);
        let peer = hashed_and_synced(scratch, &file);
        let from = Instant::now();
        put(&server, &bytes);
        let took = from.elapsed().as_secs_f64();
        if round > 0 {
            puts.push(LARGE as f64 / took / 1e6);
            allowed.push(LARGE as f64 / peer / 1e6);
        }
    }
    let (puts, allowed) = (Figures::of(puts), Figures::of(allowed));
    report.compare("PUT of 32 MB, hashed and durable", "MB/s", &puts, ("sha256sum, dd conv=fsync", &allowed));
    report.say("memory after that", "MB", &Figures::of([server.memory()]));
}

/// Bytes that no other seed has.
fn bytes(seed: u32, length: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    };
    (0..length / 4).flat_map(|_| next().to_le_bytes()).collect()
}

/// Puts the bytes where both servers have them.
fn store(server: &Cached, files: &Path, bytes: &[u8]) -> Digest {
    let digest = put(server, bytes);
    fs_err::write(files.join(digest.to_string()), bytes).expect("a file for nginx");
    digest
}

fn put(server: &Cached, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    let request =
        request("PUT", &format!("/v1/scopes/main/blobs/{digest}"), "application/octet-stream", bytes);
    let (status, _) = run(async { Wire::to(server.address()).await.ask(&request).await });
    assert_eq!(status, 201);
    digest
}

/// How long it takes, and what the server takes of the processors meanwhile, in seconds.
fn timed(stand: &dyn Stand, load: impl FnOnce()) -> (f64, f64) {
    let (from, cpu) = (Instant::now(), stand.cpu());
    load();
    (from.elapsed().as_secs_f64(), stand.cpu() - cpu)
}

/// Asks so often for the blobs in turns, over so many connections.
fn get_all(stand: &dyn Stand, prefix: &str, blobs: &[Digest], connections: usize, count: usize) {
    let requests: Vec<_> =
        blobs.iter().map(|blob| request("GET", &format!("{prefix}{blob}"), "", b"")).collect();
    run(async {
        let mut asking = tokio::task::JoinSet::new();
        for connection in 0..connections {
            let mut wire = Wire::wide(stand.address()).await;
            let requests = requests.clone();
            asking.spawn(async move {
                for number in 0..count / connections {
                    let (status, length) = wire.ask(&requests[(connection + number) % requests.len()]).await;
                    assert!(status == 200 && length >= SMALL, "{status}, {length} bytes");
                }
            });
        }
        asking.join_all().await;
    });
}

/// What a person would do: hash the file, and copy it so that it survives a power cut. In seconds.
fn hashed_and_synced(scratch: &Scratch, file: &Path) -> f64 {
    let copy: PathBuf = scratch.path().join("copy");
    let _ = fs_err::remove_file(&copy);
    let from = Instant::now();
    let mut hash = Command::new("sha256sum");
    hash.arg(file);
    Process::start(hash).finish().ok();
    let mut dd = Command::new("dd");
    dd.args(["bs=1M", "conv=fsync"])
        .arg(format!("if={}", file.display()))
        .arg(format!("of={}", copy.display()));
    Process::start(dd).finish().ok();
    from.elapsed().as_secs_f64()
}
