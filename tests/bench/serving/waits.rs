//! How soon those who wait for a result have it, and what it costs that they wait.

use std::time::Instant;

use pcmcache_shared::Scope;
use pcmcache_shared::api::acquire::{self, AcquireLine, AcquireMode, AcquireRequest};
use pcmcache_shared::api::leases::Hold;
use tokio::task::JoinSet;

use crate::figures::{Figures, Report};
use crate::publishes::{Publication, put_output};
use crate::stand::{Cached, Stand};
use crate::wire::{Wire, request, run};

/// Keys with one waiter each, in a round.
const KEYS: usize = 100;
/// Waiters on one key.
const CROWD: usize = 1000;
/// Waiters who only cost memory.
const IDLE: usize = 10_000;

pub(crate) fn measure(server: &Cached, rounds: usize, report: &mut Report) {
    assert!(put_output(server));
    let mut number = 0;
    let mut publication = || {
        number += 1;
        Publication::new(0, number)
    };
    let (mut single, mut crowd) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let keys: Vec<_> = (0..KEYS).map(|_| publication()).collect();
        let times = run(async {
            let mut times = Vec::new();
            for key in &keys {
                times.extend(time_to_answers(server, key, 1).await);
            }
            times
        });
        let many = run(time_to_answers(server, &publication(), CROWD));
        if round > 0 {
            single.push(Figures::of(times).quantile(0.99));
            crowd.push(Figures::of(many).quantile(0.99));
        }
    }
    report.say("publish to a waiter's answer, p99", "ms", &Figures::of(single));
    report.say("the same, 1000 waiters on the key", "ms", &Figures::of(crowd));

    let before = server.memory();
    let (key, asked) = (publication(), publication());
    let after = run(async {
        let _held = hold(server, &key).await;
        let mut waiting = Vec::new();
        for id in 0..IDLE {
            waiting.push(wait(server, &key, id).await);
        }
        // Once more around, so that all that was asked is done.
        let _held = hold(server, &asked).await;
        server.memory()
    });
    report.say("memory without waiters", "MB", &Figures::of([before]));
    report.say("10,000 idle waiters, with all that is theirs", "MB", &Figures::of([after - before]));
}

/// From the moment that the publisher sends its first byte to the answer of each who waits, in ms. So the disk's part is in it.
async fn time_to_answers(server: &Cached, key: &Publication, waiters: usize) -> Vec<f64> {
    let (_held, hold) = hold(server, key).await;
    let mut waiting = Vec::new();
    for id in 0..waiters {
        waiting.push(wait(server, key, id).await);
    }
    let mut publisher = Wire::to(server.address()).await;
    let request = key.request(Some(hold));
    let mut answers = JoinSet::new();
    let from = Instant::now();
    for mut wire in waiting {
        answers.spawn(async move {
            wire.until("\"state\":\"hit\"").await;
            from.elapsed().as_secs_f64() * 1e3
        });
    }
    assert_eq!(publisher.ask(&request).await.0, 201);
    answers.join_all().await
}

/// A connection that has the lease, and what proves it.
async fn hold(server: &Cached, key: &Publication) -> (Wire, Hold) {
    let mut wire = asking(server, key, "holder".to_owned(), true).await;
    let answer = wire.until("}\n").await;
    let line = answer.lines().find(|line| line.starts_with('{')).expect("a line");
    let line = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {answer}"));
    let AcquireLine::Granted { fence, secret, .. } = line else { panic!("no grant: {answer}") };
    (wire, Hold { fence, secret })
}

/// A connection that waits.
async fn wait(server: &Cached, key: &Publication, id: usize) -> Wire {
    let mut wire = asking(server, key, format!("waiter-{id}"), false).await;
    wire.until("\"state\":\"busy\"").await;
    wire
}

async fn asking(server: &Cached, key: &Publication, id: String, hold: bool) -> Wire {
    let asked = AcquireRequest {
        claim: key.claim(),
        unit: None,
        known: Vec::new(),
        request_id: id.clone(),
        holder: format!("build-host-{id}"),
        subject: "bench.cppm".to_owned(),
        mode: AcquireMode::Build,
        wait_ms: 600_000,
        hold,
    };
    let body = serde_json::to_vec(&asked).expect("JSON of a wire type");
    let mut wire = Wire::to(server.address()).await;
    wire.send(&request("POST", &acquire::path(&Scope::default()), "application/json", &body)).await;
    wire
}
