//! The table: what happens, where, and to which requests.

use std::fmt;
use std::time::Duration;

use pcmcache_tests::Chance;
use pcmcache_tests::link::fault::At::{
    Answer, AnswerBody, AnswerHead, Connect, Down, RequestBody, RequestHead, Up,
};
use pcmcache_tests::link::fault::What::{
    Cut, LoseBoth, LoseDown, LoseUp, Overtaken, Reset, Twice, Unavailable,
};
use pcmcache_tests::link::fault::{At, Fault, Of, What};

use super::{ANSWER, IDLE, RESTART, TIMEOUT, WORK};

/// What may happen to a network.
pub(crate) struct Script {
    name: &'static str,
    what: Happens,
    /// To these requests.
    of: &'static [Of],
}

/// What happens, or what the road is like.
enum Happens {
    /// The place is within what the chance says.
    There(fn(&mut Chance, Of) -> At, What),
    /// There and back, and bytes in a second.
    Road(Duration, u64),
}

/// Whether results go in or come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// A builder asks, uploads and publishes.
    In,
    /// Somebody asks and fetches.
    Out,
}

/// How a launcher goes to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Direct,
    Agent,
    Tls,
    TlsAgent,
    Background,
    Sync,
}

impl Way {
    pub(crate) fn has_agent(self) -> bool {
        matches!(self, Self::Agent | Self::TlsAgent)
    }

    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::TlsAgent)
    }
}

/// A script, on one side and one way.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) side: Side,
    pub(crate) way: Way,
    pub(crate) fault: Option<Fault>,
    pub(crate) road: (Duration, u64),
}

const WIDE: (Duration, u64) = (Duration::ZERO, u64::MAX);

/// All that a launch sends.
const ANY: &[Of] = &[Of::Acquire, Of::Publish, Of::Upload, Of::Fetch];
/// What has a body.
const SENDS: &[Of] = &[Of::Acquire, Of::Publish, Of::Upload];
/// What has an answer with a body.
const HEARS: &[Of] = &[Of::Acquire, Of::Publish, Of::Fetch];
/// It is the connection that something happens to, in both directions.
const EITHER: &[Of] = &[Of::Publish, Of::Fetch];

const fn there(name: &'static str, of: &'static [Of], at: fn(&mut Chance, Of) -> At, what: What) -> Script {
    Script { name, what: Happens::There(at, what), of }
}

const fn road(name: &'static str, round_trip: Duration, bytes_per_second: u64) -> Script {
    Script { name, what: Happens::Road(round_trip, bytes_per_second), of: EITHER }
}

/// All of them.
pub(crate) const SCRIPTS: &[Script] = &[
    there("cut as it connects", EITHER, |_, _| Connect, Cut),
    there("reset as it connects", EITHER, |_, _| Connect, Reset),
    there("half open: accepted and never heard", EITHER, |_, _| Connect, LoseBoth),
    there("nothing goes up", EITHER, |_, _| Connect, LoseUp),
    there("nothing comes down", EITHER, |_, _| Connect, LoseDown),
    there("cut after some bytes up, whatever they are", EITHER, |c, _| Up(some(c, 600)), Cut),
    there("cut after some bytes down, whatever they are", EITHER, |c, _| Down(some(c, 300)), Cut),
    there("gone after some bytes down, whatever they are", EITHER, |c, _| Down(some(c, 300)), LoseBoth),
    there("cut behind the head of a request", ANY, |_, _| RequestHead, Cut),
    there("cut in the body of a request", SENDS, |c, of| RequestBody(some(c, sent(of))), Cut),
    there("reset in the body of a request", SENDS, |c, of| RequestBody(some(c, sent(of))), Reset),
    there("gone in the body of a request", SENDS, |c, of| RequestBody(some(c, sent(of))), LoseBoth),
    there("lost requests", ANY, |_, _| RequestHead, LoseUp),
    there("cut before the answer", ANY, |_, _| Answer, Cut),
    there("reset before the answer", ANY, |_, _| Answer, Reset),
    there("lost answers", ANY, |_, _| Answer, LoseDown),
    there("cut in the head of an answer", ANY, |c, _| AnswerHead(some(c, 60)), Cut),
    there("gone in the head of an answer", ANY, |c, _| AnswerHead(some(c, 60)), LoseBoth),
    there("cut at the first byte of an answer's body", HEARS, |_, _| AnswerBody(0), Cut),
    there("cut in the body of an answer", HEARS, |c, of| AnswerBody(some(c, said(of))), Cut),
    there("reset in the body of an answer", HEARS, |c, of| AnswerBody(some(c, said(of))), Reset),
    there("gone in the body of an answer", HEARS, |c, of| AnswerBody(some(c, said(of))), LoseBoth),
    there("a later request is served first", ANY, |_, _| RequestHead, Overtaken),
    there("a request goes twice, the copy first", ANY, |_, _| RequestHead, Twice { copy_first: true }),
    there("a request goes twice, the copy later", ANY, |_, _| RequestHead, Twice { copy_first: false }),
    there("503", ANY, |c, _| if c.below(2) == 0 { RequestHead } else { Answer }, Unavailable(1)),
    road("1 kB a second", Duration::ZERO, 1000),
    road("300 ms in each direction", Duration::from_millis(600), u64::MAX),
];

