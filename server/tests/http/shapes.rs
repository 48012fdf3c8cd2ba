//! What a smuggler sends: heads and bodies that two readers may end at different bytes. One table, for the server alone and
//! for the server behind a proxy.
//!
//! Each shape ends in, or hides, a request for [`HIDDEN`]. Whoever answers that took a part of one message for another.

/// What nobody asks for.
pub(crate) const HIDDEN: &str = "/v1/hidden";

/// A second request, where there is none.
const SECOND: &str = "GET /v1/hidden HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// The head of a request with a body, but for what tells where that ends.
const POST: &str =
    "POST /v1/scopes/main/lookup HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
/// A body for it, of nineteen bytes; and the same in chunks.
const BODY: &str = r#"{"units":[        ]}"#;
const CHUNKS: &str = "14\r\n{\"units\":[        ]}\r\n0\r\n\r\n";

/// What is done with a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is no request: 4xx, or no word, and the connection's end.
    Refused,
    /// It is read in the one way that RFC 9112 has for it: one answer of this status.
    Read(u16),
}

use Verdict::{Read, Refused};

/// Something to send over a new connection.
#[derive(Debug)]
pub(crate) struct Shape {
    /// What is odd about it.
    pub(crate) name: &'static str,
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
    /// What this server does with them.
    pub(crate) verdict: Verdict,
}

fn shape(name: &'static str, verdict: Verdict, bytes: impl Into<Vec<u8>>) -> Shape {
    Shape { name, bytes: bytes.into(), verdict }
}

/// A request with these header lines, this body, and one more request behind it.
fn post(name: &'static str, verdict: Verdict, lines: &str, body: &str) -> Shape {
    shape(name, verdict, format!("{POST}{lines}\r\n\r\n{body}{SECOND}"))
}

/// A chunked body that is this text.
fn chunked(name: &'static str, verdict: Verdict, body: &str) -> Shape {
    post(name, verdict, "Transfer-Encoding: chunked", body)
}

/// A request without a body, whose whole head this is.
fn head(name: &'static str, verdict: Verdict, head: &str) -> Shape {
    shape(name, verdict, format!("{head}\r\n\r\n{SECOND}"))
}

/// All of HTTP/1.
pub(crate) fn shapes() -> Vec<Shape> {
    let whole = CHUNKS.len();
    let beyond = whole + SECOND.len();
    let hidden_in_chunk = format!("{:x}\r\n{SECOND}\r\n0\r\n\r\n", SECOND.len());
    let length = format!("Content-Length: {}", BODY.len());
    let with_length = |lines: &str| lines.replace("LENGTH", &length);
    let mut all = lengths(&with_length);
    all.extend([
        post(
            "length, then chunks",
            Read(200),
            &format!("Content-Length: {whole}\r\nTransfer-Encoding: chunked"),
            CHUNKS,
        ),
        post(
            "chunks, then length",
            Read(200),
            &format!("Transfer-Encoding: chunked\r\nContent-Length: {whole}"),
            CHUNKS,
        ),
        post(
            "a length over chunks and what follows",
            Read(200),
            &format!("Content-Length: {beyond}\r\nTransfer-Encoding: chunked"),
            CHUNKS,
        ),
        post(
            "a length of less than the chunks",
            Read(400),
            "Content-Length: 4\r\nTransfer-Encoding: chunked",
            &hidden_in_chunk,
        ),
        post(
            "a length that is none beside chunks",
            Refused,
            "Content-Length: x\r\nTransfer-Encoding: chunked",
            CHUNKS,
        ),
    ]);
    all.extend(codings(&with_length));
    all.extend(chunks());
    all.extend(heads(&with_length));
    all
}

