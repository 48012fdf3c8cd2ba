//! Keeping the store within its bound: what was not used for longest goes.
//!
//! "Used" is the time of a result's file, renewed by hits (see `sealed`). What only that result names goes with it.
//! Invariant: a result is removed before what it names, and only by unlink, so a launcher that is reading reads on, and
//! one that comes too late has a miss. Whatever was used, written or replaced since it was found stays. Crash story:
//! killed in between, blobs are left that no result names; the next trim removes them once they are an hour old (a
//! younger one may belong to a launcher that is about to store its result).

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::fill::{PAGE, TrimLock, high_water, low_water};
use super::inventory::Found;
use super::{Kind, Store, sealed};
use crate::os::{self, Moment};
use crate::size::ByteSize;

/// The hidden first argument that makes this program a trimmer.
pub const TRIMMER: &str = "--pcmcache-trim";

/// Nobody works on a stage, or stores a result for its blobs, for longer.
const ABANDONED: Duration = Duration::from_secs(3600);
/// A BMI of ours that nobody has imported for so long is foreign from then on.
const MARKED_FOR: Duration = Duration::from_secs(90 * 24 * 3600);
/// A trim looks again while launchers store as fast as it removes, but not for ever.
const MAX_ROUNDS: u32 = 8;

/// What a trim came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trimmed {
    /// Results that were removed.
    pub results: u64,
    /// Blobs that were removed.
    pub blobs: u64,
    /// Other files that were removed: include sets, memos, stages, locks, what was set aside.
    pub others: u64,
    /// What the removed files took on the disk.
    pub freed: ByteSize,
    /// What the rest takes.
    pub kept: ByteSize,
}

/// Files that are used together, and go together.
struct Holding {
    used: Moment,
    /// The result first.
    files: Vec<Found>,
    /// Names of blobs, which others may name too.
    blobs: Vec<String>,
}

impl Holding {
    /// What a clock that was ahead says was used last of all would stay the last to go.
    fn age_from_now_on(&self) {
        let now = Moment::now();
        let ahead = |file: &&Found| now.is_before(file.used, sealed::RENEW_AFTER);
        self.files.iter().filter(ahead).for_each(|file| os::renew(&file.path));
    }
}

/// Starts a process that trims. It outlives the launcher, which must not keep a build waiting; the lock goes along as
/// its standard input, so there is never more than one.
pub fn start_trimmer(lock: TrimLock) {
    let (file, _) = lock.0.into_parts();
    os::start_apart(TRIMMER, file);
}

impl Store {
    /// What the trimmer does, until launchers have stopped to fill the store faster than it empties it. The caller has
    /// the lock.
    pub fn trim_as_needed(&self, bound: Option<ByteSize>) {
        for _ in 0..MAX_ROUNDS {
            let target = bound.map(low_water);
            self.trim(target);
            if bound.is_none_or(|bound| self.pages() * PAGE <= high_water(bound).0) {
                return;
            }
        }
    }

    /// Removes what was not used for longest until at most `target` is left, and what is of no use to anyone in any
    /// case. The caller has the lock.
    pub fn trim(&self, target: Option<ByteSize>) -> Trimmed {
        let before = self.pages();
        let mut removal = Removal { store: self, done: Trimmed::default(), in_work: 0 };
        removal.tidy();
        let (mut holdings, blobs) = removal.holdings();
        holdings.sort_by_key(|holding| std::cmp::Reverse(holding.used));
        let budget = target.map_or(u64::MAX, |target| target.0 / PAGE).saturating_sub(removal.in_work);
        let (kept, going) = split(holdings, &blobs, budget);
        kept.iter().for_each(Holding::age_from_now_on);
        let stays = removal.remove(kept, going, &blobs);
        let pages = removal.in_work + stays;
        removal.done.kept = ByteSize(pages * PAGE);
        let done = removal.done;
        let _ = self.set_pages(before, pages);
        os::renew(&self.root().join("trim.lock"));
        done
    }
}

/// Keeps holdings, newest first, as long as they and the blobs they name fit.
fn split(
    holdings: Vec<Holding>,
    blobs: &HashMap<String, Found>,
    budget: u64,
) -> (Vec<Holding>, Vec<Holding>) {
    let mut pages = 0;
    let mut counted = HashSet::new();
    let mut fits = |holding: &Holding| {
        pages += holding.files.iter().map(|file| file.pages).sum::<u64>();
        for name in &holding.blobs {
            if let Some(blob) = blobs.get(name).filter(|_| counted.insert(name.clone())) {
                pages += blob.pages;
            }
        }
        pages <= budget
    };
    let end = holdings.iter().position(|holding| !fits(holding)).unwrap_or(holdings.len());
    let mut kept = holdings;
    let going = kept.split_off(end);
    (kept, going)
}

/// One trim under way.
struct Removal<'a> {
    store: &'a Store,
    done: Trimmed,
    /// Pages of files that running launchers are writing.
    in_work: u64,
}

