//! Hits that nobody reports: a client that is offered include sets with results takes one of those without a word, or
//! computes that none is its own and asks again. So an offer that nobody came back to was taken.
//!
//! Two clients of one unit are not told apart: each that asks again withdraws one offer, whoever's it was.

use std::collections::VecDeque;
use std::time::Duration;

use pcmcache_shared::api::OfferedSet;
use pcmcache_shared::api::acquire::KnownSet;
use pcmcache_shared::{Cost, Digest, Scope, UnitKey};

use crate::clock::Moment;

/// How long a client may take to ask again: it reads what the set names and hashes it.
const ASKS_WITHIN: Duration = Duration::from_secs(3);
/// Offers that are open at once; beyond, the oldest counts as taken.
const MAX_OFFERS: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Offers {
    open: VecDeque<Offer>,
    settled: Vec<(Scope, Cost)>,
}

#[derive(Debug)]
struct Offer {
    scope: Scope,
    unit: UnitKey,
    /// The newest set of the offer.
    set: Digest,
    /// That of the newest result, which stands for the one that is taken.
    cost: Cost,
    due: Moment,
}

impl Offers {
    pub(super) fn push(&mut self, scope: &Scope, unit: UnitKey, sets: &[OfferedSet], now: Moment) {
        let (Some(newest), Some(result)) =
            (sets.first(), sets.iter().find_map(|offered| offered.results.first()))
        else {
            return;
        };
        self.mature(now);
        if self.open.len() >= MAX_OFFERS
            && let Some(oldest) = self.open.pop_front()
        {
            self.settled.push((oldest.scope, oldest.cost));
        }
        let (scope, cost) = (scope.clone(), result.result.cost);
        self.open.push_back(Offer { scope, unit, set: newest.set, cost, due: now + ASKS_WITHIN });
    }

    /// Someone who knows these sets asks about the unit.
    pub(super) fn withdraw(&mut self, scope: &Scope, unit: UnitKey, known: &[KnownSet]) {
        let is_it = |offer: &Offer| {
            offer.unit == unit && offer.scope == *scope && known.iter().any(|known| known.set == offer.set)
        };
        if let Some(index) = self.open.iter().position(is_it) {
            self.open.remove(index);
        }
    }

    /// What was taken since this was asked last.
    pub(super) fn settle(&mut self, now: Moment) -> Vec<(Scope, Cost)> {
        self.mature(now);
        std::mem::take(&mut self.settled)
    }

    fn mature(&mut self, now: Moment) {
        while let Some(offer) = self.open.pop_front_if(|offer| offer.due <= now) {
            self.settled.push((offer.scope, offer.cost));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pcmcache_shared::api::KeyedResult;
    use pcmcache_shared::{ActionKey, ActionResult};

    use super::*;

    fn sets(results: usize) -> Vec<OfferedSet> {
        let cost = Cost { wall_ms: 40 };
        let result = ActionResult { outputs: Vec::new(), cost, builder: String::new(), signature: None };
        let keyed = KeyedResult {
            action: ActionKey::of("a"),
            result,
            scope: Scope::default(),
            writers: Vec::new(),
            blobs: BTreeMap::new(),
        };
        vec![OfferedSet { set: Digest::of("set"), text: String::new(), results: vec![keyed; results] }]
    }

    fn known(set: &str) -> [KnownSet; 1] {
        [KnownSet { set: Digest::of(set), action: None }]
    }

    #[test]
    fn who_does_not_come_back_took_it() {
        let (mut offers, scope, unit) = (Offers::default(), Scope::default(), UnitKey::of("u"));
        let now = Moment::default();
        for _ in 0..2 {
            offers.push(&scope, unit, &sets(1), now);
        }
        offers.push(&scope, unit, &sets(0), now);
        offers.withdraw(&scope, unit, &known("another set"));
        offers.withdraw(&scope, UnitKey::of("v"), &known("set"));
        offers.withdraw(&"pr-1".parse().unwrap(), unit, &known("set"));
        offers.withdraw(&scope, unit, &known("set"));
        assert_eq!(offers.settle(now), []);
        assert_eq!(offers.settle(now + ASKS_WITHIN), [(scope, Cost { wall_ms: 40 })]);
        assert_eq!(offers.settle(now + ASKS_WITHIN), []);
    }

    #[test]
    fn a_flood_is_bounded() {
        let (mut offers, scope) = (Offers::default(), Scope::default());
        for _ in 0..MAX_OFFERS + 3 {
            offers.push(&scope, UnitKey::of("u"), &sets(1), Moment::default());
        }
        assert_eq!((offers.open.len(), offers.settle(Moment::default()).len()), (MAX_OFFERS, 3));
    }
}
