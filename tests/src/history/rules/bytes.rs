//! What is read is what its publisher sent, for that scope and that key; what was answered, and what was acknowledged, is there.

use pcmcache_shared::Digest;

use super::super::line::{Act, End, Us};
use super::Violation;
use super::known::{At, EVER, History, PIN};

pub(super) fn rule(history: &History<'_>) -> Vec<Violation> {
    let each = history.ops.iter().flat_map(|at| {
        let mut found = result(history, at);
        found.extend(fetched(history, at));
        found.extend(missing(history, at));
        found
    });
    each.collect()
}

fn violation(what: String, lines: impl Into<Vec<usize>>) -> Violation {
    Violation { rule: "bytes", what, lines: lines.into() }
}

/// A result names what its publisher published.
fn result(history: &History<'_>, at: &At<'_>) -> Vec<Violation> {
    let Some(sight) = at.sight() else { return Vec::new() };
    let mut found = Vec::new();
    for (name, got) in sight.inline.iter().filter(|(name, got)| name != got) {
        found.push(violation(format!("a blob came along as {name}, and is {got}"), [at.line]));
    }
    let Some(build) = history.builds.get(sight.build.as_str()) else { return found };
    let (key, scope) = (at.op.act.key().unwrap_or_default(), build.at.op.scope.as_str());
    let who = history.setting.principals.get(&build.at.op.who).map(|who| who.id.as_str());
    let lines = [build.at.line, at.line];
    if (key, sight.scope.as_str()) != (build.key, scope) {
        let what = format!("{}/{key} shows what was published as {scope}/{}", sight.scope, build.key);
        found.push(violation(what, lines));
    }
    if sight.outputs != build.outputs {
        found.push(violation(
            format!("{} has other outputs than those that were published", sight.build),
            lines,
        ));
    }
    if sight.writers.iter().map(String::as_str).ne(who) {
        let what =
            format!("{} is said to be of {:?}, it was published by {who:?}", sight.build, sight.writers);
        found.push(violation(what, lines));
    }
    found
}

/// Bytes have the name under which they were fetched; a part of them is that part.
fn fetched(history: &History<'_>, at: &At<'_>) -> Option<Violation> {
    let (Act::Fetch { digest, range }, End::Bytes { got, length }) = (&at.op.act, &at.op.end) else {
        return None;
    };
    let bytes = history.contents.get(digest)?.bytes();
    let part = match range {
        None => bytes.as_slice(),
        Some((from, to)) => {
            let end = bytes.len().min(*to as usize);
            bytes.get(*from as usize..end).unwrap_or_default()
        }
    };
    let right = (Digest::of(part), part.len() as u64);
    (right != (*got, *length))
        .then(|| violation(format!("other bytes than those of {digest} came"), [at.line]))
}

/// A blob that is not there although it must be.
fn missing(history: &History<'_>, at: &At<'_>) -> Vec<Violation> {
    let End::Refused { code, missing, .. } = &at.op.end else { return Vec::new() };
    let missing: Vec<Digest> = match &at.op.act {
        Act::Fetch { digest, .. } if code == "no_blob" => vec![*digest],
        Act::Publish { .. } if code == "missing_blobs" => missing.clone(),
        _ => return Vec::new(),
    };
    let each = missing.into_iter().filter_map(|digest| {
        let lines = acknowledged(history, at, digest).or_else(|| answered(history, at, digest))?;
        Some(violation(format!("{digest} is said not to be there"), [lines, vec![at.line]].concat()))
    });
    each.collect()
}

/// The upload by which this very principal put it there, if one did and its time is not over.
fn acknowledged(history: &History<'_>, at: &At<'_>, wanted: Digest) -> Option<Vec<usize>> {
    let stays: Us = if history.setting.may_evict { history.real(PIN) } else { EVER };
    let put = history.ops.iter().find(|put| {
        let is_it = matches!(&put.op.act, Act::Upload { digest, .. } if *digest == wanted);
        let is_ours = (&put.op.who, &put.op.scope) == (&at.op.who, &at.op.scope);
        let in_time = put.op.to < at.op.from && at.op.to < put.op.from.saturating_add(stays);
        is_it && is_ours && in_time && matches!(put.op.end, End::Done { .. })
    });
    put.map(|put| vec![put.line])
}

/// The lines by which a result that names it was there all the time, for this principal to see.
fn answered(history: &History<'_>, at: &At<'_>, wanted: Digest) -> Option<Vec<usize>> {
    let view = history.view(at.op);
    let zones =
        history.zones.iter().filter(|((scope, _), _)| view.contains(scope)).flat_map(|(_, zones)| zones);
    let mut there = zones.filter(|zone| zone.covers(at.op.from, at.op.to));
    let names = |build: &str| history.builds.get(build).is_some_and(|build| build.outputs.contains(&wanted));
    there.find(|zone| names(zone.build)).map(|zone| zone.lines.to_vec())
}
