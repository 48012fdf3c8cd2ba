//! One request through the agent: its head and body go on as they come, and so does what is answered.
//!
//! Invariants: nothing is kept of a request once it is over; a launcher that goes away takes its request along, which is
//! how the server hears at once that a builder died; what fails upstream ends the launcher's connection without an
//! answer, so that it is never taken for the server's word.

use std::sync::Arc;

use http::header::{
    CONNECTION, EXPECT, HOST, HeaderMap, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{Request, Response, Uri, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use pcmcache_shared::Digest;
use reqwest::{Body, Url};

use super::door::{self, DOOR};
use super::lanes::Lanes;
use super::life::Life;

/// What is meant for the next on the way only (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    http::header::PROXY_AUTHENTICATE,
    http::header::PROXY_AUTHORIZATION,
];

/// Why a request was not passed on, or not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Dropped {
    #[error("too many requests at a time")]
    Crowded,
    #[error("no path of a server's")]
    NoPath,
    #[error(transparent)]
    Upstream(#[from] reqwest::Error),
}

/// All that requests are passed on by.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) serves: Digest,
    /// The server's URL, without a slash at its end.
    pub(super) base: String,
    pub(super) lanes: Lanes,
    pub(super) life: Arc<Life>,
}

impl Flow {
    /// The answer to one request. Its body comes later, and for as long as that takes the agent is busy.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Dropped> {
        let busy = self.life.busy();
        if request.uri().path() == DOOR {
            let words = door::words(self.serves, self.life.passed_on());
            return Ok(Response::new(Body::from(words)));
        }
        let place = self.lanes.place(request.uri().path().contains("/blobs/")).ok_or(Dropped::Crowded)?;
        self.life.pass_on();
        let answer = place.client.execute(self.onward(request)?).await?;
        let (mut head, body) = Response::<Body>::from(answer).into_parts();
        head.version = Version::HTTP_11;
        drop_hop_by_hop(&mut head.headers);
        let body = body.map_frame(move |frame| {
            // They stay with the body until it ends or is dropped.
            let _ = (&busy, &place);
            frame
        });
        Ok(Response::from_parts(head, Body::wrap(body)))
    }

    /// The request as the server gets it.
    fn onward(&self, request: Request<Incoming>) -> Result<reqwest::Request, Dropped> {
        let (head, body) = request.into_parts();
        let mut onward = reqwest::Request::new(head.method, self.url(&head.uri)?);
        *onward.headers_mut() = head.headers;
        drop_hop_by_hop(onward.headers_mut());
        onward.headers_mut().remove(HOST);
        onward.headers_mut().remove(EXPECT);
        if !body.is_end_stream() {
            *onward.body_mut() = Some(Body::wrap(body));
        }
        Ok(onward)
    }

    fn url(&self, uri: &Uri) -> Result<Url, Dropped> {
        let path = uri.path_and_query().map(http::uri::PathAndQuery::as_str).unwrap_or_default();
        // Behind the base nothing can name another host.
        let url = Url::parse(&format!("{}{path}", self.base)).ok();
        url.filter(|_| path.starts_with('/')).ok_or(Dropped::NoPath)
    }
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.into_iter().chain(HOP_BY_HOP) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_the_next_on_the_way_goes_no_further() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("transfer-encoding", "chunked"),
            ("keep-alive", "1"),
            ("authorization", "Bearer t"),
            ("content-length", "3"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        drop_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "content-length"]);
    }
}