impl Removal<'_> {
    /// Removes what is of no use: abandoned stages, locks that nobody holds, marks of BMIs long forgotten.
    fn tidy(&mut self) {
        let now = Moment::now();
        let stages = Kind::ALL.into_iter().flat_map(|kind| self.store.inventory(kind));
        let stages = stages.chain(self.store.loose_files()).filter(Found::is_stage);
        for stage in stages.collect::<Vec<_>>() {
            if stage.used.is_apart(now, ABANDONED) {
                self.remove_other(&stage);
            } else {
                self.in_work += stage.pages;
            }
        }
        for lock in self.store.inventory(Kind::Locks) {
            if lock.used.is_apart(now, ABANDONED) && self.store.remove_lock(&lock) {
                self.done.others += 1;
            }
        }
        self.store.expire_queue();
        self.in_work += self.store.queue().iter().map(|queued| queued.pages).sum::<u64>();
        for mark in self.store.inventory(Kind::Embedded) {
            if mark.used.is_before(now, MARKED_FOR) {
                self.remove_other(&mark);
            } else {
                self.in_work += mark.pages;
            }
        }
    }

    /// Everything that may go, by what is used together; and the blobs by their names.
    fn holdings(&mut self) -> (Vec<Holding>, HashMap<String, Found>) {
        let mut holdings = Vec::new();
        let list = |kind| {
            let found = self.store.inventory(kind).into_iter().filter(|found| !found.is_stage());
            found.map(|found| (found.name.clone(), found)).collect::<HashMap<_, _>>()
        };
        let blobs = list(Kind::Blobs);
        let mut commands = list(Kind::Commands);
        let mut named = HashSet::new();
        for (name, result) in list(Kind::Results) {
            let outputs = name.parse().ok().and_then(|action| self.store.peek_result(action));
            let outputs = outputs.into_iter().flat_map(|kept| kept.result.outputs);
            let mut names: Vec<String> = outputs.map(|output| output.digest.to_string()).collect();
            let command = commands.remove(&name);
            // The recipe is the blob that is named like the action.
            names.push(name);
            named.extend(names.iter().cloned());
            let used = result.used;
            holdings.push(Holding {
                used,
                files: std::iter::once(result).chain(command).collect(),
                blobs: names,
            });
        }
        for kind in [Kind::Units, Kind::Near, Kind::Memo, Kind::Damaged] {
            for (_, file) in list(kind) {
                // An include set's time is renewed at most so much earlier than that of its results: it goes after them.
                let used = file.used.later(sealed::RENEW_AFTER);
                holdings.push(Holding { used, files: vec![file], blobs: Vec::new() });
            }
        }
        let orphans = blobs.values().filter(|blob| !named.contains(&blob.name)).cloned();
        holdings.extend(self.still_wanted(orphans.chain(commands.into_values())));
        (holdings, blobs)
    }

    /// Of what no result names, that which is young enough to belong to a launcher at work. The rest is removed.
    fn still_wanted(&mut self, orphans: impl Iterator<Item = Found>) -> Vec<Holding> {
        let now = Moment::now();
        let mut wanted = Vec::new();
        for orphan in orphans {
            if !orphan.used.is_apart(now, ABANDONED) {
                wanted.push(Holding { used: orphan.used, files: vec![orphan], blobs: Vec::new() });
            } else if orphan.is_as_found() {
                self.remove_blob(&orphan);
            }
        }
        wanted
    }

    /// Removes what goes, but for what was used since it was found. Gives the pages that stay.
    fn remove(&mut self, mut kept: Vec<Holding>, going: Vec<Holding>, blobs: &HashMap<String, Found>) -> u64 {
        let mut loose = Vec::new();
        for holding in going {
            let still = holding.files.first().is_some_and(Found::is_as_found);
            if !still || !self.remove_files(&holding) {
                kept.push(holding);
                continue;
            }
            loose.extend(holding.blobs);
        }
        let mut named: HashSet<&String> = HashSet::new();
        let mut pages = 0;
        for holding in &kept {
            pages += holding.files.iter().map(|file| file.pages).sum::<u64>();
            for name in &holding.blobs {
                pages += blobs.get(name).filter(|_| named.insert(name)).map_or(0, |blob| blob.pages);
            }
        }
        for name in loose.iter().collect::<HashSet<_>>().difference(&named) {
            match blobs.get(*name) {
                Some(blob) if blob.is_as_found() => self.remove_blob(blob),
                Some(blob) => pages += blob.pages,
                None => {}
            }
        }
        pages
    }

    fn remove_files(&mut self, holding: &Holding) -> bool {
        let is_result = !holding.blobs.is_empty();
        for (index, file) in holding.files.iter().enumerate() {
            if !file.remove() {
                return false;
            }
            self.done.freed.0 += file.pages * PAGE;
            *if is_result && index == 0 { &mut self.done.results } else { &mut self.done.others } += 1;
        }
        true
    }

    fn remove_blob(&mut self, blob: &Found) {
        if blob.remove() {
            self.done.blobs += 1;
            self.done.freed.0 += blob.pages * PAGE;
        }
    }

    fn remove_other(&mut self, file: &Found) {
        if file.remove() {
            self.done.others += 1;
            self.done.freed.0 += file.pages * PAGE;
        }
    }
}
