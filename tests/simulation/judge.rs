//! Who watches: all that happens in a world is told here, is written down as a line of its trace, and is held against what the
//! cache promises. Nothing here asks the programs; it goes by what they answered, what the store was told, and the world's time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use pcmcache_shared::{ActionKey, Claim, Digest, Fence, Output, Scope};
use tokio::time::Instant;

/// How long after a reason to look again a waiter may take to have looked: nothing that it does for that takes any time in a
/// world, and every poll is a second or more away.
const AT_ONCE: Duration = Duration::from_millis(100);
/// By how much two clocks that are read at one moment may differ.
const SLACK: Duration = Duration::from_millis(5);
/// More violations than that teach nothing.
const MOST: usize = 20;

/// A claim of a scope.
pub(crate) type At = (Scope, Claim);
/// A result's name.
pub(crate) type Named = (Scope, ActionKey);

/// See the module.
#[derive(Debug)]
pub(crate) struct Judge {
    start: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    trace: Vec<String>,
    violations: Vec<String>,
    /// What anybody ever got as the result of a key.
    answers: BTreeMap<Named, Vec<Output>>,
    /// When a result became durable.
    committed: BTreeMap<Named, Instant>,
    /// By the scopes that their publishers read.
    acknowledged: BTreeSet<(Vec<Scope>, ActionKey)>,
    last_fence: u64,
    /// The last one that a restart knows of. Nobody was told of those after it.
    durable_fence: u64,
    leases: BTreeMap<At, Ledgered>,
    /// By fence: on what, and when.
    grants: BTreeMap<u64, (At, Instant)>,
    built: BTreeMap<Named, BTreeSet<u64>>,
    /// Leases that ended without a result of theirs.
    lost: BTreeMap<At, u64>,
    waiting: BTreeMap<u64, Waiting>,
    handoffs: Vec<(At, Instant)>,
    last_stream: u64,
    counts: Counts,
}

/// What happened, in numbers.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    /// Leases granted.
    pub(crate) grants: u64,
    /// Results made durable.
    pub(crate) commits: u64,
    /// Results got from the server.
    pub(crate) hits: u64,
    /// Compilers run.
    pub(crate) builds: u64,
    /// Those without a lease.
    pub(crate) alone: u64,
    /// Publishes that came second.
    pub(crate) winners: u64,
    /// Starts of the server after a crash or a stop.
    pub(crate) restarts: u64,
    /// Waiters who had their answer because something happened.
    pub(crate) woken: u64,
    /// Requests that the server answered.
    pub(crate) requests: u64,
    /// The longest that hosts went on once all was well, in seconds.
    pub(crate) longest_s: u64,
}

impl Counts {
    /// Both.
    pub(crate) fn add(&mut self, other: Self) {
        self.grants += other.grants;
        self.commits += other.commits;
        self.hits += other.hits;
        self.builds += other.builds;
        self.alone += other.alone;
        self.winners += other.winners;
        self.restarts += other.restarts;
        self.woken += other.woken;
        self.requests += other.requests;
        self.longest_s = self.longest_s.max(other.longest_s);
    }
}

/// A lease as its store said it is, in the world's time.
#[derive(Debug, Clone, Copy)]
struct Ledgered {
    fence: u64,
    until: Instant,
    is_durable: bool,
}

/// An acquire that was told `busy`.
#[derive(Debug)]
struct Waiting {
    scope: Scope,
    claims: Vec<Claim>,
    /// Whether it would take a lease.
    takes: bool,
    since: Instant,
    /// When it must have its answer.
    due: Option<Instant>,
}

impl Waiting {
    fn is_at(&self, (scope, claim): &At) -> bool {
        self.scope == *scope && self.claims.contains(claim)
    }
}

/// The first digits of a name.
pub(crate) fn short(name: impl Display) -> String {
    name.to_string().chars().take(6).collect()
}

