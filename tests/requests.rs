//! Requests that no client of ours sends: each gets the right refusal, nothing is stored, nothing breaks.

use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use pcmcache_shared::api::acquire::{AcquireLine, AcquireMode, AcquireRequest};
use pcmcache_shared::api::actions::PublishRequest;
use pcmcache_shared::api::leases::{Hold, ReleaseRequest};
use pcmcache_shared::api::{self, PROBLEM_JSON, problem::Code};
use pcmcache_shared::recipe::Unit;
use pcmcache_shared::{
    ActionKey, ActionResult, Claim, Cost, Digest, Fence, IncludeSet, Output, Recipe, ReleaseReason, Role,
    Scope, Secret,
};
use pcmcache_tests::http::{self, Answer};
use pcmcache_tests::scratch::files_below;
use pcmcache_tests::{Process, Scratch, Server, tool, turn};

/// A request as bytes, and the code of its refusal.
struct Case {
    what: &'static str,
    bytes: Vec<u8>,
    code: Code,
}

fn case(what: &'static str, head: &str, body: impl AsRef<[u8]>, code: Code) -> Case {
    let body = body.as_ref();
    let length = format!("Content-Length: {}\r\n", body.len());
    let length =
        if head.contains("Content-Length") || head.contains("Transfer-Encoding") { "" } else { &length };
    let head = format!("{head}Host: localhost\r\nConnection: close\r\n{length}\r\n");
    Case { what, bytes: [head.as_bytes(), body].concat(), code }
}

fn json(what: &'static str, path: &str, body: impl AsRef<[u8]>, code: Code) -> Case {
    case(what, &format!("POST {path} HTTP/1.1\r\nContent-Type: application/json\r\n"), body, code)
}

fn upload(what: &'static str, name: &str, more: &str, body: &str, code: Code) -> Case {
    let head = format!(
        "PUT /v1/scopes/main/blobs/{name} HTTP/1.1\r\nContent-Type: application/octet-stream\r\n{more}"
    );
    case(what, &head, body, code)
}

const ACQUIRE: &str = "/v1/scopes/main/acquire";

/// What can be refused by looking at one request.
fn bad_requests() -> Vec<Case> {
    let name = Digest::of("hello").to_string();
    let other = Digest::of("other").to_string();
    let get = |what, path: &str, code| case(what, &format!("GET {path} HTTP/1.1\r\n"), "", code);
    let acquire = |more: &str| format!("{{\"claim\":\"{name}\",\"request_id\":\"r1\"{more}}}");
    let publish = format!("/v1/scopes/main/actions/{name}");
    let lease = format!("/v1/scopes/main/leases/{name}");
    let hold = "{\"fence\":1,\"secret\":\"a\"}";
    let deep = "[".repeat(100_000);
    let long = "a".repeat(65);
    vec![
        get("a digest that is none", "/v1/scopes/main/blobs/xyz", Code::BadDigest),
        get(
            "a digest in upper case",
            &format!("/v1/scopes/main/blobs/{}", name.to_uppercase()),
            Code::BadDigest,
        ),
        get("a way out of the directory", "/v1/scopes/main/blobs/..%2f..%2fetc%2fpasswd", Code::BadDigest),
        get("a key that is none", "/v1/scopes/main/actions/0", Code::BadDigest),
        upload("an upload without a name", "xyz", "", "hello", Code::BadDigest),
        get("a scope that is none", &format!("/v1/scopes/Main/blobs/{name}"), Code::BadScope),
        get("a scope with a way out", &format!("/v1/scopes/..%2fmain/blobs/{name}"), Code::BadScope),
        get("a scope too long", &format!("/v1/scopes/{long}/blobs/{name}"), Code::BadScope),
        get("a scope that is not there", &format!("/v1/scopes/other/blobs/{name}"), Code::UnknownScope),
        get("a blob that is not there", &format!("/v1/scopes/main/blobs/{name}"), Code::NoBlob),
        get("a result that is not there", &publish, Code::NoResult),
        get("no such route", "/v2/scopes", Code::NoRoute),
        case("no such method", &format!("PATCH {publish} HTTP/1.1\r\n"), "", Code::MethodNotAllowed),
        json("huge JSON", ACQUIRE, "x".repeat(1024 * 1024), Code::TooLarge),
        json("deep JSON", ACQUIRE, deep, Code::BadJson),
        json("no JSON", ACQUIRE, "{", Code::BadJson),
        json("not UTF-8", ACQUIRE, b"{\"claim\":\"\xff\xfe\"}", Code::BadJson),
        json("an unknown field", ACQUIRE, acquire(",\"more\":1"), Code::BadJson),
        json("a number for a name", ACQUIRE, "{\"claim\":7,\"request_id\":\"r1\"}", Code::BadJson),
        json("a negative wait", ACQUIRE, acquire(",\"wait_ms\":-1"), Code::BadJson),
        case(
            "JSON under another type",
            &format!("POST {ACQUIRE} HTTP/1.1\r\nContent-Type: text/plain\r\n"),
            acquire(""),
            Code::BadContentType,
        ),
        upload(
            "no length",
            &name,
            "Transfer-Encoding: chunked\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            Code::LengthRequired,
        ),
        upload("a length without end", &name, "Content-Length: 1000000000000000000\r\n", "", Code::TooLarge),
        upload("a wrong hash", &other, "", "hello", Code::DigestMismatch),
        json("renewal of no lease", &lease, hold, Code::NoLease),
        case(
            "release of no lease",
            &format!("DELETE {lease} HTTP/1.1\r\nContent-Type: application/json\r\n"),
            "{\"fence\":1,\"secret\":\"a\",\"reason\":\"failed\"}",
            Code::NoLease,
        ),
        json("a renewal without its secret", &lease, "{\"fence\":1}", Code::BadJson),
        json("a lookup of everything", "/v1/scopes/main/lookup", lookup_of(2000), Code::BadJson),
    ]
}

