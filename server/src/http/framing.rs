//! Where a message ends: what two readers on the way could disagree about is refused here, beyond what hyper refuses.
//!
//! Who gets a proxy and a server to end a message at different bytes has one of them take the rest for a request of
//! somebody else's. hyper refuses nearly all of it; it takes a list of codings that ends in `chunked`, two hosts, and
//! goes on after a tunnel that is not made. A body in chunks is the last that is read of its connection: no client of ours
//! sends one, and behind it nothing can hide.

use http::{HeaderMap, Method, Request, Version, header};

/// Why a request is not to be trusted with its own end.
pub(super) fn doubt<B>(request: &Request<B>) -> Option<&'static str> {
    if request.version() > Version::HTTP_11 {
        return None;
    }
    let headers = request.headers();
    if request.method() == Method::CONNECT {
        return Some("this is no proxy");
    }
    if headers.get_all(header::HOST).iter().nth(1).is_some() {
        return Some("there are two Host lines");
    }
    (is_chunked(headers) && !is_chunked_alone(headers)).then_some("the one Transfer-Encoding is chunked")
}

/// Whether this request is the last of its connection, whatever it says.
pub(super) fn is_last<B>(request: &Request<B>) -> bool {
    request.version() <= Version::HTTP_11 && is_chunked(request.headers())
}

fn is_chunked(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
}

fn is_chunked_alone(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let chunked = codings.next().is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    chunked && codings.next().is_none()
}
