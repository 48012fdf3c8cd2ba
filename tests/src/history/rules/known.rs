//! A history in the order of its lines, and what several rules ask of it.

use std::collections::BTreeMap;

use pcmcache_shared::Digest;

use super::super::contents::Content;
use super::super::line::{Act, End, Fault, Line, Op, Setting, Sight, Us};

/// For ever.
pub(super) const EVER: Us = Us::MAX;
/// What was answered or acknowledged stays for ten minutes of the server's time, whatever room is needed.
pub(super) const PIN: Us = 600_000_000;

/// A key of a scope.
pub(super) type Place<'a> = (&'a str, &'a str);

/// A history.
pub(super) struct History<'a> {
    pub(super) setting: &'a Setting,
    pub(super) ops: Vec<At<'a>>,
    pub(super) faults: Vec<&'a Fault>,
    /// All bytes that anybody made, by their names.
    pub(super) contents: BTreeMap<Digest, Content>,
    /// The attempts to publish, by their names.
    pub(super) builds: BTreeMap<&'a str, Build<'a>>,
    /// What each key of a scope was seen to hold.
    pub(super) seen: BTreeMap<Place<'a>, Vec<Seen<'a>>>,
    /// When each key of a scope held what, for sure.
    pub(super) zones: BTreeMap<Place<'a>, Vec<Zone<'a>>>,
}

/// An operation and its line.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) line: usize,
    pub(super) op: &'a Op,
}

/// An attempt to publish.
pub(super) struct Build<'a> {
    pub(super) at: At<'a>,
    pub(super) key: &'a str,
    pub(super) outputs: Vec<Digest>,
}

/// What somebody saw at some time of an operation.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) at: At<'a>,
    pub(super) what: Holding<'a>,
}

/// What a key was seen to hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holding<'a> {
    /// The result of this attempt.
    Build(&'a str),
    /// One with the outputs of this attempt.
    Like(&'a str),
    /// Nothing.
    Nothing,
}

/// The result of one attempt in one key, from those who saw it. Each attempt creates at most once, so whatever the order of
/// events was, the key held this result from `since` to `until` without a break; and where those are the other way round, at some
/// moment between them (Gibbons and Korach, "Testing shared memories", 1997).
pub(super) struct Zone<'a> {
    pub(super) build: &'a str,
    /// The first time by which somebody had seen it.
    pub(super) since: Us,
    /// The last time after which somebody saw it; later, where it could not go.
    pub(super) until: Us,
    /// The lines that say so.
    pub(super) lines: [usize; 2],
}

impl Zone<'_> {
    /// Whether it was there all the time from `from` to `to`.
    pub(super) fn covers(&self, from: Us, to: Us) -> bool {
        self.since < from && to < self.until
    }
}

impl<'a> History<'a> {
    pub(super) fn of(lines: &'a [Line]) -> Self {
        let mut history = Self {
            setting: match lines.first() {
                Some(Line::Setting(setting)) => setting,
                _ => panic!("a history begins with its setting"),
            },
            ops: Vec::new(),
            faults: Vec::new(),
            contents: BTreeMap::new(),
            builds: BTreeMap::new(),
            seen: BTreeMap::new(),
            zones: BTreeMap::new(),
        };
        for (index, line) in lines.iter().enumerate() {
            match line {
                Line::Setting(_) => {}
                Line::Fault(fault) => history.faults.push(fault),
                Line::Op(op) => history.ops.push(At { line: index + 1, op }),
            }
        }
        history.note_builds();
        history.note_seen();
        history.note_zones();
        history
    }

    /// So much of the server's time, in microseconds of the real clock.
    pub(super) fn real(&self, server: Us) -> Us {
        server / self.setting.rate
    }

    /// The scopes that this operation looks into.
    pub(super) fn view(&self, op: &'a Op) -> Vec<&'a str> {
        self.setting.principals.get(&op.who).map(|who| who.view(&op.scope)).unwrap_or_default()
    }

    fn note_builds(&mut self) {
        let mut names: BTreeMap<Content, Digest> = BTreeMap::new();
        let mut name = |content: &Content| *names.entry(*content).or_insert_with(|| content.digest());
        for at in &self.ops {
            match &at.op.act {
                Act::Publish { key, build, outputs, .. } => {
                    let outputs = outputs.iter().map(&mut name).collect();
                    self.builds.insert(build, Build { at: *at, key, outputs });
                }
                Act::Upload { content, .. } => drop(name(content)),
                _ => {}
            }
        }
        self.contents = names.into_iter().map(|(content, digest)| (digest, content)).collect();
    }

    fn note_seen(&mut self) {
        for at in self.ops.clone() {
            let Some(key) = at.op.act.key() else { continue };
            let view = self.view(at.op);
            let mut note = |scope: &'a str, what| {
                self.seen.entry((scope, key)).or_default().push(Seen { at, what });
            };
            match (&at.op.act, &at.op.end) {
                (Act::Read { .. } | Act::Acquire { .. }, End::Found { result: sight }) => {
                    view.iter()
                        .take_while(|scope| **scope != sight.scope)
                        .for_each(|scope| note(scope, Holding::Nothing));
                    note(&sight.scope, Holding::Build(&sight.build));
                }
                (_, End::Absent | End::Granted { .. } | End::Busy | End::Alone { .. }) => {
                    view.iter().for_each(|scope| note(scope, Holding::Nothing));
                }
                (_, End::Winner { result: sight }) => note(&sight.scope, Holding::Build(&sight.build)),
                (Act::Publish { build, .. }, End::Done { status: 201 }) => {
                    note(&at.op.scope, Holding::Build(build));
                    view.iter().skip(1).for_each(|scope| note(scope, Holding::Nothing));
                }
                // Where there are several it does not say in which.
                (Act::Publish { build, .. }, End::Done { .. }) if view.len() == 1 => {
                    note(&at.op.scope, Holding::Like(build));
                }
                _ => {}
            }
        }
    }

    fn note_zones(&mut self) {
        let stays = self.real(PIN);
        for (place, seen) in &self.seen {
            let mut zones: BTreeMap<&str, Zone<'a>> = BTreeMap::new();
            for Seen { at, what } in seen {
                let Holding::Build(build) = *what else { continue };
                let (from, to) = (at.op.from, at.op.to);
                let fresh = Zone { build, since: to, until: from, lines: [at.line; 2] };
                let zone = zones.entry(build).or_insert(fresh);
                if to < zone.since {
                    (zone.since, zone.lines[0]) = (to, at.line);
                }
                if from > zone.until {
                    (zone.until, zone.lines[1]) = (from, at.line);
                }
            }
            let mut zones: Vec<_> = zones.into_values().collect();
            for zone in &mut zones {
                zone.until = if self.setting.may_evict { zone.until + stays } else { EVER };
            }
            self.zones.insert(*place, zones);
        }
    }
}

impl At<'_> {
    /// The result that it was shown.
    pub(super) fn sight(&self) -> Option<&Sight> {
        match &self.op.end {
            End::Found { result } | End::Winner { result } => Some(result),
            _ => None,
        }
    }
}
