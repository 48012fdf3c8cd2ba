//! Counts by scope, for at most [`MAX_NAMED`] scopes by name and for all others together.
//!
//! Invariant: no count is ever lost and none ever falls. A scope that was quiet for [`QUIET`] makes room for a newcomer:
//! its counts go over to the others. Should it come back it starts at zero, which Prometheus takes for a restart.

use std::collections::HashMap;
use std::time::Duration;

use pcmcache_shared::Scope;

use crate::clock::Moment;

/// Scopes that have counts of their own.
const MAX_NAMED: usize = 50;
/// How long a scope keeps its place without being heard of.
const QUIET: Duration = Duration::from_secs(10 * 60);

macro_rules! scope_counts {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// What happened in a scope.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, utoipa::ToSchema)]
        pub struct ScopeCounts { $($(#[doc = $doc])* pub $name: u64,)* }

        impl ScopeCounts {
            fn add(&mut self, other: Self) { $(self.$name += other.$name;)* }

            /// Each count's name, what it counts, and its value.
            pub fn table(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), concat!($($doc),*).trim_ascii(), self.$name),)*]
            }
        }
    };
}

scope_counts! {
    /// Results that clients took.
    hits,
    /// Acquires and reads that found no result.
    misses,
    /// Acquires that waited for someone else's build.
    waited,
    /// Results published.
    published,
    /// Results published that differed from the one that was there.
    diverged,
    /// Bytes of the blobs uploaded.
    uploaded_bytes,
    /// Bytes of blobs served.
    served_bytes,
    /// Compiler time of the results that clients took.
    saved_ms,
    /// Compiler time of the results that were published.
    built_ms,
}

/// Whose counts they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// This scope's.
    Scope(Scope),
    /// Those of all scopes that have no counts of their own.
    Others,
}

impl Named {
    /// A scope's name, or `other`.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Scope(scope) => scope.as_str(),
            Self::Others => "other",
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Scopes {
    named: HashMap<Scope, Slot>,
    others: ScopeCounts,
}

#[derive(Debug)]
struct Slot {
    counts: ScopeCounts,
    heard: Moment,
}

impl Scopes {
    /// Where what happens in this scope is counted.
    pub(super) fn of(&mut self, scope: &Scope, now: Moment) -> &mut ScopeCounts {
        if !self.named.contains_key(scope) && !self.has_room(now) {
            return &mut self.others;
        }
        let slot = self
            .named
            .entry(scope.clone())
            .or_insert_with(|| Slot { counts: ScopeCounts::default(), heard: now });
        slot.heard = now;
        &mut slot.counts
    }

    /// Whether there is room for one more by name, be it that of the one who was quiet longest.
    fn has_room(&mut self, now: Moment) -> bool {
        if self.named.len() < MAX_NAMED {
            return true;
        }
        let quietest = self.named.iter().min_by_key(|(_, slot)| slot.heard);
        let Some(scope) =
            quietest.filter(|(_, slot)| now.since(slot.heard) >= QUIET).map(|(scope, _)| scope.clone())
        else {
            return false;
        };
        if let Some(slot) = self.named.remove(&scope) {
            self.others.add(slot.counts);
        }
        true
    }

    pub(super) fn list(&self) -> Vec<(Named, ScopeCounts)> {
        let mut list: Vec<_> =
            self.named.iter().map(|(scope, slot)| (Named::Scope(scope.clone()), slot.counts)).collect();
        list.sort_by(|(a, one), (b, other)| {
            (other.hits + other.misses).cmp(&(one.hits + one.misses)).then_with(|| a.as_str().cmp(b.as_str()))
        });
        if self.others != ScopeCounts::default() {
            list.push((Named::Others, self.others));
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Moment {
        Moment::default() + Duration::from_secs(secs)
    }

    fn scope(number: usize) -> Scope {
        format!("pr-{number}").parse().unwrap()
    }

    fn hits(scopes: &Scopes) -> u64 {
        scopes.list().iter().map(|(_, counts)| counts.hits).sum()
    }

    #[test]
    fn a_flood_of_scopes_is_counted_together_and_nothing_is_lost() {
        let mut scopes = Scopes::default();
        for number in 0..MAX_NAMED + 7 {
            scopes.of(&scope(number), at(1)).hits += 1;
        }
        let list = scopes.list();
        assert_eq!((list.len(), hits(&scopes)), (MAX_NAMED + 1, MAX_NAMED as u64 + 7));
        let (last, counts) = list.last().unwrap();
        assert_eq!((last.as_str(), counts.hits), ("other", 7));
    }

    #[test]
    fn a_quiet_scope_makes_room_and_its_counts_stay() {
        let mut scopes = Scopes::default();
        for number in 0..MAX_NAMED {
            scopes.of(&scope(number), at(number as u64)).hits += 1;
        }
        let newcomer: Scope = "main".parse().unwrap();
        let later = QUIET.as_secs();
        scopes.of(&newcomer, at(later - 1)).hits += 1;
        assert!(!scopes.named.contains_key(&newcomer), "nobody was quiet long enough");
        scopes.of(&newcomer, at(later)).hits += 1;
        assert!(scopes.named.contains_key(&newcomer) && !scopes.named.contains_key(&scope(0)));
        assert_eq!((hits(&scopes), scopes.others.hits), (MAX_NAMED as u64 + 2, 2));
    }
}
