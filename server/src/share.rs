//! How a bounded number of places is shared among scopes: none takes more of them than are still free.
//!
//! So one scope alone takes half of them at most, and whoever floods its own scope leaves places to all others, however many
//! scopes it has. No scope is told from another by who is trusted: that is not known here.

use std::collections::HashMap;

use pcmcache_shared::Scope;

/// Places, and who has how many.
#[derive(Debug)]
pub(crate) struct Shares {
    free: usize,
    taken: HashMap<Scope, usize>,
}

impl Shares {
    pub(crate) fn new(places: usize) -> Self {
        Self { free: places, taken: HashMap::new() }
    }

    /// Takes a place for the scope, if it may have one more.
    pub(crate) fn take(&mut self, scope: &Scope) -> bool {
        let mine = self.taken.get(scope).copied().unwrap_or_default();
        if mine >= self.free {
            return false;
        }
        self.force(scope);
        true
    }

    /// Takes a place whether or not there is one.
    pub(crate) fn force(&mut self, scope: &Scope) {
        self.free = self.free.saturating_sub(1);
        *self.taken.entry(scope.clone()).or_default() += 1;
    }

    /// Gives a place of the scope back.
    pub(crate) fn give_back(&mut self, scope: &Scope) {
        let Some(mine) = self.taken.get_mut(scope) else { return };
        *mine -= 1;
        self.free += 1;
        if *mine == 0 {
            self.taken.remove(scope);
        }
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(shares: &mut Shares, scope: &str) -> usize {
        let scope = scope.parse().unwrap();
        (0..1000).take_while(|_| shares.take(&scope)).count()
    }

    #[test]
    fn whoever_floods_leaves_places_to_others() {
        let mut shares = Shares::new(100);
        assert_eq!(fill(&mut shares, "pr-1"), 50);
        assert_eq!(fill(&mut shares, "pr-2"), 25);
        assert_eq!(fill(&mut shares, "pr-1"), 0);
        assert!(fill(&mut shares, "main") > 10);
        let before = shares.taken();
        shares.give_back(&"pr-1".parse().unwrap());
        shares.give_back(&"never".parse().unwrap());
        assert_eq!(shares.taken(), before - 1);
        assert_eq!(fill(&mut Shares::new(1), "main"), 1);
        assert_eq!(fill(&mut Shares::new(0), "main"), 0);
    }
}
