//! Spans of requests, as a collector gets them.

use std::collections::HashMap;
use std::fs::File;
use std::net::{SocketAddr, TcpListener as Port};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use http::Request;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use pcmcache_shared::Digest;
use prost::Message as _;
use rustix::process::Signal;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::process::{Process, command};
use super::wire::{Scratch, acquire, h1, next_line, send, within};

/// What comes at a collector, which answers as it is told.
#[derive(Default)]
struct Seen {
    batches: Vec<(HeaderMap, Bytes)>,
    answer: StatusCode,
}

/// A collector on this host.
struct Collector {
    url: String,
    seen: Arc<Mutex<Seen>>,
}

impl Collector {
    async fn start() -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        async fn take(State(seen): State<Arc<Mutex<Seen>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
            let mut seen = seen.lock().unwrap();
            seen.batches.push((headers, body));
            seen.answer
        }
        let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&seen));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, seen }
    }

    /// The spans that came, and what was said of who sends them.
    fn spans(&self) -> (HashMap<String, String>, Vec<Span>) {
        let (mut about, mut spans) = (HashMap::new(), Vec::new());
        for (_, body) in &self.seen.lock().unwrap().batches {
            for of_one in ExportTraceServiceRequest::decode(body.clone()).unwrap().resource_spans {
                about.extend(words(&of_one.resource.unwrap().attributes));
                spans.extend(of_one.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
        (about, spans)
    }
}

fn words(attributes: &[KeyValue]) -> HashMap<String, String> {
    let word = |value| if let Value::StringValue(text) = value { text } else { format!("{value:?}") };
    let value = |attribute: &KeyValue| attribute.value.clone().unwrap().value.map(word);
    attributes.iter().filter_map(|one| Some((one.key.clone(), value(one)?))).collect()
}

/// A server that exports.
struct Exporting {
    dir: Scratch,
    addr: SocketAddr,
    process: Process,
}

impl Exporting {
    fn to(url: &str, environment: &[(&str, &str)]) -> Self {
        let dir = Scratch::new();
        let mut command = command(&dir.0.join("data"), &["--listen", "127.0.0.1:0"]);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", url).env("OTEL_BSP_SCHEDULE_DELAY", "50");
        command.envs(environment.iter().copied()).stderr(File::create(dir.0.join("log")).unwrap());
        let (process, line) = Process::run(command);
        let addr = line.trim().strip_prefix("listening on http://").unwrap().parse().unwrap();
        Self { dir, addr, process }
    }

    fn log(&self) -> String {
        fs_err::read_to_string(self.dir.0.join("log")).unwrap()
    }

    /// Ends it, which must not take what comes last with it.
    fn end(self) -> String {
        self.process.signal(Signal::TERM);
        assert_eq!(self.process.end().0, Some(0));
        fs_err::read_to_string(self.dir.0.join("log")).unwrap()
    }
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_a_span_of_the_trace_that_it_names() {
    let collector = Collector::start().await;
    let server = Exporting::to(&collector.url, &[("OTEL_EXPORTER_OTLP_HEADERS", "x-team=build")]);
    let blob = Digest::of("hello");
    let put = Request::put(format!("/v1/scopes/main/blobs/{blob}?token=querysecret"))
        .header("traceparent", format!("00-{TRACE}-{PARENT}-01"))
        .header("x-request-id", "ci-17")
        .header("authorization", "Bearer bearersecret");
    send(server.addr, put.body("hello").unwrap()).await;
    send(server.addr, Request::get("/nowhere").header("traceparent", "nonsense").body("").unwrap()).await;
    server.end();

    let (about, spans) = collector.spans();
    assert_eq!(about["service.name"], "pcmcache-server");
    let [put, lost] = &spans[..] else { panic!("{spans:#?}") };
    assert_eq!((hex(&put.trace_id), hex(&put.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
    assert_eq!((put.name.as_str(), put.kind()), ("PUT /v1/scopes/{scope}/blobs/{digest}", SpanKind::Server));
    let told = words(&put.attributes);
    assert_eq!(told["url.path"], format!("/v1/scopes/main/blobs/{blob}"));
    assert_eq!(
        (told["pcmcache.request_id"].as_str(), told["http.response.status_code"].as_str()),
        ("ci-17", "IntValue(201)")
    );
    assert_eq!(lost.name, "GET");
    assert!(lost.parent_span_id.is_empty() && lost.trace_id != put.trace_id);
    let seen = collector.seen.lock().unwrap();
    for (headers, body) in &seen.batches {
        assert_eq!(headers["x-team"], "build");
        let body = String::from_utf8_lossy(body);
        assert!(!body.contains("querysecret") && !body.contains("bearersecret"), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_is_a_span_as_long_as_it_is() {
    let collector = Collector::start().await;
    let server = Exporting::to(&collector.url, &[]);
    let claim = Digest::of("claim").to_string();
    let mut holder = h1(server.addr).await;
    let held = within(holder.send_request(acquire(&claim, "holder"))).await.unwrap();
    let mut held = held.into_body();
    assert!(next_line(&mut held).await.unwrap()["fence"].is_number());
    let since = Instant::now();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let open = since.elapsed();
    drop((held, holder));
    server.end();
    let (_, spans) = collector.spans();
    let [span] = &spans[..] else { panic!("{spans:#?}") };
    let took = Duration::from_nanos(span.end_time_unix_nano - span.start_time_unix_nano);
    assert!(took >= open, "{took:?}, but the hold was open for {open:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_spans_and_one_line() {
    let collector = Collector::start().await;
    collector.seen.lock().unwrap().answer = StatusCode::SERVICE_UNAVAILABLE;
    let server = Exporting::to(&collector.url, &[]);
    let ask =
        async || assert_eq!(send(server.addr, Request::get("/healthz").body("").unwrap()).await.status, 200);
    let until = async |what: &str| {
        within(async {
            while !server.log().contains(what) {
                ask().await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    };
    until("takes no spans").await;
    collector.seen.lock().unwrap().answer = StatusCode::OK;
    until("takes spans again").await;
    let log = server.end();
    assert_eq!(log.matches("takes no spans").count(), 1, "{log}");
}

#[test]
fn what_cannot_be_exported_is_said_at_once_and_what_is_disabled_is_not() {
    let free = Port::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let start = |url: &str, name: &str, value: &str| {
        let dir = Scratch::new();
        let mut command = command(&dir.0.join("data"), &["--listen", "127.0.0.1:0", "--otlp-endpoint", url]);
        command.env(name, value);
        (command, dir)
    };
    for (url, (name, value), says) in [
        ("ftp://a.example", ("LANG", "C"), "--otlp-endpoint"),
        (
            "http://127.0.0.1:1",
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'",
        ),
    ] {
        let (mut command, _dir) = start(url, name, value);
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(says), "{stderr}");
    }
    let (command, _dir) = start(&format!("http://{free}"), "OTEL_SDK_DISABLED", "true");
    let (process, line) = Process::run(command);
    assert!(line.starts_with("listening on"), "{line}");
    process.signal(Signal::TERM);
    assert_eq!(process.end().0, Some(0));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
