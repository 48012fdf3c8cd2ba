//! Nobody sees a result or a blob that is not theirs to see, and nobody changes what is not theirs to change.

use pcmcache_shared::Digest;

use super::super::line::{Act, End};
use super::Violation;
use super::known::{At, History};

pub(super) fn rule(history: &History<'_>) -> Vec<Violation> {
    let each = history.ops.iter().filter_map(|at| {
        let what = sees(history, at).or_else(|| fetches(history, at)).or_else(|| writes(history, at))?;
        Some(Violation { rule: "trust", what, lines: vec![at.line] })
    });
    each.collect()
}

/// A result of a scope outside of the view.
fn sees(history: &History<'_>, at: &At<'_>) -> Option<String> {
    let sight = at.sight()?;
    let outside = !history.view(at.op).contains(&sight.scope.as_str());
    outside.then(|| format!("{} asked {} and was shown a result of {}", at.op.who, at.op.scope, sight.scope))
}

/// Bytes that no result of the view can name, and that whoever asks did not bring.
fn fetches(history: &History<'_>, at: &At<'_>) -> Option<String> {
    let (Act::Fetch { digest, .. }, End::Bytes { .. }) = (&at.op.act, &at.op.end) else { return None };
    let view = history.view(at.op);
    let brought = history.ops.iter().any(|put| may_have_brought(put, at, *digest));
    let mut named = history.builds.values().filter(|build| build.outputs.contains(digest));
    let named = named.any(|build| {
        let may_be_there = build.at.op.end.is_unknown() || build.at.op.end == End::Done { status: 201 };
        let in_view = view.contains(&build.at.op.scope.as_str());
        may_be_there && in_view && build.at.op.from < at.op.to
    });
    (!brought && !named).then(|| format!("{} asked {} and was given {digest}", at.op.who, at.op.scope))
}

fn may_have_brought(put: &At<'_>, at: &At<'_>, wanted: Digest) -> bool {
    let Act::Upload { digest, content, sent } = &put.op.act else { return false };
    let is_ours = (&put.op.who, &put.op.scope) == (&at.op.who, &at.op.scope);
    // That the bytes are those of the name is another rule's.
    let was_whole = *digest == wanted && *sent == content.size;
    let may_be_there = put.op.end.is_unknown() || matches!(put.op.end, End::Done { .. });
    is_ours && was_whole && may_be_there && put.op.from < at.op.to
}

/// A change in a scope that whoever asks may not write.
fn writes(history: &History<'_>, at: &At<'_>) -> Option<String> {
    let who = history.setting.principals.get(&at.op.who)?;
    let is_own = who.writes.as_ref() == Some(&at.op.scope);
    let changed = match &at.op.act {
        Act::Upload { .. } | Act::Publish { .. } | Act::Release { .. } | Act::Renew { .. } => {
            matches!(at.op.end, End::Done { .. } | End::Renewed { .. } | End::Winner { .. })
        }
        Act::Acquire { .. } => matches!(at.op.end, End::Granted { .. }),
        Act::Read { .. } | Act::LetGo { .. } | Act::Fetch { .. } => false,
    };
    (changed && !is_own).then(|| format!("{} changed {}, which is not theirs", at.op.who, at.op.scope))
}
