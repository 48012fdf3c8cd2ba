//! Lets a request in, if its client has not too much under way already; it counts until its answer's end.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body::{Frame, SizeHint};
use pcmcache_shared::api::problem::Code;

use super::problem::Refused;
use crate::connection::Peer;
use crate::limits::{Admitted, Kind, Limiter, Who};
use crate::metrics::Connections;
use crate::trust::Principal;

/// What is asked by who watches over the server: it must get its answer however busy others are.
const ALWAYS: [&str; 2] = ["/healthz", "/readyz"];

const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What [`admit`] works with.
#[derive(Debug, Clone)]
pub struct Gate {
    /// The accounts.
    pub limiter: Arc<Limiter>,
    /// For the metrics.
    pub connections: Arc<Connections>,
    /// Whether a proxy says who the clients are.
    pub behind_proxy: bool,
    /// Whether nobody but this host can get here, so that the server has no name.
    pub is_here_only: bool,
}

pub(super) async fn admit(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    if ALWAYS.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let waits = |path: &MatchedPath| path.as_str().ends_with("/acquire");
    let kind = if request.extensions().get().is_some_and(waits) { Kind::Wait } else { Kind::Brief };
    match gate.limiter.admit(&gate.who(&request), kind) {
        Ok(admitted) => next.run(request).await.map(|body| Body::new(Counted { body, _admitted: admitted })),
        Err(too_much) => {
            gate.connections.limited();
            let mut response = Refused::new(Code::TooManyRequests, too_much.to_string()).into_response();
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(too_much.after_s));
            response
        }
    }
}

impl Gate {
    /// Whom the request is counted for: who it was found to be from, else where it comes from.
    fn who(&self, request: &Request) -> Who {
        if let Some(principal) = request.extensions().get::<Arc<Principal>>().filter(|one| one.is_known()) {
            return Who::named(&principal.id);
        }
        let forwarded = || self.behind_proxy.then(|| last_forwarded(request.headers())).flatten();
        let peer = || request.extensions().get::<Peer>().map(|Peer(address)| address.ip());
        forwarded().or_else(peer).map_or_else(|| Who::named("nobody"), Who::at)
    }
}

/// The address that the proxy next to us added; those before it are the client's own words.
fn last_forwarded(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all(FORWARDED).iter().next_back()?.to_str().ok()?;
    last.rsplit(',').next()?.trim().parse().ok()
}

/// An answer's body, which counts as long as it is there.
struct Counted {
    body: Body,
    _admitted: Admitted,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_word_of_a_proxy_counts() {
        for (lines, address) in [
            (&["10.0.0.1"][..], Some("10.0.0.1")),
            (&["1.1.1.1, 10.0.0.1"], Some("10.0.0.1")),
            (&["1.1.1.1", "2.2.2.2,10.0.0.1"], Some("10.0.0.1")),
            (&["10.0.0.1, 2001:db8::1"], Some("2001:db8::1")),
            (&["10.0.0.1, unknown"], None),
            (&["10.0.0.1,"], None),
            (&[], None),
        ] {
            let headers = lines.iter().map(|line| (FORWARDED, HeaderValue::from_static(line))).collect();
            assert_eq!(
                last_forwarded(&headers),
                address.map(|address| address.parse().unwrap()),
                "{lines:?}"
            );
        }
    }
}
