//! Lies about what was built: what is missing, what was there before, whether it was taken.

use std::sync::atomic::{AtomicU64, Ordering};

use pcmcache_shared::api::problem::{Code, Problem};
use pcmcache_shared::{ActionResult, Cost, Digest, Output, Role};
use pcmcache_tests::liar::{Peer, Request};

use super::Lie;
use super::truth::{Truth, polite};

/// A lie that is the answer to requests of this method and place; everything else is answered politely.
macro_rules! answered {
    ($name:literal, $method:literal $part:literal, |$request:ident, $peer:ident| $told:expr) => {
        Lie {
            name: $name,
            tell: |$request: &Request, $peer: &mut Peer, _: &Truth| {
                if !$request.is($method, $part) {
                    polite($request, $peer);
                    return false;
                }
                let _ = $told;
                true
            },
        }
    };
}

/// The same, where the result's blobs are asked for first: the lie is about their uploads.
macro_rules! uploaded {
    ($name:literal, |$request:ident, $peer:ident| $told:expr) => {
        Lie {
            name: $name,
            tell: |$request: &Request, $peer: &mut Peer, _: &Truth| {
                if $request.is("PUT", "/actions/") {
                    missing($peer, &outputs($request));
                    return false;
                }
                if !$request.is("PUT", "/blobs/") {
                    polite($request, $peer);
                    return false;
                }
                let _ = $told;
                true
            },
        }
    };
}

/// The lies.
pub(super) const LIES: &[Lie] = &[
    answered!("it was published, says a page", "PUT" "/actions/", |_request, peer| peer.body(200, "<html>")),
    answered!("no answer to a publish", "PUT" "/actions/", |_request, peer| peer.hang()),
    answered!("a publish is cut, again and again", "PUT" "/actions/", |_request, peer| peer.raw("HTTP/1.1 2")),
    answered!("someone else holds the lease", "PUT" "/actions/", |_request, peer| {
        peer.problem(&Problem::new(Code::LeaseHeld, "me"))
    }),
    answered!("blobs are missing, and it does not say which", "PUT" "/actions/", |_request, peer| missing(peer, &[])),
    answered!("blobs are missing that nobody has", "PUT" "/actions/", |_request, peer| {
        missing(peer, &[Digest::of("private")])
    }),
    answered!("the same blobs are missing for ever", "PUT" "/actions/", |request, peer| {
        missing(peer, &outputs(request))
    }),
    answered!("thousands of blobs are missing", "PUT" "/actions/", |_request, peer| {
        missing(peer, &(0..3000_u32).map(|n| Digest::of(n.to_string())).collect::<Vec<_>>())
    }),
    answered!("a list of missing blobs without end", "PUT" "/actions/", |_request, peer| {
        peer.chunked(422);
        peer.chunk("{\"code\":\"missing_blobs\",\"missing\":[");
        while peer.chunk(format!("\"{}\",", Digest::of("any")).repeat(100)) {}
    }),
    uploaded!("no answer to an upload", |_request, peer| peer.hang()),
    uploaded!("each upload is refused", |_request, peer| peer.problem(&Problem::new(Code::StoreFull, ""))),
    uploaded!("each upload is cut", |_request, _peer| ()),
    uploaded!("each upload is another blob", |_request, peer| {
        peer.problem(&Problem::new(Code::DigestMismatch, "you lie"))
    }),
    uploaded!("each upload is led elsewhere", |_request, peer| {
        peer.body_with(307, "Location: http://127.0.0.1:1/\r\n", "")
    }),
    answered!("a winner without outputs", "PUT" "/actions/", |_request, peer| winner(peer, vec![])),
    answered!("a winner whose blobs are not there", "PUT" "/actions/", |request, peer| {
        let mut won = results(request);
        won.iter_mut().for_each(|output| output.digest = Digest::of("won"));
        winner(peer, won)
    }),
    answered!("another winner each time", "PUT" "/actions/", |request, peer| {
        let mut won = results(request);
        let fresh = FRESH.fetch_add(1, Ordering::SeqCst);
        won.iter_mut().for_each(|output| output.digest = Digest::of(fresh.to_string()));
        winner(peer, won)
    }),
    answered!("a winner without the object", "PUT" "/actions/", |request, peer| {
        winner(peer, results(request).into_iter().filter(|output| output.role != Role::Object).collect())
    }),
    answered!("a winner of nine exabytes", "PUT" "/actions/", |request, peer| {
        let mut won = results(request);
        won.iter_mut().for_each(|output| output.size = u64::MAX / 2);
        winner(peer, won)
    }),
    answered!("a winner that nobody names", "PUT" "/actions/", |_request, peer| {
        peer.problem(&Problem::new(Code::Winner, "guess"))
    }),
    Lie {
        name: "a winner whose blobs come as other bytes",
        tell: |request, peer, _| {
            if request.is("PUT", "/actions/") {
                let mut won = results(request);
                won.iter_mut().for_each(|output| output.digest = Digest::of("won"));
                winner(peer, won);
            } else if request.is("GET", "/blobs/") {
                peer.body(200, "lost");
                return true;
            } else {
                polite(request, peer);
            }
            false
        },
    },
];

static FRESH: AtomicU64 = AtomicU64::new(0);

fn results(request: &Request) -> Vec<Output> {
    let sent: serde_json::Value = request.json();
    serde_json::from_value(sent["result"]["outputs"].clone()).expect("the outputs of a publish")
}

fn outputs(request: &Request) -> Vec<Digest> {
    results(request).into_iter().map(|output| output.digest).collect()
}

fn missing(peer: &mut Peer, digests: &[Digest]) {
    let mut problem = Problem::new(Code::MissingBlobs, "");
    problem.missing = digests.to_vec();
    peer.problem(&problem);
}

fn winner(peer: &mut Peer, outputs: Vec<Output>) {
    let mut problem = Problem::new(Code::Winner, "");
    let cost = Cost::default();
    problem.winner = Some(ActionResult { outputs, cost, builder: String::new(), signature: None });
    peer.problem(&problem);
}