fn lookup_of(count: usize) -> String {
    let names: Vec<_> = (0..count).map(|n| format!("\"{}\"", Digest::of(n.to_string()))).collect();
    format!("{{\"actions\":[{}]}}", names.join(","))
}

#[test]
fn each_bad_request_gets_its_refusal_and_stores_nothing() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("requests");
    let server = Server::start(&scratch);
    for Case { what, bytes, code } in bad_requests() {
        let answer = http::send(server.address(), &bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
        is_refused(what, &answer, code);
    }
    nothing_was_stored(&server);
}

/// What hyper itself turns down before a route is known: a 4xx, or an end of the connection, never more.
#[test]
fn what_is_not_even_http_is_turned_down() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("no-http");
    let server = Server::start(&scratch);
    let name = Digest::of("hello");
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(2 * 1024 * 1024));
    let put = |length: &str| {
        format!("PUT /v1/scopes/main/blobs/{name} HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\nhello")
    };
    let requests: [Vec<u8>; 9] = [
        b"HELLO\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"GET /v1/scopes/main/blobs/\xff\xfe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_vec(),
        b"GET /v1/scopes/main/blobs/%ff%fe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_vec(),
        b"GET /v1/scopes/main/blobs/%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_vec(),
        put("Content-Length: -5").into_bytes(),
        put("Content-Length: 99999999999999999999999999").into_bytes(),
        put("Content-Length: 5\r\nContent-Length: 6").into_bytes(),
        long.into_bytes(),
    ];
    for request in requests {
        let shown = String::from_utf8_lossy(&request[..request.len().min(80)]).into_owned();
        if let Ok(answer) = http::send(server.address(), &request) {
            assert!((400..500).contains(&answer.status), "{shown}: {}", answer.status);
        }
    }
    nothing_was_stored(&server);
}

#[test]
fn an_upload_that_breaks_off_leaves_nothing() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("short");
    let server = Server::start(&scratch);
    let name = Digest::of("hello");
    for sent in ["", "hel"] {
        let mut stream = TcpStream::connect(server.address()).expect("a connection");
        let head = format!(
            "PUT /v1/scopes/main/blobs/{name} HTTP/1.1\r\nHost: x\r\n\
             Content-Type: application/octet-stream\r\nContent-Length: 5\r\n\r\n{sent}"
        );
        stream.write_all(head.as_bytes()).expect("a request");
    }
    let path = api::blobs::path(&Scope::default(), name);
    pcmcache_tests::within(Duration::from_secs(5), "the stages to go", || {
        files_below(&server.data().join("stages")).is_empty().then_some(())
    });
    is_refused("what broke off", &http::get(server.address(), &path), Code::NoBlob);
    nothing_was_stored(&server);
}

