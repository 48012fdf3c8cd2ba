//! Requests to the server's routes, over a store in memory: heads, paths, ranges, JSON, uploads. Every answer is one that the
//! document allows: no failure of the server's, every refusal a problem, and the bytes of a blob those that were asked for.
//!
//! Each part is a request: its first line, header lines, an empty line, a body. `{body}` and `{last}` stand for the digests of
//! this body and the one before, `{recipe}` for the action whose recipe this body has.
//!
//! Making the routes takes longer than a hundred requests. So a store is kept for some inputs, and what it has of earlier ones is
//! the one thing that an input is not given again with.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use pcmcache_server::cache::{Cache, Limits, Rooms};
use pcmcache_server::clock::{CountedEntropy, ManualClock};
use pcmcache_server::connection::Peer;
use pcmcache_server::history::History;
use pcmcache_server::http::{App, Gate, Packers, router};
use pcmcache_server::limits::{Bounds, Limiter};
use pcmcache_server::memory::{MemoryBlobs, MemoryLeases, MemoryProfiles, MemoryResults};
use pcmcache_server::metrics::Metrics;
use pcmcache_server::trust::Trust;
use pcmcache_shared::api::acquire::AcquireLine;
use pcmcache_shared::api::problem::Problem;
use pcmcache_shared::api::{LENGTH_HEADER, PROBLEM_JSON, actions::PublishRequest};
use pcmcache_shared::packed::Unpacking;
use pcmcache_shared::{ActionKey, Digest};
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

use crate::{parts, scratch};

/// As many share a store.
const INPUTS: usize = 1000;
/// A stream that says nothing for so long waits for something that does not happen here.
const SILENT: Duration = Duration::from_millis(3);
/// Nobody waits for anything, so that this is for ever.
const EVER: Duration = Duration::from_secs(5);

pub(crate) fn run(input: &[u8]) {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    static SESSION: OnceLock<Mutex<Session>> = OnceLock::new();
    let session = SESSION.get_or_init(|| Mutex::new(Session::new()));
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
    });
    let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
    if session.inputs == INPUTS {
        *session = Session::new();
    }
    session.inputs += 1;
    session.last.clear();
    runtime.block_on(async {
        for part in parts::of(input).into_iter().take(8) {
            session.ask(part).await;
        }
    });
}

fn routes() -> Router {
    static HISTORY: OnceLock<Arc<History>> = OnceLock::new();
    let clock = Arc::new(ManualClock::default());
    let rooms = Rooms {
        blobs: Arc::new(MemoryBlobs::default()),
        results: Arc::new(MemoryResults::new(Arc::clone(&clock) as _)),
        profiles: Arc::new(MemoryProfiles::new(Arc::clone(&clock) as _)),
        leases: Arc::new(MemoryLeases::new(Arc::clone(&clock) as _)),
        clock: Arc::clone(&clock) as _,
        entropy: Arc::new(CountedEntropy::default()),
    };
    let cache = Cache::new(rooms, Limits::default());
    let history = HISTORY.get_or_init(|| Arc::new(History::open(&scratch::directory("requests"), &cache)));
    let metrics = Arc::new(Metrics::of(None));
    let gate = Gate {
        limiter: Limiter::new(Bounds { rate: 0, concurrency: 0, waits: 0 }, Arc::clone(&clock) as _),
        connections: Arc::clone(&metrics.connections),
        behind_proxy: true,
        is_here_only: false,
    };
    router(App {
        cache,
        trust: Trust::open(clock),
        stop: Default::default(),
        metrics,
        gate,
        history: Arc::clone(history),
        traces: None,
        packers: Packers::of(2),
    })
}

struct Session {
    router: Router,
    /// How many it was given.
    inputs: usize,
    /// The digest of the body before.
    last: String,
    /// What was uploaded, by its digest.
    blobs: HashMap<String, Vec<u8>>,
}

impl Session {
    fn new() -> Self {
        Self { router: routes(), inputs: 0, last: String::new(), blobs: HashMap::new() }
    }

