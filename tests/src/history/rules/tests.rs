//! Histories made by hand: one that is right, and for each demand one that breaks it.

use std::collections::BTreeMap;

use pcmcache_shared::Digest;

use super::super::contents::Content;
use super::super::line::{Act, End, Fault, Line, Op, Principal, Setting, Sight, Us, What};
use super::check;

/// A history that is being written.
struct Draft(Vec<Line>);

const A: Content = Content { seed: 1, size: 40 };
const B: Content = Content { seed: 2, size: 40 };

fn draft(rate: u64, may_evict: bool) -> Draft {
    let principal = |id: &str, writes: &str, reads: &[&str]| {
        let reads = reads.iter().map(|read| (*read).to_owned()).collect();
        Principal { id: id.to_owned(), writes: Some(writes.to_owned()), reads }
    };
    let principals = BTreeMap::from([
        ("ci".to_owned(), principal("t-ci", "main", &[])),
        ("pr".to_owned(), principal("t-pr", "pr-1", &["main"])),
    ]);
    Draft(vec![Line::Setting(Setting { seed: 1, rate, may_evict, principals })])
}

fn key() -> String {
    "k".to_owned()
}

fn read() -> Act {
    Act::Read { key: key() }
}

fn publish(build: &str, output: Content, fence: Option<u64>) -> Act {
    Act::Publish { key: key(), build: build.to_owned(), outputs: vec![output], fence }
}

fn acquire(request: &str) -> Act {
    Act::Acquire { key: key(), request: request.to_owned(), wait: 0, hold: true }
}

fn upload(content: Content, sent: u64) -> Act {
    Act::Upload { digest: content.digest(), content, sent }
}

fn granted(fence: u64) -> End {
    End::Granted { fence, ttl_ms: 15_000 }
}

fn sight(scope: &str, build: &str, output: Content) -> Sight {
    let writer = if scope == "main" { "t-ci" } else { "t-pr" };
    let (scope, build, writers) = (scope.to_owned(), build.to_owned(), vec![writer.to_owned()]);
    Sight { scope, build, outputs: vec![output.digest()], writers, inline: Vec::new() }
}

fn found(build: &str, output: Content) -> End {
    End::Found { result: sight("main", build, output) }
}

fn refused(status: u16, code: &str) -> End {
    End::Refused { status, code: code.to_owned(), missing: Vec::new() }
}

const STORED: End = End::Done { status: 201 };
const SAME: End = End::Done { status: 200 };

impl Draft {
    /// An operation of CI's.
    fn op(self, from: Us, to: Us, act: Act, end: End) -> Self {
        self.op_of(("ci", "main"), from, to, act, end)
    }

    fn op_of(mut self, (who, scope): (&str, &str), from: Us, to: Us, act: Act, end: End) -> Self {
        let (who, scope) = (who.to_owned(), scope.to_owned());
        let op = Op { from, to, client: 1, road: 0, who, scope, act, end, settling: false };
        self.0.push(Line::Op(Box::new(op)));
        self
    }

    fn settling(mut self) -> Self {
        if let Some(Line::Op(op)) = self.0.last_mut() {
            op.settling = true;
        }
        self
    }

    fn fault(mut self, from: Us, to: Us, what: What) -> Self {
        self.0.push(Line::Fault(Fault { from, to, what }));
        self
    }

    #[track_caller]
    fn holds(self) {
        assert_eq!(check(&self.0), []);
    }

    /// It breaks this rule, at these lines, and no other.
    #[track_caller]
    fn breaks(self, rule: &str, lines: &[usize]) {
        let found = check(&self.0);
        let [violation] = found.as_slice() else { panic!("{found:#?}") };
        assert_eq!((violation.rule, violation.lines.as_slice()), (rule, lines), "{violation}");
    }
}

