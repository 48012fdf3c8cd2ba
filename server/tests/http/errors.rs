//! Every bad request gets its code, and leaves nothing.

use http::{Method, Request};
use pcmcache_server::config::ByteSize;
use pcmcache_shared::Digest;
use pcmcache_shared::api::limits::{MAX_JSON, MAX_PUBLISH_JSON};
use pcmcache_shared::api::problem::Code;
use serde_json::json;

use super::wire::Served;

const JSON: (&str, &str) = ("content-type", "application/json");

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Request<Vec<u8>> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

fn name() -> String {
    Digest::of("a name").to_string()
}

#[tokio::test]
async fn a_bad_request_gets_the_code_of_what_is_bad() {
    let served = Served::start().await;
    let name = name();
    let (blob, lease) = (format!("/v1/scopes/main/blobs/{name}"), format!("/v1/scopes/main/leases/{name}"));
    let action = format!("/v1/scopes/main/actions/{name}");
    let (lookup, acquire) = ("/v1/scopes/main/lookup", "/v1/scopes/main/acquire");
    let hold = json!({ "fence": 1, "secret": "guessed" }).to_string();
    let release = json!({ "fence": 1, "secret": "guessed", "reason": "failed" }).to_string();
    let deep = format!("{{\"units\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
    let cases = [
        ("GET", "/nowhere", None, "", Code::NoRoute),
        ("GET", "/v1/scopes/main/blobs/", None, "", Code::NoRoute),
        ("GET", "/v1/scopes/main/blobs/x/y", None, "", Code::NoRoute),
        ("GET", "/%ff", None, "", Code::BadRequest),
        ("POST", "/v1/scopes/%zz/lookup", Some(JSON), "{}", Code::BadRequest),
        ("GET", "/v1/scopes/main/blobs/%c3%28", None, "", Code::BadRequest),
        ("POST", "/v1/scopes/Main/lookup", Some(JSON), "{}", Code::BadScope),
        ("POST", "/v1/scopes/a%2Fb/lookup", Some(JSON), "{}", Code::BadScope),
        ("POST", "/v1/scopes/pr-17/lookup", Some(JSON), "{}", Code::UnknownScope),
        ("GET", "/v1/scopes/main/blobs/abc", None, "", Code::BadDigest),
        ("PUT", "/v1/scopes/main/blobs/abc", None, "", Code::BadDigest),
        ("GET", "/v1/scopes/main/actions/ABC", None, "", Code::BadDigest),
        ("POST", "/v1/scopes/main/leases/%00", Some(JSON), &hold, Code::BadDigest),
        ("POST", lookup, None, "{}", Code::BadContentType),
        ("POST", lookup, Some(("content-type", "text/plain")), "{}", Code::BadContentType),
        ("POST", lookup, Some(JSON), "", Code::BadJson),
        ("POST", lookup, Some(JSON), "{", Code::BadJson),
        ("POST", lookup, Some(JSON), "{}{}", Code::BadJson),
        ("POST", lookup, Some(JSON), "[]", Code::BadJson),
        ("POST", lookup, Some(JSON), "{\"unit\":[]}", Code::BadJson),
        ("POST", lookup, Some(JSON), "{\"units\":[\"abc\"]}", Code::BadJson),
        ("POST", lookup, Some(JSON), &deep, Code::BadJson),
        ("POST", acquire, Some(JSON), "{}", Code::BadJson),
        ("PUT", &action, Some(JSON), "{}", Code::BadJson),
        ("PUT", &blob, Some(JSON), "{}", Code::BadContentType),
        ("PUT", &blob, None, "other bytes", Code::DigestMismatch),
        ("GET", &blob, None, "", Code::NoBlob),
        ("GET", &action, None, "", Code::NoResult),
        ("GET", "/v1/scopes/main/profiles/p", None, "", Code::NoProfile),
        ("GET", "/v1/scopes/main/profiles/-p", None, "", Code::BadRequest),
        ("PUT", "/v1/scopes/main/profiles/P", Some(JSON), "{\"actions\":[]}", Code::BadRequest),
        ("PUT", "/v1/scopes/main/profiles/p", Some(JSON), "{}", Code::BadJson),
        ("PUT", "/v1/scopes/main/profiles/p", Some(JSON), "{\"actions\":[\"x\"]}", Code::BadJson),
        (
            "PUT",
            "/v1/scopes/main/profiles/p",
            Some(JSON),
            "{\"actions\":[],\"inherits\":[\"P\"]}",
            Code::BadJson,
        ),
        ("POST", &lease, Some(JSON), &hold, Code::NoLease),
        ("DELETE", &lease, Some(JSON), &release, Code::NoLease),
        ("POST", &blob, None, "", Code::MethodNotAllowed),
        ("TRACE", lookup, None, "", Code::MethodNotAllowed),
        ("DELETE", "/metrics", None, "", Code::MethodNotAllowed),
    ];
    for (method, path, header, body, code) in cases {
        let headers: Vec<_> = header.into_iter().collect();
        let reply = served.send(request(method, path, &headers, body)).await;
        assert!(reply.status.as_u16() >= 400, "{method} {path} {body:.80}: {reply:?}");
        assert_eq!(reply.code(), code, "{method} {path} {body:.80}: {reply:?}");
    }
    served.stores_nothing().await;
}

#[tokio::test]
async fn a_body_that_is_not_utf8_or_is_encoded_is_refused() {
    let served = Served::start().await;
    let lookup = "/v1/scopes/main/lookup";
    let reply = served.send(request("POST", lookup, &[JSON], b"{\"units\":[\"\xff\"]}".as_slice())).await;
    assert_eq!(reply.code(), Code::BadJson);
    let encoded = [JSON, ("content-encoding", "gzip")];
    assert_eq!(served.send(request("POST", lookup, &encoded, "{}")).await.code(), Code::BadContentType);
    let spelled = [("content-type", "Application/JSON; charset=utf-8"), ("content-encoding", "identity")];
    assert_eq!(served.send(request("POST", lookup, &spelled, "{}")).await.status, 200);
}

#[tokio::test]
async fn json_has_its_largest_size_declared_or_not() {
    let served = Served::start().await;
    let lookup = "/v1/scopes/main/lookup";
    let padded = |size: usize| format!("{{}}{}", " ".repeat(size - 2));
    assert_eq!(served.send(request("POST", lookup, &[JSON], padded(MAX_JSON))).await.status, 200);
    let reply = served.send(request("POST", lookup, &[JSON], padded(MAX_JSON + 1))).await;
    assert_eq!((reply.code(), reply.header("connection")), (Code::TooLarge, "close"));

    let action = format!("/v1/scopes/main/actions/{}", name());
    let reply = served.send(request("PUT", &action, &[JSON], padded(MAX_PUBLISH_JSON))).await;
    assert_eq!(reply.code(), Code::BadJson, "read whole, and without its fields");
    let reply = served.send(request("PUT", &action, &[JSON], padded(MAX_PUBLISH_JSON + 1))).await;
    assert_eq!(reply.code(), Code::TooLarge);

    let chunk = format!("{:x}\r\n{}\r\n", MAX_JSON, padded(MAX_JSON));
    let chunked = format!(
        "POST {lookup} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
         {chunk}1\r\n \r\n0\r\n\r\n"
    );
    let answer = served.raw(chunked.as_bytes(), false).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("too_large"), "{answer}");
}