    async fn ask(&mut self, part: &[u8]) {
        let Some((request, body)) = self.request(part) else { return };
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let digest = path.rsplit('/').next().unwrap_or_default().to_owned();
        let is_blob = path.contains("/blobs/");
        let is_plain_upload = is_blob && !request.headers().contains_key(header::CONTENT_ENCODING);
        let asked = request.headers().clone();
        let answering = self.router.clone().oneshot(request);
        let answer = tokio::time::timeout(EVER, answering).await.expect("an answer");
        let (head, mut said) = answer.expect("routes do not fail").into_parts();
        assert_ne!(head.status, StatusCode::INTERNAL_SERVER_ERROR, "{method} {path}");
        let mut bytes = Vec::new();
        let is_stream =
            head.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/x-ndjson");
        let patience = if is_stream { SILENT } else { EVER };
        let mut is_whole = false;
        while let Ok(frame) = tokio::time::timeout(patience, said.frame()).await {
            match frame {
                None => is_whole = true,
                Some(frame) => {
                    bytes.extend_from_slice(&frame.expect("a body").into_data().unwrap_or_default());
                    continue;
                }
            }
            break;
        }
        if is_stream {
            for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                serde_json::from_slice::<AcquireLine>(line).expect("a line");
            }
            return;
        }
        assert!(is_whole, "an answer without an end: {method} {path}");
        if method == Method::HEAD {
            return;
        }
        let length =
            head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        assert!(length.is_none_or(|length: usize| length == bytes.len()), "another length than was said");
        if head.status.is_client_error() || head.status.is_server_error() {
            return refused(head.status, &head.headers, &bytes);
        }
        if is_blob && method == Method::GET && head.status != StatusCode::NOT_MODIFIED {
            let blob = self.blobs.get(&digest).expect("who has a blob was given it");
            return shown(blob, &asked, head.status, &head.headers, &bytes);
        }
        if is_blob && method == Method::PUT {
            assert!(is_plain_upload || asked.contains_key(LENGTH_HEADER));
            let blob = if is_plain_upload { body } else { unpacked(&body) };
            assert_eq!(Digest::of(&blob).to_string(), digest, "taken under another name");
            self.blobs.insert(digest, blob);
        }
    }

    fn request(&mut self, part: &[u8]) -> Option<(Request, Vec<u8>)> {
        let (head, body) = match part.windows(2).position(|window| window == b"\n\n") {
            Some(at) => (&part[..at], &part[at + 2..]),
            None => (part, &b""[..]),
        };
        let body = match str::from_utf8(body) {
            Ok(text) => text.replace("{last}", &self.last).into_bytes(),
            Err(_) => body.to_vec(),
        };
        let digest = Digest::of(&body).to_string();
        let recipe = serde_json::from_slice::<PublishRequest>(&body).ok();
        let recipe = recipe.map(|publish| ActionKey::of(publish.recipe).to_string()).unwrap_or_default();
        let head = str::from_utf8(head).ok()?.replace("{last}", &self.last);
        let head = head.replace("{body}", &digest).replace("{recipe}", &recipe);
        let mut lines = head.lines();
        let (method, path) = lines.next()?.split_once(' ')?;
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            // What hyper would see to is not this target's.
            if !name.eq_ignore_ascii_case("content-length") {
                request = request.header(name, value);
            }
        }
        let request = request.header(header::CONTENT_LENGTH, body.len());
        let mut request = request.body(Body::from(body.clone())).ok()?;
        request.extensions_mut().insert(Peer(([127, 0, 0, 1], 9).into()));
        if !body.is_empty() {
            self.last = digest;
        }
        Some((request, body))
    }
}

/// Every refusal is a problem of the list, with its status.
fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    assert_eq!(kind, Some(PROBLEM_JSON), "{status}: {:?}", String::from_utf8_lossy(body));
    let problem: Problem = serde_json::from_slice(body).expect("a problem");
    assert_eq!((problem.status, problem.code.status()), (status.as_u16(), status.as_u16()));
}

/// The whole of a blob, or the part that the answer says it is.
fn shown(blob: &[u8], asked: &HeaderMap, status: StatusCode, headers: &HeaderMap, body: &[u8]) {
    if headers.contains_key(header::CONTENT_ENCODING) {
        assert_eq!((status, unpacked(body)), (StatusCode::OK, blob.to_vec()));
        return;
    }
    let Some(range) = headers.get(header::CONTENT_RANGE) else {
        assert_eq!((status, body), (StatusCode::OK, blob));
        return;
    };
    let range = range.to_str().expect("text").strip_prefix("bytes ").expect("bytes").to_owned();
    let (part, size) = range.split_once('/').expect("a size");
    let (first, last) = part.split_once('-').expect("a part");
    let number = |text: &str| text.parse::<usize>().expect("a number");
    assert_eq!((status, number(size)), (StatusCode::PARTIAL_CONTENT, blob.len()));
    let (first, last) = (number(first), number(last));
    assert_eq!(body, &blob[first..=last]);
    // As it was asked for, where that was said plainly.
    let plain = |text: &str| {
        let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
        Some((from.parse::<usize>().ok()?, to.parse::<usize>().ok()?))
    };
    let asked = asked.get(header::RANGE).and_then(|range| plain(range.to_str().ok()?));
    assert!(
        asked.is_none_or(|(from, to)| (first, last) == (from, to.min(blob.len() - 1))),
        "{asked:?} is {range}"
    );
}

fn unpacked(mut packed: &[u8]) -> Vec<u8> {
    let mut unpacking = Unpacking::new().expect("memory");
    let mut blob = Vec::new();
    loop {
        match unpacking.step(&mut packed).expect("a frame") {
            [] => return blob,
            bytes => blob.extend_from_slice(bytes),
        }
    }
}
