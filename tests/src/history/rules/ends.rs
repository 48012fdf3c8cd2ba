//! Every operation ends in time, with an answer that may be given.

use super::super::line::{Act, End, Us};
use super::Violation;
use super::known::{At, History};

/// After so long without a fault an answer has come.
const LONG: Us = 8_000_000;

pub(super) fn rule(history: &History<'_>) -> Vec<Violation> {
    let each = history.ops.iter().filter_map(|at| {
        let what = hangs(history, at).or_else(|| strange(at)).or_else(|| taken_in_part(history, at))?;
        Some(Violation { rule: "ends", what, lines: vec![at.line] })
    });
    each.collect()
}

/// Nothing came although nothing was wrong.
fn hangs(history: &History<'_>, at: &At<'_>) -> Option<String> {
    let since = at.op.from.max(at.op.to.saturating_sub(LONG));
    let disturbed = history.faults.iter().any(|fault| fault.from < at.op.to && since < fault.to);
    let broken = matches!(at.op.end, End::Cut | End::NotSent) && !is_cut_by_client(at);
    match at.op.end {
        End::TimedOut if !disturbed => Some("nothing came, and nothing was wrong".to_owned()),
        _ if broken && !disturbed && at.op.settling => Some("it was cut off by the server".to_owned()),
        _ => None,
    }
}

fn is_cut_by_client(at: &At<'_>) -> bool {
    matches!(&at.op.act, Act::Upload { content, sent, .. } if *sent < content.size)
}

/// What a server in order never says, whatever happened to it before.
fn strange(at: &At<'_>) -> Option<String> {
    match &at.op.end {
        End::Nonsense { what } => Some(what.clone()),
        End::Refused { status, code, .. } => {
            let expected = match &at.op.act {
                Act::Read { .. } => &["unknown_scope"][..],
                Act::Acquire { .. } => &["unknown_scope", "read_only"],
                Act::Renew { .. } | Act::Release { .. } => &["no_lease", "unknown_scope", "read_only"],
                Act::LetGo { .. } => &[],
                Act::Upload { .. } => {
                    &["digest_mismatch", "short_body", "store_full", "unknown_scope", "read_only"]
                }
                Act::Publish { .. } => {
                    &["lease_held", "missing_blobs", "store_full", "unknown_scope", "read_only"]
                }
                Act::Fetch { .. } => &["no_blob", "unknown_scope"],
            };
            (!expected.contains(&code.as_str())).then(|| format!("{status} {code} is no answer to that"))
        }
        _ => None,
    }
}

/// An upload whose bytes are not what its name says was taken.
fn taken_in_part(history: &History<'_>, at: &At<'_>) -> Option<String> {
    let (Act::Upload { digest, content, sent }, End::Done { .. }) = (&at.op.act, &at.op.end) else {
        return None;
    };
    let is_whole = *sent == content.size && history.contents.get(digest) == Some(content);
    (!is_whole).then(|| "an upload was taken whose bytes are not those that it named".to_owned())
}