#[test]
fn an_ordinary_history_holds() {
    draft(1, false)
        .op(0, 10, read(), End::Absent)
        .op(10, 20, acquire("one"), granted(1))
        .op(15, 30, acquire("two"), End::Busy)
        .op(30, 40, upload(A, 40), STORED)
        .op(40, 60, publish("a", A, Some(1)), STORED)
        .op(50, 55, read(), End::Absent)
        .op(45, 55, read(), found("a", A))
        .op(70, 80, read(), found("a", A))
        .op(
            70,
            80,
            Act::Fetch { digest: A.digest(), range: None },
            End::Bytes { got: A.digest(), length: 40 },
        )
        .op(80, 90, publish("b", B, None), End::Winner { result: sight("main", "a", A) })
        .op(80, 90, publish("c", A, None), SAME)
        .op_of(("pr", "pr-1"), 90, 99, read(), found("a", A))
        .holds();
}

// The register.

#[test]
fn what_was_acknowledged_is_not_lost() {
    draft(1, false)
        .op(0, 10, publish("a", A, None), STORED)
        .op(11, 20, read(), End::Absent)
        .breaks("register", &[2, 3, 2]);
    draft(1, false).op(0, 10, publish("a", A, None), STORED).op(9, 20, read(), End::Absent).holds();
}

#[test]
fn what_was_read_is_not_lost_whoever_published_it() {
    let seen =
        || draft(1, false).op(0, 10, publish("a", A, None), End::Cut).op(20, 30, read(), found("a", A));
    seen().op(31, 40, read(), End::Absent).breaks("register", &[3, 4, 3]);
    seen().op(31, 40, acquire("late"), granted(1)).breaks("register", &[3, 4, 3]);
}

#[test]
fn a_publish_that_was_cut_off_takes_effect_late_or_never() {
    let cut = || draft(1, false).op(0, 10, publish("a", A, None), End::Cut).op(20, 30, read(), End::Absent);
    cut().op(40, 50, read(), found("a", A)).holds();
    cut().op(40, 50, read(), End::Absent).holds();
}

#[test]
fn the_first_result_is_not_replaced() {
    let first = || draft(1, false).op(0, 10, publish("a", A, None), STORED);
    first().op(20, 30, publish("b", B, None), STORED).breaks("register", &[2, 2, 3, 3]);
    first()
        .op(20, 30, publish("b", B, None), End::Cut)
        .op(40, 50, read(), found("b", B))
        .breaks("register", &[2, 2, 4, 4]);
    first().op(20, 30, publish("b", B, None), SAME).breaks("register", &[2, 3, 2]);
}

#[test]
fn what_goes_may_come_again_as_something_new_and_not_before_its_time() {
    let evicting = || draft(600, true).op(0, 10, publish("a", A, None), STORED);
    evicting().op(900_000, 900_010, read(), End::Absent).breaks("register", &[2, 3, 2]);
    let gone = || evicting().op(1_000_001, 1_000_010, read(), End::Absent);
    gone().holds();
    let again = |draft: Draft| draft.op(1_000_020, 1_000_030, publish("b", B, None), STORED);
    again(gone()).op(1_000_040, 1_000_050, read(), found("b", B)).holds();
    again(evicting()).op(1_000_040, 1_000_050, read(), found("a", A)).breaks("register", &[2, 4, 3, 3]);
}

#[test]
fn what_is_read_was_published() {
    draft(1, false).op(0, 10, read(), found("a", A)).breaks("register", &[2]);
    draft(1, false)
        .op(20, 30, publish("a", A, None), STORED)
        .op(0, 10, read(), found("a", A))
        .breaks("register", &[2, 3]);
    draft(1, false)
        .op(0, 10, publish("a", A, None), refused(409, "lease_held"))
        .op(20, 30, read(), found("a", A))
        .breaks("register", &[2, 3]);
}

// Bytes.

#[test]
fn a_result_is_what_its_publisher_sent() {
    let published = || draft(1, false).op(0, 10, publish("a", A, None), STORED);
    published().op(20, 30, read(), found("a", B)).breaks("bytes", &[2, 3]);
    let other = Sight { writers: vec!["t-pr".to_owned()], ..sight("main", "a", A) };
    published().op(20, 30, read(), End::Found { result: other }).breaks("bytes", &[2, 3]);
    let torn = Sight { inline: vec![(A.digest(), B.digest())], ..sight("main", "a", A) };
    published().op(20, 30, read(), End::Found { result: torn }).breaks("bytes", &[3]);
}