#[test]
fn only_its_holder_renews_or_releases_a_lease() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("leases");
    let server = Server::start(&scratch);
    let claim = Claim::from(ActionKey::of("an action"));
    let acquire = |id: &str| {
        let request = AcquireRequest {
            claim,
            unit: None,
            known: Vec::new(),
            request_id: id.to_owned(),
            holder: "a test".to_owned(),
            subject: String::new(),
            mode: AcquireMode::Build,
            wait_ms: 0,
            hold: false,
        };
        let answer = ask(&server, "POST", &api::acquire::path(&Scope::default()), &request);
        serde_json::from_str::<AcquireLine>(answer.text().lines().last().expect("a line")).expect("a line")
    };
    let AcquireLine::Granted { fence, secret, .. } = acquire("one") else { panic!("nobody else asked") };
    assert!(matches!(acquire("two"), AcquireLine::Busy { .. }));
    let path = api::leases::path(&Scope::default(), claim);
    let wrong = [
        Hold { fence, secret: Secret::from_random([0; 16]) },
        Hold { fence: Fence(fence.0 + 1), secret: secret.clone() },
        Hold { fence: Fence(u64::MAX), secret: Secret::from_random([0; 16]) },
    ];
    for hold in wrong {
        is_refused_4xx("a renewal by another", &ask(&server, "POST", &path, &hold));
        let release =
            ReleaseRequest { fence: hold.fence, secret: hold.secret, reason: ReleaseReason::Failed };
        is_refused_4xx("a release by another", &ask(&server, "DELETE", &path, &release));
    }
    for secret in ["", "a secret", &"0".repeat(65)] {
        let none = serde_json::json!({ "fence": fence, "secret": secret });
        is_refused("a secret that is none", &ask(&server, "POST", &path, &none), Code::BadJson);
    }
    assert_eq!(ask(&server, "POST", &path, &Hold { fence, secret: secret.clone() }).status, 200);
    let release = ReleaseRequest { fence, secret, reason: ReleaseReason::Abandoned };
    assert_eq!(ask(&server, "DELETE", &path, &release).status, 204);
    is_refused("a second release", &ask(&server, "DELETE", &path, &release), Code::NoLease);
    nothing_was_stored(&server);
}

#[test]
fn a_result_that_contradicts_its_key_or_lacks_its_blobs_is_not_taken() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("publish");
    let server = Server::start(&scratch);
    let unit = Unit::new();
    let recipe = Recipe::new(&unit, &IncludeSet::default(), |_| None).expect("nothing is learnt");
    let key = recipe.action_key();
    let object = Output { role: Role::Object, digest: Digest::of("object"), size: 6 };
    let request = PublishRequest {
        result: ActionResult {
            outputs: vec![object],
            cost: Cost::default(),
            builder: "a test".to_owned(),
            signature: None,
        },
        recipe: recipe.text().to_owned(),
        include_set: String::new(),
        claim: Claim::from(key),
        lease: None,
    };
    let put = |key: ActionKey, request: &PublishRequest| {
        ask(&server, "PUT", &api::actions::path(&Scope::default(), key), request)
    };
    let missing = put(key, &request);
    is_refused("no blob of it is there", &missing, Code::MissingBlobs);
    assert_eq!(missing.json()["missing"][0], object.digest.to_string());
    is_refused("a recipe of another key", &put(ActionKey::of("another"), &request), Code::BadResult);

    let mut empty = request.clone();
    empty.result.outputs.clear();
    let mut twice = request.clone();
    twice.result.outputs.push(object);
    let mut other_set = request.clone();
    other_set.include_set = "file /a\n".to_owned();
    let mut no_set = request.clone();
    no_set.include_set = "\n\n".to_owned();
    for (what, bad) in [("empty", empty), ("twice", twice), ("another set", other_set), ("no set", no_set)] {
        is_refused(what, &put(key, &bad), Code::BadResult);
    }
    nothing_was_stored(&server);
}

