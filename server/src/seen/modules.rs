//! Which modules miss most, and which take longest, by the names that people use: today's and yesterday's.
//!
//! Bounded by [`MAX_MODULES`]. The misses are counted by the space-saving algorithm (Metwally, Agrawal, El Abbadi:
//! "Efficient computation of frequent and top-k elements in data streams", 2005): a newcomer takes the place and the
//! count of the one that was missed least, so a count may be too high by that one's, and never too low.

use std::collections::{BTreeMap, HashMap};

use pcmcache_shared::{Cost, Scope};
use serde::{Deserialize, Serialize};

/// Modules that are kept of each day, in each of the two lists.
const MAX_MODULES: usize = 1000;

/// A module of a scope, by what people call it.
type Name = (Scope, String);

/// A module that was missed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Missed {
    /// Where.
    pub scope: Scope,
    /// What people call it.
    pub subject: String,
    /// How often.
    pub misses: u64,
}

/// A module that took long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Slow {
    /// Where.
    pub scope: Scope,
    /// What people call it.
    pub subject: String,
    /// The compiler's time, the longest of those days.
    pub wall_ms: u64,
}

/// What is known of modules: today and the day before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Modules {
    day: u64,
    today: Day,
    yesterday: Day,
    /// Whether something is not yet kept for the next start.
    pub(crate) changed: bool,
}

#[derive(Debug, Clone, Default)]
struct Day {
    misses: HashMap<Name, u64>,
    slowest: HashMap<Name, u64>,
}

/// What is kept over a restart.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Kept {
    day: u64,
    today: KeptDay,
    yesterday: KeptDay,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct KeptDay {
    misses: Vec<Missed>,
    slowest: Vec<Slow>,
}

impl Modules {
    pub(super) fn missed(&mut self, scope: &Scope, subject: &str) {
        if subject.is_empty() {
            return;
        }
        self.changed = true;
        let (counts, name) = (&mut self.today.misses, (scope.clone(), subject.to_owned()));
        if let Some(count) = counts.get_mut(&name) {
            *count += 1;
            return;
        }
        let inherited = make_room(counts).unwrap_or(0);
        counts.insert(name, inherited + 1);
    }

    pub(super) fn built(&mut self, scope: &Scope, subject: &str, cost: Cost) {
        if subject.is_empty() {
            return;
        }
        let (slowest, name) = (&mut self.today.slowest, (scope.clone(), subject.to_owned()));
        let before = slowest.get(&name).copied();
        let least = if before.is_none() && slowest.len() >= MAX_MODULES {
            slowest.values().min().copied()
        } else {
            before
        };
        if least.is_some_and(|least| cost.wall_ms <= least) {
            return;
        }
        self.changed = true;
        if before.is_none() {
            make_room(slowest);
        }
        slowest.insert(name, cost.wall_ms);
    }

    /// It is this day. Another than before begins anew, and what was counted is yesterday's: also where the clock was
    /// set, since a day too short is better than one that never ends.
    pub(crate) fn turn(&mut self, day: u64) {
        if self.day == 0 {
            self.day = day;
        } else if self.day != day {
            self.day = day;
            self.yesterday = std::mem::take(&mut self.today);
            self.changed = true;
        }
    }

    pub(super) fn most_missed(&self, at_most: usize, sees: impl Fn(&Scope) -> bool) -> Vec<Missed> {
        let mut sum: HashMap<&Name, u64> = HashMap::new();
        for (name, count) in self.days(|day| &day.misses).filter(|((scope, _), _)| sees(scope)) {
            *sum.entry(name).or_default() += count;
        }
        let row = |(scope, subject): &Name, misses| Missed {
            scope: scope.clone(),
            subject: subject.clone(),
            misses,
        };
        largest(sum, at_most).into_iter().map(|(name, count)| row(name, count)).collect()
    }

    pub(super) fn slowest(&self, at_most: usize, sees: impl Fn(&Scope) -> bool) -> Vec<Slow> {
        let mut longest: HashMap<&Name, u64> = HashMap::new();
        for (name, wall_ms) in self.days(|day| &day.slowest).filter(|((scope, _), _)| sees(scope)) {
            let known = longest.entry(name).or_default();
            *known = (*known).max(*wall_ms);
        }
        let row = |(scope, subject): &Name, wall_ms| Slow {
            scope: scope.clone(),
            subject: subject.clone(),
            wall_ms,
        };
        largest(longest, at_most).into_iter().map(|(name, wall_ms)| row(name, wall_ms)).collect()
    }

    fn days(&self, of: impl Fn(&Day) -> &HashMap<Name, u64>) -> impl Iterator<Item = (&Name, &u64)> {
        of(&self.today).iter().chain(of(&self.yesterday))
    }

    /// All of it, to be kept.
    pub(crate) fn kept(&self) -> Kept {
        Kept { day: self.day, today: self.today.kept(), yesterday: self.yesterday.kept() }
    }

