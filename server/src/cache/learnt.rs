//! What is known of a unit: its include sets, of every scope of a view.

use std::time::Duration;

use pcmcache_shared::api::limits;
use pcmcache_shared::{Scope, UnitKey};

use super::{Cache, CacheError};
use crate::results::SetRow;
use crate::trust::View;

/// The include sets of a unit, newest first, of each scope of a view in their order. A set that only hidden results stand
/// under is not among them.
#[derive(Debug, Default)]
pub(super) struct Learnt {
    by_scope: Vec<(Scope, Vec<SetRow>)>,
}

impl Learnt {
    /// The sets of the scopes beside the first.
    pub(super) fn beyond(&self) -> impl Iterator<Item = &(Scope, Vec<SetRow>)> {
        self.by_scope.iter().skip(1)
    }

    /// All of them as if they were of one scope: those of the first come first, and no more than a client can know.
    pub(super) fn merged(&self) -> Vec<SetRow> {
        let mut merged: Vec<SetRow> = Vec::new();
        for row in self.by_scope.iter().flat_map(|(_, rows)| rows) {
            match merged.iter_mut().find(|known| known.set == row.set) {
                Some(known) => {
                    let new = row.actions.iter().filter(|action| !known.actions.contains(action));
                    known.actions.extend(new.copied().collect::<Vec<_>>());
                }
                None => merged.push(row.clone()),
            }
        }
        merged.truncate(limits::MAX_SETS);
        merged
    }
}

impl Cache {
    /// What is known of the unit.
    pub(super) async fn learnt(&self, view: &View, unit: Option<UnitKey>) -> Result<Learnt, CacheError> {
        let mut learnt = Learnt::default();
        for scope in view.scopes() {
            let rows = match unit {
                Some(unit) => self.seen_sets(scope, unit).await?,
                None => Vec::new(),
            };
            learnt.by_scope.push((scope.clone(), rows));
        }
        Ok(learnt)
    }

    async fn seen_sets(&self, scope: &Scope, unit: UnitKey) -> Result<Vec<SetRow>, CacheError> {
        let rows = self.rooms.results.sets(scope, unit).await?;
        if self.hidden().is_empty() {
            return Ok(rows);
        }
        let mut seen = Vec::new();
        for SetRow { set, actions: all } in rows {
            let mut actions = Vec::new();
            for action in all {
                let stored = self.rooms.results.get(scope, action).await?;
                if stored.is_some_and(|stored| !self.hides(&stored)) {
                    actions.push(action);
                }
            }
            if !actions.is_empty() {
                seen.push(SetRow { set, actions });
            }
        }
        Ok(seen)
    }

    /// What the unit's newest result cost, where there is one.
    pub(super) async fn expected(
        &self,
        view: &View,
        rows: &[SetRow],
    ) -> Result<Option<Duration>, CacheError> {
        let Some(newest) = rows.iter().find_map(|row| row.actions.first()) else { return Ok(None) };
        for scope in view.scopes() {
            if let Some(stored) = self.rooms.results.get(scope, *newest).await?
                && !self.hides(&stored)
            {
                return Ok(Some(Duration::from_millis(stored.result.cost.wall_ms)));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use pcmcache_shared::{ActionKey, Digest};

    use super::*;

    fn row(set: &str, actions: &[&str]) -> SetRow {
        SetRow { set: Digest::of(set), actions: actions.iter().map(ActionKey::of).collect() }
    }

    #[test]
    fn the_sets_of_all_scopes_are_merged_the_own_ones_first() {
        let scope = |name: &str| name.parse().unwrap();
        let learnt = Learnt {
            by_scope: vec![
                (scope("pr-17"), vec![row("new", &["a"]), row("both", &["b", "c"])]),
                (scope("main"), vec![row("both", &["c", "d"]), row("old", &["e"])]),
            ],
        };
        let merged = learnt.merged();
        assert_eq!(merged, [row("new", &["a"]), row("both", &["b", "c", "d"]), row("old", &["e"])]);
    }

    #[test]
    fn a_client_is_never_offered_more_than_it_can_know() {
        let rows =
            |prefix: &str| (0..limits::MAX_SETS).map(|n| row(&format!("{prefix}{n}"), &["x"])).collect();
        let by_scope = vec![("a".parse().unwrap(), rows("a")), ("b".parse().unwrap(), rows("b"))];
        assert_eq!(Learnt { by_scope }.merged().len(), limits::MAX_SETS);
    }
}
