//! Once all faults are over, each key has a result or gets one: whoever asks is given it, or the lease, and can publish.

use super::super::line::{Act, End};
use super::Violation;
use super::known::{At, History};

pub(super) fn rule(history: &History<'_>) -> Vec<Violation> {
    let settling = history.ops.iter().filter(|at| at.op.settling);
    let stuck = settling.filter_map(|at| {
        let what = stuck(history, at)?;
        Some(Violation {
            rule: "settled",
            what: format!("{what}, after all faults were over"),
            lines: vec![at.line],
        })
    });
    stuck.collect()
}

fn stuck(history: &History<'_>, at: &At<'_>) -> Option<String> {
    let key = at.op.act.key().unwrap_or_default();
    let is_full =
        history.setting.may_evict && matches!(&at.op.end, End::Refused { code, .. } if code == "store_full");
    match (&at.op.act, &at.op.end) {
        (Act::Acquire { .. }, End::Found { .. } | End::Granted { .. }) => None,
        (Act::Acquire { .. }, End::Alone { reason }) if reason.contains("released") => None,
        (Act::Acquire { .. }, end) => Some(format!("{key} ends in {end:?}")),
        (Act::Upload { .. } | Act::Publish { .. }, End::Done { .. } | End::Winner { .. }) => None,
        // Another builds it, who settles it.
        (Act::Publish { .. }, End::Refused { code, .. }) if code == "lease_held" => None,
        (Act::Upload { .. } | Act::Publish { .. }, end) if !is_full => {
            Some(format!("{key} cannot be published: {end:?}"))
        }
        (Act::Read { .. }, End::Found { .. }) => None,
        (Act::Read { .. }, end) if !history.setting.may_evict => {
            Some(format!("{key} cannot be read: {end:?}"))
        }
        _ => None,
    }
}
