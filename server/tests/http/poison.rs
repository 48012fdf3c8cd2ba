//! The attack of CVE-2025-36852, "CREEP": whoever may open a pull request publishes first, for a key that the protected branch
//! will build, and the branch then takes those bytes for its own. Here it is tried a hundred times, each time by every way
//! there is in; the branch must get its own bytes, and get its lease as if nobody had tried.

use http_body_util::Full;
use pcmcache_shared::Digest;
use pcmcache_shared::api::problem::Code;
use serde_json::{Value, json};

use super::forged::{exchange, session, team_of};
use super::issuer::Issuer;
use super::team::{Module, Team, also, lines};
use super::wire::{h1, next_line, within};

const ROUNDS: usize = 100;

/// Everything that a job with a foothold can try before the branch builds `module`.
struct Attack<'a> {
    team: &'a Team,
    /// The session of a pull request, and its scope.
    pull: &'a str,
    module: &'a Module,
    planted: &'a Module,
}

impl Attack<'_> {
    async fn run(&self, round: usize) {
        self.publish_first(round).await;
        self.hold_and_fail().await;
        self.flood_the_unit(round).await;
        self.write_into_main().await;
    }

    /// Planted bytes, under the very key, in the own scope and in the branch's.
    async fn publish_first(&self, round: usize) {
        let published = self.team.share(self.pull, "pr-12-7", self.planted).await;
        assert!([200, 201].contains(&published.status.as_u16()), "{round}: {published:?}");
        // With the bytes that the branch will make, where it can guess them.
        for bytes in &self.module.outputs {
            assert!([200, 201].contains(&self.team.put_blob(self.pull, "pr-12-7", bytes).await));
        }
    }

    /// Takes the lease, and lets everyone know that the build fails.
    async fn hold_and_fail(&self) {
        let other = Module::new("a unit of its own", "x");
        for claim in [json!(self.module.unit()), json!(self.module.key())] {
            let request = also(other.cold("attacker"), json!({ "claim": claim }));
            let line = self.team.acquire(self.pull, "pr-12-7", &request).await;
            if line["state"] == "granted" {
                let lease = format!("/v1/scopes/pr-12-7/leases/{}", claim.as_str().unwrap());
                let release = json!({
                    "fence": line["fence"], "secret": line["secret"], "reason": "failed",
                });
                assert_eq!(self.team.send(self.pull, "DELETE", &lease, &release).await.status, 204);
                // And once more, to be holding it while the branch asks.
                let again = also(request.clone(), json!({ "request_id": "attacker-again" }));
                self.team.acquire(self.pull, "pr-12-7", &again).await;
            }
        }
    }

    /// Teaches include sets until those of the branch would be forgotten.
    async fn flood_the_unit(&self, round: usize) {
        if !round.is_multiple_of(20) {
            return;
        }
        for n in 0..10 {
            let header = format!("/planted/{n}.h");
            let flood = self.module.reading(&[header.as_str()]);
            let published = self.team.share(self.pull, "pr-12-7", &flood).await;
            assert_eq!(published.status, 201);
        }
    }

    /// Writes where it may only read.
    async fn write_into_main(&self) {
        let publication = serde_json::to_vec(&self.planted.publication(None)).unwrap();
        let lease = format!("/v1/scopes/main/leases/{}", self.module.unit());
        let hold = json!({ "fence": 1, "secret": "guessed" }).to_string();
        let release = json!({ "fence": 1, "secret": "guessed", "reason": "failed" }).to_string();
        let acquire = self.module.knowing("attacker").to_string();
        let bytes = self.planted.outputs[0].clone();
        for (method, path, body) in [
            ("PUT", self.planted.path("main"), publication),
            ("PUT", self.planted.blob("main", 0), bytes),
            ("POST", lease.clone(), hold.into_bytes()),
            ("DELETE", lease, release.into_bytes()),
            ("POST", "/v1/scopes/main/acquire".to_owned(), acquire.into_bytes()),
        ] {
            let reply = self.team.ask(self.pull, method, &path, body).await;
            assert_eq!(reply.code(), Code::ReadOnly, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn the_protected_branch_never_gets_the_bytes_of_a_pull_request_nor_waits_for_it() {
    let issuer = Issuer::start().await;
    let (team, _rules) = team_of(&issuer).await;
    let pull =
        session(&team, &issuer.token(&issuer.pull_request(7))).await["token"].as_str().unwrap().to_owned();
    let branch = session(&team, &issuer.token(&issuer.push())).await["token"].as_str().unwrap().to_owned();
    for round in 0..ROUNDS {
        let module = Module::new(&format!("module {round}"), &format!("honest {round}"));
        let planted =
            Module { outputs: Module::new("x", &format!("planted {round}")).outputs, ..module.clone() };
        let attack = Attack { team: &team, pull: &pull, module: &module, planted: &planted };
        attack.run(round).await;
        for event in ["pull_request_target", "workflow_run", "issue_comment"] {
            let mut claims = issuer.push();
            claims["event_name"] = json!(event);
            assert_eq!(exchange(&team, &issuer.token(&claims)).await.code(), Code::Forbidden, "{event}");
        }

        // The branch asks cold and warm: it is told of nothing, and gets its lease with the first line.
        let asked = if round % 2 == 0 { module.cold("branch") } else { module.knowing("branch") };
        let reply = team.send(&branch, "POST", "/v1/scopes/main/acquire", &asked).await;
        let answer = lines(&reply);
        assert_eq!(answer.len(), 1, "{round}: {answer:?}");
        assert_eq!(answer[0]["state"], "granted", "{round}: {answer:?}");
        let looked = json!({ "actions": [module.key()], "units": [module.unit()] });
        let looked = team.send(&branch, "POST", "/v1/scopes/main/lookup", &looked).await;
        assert_eq!(looked.body, r#"{"units":[],"results":[]}"#, "{round}");
        for output in 0..2 {
            // Not even its own bytes are there before it puts them.
            assert_eq!(team.get(&branch, &module.blob("main", output)).await.code(), Code::NoBlob, "{round}");
            assert_eq!(
                team.get(&branch, &planted.blob("main", output)).await.code(),
                Code::NoBlob,
                "{round}"
            );
            assert_eq!(team.put_blob(&branch, "main", &module.outputs[output]).await, 201, "{round}");
        }
        let published =
            team.send(&branch, "PUT", &module.path("main"), &module.publication(Some(&answer[0]))).await;
        assert_eq!(published.status, 201, "{round}: {published:?}");

        // Whoever builds the branch next gets the branch's bytes.
        let hit = team.acquire(&branch, "main", &module.knowing("next")).await;
        assert_eq!(hit["state"], "hit", "{round}");
        let outputs = hit["result"]["outputs"].as_array().unwrap();
        for (output, bytes) in outputs.iter().zip(&module.outputs) {
            assert_eq!(output["digest"], Digest::of(bytes).to_string(), "{round}");
        }
        assert_eq!(hit["scope"], "main");
    }
    let observer = team.create("observer", &["--observe"]);
    let metrics = String::from_utf8(team.get(&observer, "/metrics").await.body.to_vec()).unwrap();
    assert!(metrics.lines().any(|line| line == "pcmcache_diverged_total 0"), "{metrics}");
}

#[tokio::test]
async fn a_crowd_of_pull_requests_that_waits_for_the_branch_takes_no_turn_from_it() {
    let issuer = Issuer::start().await;
    let (team, _rules) = team_of(&issuer).await;
    let branch = session(&team, &issuer.token(&issuer.push())).await["token"].as_str().unwrap().to_owned();
    let module = Module::new("m", "honest bytes");
    let first = team.acquire(&branch, "main", &module.knowing("first")).await;
    assert_eq!(first["state"], "granted");
    // Fifty that may never have the branch's lease wait for it, and then one that may.
    let mut crowd = Vec::new();
    for number in 0..50 {
        let pull = session(&team, &issuer.token(&issuer.pull_request(number))).await;
        let scope = pull["writes"].as_str().unwrap().to_owned();
        let token = pull["token"].as_str().unwrap().to_owned();
        crowd.push(waits(&team, &token, &scope, &module, "crowd").await);
    }
    let (_sender, mut next) = waits(&team, &branch, "main", &module, "next").await;
    let lease = format!("/v1/scopes/main/leases/{}", first["claim"].as_str().unwrap());
    let release = json!({ "fence": first["fence"], "secret": first["secret"], "reason": "abandoned" });
    assert_eq!(team.send(&branch, "DELETE", &lease, &release).await.status, 204);
    let line = answer(&mut next).await;
    assert_eq!(line["state"], "granted", "{line}");
    // The crowd goes on waiting for what the branch now builds, and gets that.
    for bytes in &module.outputs {
        team.put_blob(&branch, "main", bytes).await;
    }
    let published = team.send(&branch, "PUT", &module.path("main"), &module.publication(Some(&line))).await;
    assert_eq!(published.status, 201, "{published:?}");
    for (_, waiting) in &mut crowd {
        let line = answer(waiting).await;
        assert_eq!((&line["state"], &line["scope"]), (&json!("hit"), &json!("main")), "{line}");
    }
}

type Waiting = http::Response<hyper::body::Incoming>;

/// Someone who waits for a build that is under way.
async fn waits(
    team: &Team,
    token: &str,
    scope: &str,
    module: &Module,
    id: &str,
) -> (super::wire::Sender1, Waiting) {
    let body = also(module.knowing(id), json!({ "wait_ms": 60_000 }));
    let request = http::Request::post(format!("http://h/v1/scopes/{scope}/acquire"))
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {token}"));
    let request = request.body(Full::new(body.to_string().into())).unwrap();
    let mut sender = h1(team.served.addr).await;
    let mut waiting = within(sender.send_request(request)).await.unwrap();
    assert_eq!(next_line(waiting.body_mut()).await.unwrap()["state"], "busy");
    (sender, waiting)
}

/// The next line that is not `busy`.
async fn answer(waiting: &mut Waiting) -> Value {
    loop {
        let line = next_line(waiting.body_mut()).await.unwrap();
        if line["state"] != "busy" {
            return line;
        }
    }
}