#[test]
fn bytes_are_those_of_their_name_and_of_their_place() {
    let fetch = |range, of: &[u8]| {
        let got = End::Bytes { got: Digest::of(of), length: of.len() as u64 };
        draft(1, false).op(0, 10, upload(A, 40), STORED).op(
            20,
            30,
            Act::Fetch { digest: A.digest(), range },
            got,
        )
    };
    let bytes = A.bytes();
    fetch(None, &bytes).holds();
    fetch(None, &bytes[..39]).breaks("bytes", &[3]);
    fetch(Some((5, 15)), &bytes[5..15]).holds();
    fetch(Some((30, 90)), &bytes[30..]).holds();
    fetch(Some((5, 15)), &bytes[6..16]).breaks("bytes", &[3]);
}

#[test]
fn what_was_answered_or_acknowledged_can_be_fetched() {
    let fetch = || Act::Fetch { digest: A.digest(), range: None };
    let uploaded = || draft(1, false).op(0, 10, upload(A, 40), STORED);
    uploaded().op(20, 30, fetch(), refused(404, "no_blob")).breaks("bytes", &[2, 3]);
    let missing = End::Refused { status: 422, code: "missing_blobs".to_owned(), missing: vec![A.digest()] };
    uploaded().op(20, 30, publish("a", A, None), missing).breaks("bytes", &[2, 3]);
    uploaded().op_of(("pr", "pr-1"), 20, 30, fetch(), refused(404, "no_blob")).holds();
    draft(1, false)
        .op(0, 10, publish("a", A, None), STORED)
        .op_of(("pr", "pr-1"), 20, 30, fetch(), refused(404, "no_blob"))
        .breaks("bytes", &[2, 2, 3]);
}

// Leases.

#[test]
fn fences_rise_also_over_restarts_and_a_request_has_one() {
    let other = Act::Acquire { key: "other".to_owned(), request: "two".to_owned(), wait: 0, hold: true };
    let first = || draft(1, false).op(0, 10, acquire("one"), granted(7)).fault(20, 30, What::Kill);
    first().op(40, 50, other.clone(), granted(7)).breaks("leases", &[2, 4]);
    first().op(40, 50, other.clone(), granted(6)).breaks("leases", &[2, 4]);
    first().op(40, 50, other, granted(8)).op(60, 70, acquire("one"), granted(7)).holds();
}

#[test]
fn nobody_is_granted_what_another_holds() {
    let second = 1_000_000;
    let held = |rate| draft(rate, false).op(0, 10, acquire("one"), granted(1));
    let again = |draft: Draft, at: Us| draft.op(at, at + 10, acquire("two"), granted(2));
    again(held(1), 14 * second).breaks("leases", &[2, 3]);
    again(held(1), 15 * second).holds();
    again(held(10), 2 * second).holds();
    let renew = || Act::Renew { key: key(), fence: 1 };
    let renewed = || held(1).op(10 * second, 10 * second + 9, renew(), End::Renewed { ttl_ms: 15_000 });
    again(renewed(), 24 * second).breaks("leases", &[2, 4]);
    again(renewed(), 25 * second).holds();
    let let_go = Act::LetGo { key: key(), fence: 1 };
    again(held(1).op(20, 20, let_go, End::Done { status: 204 }), second).holds();
    // A broken stream leaves it a second, a restart seven.
    again(held(1).fault(20, 30, What::Cut { road: 0 }), second).holds();
    again(held(1).fault(20, 30, What::Cut { road: 1 }), second).breaks("leases", &[2, 4]);
    again(held(1).fault(20, 30, What::Kill), 6 * second).breaks("leases", &[2, 4]);
    again(held(1).fault(20, 30, What::Kill), 8 * second).holds();
}