/// Somewhere in so many bytes, and at their edges now and then.
fn some(chance: &mut Chance, bytes: usize) -> usize {
    match chance.below(4) {
        0 => 1,
        _ => 1 + chance.below(bytes as u64 - 1) as usize,
    }
}

/// So many bytes are in the body of such a request, at least.
fn sent(of: Of) -> usize {
    match of {
        Of::Acquire => 100,
        Of::Publish => 500,
        // A depfile, mostly.
        Of::Upload => 60,
        Of::Renew | Of::Release | Of::Fetch => 1000,
    }
}

/// So many bytes are in the body of the answer, at least.
fn said(of: Of) -> usize {
    match of {
        Of::Acquire => 60,
        Of::Fetch => 60_000,
        // What is missing, at the first time.
        Of::Publish => 200,
        Of::Upload | Of::Renew | Of::Release => 2,
    }
}

impl Script {
    /// Two of its cases, in a way that chance picks, mostly directly; or `all` of them, in all ways.
    pub(crate) fn cases(&self, chance: &mut Chance, all: bool) -> Vec<Case> {
        let sides = |of: Of| -> &[Side] {
            match of {
                Of::Acquire => &[Side::In, Side::Out],
                Of::Fetch => &[Side::Out],
                Of::Publish | Of::Upload | Of::Renew | Of::Release => &[Side::In],
            }
        };
        let mut places: Vec<_> =
            self.of.iter().flat_map(|of| sides(*of).iter().map(|side| (*of, *side))).collect();
        while !all && places.len() > 2 {
            places.swap_remove(chance.below(places.len() as u64) as usize);
        }
        let mut cases = Vec::new();
        for (of, side) in places {
            let ways: Vec<_> = [Way::Direct].iter().chain(self.other_ways(side, of)).collect();
            let pick = (chance.below(2) * chance.below(ways.len() as u64)) as usize;
            let picked = if all { &ways[..] } else { &ways[pick..=pick] };
            cases.extend(picked.iter().map(|way| self.case(chance, of, side, **way)));
        }
        cases
    }

    /// Where requests are looked into they are not under TLS.
    fn other_ways(&self, side: Side, of: Of) -> &'static [Way] {
        let is_blind = match self.what {
            Happens::There(at, _) => matches!(at(&mut Chance::seeded(0), of), Connect | Up(_) | Down(_)),
            // No agent is started there before it is needed.
            Happens::Road(..) if side == Side::Out => return &[Way::Tls],
            Happens::Road(..) => return &[Way::Tls, Way::Background, Way::Sync],
        };
        match (side, of, is_blind) {
            (Side::Out, _, true) => &[Way::Agent, Way::Tls, Way::TlsAgent],
            (Side::Out, _, false) => &[Way::Agent],
            (Side::In, Of::Acquire, _) => &[Way::Agent, Way::Background],
            (Side::In, _, true) => &[Way::Agent, Way::Tls, Way::TlsAgent, Way::Background, Way::Sync],
            (Side::In, _, false) => &[Way::Agent, Way::Background, Way::Sync],
        }
    }

    fn case(&self, chance: &mut Chance, of: Of, side: Side, way: Way) -> Case {
        // Some pass at the second time; others stay until the network is well again.
        let times = if chance.below(3) == 0 { 1 } else { usize::MAX };
        let (fault, road) = match self.what {
            Happens::There(at, what) => (Some(Fault { of, at: at(chance, of), what, times }), WIDE),
            Happens::Road(round_trip, bytes_per_second) => (None, (round_trip, bytes_per_second)),
        };
        Case { name: self.name, side, way, fault, road }
    }
}

impl Case {
    /// What a launch may take: each question its deadline, and what is wrong is paid for once.
    pub(crate) fn bound(&self) -> Duration {
        let publish = RESTART + ANSWER;
        let seconds = match (self.side, self.fault.map(|fault| fault.of)) {
            (_, Some(Of::Acquire)) => TIMEOUT,
            (Side::In, Some(_)) => publish,
            // What cannot be fetched is made, and that is published.
            (Side::Out, Some(_)) => IDLE + ANSWER + publish,
            (_, None) => TIMEOUT + ANSWER + publish,
        };
        Duration::from_secs(seconds + WORK)
    }

    /// Whether a launch of this side cannot go by it.
    pub(crate) fn is_certain(&self) -> bool {
        self.way == Way::Direct
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?}, {:?}", self.name, self.side, self.way)?;
        if let Some(Fault { of, at, times, .. }) = self.fault {
            let times = if times == 1 { "once" } else { "until it heals" };
            write!(f, ", {of:?}, {at:?}, {times}")?;
        }
        write!(f, ")")
    }
}
