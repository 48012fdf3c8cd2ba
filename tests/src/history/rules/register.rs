//! A key of a scope is a register that is written once, until what it holds is evicted, which only the store may do.
//!
//! Every attempt to publish has a name of its own, so a read tells which attempt it saw, and no attempt writes twice. That makes
//! the question whether an order of all operations exists an easy one: each result has a zone, the time through which it was
//! there whatever the order was. No two zones may meet, and nobody may have seen another thing through a time that lies within
//! one. Where nothing may go a zone has no end.

use super::Violation;
use super::known::{History, Holding, Place, Seen, Zone};

pub(super) fn rule(history: &History<'_>) -> Vec<Violation> {
    let each = history.seen.iter().flat_map(|(place, seen)| {
        let zones = history.zones.get(place).map(Vec::as_slice).unwrap_or_default();
        let mut found = of_nobody(history, *place, seen);
        found.extend(two_at_once(*place, zones));
        found.extend(seen.iter().flat_map(|seen| contradicted(history, *place, seen, zones)));
        found
    });
    each.collect()
}

fn violation(what: String, lines: impl Into<Vec<usize>>) -> Violation {
    Violation { rule: "register", what, lines: lines.into() }
}

/// What was seen before it was sent, although it was refused, or although nobody ever sent it.
fn of_nobody(history: &History<'_>, (scope, key): Place<'_>, seen: &[Seen<'_>]) -> Vec<Violation> {
    let wrong = seen.iter().filter_map(|seen| {
        let Holding::Build(name) = seen.what else { return None };
        let Some(build) = history.builds.get(name) else {
            return Some(violation(
                format!("{scope}/{key} holds {name}, which nobody published"),
                [seen.at.line],
            ));
        };
        let lines = [build.at.line, seen.at.line];
        if seen.at.op.to < build.at.op.from {
            return Some(violation(format!("{scope}/{key} held {name} before it was published"), lines));
        }
        let can_be = build.at.op.end.is_unknown()
            || matches!(build.at.op.end, super::super::line::End::Done { status: 201 });
        (!can_be).then(|| violation(format!("{scope}/{key} holds {name}, which was not taken"), lines))
    });
    wrong.collect()
}

/// Two results, each there at a time at which the other was.
fn two_at_once((scope, key): Place<'_>, zones: &[Zone<'_>]) -> Vec<Violation> {
    let mut found = Vec::new();
    for (index, one) in zones.iter().enumerate() {
        for other in zones.iter().skip(index + 1) {
            let (first, last) = (one.since.min(one.until), one.since.max(one.until));
            let meet = match (one.since < one.until, other.since < other.until) {
                (true, true) => one.since < other.until && other.since < one.until,
                (true, false) => one.covers(other.until, other.since),
                (false, true) => other.covers(first, last),
                // Each was there for a moment that can be chosen.
                (false, false) => false,
            };
            if meet {
                let what = format!(
                    "{scope}/{key} holds {} and {} at once, or one of them again",
                    one.build, other.build
                );
                found.push(violation(what, [one.lines, other.lines].concat()));
            }
        }
    }
    found
}

/// Nothing, or something else, was seen while this was there.
fn contradicted(
    history: &History<'_>,
    (scope, key): Place<'_>,
    seen: &Seen<'_>,
    zones: &[Zone<'_>],
) -> Vec<Violation> {
    let (from, to) = (seen.at.op.from, seen.at.op.to);
    let there = zones.iter().filter(|zone| zone.covers(from, to));
    let wrong = there.filter_map(|zone| {
        let lines = vec![zone.lines[0], seen.at.line, zone.lines[1]];
        match seen.what {
            Holding::Build(_) => None,
            Holding::Nothing => Some(violation(
                format!("{scope}/{key} holds {}, and is said to hold nothing", zone.build),
                lines,
            )),
            Holding::Like(name) => {
                let outputs = |name| history.builds.get(name).map(|build| &build.outputs);
                (outputs(name) != outputs(zone.build)).then(|| {
                    violation(
                        format!("{scope}/{key} holds {}, and is said to hold what {name} made", zone.build),
                        lines,
                    )
                })
            }
        }
    });
    wrong.collect()
}
