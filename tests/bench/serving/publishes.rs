//! How many results are made durable in a second, with many clients at once.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use pcmcache_shared::api::actions::{self, PublishRequest};
use pcmcache_shared::recipe::{Learnt, Unit};
use pcmcache_shared::{
    ActionKey, ActionResult, Claim, Cost, Digest, IncludeSet, Output, Recipe, Role, Scope,
};
use pcmcache_tests::Scratch;

use crate::figures::{Figures, Report};
use crate::stand::{Cached, Stand};
use crate::wire::{Wire, request, run};

const CLIENTS: usize = 64;
/// Publishes of each client in a round.
const EACH: usize = 150;
/// Headers that a unit reads.
const HEADERS: usize = 20;

pub(crate) fn measure(server: &Cached, scratch: &Scratch, rounds: usize, report: &mut Report) {
    assert!(put_output(server));
    let (mut rates, mut cost) = (Vec::new(), Vec::new());
    let mut syncs = Vec::new();
    for round in 0..=rounds {
        // Made before: what a client does is not what is measured.
        let work: Vec<Vec<_>> = (0..CLIENTS)
            .map(|client| {
                (0..EACH).map(|n| Publication::new(client, round * EACH + n).request(None)).collect()
            })
            .collect();
        let synced = syncs_a_second(scratch.path());
        let (from, cpu) = (Instant::now(), server.cpu());
        run(publish_all(server, work));
        if round > 0 {
            let took = from.elapsed().as_secs_f64();
            cost.push((server.cpu() - cpu) * 1e6 / (CLIENTS * EACH) as f64);
            rates.push((CLIENTS * EACH) as f64 / took);
            syncs.push(synced);
        }
    }
    report.compare(
        "durable publishes, 64 clients",
        "1/s",
        &Figures::of(rates),
        ("appends and fdatasyncs in a row", &Figures::of(syncs)),
    );
    report.say("a publish, processor time", "us", &Figures::of(cost));
    report.say("memory after that", "MB", &Figures::of([server.memory()]));
}

async fn publish_all(server: &Cached, work: Vec<Vec<Vec<u8>>>) {
    let mut clients = tokio::task::JoinSet::new();
    for requests in work {
        let mut wire = Wire::to(server.address()).await;
        clients.spawn(async move {
            for request in requests {
                assert_eq!(wire.ask(&request).await.0, 201);
            }
        });
    }
    clients.join_all().await;
}

/// How often a second the disk can be written to durably by one who waits each time.
fn syncs_a_second(directory: &Path) -> f64 {
    let mut file = fs_err::File::create(directory.join("syncs")).expect("a file to sync");
    let (from, mut count) = (Instant::now(), 0);
    while from.elapsed() < Duration::from_millis(500) {
        file.write_all(&[1; 4096]).and_then(|()| file.sync_data()).expect("a write");
        count += 1;
    }
    f64::from(count) / from.elapsed().as_secs_f64()
}

const OUTPUT: &[u8] = b"what every action of this bench makes";

/// Stores the output that all results name, if the server takes anything yet.
pub(crate) fn put_output(server: &Cached) -> bool {
    let path = format!("/v1/scopes/main/blobs/{}", Digest::of(OUTPUT));
    let request = request("PUT", &path, "application/octet-stream", OUTPUT);
    let (status, _) = run(async { Wire::to(server.address()).await.ask(&request).await });
    assert!([200, 201, 503].contains(&status), "{status}");
    status != 503
}

/// A result of an action that nobody has published.
pub(crate) struct Publication {
    pub(crate) key: ActionKey,
    recipe: Recipe,
    set: IncludeSet,
}

impl Publication {
    /// The one of this number among the unit's: its headers have the names they always have, and other bytes each time.
    pub(crate) fn new(unit: usize, number: usize) -> Self {
        let mut text = Unit::new();
        text.arg(b"-std=c++23");
        text.source(Path::new(&format!("/work/source/{unit}.cppm")), Digest::of(unit.to_le_bytes()));
        let name = |header| Learnt::File(format!("/usr/include/of-{unit}/header-{header}.h").into());
        let set: IncludeSet = (0..HEADERS).map(name).collect();
        let recipe = Recipe::new(&text, &set, |_| Some(Digest::of(number.to_le_bytes()))).expect("a recipe");
        Self { key: recipe.action_key(), recipe, set }
    }

    pub(crate) fn claim(&self) -> Claim {
        self.key.into()
    }

    /// The request that publishes it, under this lease.
    pub(crate) fn request(&self, lease: Option<pcmcache_shared::api::leases::Hold>) -> Vec<u8> {
        let output = Output { role: Role::Object, digest: Digest::of(OUTPUT), size: OUTPUT.len() as u64 };
        let publish = PublishRequest {
            result: ActionResult {
                outputs: vec![output],
                cost: Cost { wall_ms: 900 },
                builder: "bench".to_owned(),
                signature: None,
            },
            recipe: self.recipe.text().to_owned(),
            include_set: self.set.text(),
            claim: self.claim(),
            lease,
        };
        let body = serde_json::to_vec(&publish).expect("JSON of a wire type");
        request("PUT", &actions::path(&Scope::default(), self.key), "application/json", &body)
    }
}
