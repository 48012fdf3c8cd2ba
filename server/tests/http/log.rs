//! What the program writes down: who did what, under which request, and never a secret.

use std::fs::File;
use std::net::SocketAddr;

use http::Request;
use http::request::Builder;
use http_body_util::Full;
use pcmcache_shared::Digest;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::process::{Process, command};
use super::wire::{Reply, Scratch, acquire, h1, h2, next_line, send, within};

/// A server that writes its log to a file.
struct Logged {
    dir: Scratch,
    addr: SocketAddr,
    process: Process,
}

impl Logged {
    fn start(flags: &[&str]) -> Self {
        let dir = Scratch::new();
        let mut command = command(&dir.0.join("data"), &["--listen", "127.0.0.1:0"]);
        command.args(flags).stderr(File::create(dir.0.join("log")).unwrap()).current_dir(&dir.0);
        let (process, line) = Process::run(command);
        let addr = line.trim().strip_prefix("listening on http://").unwrap().parse().unwrap();
        Self { dir, addr, process }
    }

    fn read(&self, name: &str) -> String {
        fs_err::read_to_string(self.dir.0.join(name)).unwrap_or_default()
    }

    /// Ends it, and gives all that it wrote to the log and to `audit`.
    fn end(self) -> (String, String) {
        let Self { dir, process, .. } = self;
        process.signal(Signal::TERM);
        assert_eq!(process.end().0, Some(0));
        let read = |name| fs_err::read_to_string(dir.0.join(name)).unwrap_or_default();
        (read("log"), read("audit"))
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn put_blob(digest: Digest) -> Builder {
    Request::put(format!("/v1/scopes/main/blobs/{digest}"))
}

/// Takes a lease and gives it back; says what its secret was.
async fn release(
    addr: SocketAddr,
    claim: Digest,
    hand_back: impl AsyncFn(Request<String>) -> Reply,
) -> String {
    let mut sender = h1(addr).await;
    let granted = within(sender.send_request(acquire(&claim.to_string(), "builder"))).await.unwrap();
    let granted = next_line(&mut granted.into_body()).await.unwrap();
    let path = format!("/v1/scopes/main/leases/{claim}");
    let json = |builder: Builder, body: Value| {
        builder.header("content-type", "application/json").body(body.to_string()).unwrap()
    };
    let hold = json!({ "fence": granted["fence"], "secret": granted["secret"] });
    assert_eq!(hand_back(json(Request::post(&path), hold.clone())).await.status, 200);
    let mut body = hold;
    body["reason"] = "abandoned".into();
    assert_eq!(hand_back(json(Request::delete(&path), body)).await.status, 204);
    granted["secret"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_write_has_a_line_and_so_has_every_refused_one() {
    let logged = Logged::start(&["--log", "error", "--audit-log", "audit"]);
    let (good, bad) = (Digest::of("hello"), Digest::of("other"));
    let named = put_blob(good).header("x-request-id", "ci-17").body("hello").unwrap();
    assert_eq!(send(logged.addr, named).await.header("x-request-id"), "ci-17");
    assert_eq!(send(logged.addr, put_blob(bad).body("hello").unwrap()).await.status, 400);
    release(logged.addr, Digest::of("claim"), async |request| send(logged.addr, request).await).await;
    send(logged.addr, Request::get("/metrics").body("").unwrap()).await;
    send(logged.addr, Request::put("/v1/scopes/ma%0ain/blobs/x%0ay").body("hello").unwrap()).await;

    let (log, audit) = logged.end();
    assert_eq!(log, "", "nothing went wrong, and the audit has a file of its own");
    let lines = lines(&audit);
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            assert_eq!((&line["who"], &line["target"]), (&json!("anyone"), &json!("audit")), "{line}");
            assert!(line["from"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
            ["act", "scope", "what", "code", "outcome"]
                .map(|field| line[field].as_str().unwrap_or("-").to_owned())
        })
        .collect();
    let (good, bad, claim) = (good.to_string(), bad.to_string(), Digest::of("claim").to_string());
    assert_eq!(
        told,
        [
            ["upload", "main", &good, "-", "done"],
            ["upload", "main", &bad, "digest_mismatch", "refused"],
            ["release", "main", &claim, "-", "done"],
            ["upload", "-", "-", "bad_scope", "refused"],
        ]
    );
    assert_eq!(lines[0]["request"], "ci-17");
}

#[tokio::test]
async fn without_a_file_of_its_own_the_audit_is_in_the_log_whatever_its_level() {
    let logged = Logged::start(&["--log", "error"]);
    send(logged.addr, put_blob(Digest::of("hello")).body("hello").unwrap()).await;
    let (log, _) = logged.end();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.contains("act=\"upload\"") && log.contains("outcome=\"done\""), "{log}");
}

#[tokio::test]
async fn the_audit_follows_its_name_and_survives_sighup() {
    let logged = Logged::start(&["--audit-log", "audit"]);
    send(logged.addr, put_blob(Digest::of("one")).body("one").unwrap()).await;
    fs_err::rename(logged.dir.0.join("audit"), logged.dir.0.join("audit.1")).unwrap();
    logged.process.signal(Signal::HUP);
    send(logged.addr, put_blob(Digest::of("two")).body("two").unwrap()).await;
    let old = logged.read("audit.1");
    let (_, audit) = logged.end();
    let what = |text: &str| lines(text).iter().map(|line| line["what"].clone()).collect::<Vec<_>>();
    assert_eq!(what(&old), [Digest::of("one").to_string()]);
    assert_eq!(what(&audit), [Digest::of("two").to_string()]);
}

#[tokio::test]
async fn the_lines_of_a_request_have_its_name() {
    let logged = Logged::start(&["--log", "debug", "--log-format", "json"]);
    let digest = Digest::of("hello");
    send(logged.addr, put_blob(digest).body("hello").unwrap()).await;
    // Its damage is noticed while the body is sent, after the handler is done.
    let stored = logged.dir.0.join("data/blobs").join(&digest.to_string()[..2]).join(digest.to_string());
    fs_err::write(stored, "jello").unwrap();
    let get = Request::get(format!("/v1/scopes/main/blobs/{digest}")).header("x-request-id", "reader");
    let mut sender = h1(logged.addr).await;
    let answer = within(sender.send_request(get.body(Full::default()).unwrap())).await.unwrap();
    let _ = within(http_body_util::BodyExt::collect(answer.into_body())).await;
    let (log, _) = logged.end();
    let of_reader: Vec<_> = lines(&log).into_iter().filter(|line| line["span"]["id"] == "reader").collect();
    let messages: Vec<_> = of_reader.iter().filter_map(|line| line["message"].as_str()).collect();
    assert!(messages.iter().any(|message| message.contains("do not match its name")), "{log}");
    assert!(messages.contains(&"answered"), "{log}");
}

/// Whatever is logged, at whatever level, no line holds what lets someone act as another.
#[tokio::test]
async fn no_line_holds_a_secret() {
    let logged = Logged::start(&["--log", "trace", "--audit-log", "audit"]);
    let secrets =
        ["pcmc_bearerbearerbearer", "cookiecookiecookie", "queryqueryquery", "eyJ.assertion.assertion"];
    let [bearer, cookie, query, assertion] = secrets;
    let dress = |builder: Builder| {
        builder
            .header("authorization", format!("Bearer {bearer}"))
            .header("cookie", format!("session={cookie}"))
    };
    let put = |uri: String| dress(Request::put(uri));
    let blob = Digest::of("hello");
    send(logged.addr, put(format!("/v1/scopes/main/blobs/{blob}?token={query}")).body("hello").unwrap())
        .await;
    send(logged.addr, put(format!("/v1/scopes/main/blobs/{blob}")).body("wrong").unwrap()).await;
    let exchange = dress(Request::post("/v1/token")).header("content-type", "application/json");
    send(logged.addr, exchange.body(json!({ "token": assertion }).to_string()).unwrap()).await;
    let bad = dress(Request::post("/v1/scopes/main/acquire")).header("content-type", "application/json");
    send(logged.addr, bad.body(json!({ "secret": assertion }).to_string()).unwrap()).await;
    let lease =
        release(logged.addr, Digest::of("claim"), async |request| send(logged.addr, request).await).await;

    let mut second = h2(logged.addr).await;
    let uri = format!("http://{}/v1/scopes/main/blobs/{blob}?token={query}", logged.addr);
    let over_h2 = put(uri).body(Full::from("hello")).unwrap();
    assert_eq!(within(second.sender.send_request(over_h2)).await.unwrap().status(), 200);

    let (log, audit) = logged.end();
    assert!(log.contains("answered"), "{log}");
    assert!(log.lines().count() > 10 && audit.lines().count() >= 4, "{log}\n{audit}");
    for secret in secrets.into_iter().chain([lease.as_str()]) {
        let told = log.lines().chain(audit.lines()).find(|line| line.contains(secret));
        assert_eq!(told, None, "{secret}");
    }
}