fn lengths(with_length: &dyn Fn(&str) -> String) -> Vec<Shape> {
    let beyond = format!("Content-Length: {}", BODY.len() + SECOND.len());
    let two = |first: &str, second: &str| format!("{first}\r\n{second}");
    vec![
        post("two lengths", Refused, &two(&with_length("LENGTH"), &beyond), BODY),
        post("two lengths, the longer first", Refused, &two(&beyond, &with_length("LENGTH")), BODY),
        post("a list of two lengths", Refused, "Content-Length: 20, 20", BODY),
        post("a length with a plus", Refused, "Content-Length: +20", BODY),
        post("a length with a minus", Refused, "Content-Length: -20", BODY),
        post("a length with a space in it", Refused, "Content-Length: 2 0", BODY),
        post("a length in hexadecimal", Refused, "Content-Length: 0x14", BODY),
        post("a length with an exponent", Refused, "Content-Length: 2e1", BODY),
        post("an empty length", Refused, "Content-Length:", BODY),
        post("a length beyond 64 bits", Refused, "Content-Length: 18446744073709551636", BODY),
        post("a length that is none", Refused, "Content-Length: twenty", BODY),
        post("a space before the length's colon", Refused, "Content-Length : 20", BODY),
        post("a tab before the length's colon", Refused, "Content-Length\t: 20", BODY),
        post("a length in a folded line", Refused, "X: y\r\n Content-Length: 20", BODY),
        post("a length with a carriage return before it", Refused, "X: y\rContent-Length: 20", BODY),
        post("a length with NUL in its name", Refused, "Content\0-Length: 20", BODY),
        post("a length with NUL behind it", Refused, "Content-Length: 20\0", BODY),
    ]
}

fn codings(with_length: &dyn Fn(&str) -> String) -> Vec<Shape> {
    let odd = |name, verdict, coding: &str| {
        post(name, verdict, &with_length(&format!("LENGTH\r\n{coding}")), CHUNKS)
    };
    vec![
        odd("a space before the coding's colon", Refused, "Transfer-Encoding : chunked"),
        odd("a coding of another name", Refused, "Transfer-Encoding: xchunked"),
        odd("a coding in quotes", Refused, "Transfer-Encoding: \"chunked\""),
        odd("a coding behind a tab", Read(200), "Transfer-Encoding:\tchunked"),
        odd("a coding behind a vertical tab", Refused, "Transfer-Encoding: \x0bchunked"),
        odd("a coding with a byte beyond ASCII", Refused, "Transfer-Encoding: chunked\u{a0}"),
        odd("a coding in capitals", Read(200), "TRANSFER-ENCODING: CHUNKED"),
        odd("chunked, then identity", Refused, "Transfer-Encoding: chunked, identity"),
        odd("identity, then chunked", Refused, "Transfer-Encoding: identity, chunked"),
        odd("chunked twice", Refused, "Transfer-Encoding: chunked, chunked"),
        odd("identity alone", Refused, "Transfer-Encoding: identity"),
        odd("chunked behind a comma", Refused, "Transfer-Encoding: ,chunked"),
        odd(
            "two codings, chunked first",
            Refused,
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        ),
        odd(
            "two codings, chunked last",
            Refused,
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        ),
        odd("an empty coding", Refused, "Transfer-Encoding:"),
        odd("a coding in a folded line", Refused, "Transfer-Encoding:\r\n chunked"),
        odd("a coding in a line that a bare CR begins", Refused, "X: y\rTransfer-Encoding: chunked"),
        odd("a coding with NUL in its name", Refused, "Transfer\0-Encoding: chunked"),
        shape(
            "chunks of HTTP/1.0",
            Refused,
            format!(
                "{}Transfer-Encoding: chunked\r\n\r\n{CHUNKS}{SECOND}",
                POST.replace("HTTP/1.1", "HTTP/1.0")
            ),
        ),
    ]
}

