//! Lies about who made what: signatures where keys are pinned, and what was taken back.

use std::sync::atomic::{AtomicU64, Ordering};

use pcmcache_shared::api::acquire::AcquireLine;
use pcmcache_shared::api::problem::{Code, Problem};
use pcmcache_shared::api::revocations::Revocations;
use pcmcache_shared::api::{EPOCH_HEADER, KeyedResult, OfferedSet};
use pcmcache_shared::{ActionKey, ActionResult, Output, Role, Scope, Signature, Writer};
use pcmcache_tests::liar::{Peer, Request};

use super::Lie;
use super::truth::{Truth, hit, polite, say};

/// A hit that is honest but for who vouches for it.
macro_rules! vouched {
    ($name:literal, |$keyed:ident, $truth:ident| $change:expr) => {
        Lie {
            name: $name,
            tell: |request: &Request, peer: &mut Peer, $truth: &Truth| {
                hit(request, peer, $truth, |$keyed: &mut KeyedResult| $change)
            },
        }
    };
}

/// A winner that is what was published but for what is changed.
macro_rules! won {
    ($name:literal, |$result:ident, $action:ident, $truth:ident| $change:expr) => {
        Lie {
            name: $name,
            tell: |request: &Request, peer: &mut Peer, $truth: &Truth| {
                if !request.is("PUT", "/actions/") {
                    polite(request, peer);
                    return false;
                }
                let sent: serde_json::Value = request.json();
                let mut $result: ActionResult =
                    serde_json::from_value(sent["result"].clone()).expect("a result");
                let $action: ActionKey =
                    request.path.rsplit('/').next().expect("a key").parse().expect("a key");
                $change;
                let mut problem = Problem::new(Code::Winner, "");
                problem.winner = Some($result);
                peer.problem(&problem);
                true
            },
        }
    };
}

/// An epoch that each answer names, and what is said when it is asked what was taken back.
macro_rules! taken_back {
    ($name:literal, $epoch:expr, |$epoch_then:ident, $peer:ident, $truth:ident| $told:expr) => {
        Lie {
            name: $name,
            tell: |request: &Request, $peer: &mut Peer, $truth: &Truth| {
                let $epoch_then: u64 = $epoch;
                if request.is("GET", "/revocations") {
                    let _ = $told;
                    return true;
                }
                if !request.is("POST", "/acquire") {
                    polite(request, $peer);
                    return false;
                }
                let line = AcquireLine::Sets { sets: vec![$truth.offer(request)] };
                let body = serde_json::to_string(&line).expect("JSON") + "\n";
                $peer.body_with(200, &format!("{EPOCH_HEADER}: {}\r\n", $epoch_then), body);
                false
            },
        }
    };
}

/// The lies to one who pins a key.
pub(super) const PINNED: &[Lie] = &[
    vouched!("an unsigned hit", |keyed, _truth| keyed.result.signature = None),
    vouched!("a hit signed by another key", |keyed, truth| {
        let signature = truth.other_key().sign(&keyed.scope, keyed.action, &keyed.result);
        keyed.result.signature = Some(signature);
    }),
    vouched!("a hit signed for another scope", |keyed, truth| {
        keyed.result.signature = Some(truth.key().sign(&elsewhere(), keyed.action, &keyed.result));
    }),
    vouched!("a hit of another scope, signed for that", |keyed, truth| {
        keyed.scope = elsewhere();
        keyed.result.signature = Some(truth.key().sign(&elsewhere(), keyed.action, &keyed.result));
    }),
    vouched!("an old result under another key", |keyed, truth| {
        keyed.result.signature = Some(truth.key().sign(&keyed.scope, ActionKey::of("old"), &keyed.result));
    }),
    vouched!("outputs that change places", |keyed, truth| {
        sign(keyed, truth);
        let first = keyed.result.outputs[0];
        let last = keyed.result.outputs.len() - 1;
        keyed.result.outputs[0] = Output { role: first.role, ..keyed.result.outputs[last] };
        keyed.result.outputs[last] = Output { role: keyed.result.outputs[last].role, ..first };
    }),
    vouched!("an output more than was signed", |keyed, truth| {
        sign(keyed, truth);
        let object = *keyed.result.output(Role::Object).expect("an object");
        keyed.result.outputs.push(Output { role: Role::Stderr, ..object });
    }),
    vouched!("a signature of nothing", |keyed, _truth| {
        keyed.result.signature = Some(Signature::from_bytes([0; 64]));
    }),
    Lie {
        name: "an unsigned result beside its include set",
        tell: |request, peer, truth| {
            if !request.is("POST", "/acquire") {
                polite(request, peer);
                return false;
            }
            say(peer, &AcquireLine::Sets { sets: vec![truth.offer(request)] });
            true
        },
    },
    won!("an unsigned winner", |result, _action, _truth| {
        result.signature = None;
        result.outputs.reverse();
    }),
    won!("a winner signed for another scope", |result, action, truth| {
        result.signature = Some(truth.key().sign(&elsewhere(), action, &result));
    }),
];

/// The lies to anyone.
pub(super) const LIES: &[Lie] = &[
    taken_back!(
        "another epoch with each answer",
        FRESH.fetch_add(7, Ordering::SeqCst),
        |epoch, peer, _truth| {
            peer.json(200, &Revocations { epoch, complete: true, ..Revocations::default() })
        }
    ),
    taken_back!("an epoch, and nobody knows why", 3, |_epoch, peer, _truth| peer.body(404, "")),
    taken_back!("an epoch, and silence", u64::MAX, |_epoch, peer, _truth| peer.hang()),
    taken_back!("a list of revoked writers without end", 3, |_epoch, peer, _truth| {
        peer.chunked(200);
        peer.chunk("{\"epoch\":3,\"complete\":true,\"writers\":[");
        while peer.chunk("\"a\",".repeat(10_000)) {}
    }),
    taken_back!("an epoch that a page explains", 3, |_epoch, peer, _truth| peer.body(200, "<html>")),
    taken_back!("a result that was taken back", 3, |epoch, peer, truth| {
        let writers: Vec<Writer> = truth.writers();
        assert!(!writers.is_empty(), "nobody published it");
        peer.json(200, &Revocations { epoch, writers, complete: true })
    }),
    Lie {
        name: "results of more scopes than there are",
        tell: |request, peer, truth| {
            if !request.is("POST", "/acquire") {
                polite(request, peer);
                return false;
            }
            let OfferedSet { set, text, results } = truth.offer(request);
            let in_scope = |number: usize| KeyedResult {
                scope: format!("pr-{number}").parse().expect("a scope"),
                ..results[0].clone()
            };
            let sets = vec![OfferedSet { set, text, results: (0..20).map(in_scope).collect() }];
            say(peer, &AcquireLine::Sets { sets });
            true
        },
    },
];

static FRESH: AtomicU64 = AtomicU64::new(1);

fn elsewhere() -> Scope {
    "pr-17".parse().expect("a scope")
}

fn sign(keyed: &mut KeyedResult, truth: &Truth) {
    keyed.result.signature = Some(truth.key().sign(&keyed.scope, keyed.action, &keyed.result));
}