    /// Takes back what was kept.
    pub(crate) fn restore(&mut self, kept: Kept) {
        let Kept { day, today, yesterday } = kept;
        *self = Self { day, today: Day::of(today), yesterday: Day::of(yesterday), changed: false };
    }
}

impl Day {
    fn kept(&self) -> KeptDay {
        let missed = |((scope, subject), misses): (&Name, &u64)| Missed {
            scope: scope.clone(),
            subject: subject.clone(),
            misses: *misses,
        };
        let slow = |((scope, subject), wall_ms): (&Name, &u64)| Slow {
            scope: scope.clone(),
            subject: subject.clone(),
            wall_ms: *wall_ms,
        };
        KeptDay {
            misses: self.misses.iter().map(missed).collect(),
            slowest: self.slowest.iter().map(slow).collect(),
        }
    }

    fn of(kept: KeptDay) -> Self {
        let misses = kept.misses.into_iter().map(|row| ((row.scope, row.subject), row.misses));
        let slowest = kept.slowest.into_iter().map(|row| ((row.scope, row.subject), row.wall_ms));
        Self { misses: misses.take(MAX_MODULES).collect(), slowest: slowest.take(MAX_MODULES).collect() }
    }
}

/// Where there are too many, the least goes; says which number it had.
fn make_room(numbers: &mut HashMap<Name, u64>) -> Option<u64> {
    if numbers.len() < MAX_MODULES {
        return None;
    }
    let least = numbers.iter().min_by_key(|(_, number)| **number)?.0.clone();
    numbers.remove(&least)
}

/// The largest numbers, the largest first; of equal ones in the order of their names.
fn largest(numbers: HashMap<&Name, u64>, at_most: usize) -> Vec<(&Name, u64)> {
    let sorted: BTreeMap<_, _> =
        numbers.into_iter().map(|(name, number)| ((u64::MAX - number, name), number)).collect();
    sorted.into_iter().take(at_most).map(|((_, name), number)| (name, number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn main() -> Scope {
        Scope::default()
    }

    fn missed(modules: &Modules, at_most: usize) -> Vec<(String, u64)> {
        modules.most_missed(at_most, |_| true).into_iter().map(|row| (row.subject, row.misses)).collect()
    }

    #[test]
    fn a_frequent_miss_survives_a_flood_of_rare_ones() {
        let mut modules = Modules::default();
        for number in 0..3 * MAX_MODULES {
            modules.missed(&main(), &format!("{number}.cppm"));
            modules.missed(&main(), "std.cppm");
        }
        let most = modules.most_missed(1, |_| true);
        assert_eq!(most[0].subject, "std.cppm");
        assert!(most[0].misses >= 3 * MAX_MODULES as u64);
        assert_eq!(modules.today.misses.len(), MAX_MODULES);
    }

    #[test]
    fn the_slowest_are_kept_and_a_module_counts_with_its_longest_time() {
        let mut modules = Modules::default();
        for wall_ms in [30, 900, 200] {
            modules.built(&main(), "std.cppm", Cost { wall_ms });
        }
        for number in 0..2 * MAX_MODULES as u64 {
            modules.built(&main(), &format!("{number}.cppm"), Cost { wall_ms: number % 800 });
        }
        let slowest = modules.slowest(2, |_| true);
        assert_eq!((slowest[0].subject.as_str(), slowest[0].wall_ms), ("std.cppm", 900));
        assert_eq!(slowest[1].wall_ms, 799);
        assert_eq!(modules.today.slowest.len(), MAX_MODULES);
    }

    #[test]
    fn two_days_are_kept_and_survive_a_restart() {
        let mut modules = Modules::default();
        modules.turn(100);
        modules.missed(&main(), "a.cppm");
        modules.built(&main(), "a.cppm", Cost { wall_ms: 7 });
        modules.turn(101);
        modules.missed(&main(), "a.cppm");
        modules.missed(&main(), "b.cppm");
        assert_eq!(missed(&modules, 9), [("a.cppm".to_owned(), 2), ("b.cppm".to_owned(), 1)]);
        let mut again = Modules::default();
        again.restore(serde_json::from_slice(&serde_json::to_vec(&modules.kept()).unwrap()).unwrap());
        assert_eq!(missed(&again, 1), missed(&modules, 1));
        assert_eq!(again.slowest(9, |_| true).len(), 1);
        again.turn(102);
        again.turn(103);
        assert_eq!(missed(&again, 9), []);
    }

    #[test]
    fn what_one_may_not_see_is_left_out() {
        let mut modules = Modules::default();
        modules.missed(&main(), "a.cppm");
        modules.missed(&"secret".parse().unwrap(), "b.cppm");
        let seen = modules.most_missed(9, |scope| *scope == main());
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].scope, main());
    }
}