impl Judge {
    /// Of a world that begins now.
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no judge panics")
    }

    /// A line of the trace.
    pub(crate) fn say(&self, who: &str, what: impl Display) {
        let line = format!("{:>10.3} {who}: {what}", self.start.elapsed().as_secs_f64());
        self.state().trace.push(line);
    }

    /// A promise was broken.
    pub(crate) fn blame(&self, what: impl Display) {
        self.say("JUDGE", &what);
        let (at, mut state) = (self.start.elapsed(), self.state());
        if state.violations.len() < MOST {
            state.violations.push(format!("at {:.3} s: {what}", at.as_secs_f64()));
        }
    }

    /// Counts.
    pub(crate) fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.state().counts);
    }

    /// All that was written down and found.
    pub(crate) fn verdict(&self) -> (Vec<String>, Vec<String>, Counts) {
        let state = self.state();
        (state.trace.clone(), state.violations.clone(), state.counts)
    }

    // Results.

    /// Somebody was told that this is the result of its key. It must be what everybody else is told.
    pub(crate) fn told(&self, who: &str, named: &Named, outputs: &[Output]) {
        let mut outputs = outputs.to_vec();
        outputs.sort();
        let first = self.state().answers.entry(named.clone()).or_insert_with(|| outputs.clone()).clone();
        if first != outputs {
            self.blame(format!(
                "create-once: {who} got another result of {} {} than was seen before",
                named.0,
                short(named.1)
            ));
        }
    }

    /// A result is durable.
    pub(crate) fn committed(&self, named: &Named, outputs: &[Output], claims: &[Claim]) {
        self.say("store", format!("committed {} {}", named.0, short(named.1)));
        let now = Instant::now();
        let mut state = self.state();
        state.counts.commits += 1;
        let is_second = state.committed.insert(named.clone(), now).is_some();
        for waiting in state.waiting.values_mut() {
            if waiting.scope == named.0 && claims.iter().any(|claim| waiting.claims.contains(claim)) {
                waiting.due.get_or_insert(now + AT_ONCE);
            }
        }
        drop(state);
        if is_second {
            self.blame(format!("create-once: {} {} was created a second time", named.0, short(named.1)));
        }
        self.told("the store", named, outputs);
    }

    /// A publisher who reads these scopes was told that the result is there.
    pub(crate) fn acknowledged(&self, reads: &[Scope], action: ActionKey) {
        self.state().acknowledged.insert((reads.to_vec(), action));
    }

    /// The results that publishers were told are there, in one of these scopes each.
    pub(crate) fn all_acknowledged(&self) -> Vec<(Vec<Scope>, ActionKey)> {
        self.state().acknowledged.iter().cloned().collect()
    }

    /// What everybody got as the result.
    pub(crate) fn answer(&self, named: &Named) -> Option<Vec<Output>> {
        self.state().answers.get(named).cloned()
    }

    /// The blobs of all results in that scope.
    pub(crate) fn blobs_of(&self, scope: &Scope) -> Vec<(Digest, u64)> {
        let state = self.state();
        let of_scope = state.answers.iter().filter(|((of, _), _)| of == scope);
        of_scope.flat_map(|(_, outputs)| outputs).map(|output| (output.digest, output.size)).collect()
    }

    // Leases.

    /// The store has a new lease in memory; `until` is when it ends by itself.
    pub(crate) fn granted(&self, at: &At, fence: Fence, until: Instant) {
        self.say("store", format!("lease {} {} fence {}", at.0, short(at.1), fence.0));
        let now = Instant::now();
        let mut state = self.state();
        let last = state.last_fence;
        state.last_fence = last.max(fence.0);
        state.handoffs.retain(|(of, _)| of != at);
        let before = state.leases.insert(at.clone(), Ledgered { fence: fence.0, until, is_durable: false });
        state.grants.insert(fence.0, (at.clone(), now));
        state.counts.grants += 1;
        if before.is_some() {
            *state.lost.entry(at.clone()).or_default() += 1;
        }
        drop(state);
        if fence.0 <= last {
            self.blame(format!("fences: {} was granted after {last}", fence.0));
        }
        if let Some(before) = before.filter(|before| before.until > now + SLACK) {
            let left = before.until - now;
            self.blame(format!(
                "one lease: {} {} was granted while {} lived for another {left:?}",
                at.0,
                short(at.1),
                before.fence
            ));
        }
        self.look();
    }

    /// Its row is written, so a restart knows it.
    pub(crate) fn lease_is_durable(&self, at: &At, fence: Fence) {
        let mut state = self.state();
        if let Some(lease) = state.leases.get_mut(at).filter(|lease| lease.fence == fence.0) {
            lease.is_durable = true;
            state.durable_fence = state.durable_fence.max(fence.0);
        }
    }

    /// It lives until then.
    pub(crate) fn lease_lives(&self, at: &At, fence: Fence, until: Instant) {
        let mut state = self.state();
        if let Some(lease) = state.leases.get_mut(at).filter(|lease| lease.fence == fence.0) {
            lease.until = until;
        }
    }

    /// It lives until then at most.
    pub(crate) fn lease_shrinks(&self, at: &At, fence: Fence, until: Instant) {
        self.say(
            "store",
            format!("lease {} {} fence {} has only the grace left", at.0, short(at.1), fence.0),
        );
        let mut state = self.state();
        if let Some(lease) = state.leases.get_mut(at).filter(|lease| lease.fence == fence.0) {
            lease.until = lease.until.min(until);
        }
    }

    /// It ended before its time.
    pub(crate) fn lease_ended(&self, at: &At, fence: Fence) {
        self.say("store", format!("lease {} {} fence {} ended", at.0, short(at.1), fence.0));
        let now = Instant::now();
        let mut state = self.state();
        if state.leases.get(at).is_none_or(|lease| lease.fence != fence.0) {
            return;
        }
        state.leases.remove(at);
        if state.waiting.values().any(|waiting| waiting.takes && waiting.due.is_none() && waiting.is_at(at)) {
            state.handoffs.push((at.clone(), now + AT_ONCE));
        }
        *state.lost.entry(at.clone()).or_default() += 1;
    }

    /// The server is gone: nobody waits there any more, and a lease without a row never was.
    pub(crate) fn crashed(&self) {
        let mut state = self.state();
        state.waiting.clear();
        state.handoffs.clear();
        state.last_fence = state.durable_fence;
        let gone: Vec<At> =
            state.leases.iter().filter(|(_, lease)| !lease.is_durable).map(|(at, _)| at.clone()).collect();
        for at in gone {
            state.leases.remove(&at);
            *state.lost.entry(at).or_default() += 1;
        }
    }

    /// A server is back that knows these leases, each until then.
    pub(crate) fn restored(&self, at: &At, fence: Fence, until: Instant) {
        let mut state = self.state();
        state.leases.insert(at.clone(), Ledgered { fence: fence.0, until, is_durable: true });
    }

    // Builds.

    /// A compiler starts, under this lease if there is one.
    pub(crate) fn builds(&self, who: &str, named: &Named, reads: &[Scope], fence: Option<Fence>) {
        let mut state = self.state();
        state.counts.builds += 1;
        let Some(fence) = fence else {
            state.counts.alone += 1;
            return;
        };
        let granted = state.grants.get(&fence.0).cloned();
        let committed =
            reads.iter().filter_map(|scope| state.committed.get(&(scope.clone(), named.1))).min().copied();
        let is_first = state.built.entry(named.clone()).or_default().insert(fence.0);
        drop(state);
        match (granted, committed) {
            (None, _) => self.blame(format!("{who} holds the fence {} that nobody granted", fence.0)),
            (Some((_, granted)), Some(committed)) if committed + SLACK < granted => {
                self.blame(format!(
                    "{who} was told to build {} {}, which was there",
                    named.0,
                    short(named.1)
                ));
            }
            _ if !is_first => self.blame(format!("two builds under the fence {}", fence.0)),
            _ => {}
        }
    }

    /// No key was built under more leases than one and those that were lost; call it at the end.
    pub(crate) fn count_builds(&self, named: &Named, claims: &[Claim]) {
        let state = self.state();
        let built = state.built.get(named).map_or(0, BTreeSet::len) as u64;
        let of_key = |at: &&At| at.0 == named.0 && claims.contains(&at.1);
        let lost: u64 = state.lost.iter().filter(|(at, _)| of_key(at)).map(|(_, lost)| *lost).sum();
        let live = state.leases.keys().filter(of_key).count() as u64;
        drop(state);
        if built > 1 + lost + live {
            self.blame(format!(
                "{} {} was built {built} times under leases, {lost} of which were lost",
                named.0,
                short(named.1)
            ));
        }
    }

    // Waiters.

    /// Someone was told `busy`. Gives the wait's number.
    pub(crate) fn waits(&self, scope: &Scope, claims: Vec<Claim>, takes: bool) -> u64 {
        let mut state = self.state();
        state.last_stream += 1;
        let number = state.last_stream;
        let waiting = Waiting { scope: scope.clone(), claims, takes, since: Instant::now(), due: None };
        state.waiting.insert(number, waiting);
        number
    }

    /// That wait has its answer, or whoever waited is gone.
    pub(crate) fn waited(&self, number: u64, is_answer: bool) {
        let now = Instant::now();
        let mut state = self.state();
        let Some(waiting) = state.waiting.remove(&number) else { return };
        state.counts.woken += u64::from(is_answer && waiting.due.is_some());
        drop(state);
        if let Some(late) = waiting.due.filter(|due| *due < now) {
            let late = now - late + AT_ONCE;
            self.blame(format!(
                "a waiter for {} heard of the result after {late:?}",
                short(waiting.claims[0])
            ));
        }
        self.look();
    }

    /// Whether somebody should have been woken by now.
    pub(crate) fn look(&self) {
        let now = Instant::now();
        let mut state = self.state();
        let mut found = Vec::new();
        let State { handoffs, waiting, leases, .. } = &mut *state;
        // Who waits for two claims, because it does not know yet which it is, is kept by either.
        let is_kept = |waiting: &Waiting| {
            let mut at = waiting.claims.iter().map(|claim| (waiting.scope.clone(), *claim));
            at.any(|at| leases.get(&at).is_some_and(|lease| lease.until > now))
        };
        let waits_since = |at: &At, before: Instant| {
            let mut here = waiting.values().filter(|waiting| waiting.is_at(at));
            here.any(|waiting| waiting.takes && waiting.since < before && !is_kept(waiting))
        };
        handoffs.retain(|(at, due)| {
            let is_over = *due < now;
            if is_over && waits_since(at, *due - AT_ONCE) && !leases.contains_key(at) {
                found.push(format!(
                    "nobody who waits was given {} {}, which was given back",
                    at.0,
                    short(at.1)
                ));
            }
            !is_over
        });
        for (at, lease) in leases.iter() {
            if lease.until + AT_ONCE < now && waits_since(at, lease.until) {
                found.push(format!("nobody who waits was given {} {}, which ran out", at.0, short(at.1)));
            }
        }
        drop(state);
        found.into_iter().for_each(|what| self.blame(what));
    }
}