#[test]
fn ranges_are_what_they_should_be() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("ranges");
    let server = Server::start(&scratch);
    let path = api::blobs::path(&Scope::default(), Digest::of("hello"));
    let octets = ("Content-Type", "application/octet-stream");
    let put = http::ask(server.address(), "PUT", &path, &[octets], b"hello").expect("an answer");
    assert_eq!(put.status, 201);
    let get =
        |range: &str| http::ask(server.address(), "GET", &path, &[("Range", range)], b"").expect("an answer");
    for (range, body) in
        [("bytes=0-0", "h"), ("bytes=1-", "ello"), ("bytes=-2", "lo"), ("bytes=3-99999", "lo")]
    {
        let answer = get(range);
        assert_eq!((answer.status, answer.text().as_str()), (206, body), "{range}");
    }
    for range in ["bytes=5-", "bytes=100-200", "bytes=-0"] {
        is_refused(range, &get(range), Code::BadRange);
    }
    // RFC 9110, 14.2: a range that cannot be understood is not there. Ours may refuse it instead.
    for range in
        ["bytes=5-2", "lines=1-2", "bytes=x", "bytes=99999999999999999999999-", "bytes=0-0,2-2,4-4", ","]
    {
        let answer = get(range);
        let whole = answer.status == 200 && answer.body == b"hello";
        assert!(whole || matches!(answer.status, 400 | 416), "{range}: {} {}", answer.status, answer.text());
    }
    assert_eq!(get("bytes=0-4").header("etag"), Some(format!("\"{}\"", Digest::of("hello")).as_str()));
}

/// A stream that is a hold has no end while its client reads on: the fuzzer would sit out each lease.
const HOOKS: &str = "
import schemathesis

@schemathesis.hook
def before_call(context, case, kwargs):
    if isinstance(case.body, dict) and case.body.get('hold') is True:
        case.body['hold'] = False
";

/// What a generic fuzzer finds by the served document: no 5xx, no answer that it does not declare.
#[test]
fn the_server_keeps_to_its_document() {
    let _turn = turn::alone();
    let scratch = Scratch::new("openapi");
    let server = Server::start(&scratch);
    scratch.file("hooks.py", HOOKS);
    // Left to itself the fuzzer asks for scopes that are not there, and gets no further.
    let config = scratch.file("schemathesis.toml", "hooks = \"hooks\"\n[parameters]\nscope = \"main\"\n");
    let mut command = Command::new(tool::schemathesis());
    command
        .current_dir(scratch.path())
        .arg("--config-file")
        .arg(config)
        .arg("run")
        .arg(format!("{}/openapi.json", server.url()))
        .args([
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
            "--max-examples",
            "25",
            "--request-timeout",
            "20",
            "--generation-database",
            "none",
            "--no-color",
        ]);
    let end = Process::start(command).finish_within(Duration::from_secs(240));
    println!("{}", end.transcript());
    assert!(end.status.success(), "{}", end.transcript());
    assert!(!server.log().contains("panicked"), "{}", server.log());
    assert_eq!(http::get(server.address(), "/readyz").status, 200);
}

fn ask(server: &Server, method: &str, path: &str, body: &impl serde::Serialize) -> Answer {
    http::ask_json(server.address(), method, path, body)
        .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

fn is_refused(what: &str, answer: &Answer, code: Code) {
    assert_eq!(answer.status, code.status(), "{what}: {}", answer.text());
    assert!(
        answer.header("content-type").is_some_and(|kind| kind.starts_with(PROBLEM_JSON)),
        "{what}: {answer:?}"
    );
    let problem: api::problem::Problem = serde_json::from_slice(&answer.body).expect("a problem");
    assert_eq!((problem.code, problem.status), (code, code.status()), "{what}: {}", problem.detail);
    assert_eq!((problem.kind.as_str(), problem.title.as_str()), ("about:blank", code.title()), "{what}");
}

fn is_refused_4xx(what: &str, answer: &Answer) {
    assert!((400..500).contains(&answer.status), "{what}: {} {}", answer.status, answer.text());
}

fn nothing_was_stored(server: &Server) {
    assert_eq!(files_below(&server.data().join("blobs")), [""; 0].map(std::path::PathBuf::from));
    assert_eq!(server.results(), 0);
    assert!(!server.log().contains("panicked"), "{}", server.log());
    assert_eq!(http::get(server.address(), "/readyz").status, 200);
}
