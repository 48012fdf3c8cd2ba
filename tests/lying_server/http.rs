//! Lies below the protocol: connections, heads, lengths, codings, statuses.

use std::time::Duration;

use pcmcache_tests::liar::{Peer, Request};

use super::Lie;
use super::truth::Truth;

const PAUSE: Duration = Duration::from_millis(100);

/// An answer that every request gets.
macro_rules! always {
    ($name:literal, |$peer:ident, $truth:ident| $told:expr) => {
        Lie {
            name: $name,
            tell: |_: &Request, $peer: &mut Peer, $truth: &Truth| {
                let _ = ($truth, $told);
                true
            },
        }
    };
}

/// The lies.
pub(super) const LIES: &[Lie] = &[
    always!("closes at once", |_peer, _truth| ()),
    always!("closes after a byte", |peer, _truth| peer.raw("H")),
    always!("closes within the head", |peer, _truth| peer.raw("HTTP/1.1 200 OK\r\nContent-")),
    always!("says nothing", |peer, _truth| peer.hang()),
    always!("dribbles its head", |peer, _truth| {
        peer.dribble("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".repeat(9), PAUSE)
    }),
    always!("has a head without end", |peer, _truth| {
        peer.raw("HTTP/1.1 200 OK\r\n");
        while peer.raw("X-More: and more\r\n".repeat(100)) {}
    }),
    always!("has a field without end", |peer, _truth| {
        peer.raw("HTTP/1.1 200 OK\r\nX-More: ");
        while peer.raw([b'x'; 4096]) {}
    }),
    always!("goes on saying continue", |peer, _truth| {
        while peer.raw("HTTP/1.1 100 Continue\r\n\r\n".repeat(100)) {}
    }),
    always!("speaks another protocol", |peer, _truth| peer.raw("SSH-2.0-OpenSSH_9.2p1\r\n")),
    always!("speaks HTTP/2", |peer, _truth| {
        peer.raw(b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80\0\x04\0\x01\0\0\0\x05\0\xff\xff\xff");
        peer.hang();
    }),
    always!("speaks TLS", |peer, _truth| peer.raw(b"\x15\x03\x01\0\x02\x02\x46")),
    always!("is a web site", |peer, _truth| peer.body(200, "<html>It works!</html>")),
    always!("answers with nothing at all", |peer, _truth| peer.body(200, "")),
    always!("answers twice", |peer, _truth| {
        peer.raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".repeat(2));
        peer.hang();
    }),
    always!("declares more than it sends", |peer, _truth| {
        peer.head(200, "Content-Length: 1000\r\n");
        peer.raw("{");
        peer.hang();
    }),
    always!("declares less than it sends", |peer, _truth| {
        peer.head(200, "Content-Length: 2\r\n");
        peer.raw("{}".repeat(100_000));
    }),
    always!("declares a length that is no number", |peer, _truth| {
        peer.head(200, "Content-Length: 99999999999999999999999\r\n");
        peer.hang();
    }),
    always!("declares two lengths", |peer, _truth| {
        peer.head(200, "Content-Length: 2\r\nContent-Length: 40\r\n");
        peer.raw("{}");
        peer.hang();
    }),
    always!("declares a length and chunks", |peer, _truth| {
        peer.head(200, "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n");
        peer.raw("ffffffffffffffffff\r\n");
        peer.hang();
    }),
    always!("has chunks without a size", |peer, _truth| {
        peer.chunked(200);
        peer.raw("-1\r\n{}\r\n0\r\n\r\n");
    }),
    always!("has a chunk extension without end", |peer, _truth| {
        peer.chunked(200);
        peer.raw("2;x=");
        while peer.raw([b'x'; 4096]) {}
    }),
    always!("has trailers without end", |peer, _truth| {
        peer.chunked(200);
        peer.raw("2\r\n{}\r\n0\r\n");
        while peer.raw("X-More: and more\r\n".repeat(100)) {}
    }),
    always!("says gzip where there is none", |peer, _truth| {
        peer.body_with(200, "Content-Encoding: gzip\r\n", "{\"state\":\"alone\"}\n")
    }),
    always!("says gzip and sends a bomb", |peer, _truth| {
        peer.body_with(200, "Content-Encoding: gzip\r\n", GZIP_BOMB.repeat(1000))
    }),
    always!("is not UTF-8", |peer, _truth| {
        peer.raw(b"HTTP/1.1 200 \xff\xfe\r\nX-\xc3\x28: \xff\r\nContent-Length: 4\r\n\r\n\xff\xff\xff\n");
    }),
    always!("lives in another century", |peer, _truth| {
        let fields = "Date: Fri, 31 Dec 9999 23:59:59 GMT\r\nRetry-After: 99999999999\r\nAge: -1\r\n";
        peer.body_with(503, fields, "")
    }),
    always!("leads to a stranger", |peer, truth| lead(peer, 307, &truth.thief())),
    always!("leads to a stranger for good", |peer, truth| lead(peer, 308, &truth.thief())),
    always!("leads to a stranger by GET", |peer, truth| lead(peer, 303, &truth.thief())),
    always!("leads to a file", |peer, _truth| lead(peer, 302, "file:///etc/passwd")),
    always!("leads to itself", |peer, _truth| lead(peer, 301, "/v1/scopes/main/acquire")),
    always!("wants other credentials", |peer, _truth| {
        peer.body_with(401, "WWW-Authenticate: Basic realm=\"your password\"\r\n", "")
    }),
    always!("wants a proxy's credentials", |peer, _truth| {
        peer.body_with(407, "Proxy-Authenticate: Basic realm=\"x\"\r\n", "")
    }),
    always!("forbids everything", |peer, _truth| peer.body(403, "")),
    always!("has nothing", |peer, _truth| peer.body(404, "")),
    always!("says that is too much", |peer, _truth| peer.body_with(429, "Retry-After: 86400\r\n", "")),
    always!("fails", |peer, _truth| peer.body(500, "oops")),
    always!("goes down all the time", |peer, _truth| peer.body(503, "")),
    always!("is full", |peer, _truth| peer.body(507, "")),
    always!("has a status of its own", |peer, _truth| peer.body(799, "")),
    always!("switches protocols", |peer, _truth| {
        peer.raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n");
        peer.hang();
    }),
    always!("says no without end", |peer, _truth| {
        peer.chunked(403);
        while peer.chunk([b'{'; 4096]) {}
    }),
];

fn lead(peer: &mut Peer, status: u16, to: &str) {
    peer.body_with(status, &format!("Location: {to}\r\n"), "");
}

/// A gzip member of some thousand zeros.
const GZIP_BOMB: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xed\xc1\x01\x0d\0\0\0\xc2\xa0\xf7Om\x0e7\xa0\0\0\0\0\0\0\0\0\x80w\x03\x9a\xde\x1d'\0\x10\0\0";