fn chunks() -> Vec<Shape> {
    let sized = |size: &str| format!("{size}\r\n{BODY}\r\n0\r\n\r\n");
    vec![
        chunked("a chunk's size beyond 64 bits", Read(400), &sized("10000000000000014")),
        chunked("a chunk's size of sixteen digits", Read(408), &sized("ffffffffffffffff")),
        chunked("a chunk's size with a minus", Read(400), &sized("-14")),
        chunked("a chunk's size with a plus", Read(400), &sized("+14")),
        chunked("a chunk's size with 0x", Read(400), &sized("0x14")),
        chunked("a chunk without a size", Read(400), &sized("")),
        chunked("a chunk's size behind a space", Read(400), &sized(" 14")),
        chunked("a chunk's size that a line feed ends", Read(400), &format!("14\n{BODY}\r\n0\r\n\r\n")),
        chunked("a chunk's size that a carriage return ends", Read(400), &format!("14\r{BODY}\r\n0\r\n\r\n")),
        chunked("a line feed in a chunk's extension", Read(400), &sized("14;a\nb")),
        chunked("a carriage return in a chunk's extension", Read(400), &sized("14;a\rb")),
        chunked("a chunk that is longer than its size", Read(400), &format!("14\r\n{BODY}xx\r\n0\r\n\r\n")),
        chunked("a chunk that a line feed ends", Read(400), &format!("14\r\n{BODY}\n0\r\n\r\n")),
        chunked("a last chunk of many noughts", Read(200), &format!("14\r\n{BODY}\r\n0000\r\n\r\n")),
        chunked(
            "a coding in a trailer",
            Read(200),
            &format!("14\r\n{BODY}\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ),
        chunked(
            "a length in a trailer",
            Read(200),
            &format!("14\r\n{BODY}\r\n0\r\nContent-Length: 100\r\n\r\n"),
        ),
        chunked(
            "a trailer that is none",
            Read(400),
            &format!("14\r\n{BODY}\r\n0\r\nGET /v1/hidden HTTP/1.1\r\n\r\n"),
        ),
    ]
}

fn heads(with_length: &dyn Fn(&str) -> String) -> Vec<Shape> {
    let length = with_length("LENGTH");
    vec![
        post("two hosts", Refused, &format!("Host: other\r\n{length}"), BODY),
        post("a host in a folded line", Refused, &format!("X: y\r\n Host: other\r\n{length}"), BODY),
        head(
            "a body of a request that reads none",
            Read(200),
            &format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}", SECOND.len()),
        ),
        head(
            "a body of a HEAD",
            Read(200),
            &format!("HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}", SECOND.len()),
        ),
        head(
            "a body that waits for no 100",
            Read(400),
            &format!("{POST}Expect: 100-continue\r\nContent-Length: {}", SECOND.len()),
        ),
        head(
            "a target that names another host",
            Read(200),
            "GET http://127.0.0.1/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close",
        ),
        head("a target with a space in it", Refused, "GET /healthz /v1/hidden HTTP/1.1\r\nHost: localhost"),
        head(
            "a target with a line feed in it",
            Refused,
            "GET /healthz\n/v1/hidden HTTP/1.1\r\nHost: localhost",
        ),
        head("a method that is none", Refused, "GE(T /healthz HTTP/1.1\r\nHost: localhost"),
        head("no method", Refused, " /healthz HTTP/1.1\r\nHost: localhost"),
        head("no version", Refused, "GET /healthz"),
        head("version 1.2", Refused, "GET /healthz HTTP/1.2\r\nHost: localhost"),
        head("version 2 in words", Refused, "GET /healthz HTTP/2.0\r\nHost: localhost"),
        head(
            "a line without a colon",
            Refused,
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\nGET /v1/hidden HTTP/1.1",
        ),
        head("a line that begins with a space", Refused, "GET /healthz HTTP/1.1\r\n Host: localhost"),
        head("a name with a space in it", Refused, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX y: z"),
        head("a name that is empty", Refused, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n: z"),
        head("NUL in a value", Refused, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: y\0z"),
        head("a line that a carriage return ends", Refused, "GET /healthz HTTP/1.1\r\nHost: localhost\rX: y"),
        head(
            "an upgrade to HTTP/2",
            Read(200),
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
        ),
        head(
            "an upgrade to a socket",
            Read(200),
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\nUpgrade: websocket",
        ),
        head("a tunnel", Refused, "CONNECT h:80 HTTP/1.1\r\nHost: h:80"),
    ]
}

/// A request of HTTP/2 as its bytes: these fields, spelled out, and this body.
fn frames(fields: &[(&str, &str)], body: Option<&str>) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let block: Vec<u8> =
        fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect();
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let [.., a, b, c] = payload.len().to_be_bytes();
        [&[a, b, c, kind, flags, 0, 0, 0, stream], payload].concat()
    };
    let (settings, end_of_head, end_of_stream) = (4, 4, 1);
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(settings, 0, 0, &[]));
    match body {
        None => bytes.extend(frame(1, end_of_head | end_of_stream, 1, &block)),
        Some(body) => {
            bytes.extend(frame(1, end_of_head, 1, &block));
            bytes.extend(frame(0, end_of_stream, 1, body.as_bytes()));
        }
    }
    bytes
}

/// HTTP/2, whose fields can hold what would be lines of HTTP/1 behind a proxy. A shape that is refused has no answer of 200.
pub(crate) fn shapes_of_http2() -> Vec<Shape> {
    let get = [(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", "/healthz")];
    let post = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", "/v1/scopes/main/lookup"),
        ("content-type", "application/json"),
    ];
    let plus = |name, field: (&'static str, &'static str)| {
        shape(name, Refused, frames(&[&get[..], &[field]].concat(), None))
    };
    let but = |name, field: (&'static str, &'static str)| {
        let fields: Vec<_> = get.iter().map(|own| if own.0 == field.0 { field } else { *own }).collect();
        shape(name, Refused, frames(&fields, None))
    };
    let with_body = |name, fields: &[(&'static str, &'static str)], body| {
        shape(name, Refused, frames(&[&post[..], fields].concat(), Some(body)))
    };
    vec![
        shape("HTTP/2 as it should be", Read(200), frames(&get, None)),
        but(
            "a path with a second request",
            (":path", "/healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /v1/hidden"),
        ),
        but("a path with a space", (":path", "/healthz /v1/hidden")),
        but("a path that is empty", (":path", "")),
        but(
            "a method with a second request",
            (":method", "GET /v1/hidden HTTP/1.1\r\nHost: localhost\r\n\r\nGET"),
        ),
        but("a method of lines", (":method", "GET\r\n")),
        but("an authority with a line", (":authority", "h\r\nTransfer-Encoding: chunked")),
        plus("a value with a line", ("x", "y\r\nTransfer-Encoding: chunked")),
        plus("a value with a line feed", ("x", "y\nTransfer-Encoding: chunked")),
        plus("a value with NUL", ("x", "y\0z")),
        plus("a name with a line", ("x: y\r\ntransfer-encoding", "chunked")),
        plus("a name with a colon", ("x:y", "z")),
        plus("a name in capitals", ("X", "y")),
        plus("a name that is empty", ("", "y")),
        plus("a coding", ("transfer-encoding", "chunked")),
        plus("a connection's field", ("connection", "transfer-encoding")),
        plus("a second path", (":path", "/v1/hidden")),
        plus("a pseudo-field that there is none of", (":hidden", "/v1/hidden")),
        shape("no method", Refused, frames(&get[1..], None)),
        shape("no path", Refused, frames(&get[..3], None)),
        shape(
            "a pseudo-field behind a field",
            Refused,
            frames(&[get[0], get[1], get[2], ("x", "y"), get[3]], None),
        ),
        plus("a length without a body", ("content-length", "20")),
        with_body("a length of less than the body", &[("content-length", "4")], BODY),
        with_body("a length of more than the body", &[("content-length", "40")], BODY),
        with_body("two lengths", &[("content-length", "20"), ("content-length", "4")], BODY),
        with_body("a length that is none", &[("content-length", "+20")], BODY),
    ]
}

/// The statuses that an HTTP/2 server answered with, 0 for one that is not in the protocol's table.
pub(crate) fn statuses_of_http2(mut bytes: &[u8]) -> Vec<u16> {
    let mut statuses = Vec::new();
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = bytes {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        if *kind == 1 {
            // An indexed field: the static table has `:status` from 8 to 14.
            let status = match payload {
                [0x88, ..] => 200,
                [0x89, ..] => 204,
                [0x8a, ..] => 206,
                [0x8b, ..] => 304,
                [0x8c, ..] => 400,
                [0x8d, ..] => 404,
                [0x8e, ..] => 500,
                _ => 0,
            };
            statuses.push(status);
        }
        bytes = rest;
    }
    statuses
}
