//! Leases: fences rise over all keys and over restarts; nobody is granted what another still holds, and nobody else publishes
//! it; nothing is built again unless a lease was lost.
//!
//! What counts is how long a lease lives *for sure*: from the moment its holder knew of it, for as long as the last sign of life
//! keeps it, until the first thing that may have ended it. A server that starts again lets a lease live for seven seconds only,
//! one whose stream broke for one.

use std::collections::BTreeMap;

use super::super::line::{Act, End, Us, What};
use super::Violation;
use super::known::{At, EVER, History};

/// How long a lease lives after a restart until its holder comes back, of the server's time.
const RESTART_GRACE: Us = 7_000_000;
/// The shortest of the longest times for which a lease can be held, of the server's time.
const LONGEST_HOLD: Us = 60_000_000;

pub(super) fn rule(history: &History<'_>) -> Vec<Violation> {
    let grants = grants(history);
    let mut found = fences(&grants);
    for grant in &grants {
        let lives = lives(history, grant, &grants);
        found.extend(granted_again(grant, lives, &grants));
        found.extend(published_over(history, grant, lives));
    }
    found.extend(built_again(history, &grants));
    found
}

fn violation(what: String, lines: impl Into<Vec<usize>>) -> Violation {
    Violation { rule: "leases", what, lines: lines.into() }
}

/// A grant that a client heard of.
struct Grant<'a> {
    at: At<'a>,
    key: &'a str,
    request: &'a str,
    fence: u64,
    ttl: Us,
    hold: bool,
    /// When its request was first sent: the answer to that may have been lost.
    asked: Us,
}

fn grants<'a>(history: &History<'a>) -> Vec<Grant<'a>> {
    let mut asked: BTreeMap<&str, Us> = BTreeMap::new();
    for at in &history.ops {
        if let Act::Acquire { request, .. } = &at.op.act {
            let first = asked.entry(request).or_insert(EVER);
            *first = at.op.from.min(*first);
        }
    }
    let grant = |at: &At<'a>| match (&at.op.act, &at.op.end) {
        (Act::Acquire { key, request, hold, .. }, End::Granted { fence, ttl_ms }) => {
            let ttl = history.real(ttl_ms.saturating_mul(1000));
            let asked = asked.get(request.as_str()).copied().unwrap_or_default();
            Some(Grant { at: *at, key, request, fence: *fence, ttl, hold: *hold, asked })
        }
        _ => None,
    };
    history.ops.iter().filter_map(grant).collect()
}

