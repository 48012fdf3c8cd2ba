//! Which result should go first.
//!
//! The one whose last use lies longest ago, where each millisecond that a KiB of it took to compile counts as if it had been
//! used an hour later, up to a week: `idle - min(1 h x cost_ms / KiB, 7 days)`. So of two that are as old as each other the one that is
//! cheap to make again goes, and what was expensive does not stay for ever. (GreedyDual-Size-Frequency's idea, without a
//! state to keep.)

use crate::results::Standing;

/// What a millisecond for each KiB is worth, in seconds.
const BONUS: u64 = 60 * 60;
/// The most that cost is worth, in seconds.
const MAX_BONUS: u64 = 7 * 24 * 60 * 60;
/// What a result takes beside its outputs: its recipe, its row.
const OVERHEAD: u64 = 16 * 1024;

/// How overdue it is, in seconds; the largest goes first.
pub(super) fn overdue(standing: &Standing) -> i64 {
    let kibibytes = standing.bytes.saturating_add(OVERHEAD) / 1024;
    let bonus = standing.cost_ms.saturating_mul(BONUS) / kibibytes.max(1);
    idle(standing).saturating_sub_unsigned(bonus.min(MAX_BONUS))
}

/// How long it has not been used, in seconds.
pub(super) fn idle(standing: &Standing) -> i64 {
    i64::try_from(standing.idle.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pcmcache_shared::{ActionKey, Scope};

    use super::*;

    const HOUR: u64 = 60 * 60;

    fn standing(idle_hours: u64, cost_ms: u64, kibibytes: u64) -> Standing {
        Standing {
            scope: Scope::default(),
            action: ActionKey::of("a"),
            idle: Duration::from_secs(idle_hours * HOUR),
            cost_ms,
            bytes: (kibibytes * 1024).saturating_sub(OVERHEAD),
        }
    }

    #[test]
    fn what_is_expensive_for_its_size_goes_later() {
        // From the first that goes to the last; a large BMI, an object, and what almost nobody could make again.
        let order = [
            standing(300, 3_000, 35_000),
            standing(251, 0, 100),
            standing(300, 2_000, 40),
            standing(249, 2_000, 40),
            standing(300, u64::MAX, 40),
            standing(2, 3_000, 35_000),
            standing(1, 3_000, 35_000),
            standing(10, 2_000, 40),
        ];
        let overdue: Vec<i64> = order.iter().map(overdue).collect();
        assert!(overdue.is_sorted_by(|a, b| a > b), "{overdue:?}");
    }

    #[test]
    fn nothing_stays_for_ever_and_nothing_overflows() {
        let week = 7 * 24;
        assert!(overdue(&standing(week + 2, u64::MAX, 1)) > overdue(&standing(1, 0, u64::MAX / 2048)));
        assert_eq!(
            overdue(&Standing { idle: Duration::MAX, bytes: u64::MAX, ..standing(0, 0, 0) }),
            i64::MAX
        );
    }
}