#[test]
fn only_the_holder_publishes() {
    let held = || draft(1, false).op(0, 10, acquire("one"), granted(1));
    held().op(20, 30, publish("a", A, None), STORED).breaks("leases", &[2, 3]);
    held().op(20, 30, publish("a", A, Some(1)), STORED).holds();
    held().op(20, 30, publish("a", A, None), refused(409, "lease_held")).holds();
}

#[test]
fn a_key_is_built_once_unless_a_lease_was_lost() {
    // Here the second grant came while the first publish was under way.
    draft(1, false)
        .op(0, 10, acquire("one"), granted(1))
        .op(20, 50, publish("a", A, Some(1)), STORED)
        .op(25, 30, acquire("two"), granted(2))
        .op(55, 60, publish("b", A, Some(2)), SAME)
        .breaks("leases", &[3, 5]);
}

// Trust.

#[test]
fn nobody_sees_what_is_not_theirs() {
    let theirs = || draft(1, false).op_of(("pr", "pr-1"), 0, 10, publish("a", A, None), STORED);
    let seen = || End::Found { result: sight("pr-1", "a", A) };
    theirs().op(20, 30, read(), seen()).breaks("trust", &[3]);
    theirs().op_of(("ci", "pr-1"), 20, 30, read(), seen()).breaks("trust", &[3]);
    theirs().op_of(("pr", "pr-1"), 20, 30, read(), seen()).holds();
    let fetch = || Act::Fetch { digest: A.digest(), range: None };
    let bytes = || End::Bytes { got: A.digest(), length: 40 };
    theirs().op(20, 30, fetch(), bytes()).breaks("trust", &[3]);
    theirs().op_of(("pr", "pr-1"), 20, 30, fetch(), bytes()).holds();
    // Who sent only a half has not brought it.
    theirs().op(12, 14, upload(A, 20), End::Cut).op(20, 30, fetch(), bytes()).breaks("trust", &[4]);
    theirs().op(12, 14, upload(A, 40), End::Cut).op(20, 30, fetch(), bytes()).holds();
}

#[test]
fn nobody_changes_what_is_not_theirs() {
    draft(1, false).op_of(("pr", "main"), 0, 10, upload(A, 40), STORED).breaks("trust", &[2]);
    draft(1, false).op_of(("pr", "main"), 0, 10, acquire("one"), granted(1)).breaks("trust", &[2]);
    draft(1, false).op_of(("pr", "main"), 0, 10, upload(A, 40), refused(403, "read_only")).holds();
}

// Ends.

#[test]
fn nothing_hangs_unless_something_is_wrong() {
    draft(1, false).op(0, 15_000_000, read(), End::TimedOut).breaks("ends", &[2]);
    draft(1, false).op(0, 15_000_000, read(), End::TimedOut).fault(10, 20, What::Stop).breaks("ends", &[2]);
    let stopped = |to| draft(1, false).op(0, 15_000_000, read(), End::TimedOut).fault(10, to, What::Stop);
    stopped(8_000_000).holds();
    draft(1, false).op(0, 10, read(), End::GaveUp).holds();
}

#[test]
fn answers_are_those_that_may_be_given() {
    draft(1, false).op(0, 10, read(), refused(500, "internal")).breaks("ends", &[2]);
    draft(1, false).op(0, 10, read(), End::Nonsense { what: "?".to_owned() }).breaks("ends", &[2]);
    draft(1, false).op(0, 10, upload(A, 20), STORED).breaks("ends", &[2]);
}

// Settled.

#[test]
fn once_all_is_well_every_key_gets_its_result() {
    draft(1, false).op(0, 10, acquire("one"), End::Busy).settling().breaks("settled", &[2]);
    draft(1, false).op(0, 10, acquire("one"), granted(1)).settling().holds();
    draft(1, false).op(0, 10, read(), End::Absent).settling().breaks("settled", &[2]);
    draft(1, false)
        .op(0, 10, publish("a", A, None), refused(507, "store_full"))
        .settling()
        .breaks("settled", &[2]);
    draft(600, true).op(0, 10, publish("a", A, None), refused(507, "store_full")).settling().holds();
}