/// One that was heard of before another was asked for has the lower number, unless both are answers to the same request.
fn fences(grants: &[Grant<'_>]) -> Vec<Violation> {
    let mut found = Vec::new();
    for one in grants {
        for other in grants.iter().filter(|other| other.request != one.request) {
            if one.fence == other.fence && one.at.line < other.at.line {
                let what = format!("the fence {} was given twice", one.fence);
                found.push(violation(what, [one.at.line, other.at.line]));
            }
            if one.at.op.to < other.asked && one.fence > other.fence {
                let what = format!("the fence {} came after {}", other.fence, one.fence);
                found.push(violation(what, [one.at.line, other.at.line]));
            }
        }
    }
    found
}

/// From when to when a lease lives for sure.
fn lives(history: &History<'_>, grant: &Grant<'_>, grants: &[Grant<'_>]) -> (Us, Us) {
    let is_end = |act: &Act| matches!(act, Act::Publish { .. });
    (grant.at.op.to, kept(history, grant, grants).min(given_up(history, grant, is_end)))
}

/// Until when its signs of life keep it.
fn kept(history: &History<'_>, grant: &Grant<'_>, grants: &[Grant<'_>]) -> Us {
    let heard =
        grants.iter().filter(|same| same.fence == grant.fence).map(|same| (same.at.op.from, same.ttl));
    let renewed = history.ops.iter().filter_map(|at| match (&at.op.act, &at.op.end) {
        (Act::Renew { fence, .. }, End::Renewed { ttl_ms }) if *fence == grant.fence => {
            Some((at.op.from, history.real(ttl_ms.saturating_mul(1000))))
        }
        _ => None,
    });
    let kept = heard.chain(renewed).map(|(sign, ttl)| cut_short(history, sign, ttl)).max();
    kept.unwrap_or(0).min(grant.asked + history.real(LONGEST_HOLD))
}

/// A sign of life keeps the lease for `ttl`, or until a server that starts again forgets it.
fn cut_short(history: &History<'_>, sign: Us, ttl: Us) -> Us {
    let killed = history.faults.iter().filter(|fault| matches!(fault.what, What::Kill | What::Step { .. }));
    let short = killed.filter(|fault| fault.to > sign).map(|fault| {
        let kept = fault.from.max(sign) + history.real(RESTART_GRACE);
        // Killed after its time was over, it does not begin again.
        if fault.from > sign + ttl { EVER } else { kept }
    });
    short.min().unwrap_or(EVER).min(sign + ttl)
}

/// The first thing that may have ended it: its release, what else is an end, or that its stream broke.
fn given_up(history: &History<'_>, grant: &Grant<'_>, is_end: impl Fn(&Act) -> bool) -> Us {
    let ended = history.ops.iter().filter_map(|at| {
        let of = match &at.op.act {
            Act::Release { fence, .. } | Act::LetGo { fence, .. } => *fence,
            Act::Publish { fence: Some(fence), .. } if is_end(&at.op.act) => *fence,
            _ => return None,
        };
        (of == grant.fence).then_some(at.op.from)
    });
    let road = grant.at.op.road;
    let broken = history.faults.iter().filter_map(|fault| {
        let breaks = matches!(fault.what, What::Cut { road: of } if of == road && grant.hold);
        (breaks && fault.to > grant.at.op.from).then_some(fault.from)
    });
    ended.chain(broken).min().unwrap_or(EVER)
}

fn granted_again(grant: &Grant<'_>, lives: (Us, Us), grants: &[Grant<'_>]) -> Vec<Violation> {
    let again = grants.iter().filter(|other| {
        let of_the_same = (&other.at.op.scope, other.key) == (&grant.at.op.scope, grant.key);
        of_the_same && other.fence > grant.fence && other.at.op.to < lives.1
    });
    let each = again.map(|other| {
        let what = format!(
            "{}/{} was granted as {} and, while that lived, as {}",
            grant.at.op.scope, grant.key, grant.fence, other.fence
        );
        violation(what, [grant.at.line, other.at.line])
    });
    each.collect()
}

fn published_over(history: &History<'_>, grant: &Grant<'_>, lives: (Us, Us)) -> Vec<Violation> {
    let over = history.ops.iter().filter(|at| {
        let Act::Publish { key, fence, .. } = &at.op.act else { return false };
        let same = (&at.op.scope, key.as_str()) == (&grant.at.op.scope, grant.key);
        let within = lives.0 < at.op.from && at.op.to < lives.1;
        same && within && *fence != Some(grant.fence) && at.op.end == End::Done { status: 201 }
    });
    let what =
        format!("{}/{} was published by another while {} lived", grant.at.op.scope, grant.key, grant.fence);
    over.map(|at| violation(what.clone(), [grant.at.line, at.line])).collect()
}

/// A key is built once, and once more for each lease that was lost: one whose holder did not publish, or only after its time.
fn built_again(history: &History<'_>, grants: &[Grant<'_>]) -> Vec<Violation> {
    if history.setting.may_evict {
        return Vec::new();
    }
    let mut in_time: BTreeMap<(&str, &str), BTreeMap<u64, usize>> = BTreeMap::new();
    for at in &history.ops {
        let Act::Publish { key, fence: Some(fence), .. } = &at.op.act else { continue };
        let Some(grant) = grants.iter().find(|grant| grant.fence == *fence) else { continue };
        let until = kept(history, grant, grants).min(given_up(history, grant, |_| false));
        if at.op.to < until && matches!(at.op.end, End::Done { .. } | End::Winner { .. }) {
            in_time.entry((&at.op.scope, key)).or_default().insert(*fence, at.line);
        }
    }
    let twice = in_time.into_iter().filter(|(_, built)| built.len() > 1);
    let each = twice.map(|((scope, key), built)| {
        violation(format!("{scope}/{key} was built more than once"), built.into_values().collect::<Vec<_>>())
    });
    each.collect()
}