#[tokio::test]
async fn an_upload_says_how_long_it_is() {
    let served = Served::start().await;
    let blob = format!("/v1/scopes/main/blobs/{}", Digest::of("hello"));
    let chunked = format!(
        "PUT {blob} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    );
    let answer = served.raw(chunked.as_bytes(), false).await;
    assert!(answer.starts_with("HTTP/1.1 411 ") && answer.contains("length_required"), "{answer}");
    let bare = format!("PUT {blob} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = served.raw(bare.as_bytes(), true).await;
    assert!(answer.starts_with("HTTP/1.1 411 "), "{answer}");
    assert_eq!(served.get(&blob).await.code(), Code::NoBlob);
}

#[tokio::test]
async fn an_upload_that_is_too_large_is_refused_before_it_is_sent() {
    let served = Served::with(|config| config.max_blob = ByteSize(1000)).await;
    let blob = format!("/v1/scopes/main/blobs/{}", name());
    for expect in ["", "Expect: 100-continue\r\n"] {
        let head = format!("PUT {blob} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\n{expect}\r\n");
        let answer = served.raw(head.as_bytes(), false).await;
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("too_large"), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn who_sends_all_before_it_reads_still_gets_to_read_why_not() {
    let served = Served::with(|config| config.max_blob = ByteSize(1000)).await;
    let mut request = format!(
        "PUT /v1/scopes/main/blobs/{} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16000000\r\n\r\n",
        name()
    )
    .into_bytes();
    request.resize(request.len() + 16_000_000, b'x');
    let answer = served.raw(&request, false).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.ends_with('}'), "{answer}");
}

#[tokio::test]
async fn an_upload_that_breaks_leaves_nothing() {
    let served = Served::start().await;
    let blob = format!("/v1/scopes/main/blobs/{}", Digest::of("hello"));
    let short = format!("PUT {blob} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhell");
    let answer = served.raw(short.as_bytes(), true).await;
    assert!(answer.is_empty() || answer.contains("short_body"), "{answer}");
    assert_eq!(served.get(&blob).await.code(), Code::NoBlob);
    served.stores_nothing().await;
}

#[tokio::test]
async fn a_method_that_a_path_lacks_is_told_those_it_has() {
    let served = Served::start().await;
    let blob = format!("/v1/scopes/main/blobs/{}", name());
    for (path, allow) in
        [(blob.as_str(), "GET,HEAD,PUT"), ("/v1/scopes/main/acquire", "POST"), ("/", "GET,HEAD")]
    {
        for method in [Method::PATCH, Method::OPTIONS] {
            let reply = served.send(request(method.as_str(), path, &[], "")).await;
            assert_eq!(reply.code(), Code::MethodNotAllowed);
            let mut allowed: Vec<_> = reply.header("allow").split(',').collect();
            allowed.sort_unstable();
            assert_eq!(allowed.join(","), allow);
        }
    }
}
