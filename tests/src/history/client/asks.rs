//! What a client asks, one request each, and what is written down of its answer.

use std::time::{Duration, Instant};

use pcmcache_shared::api::acquire::{self, AcquireLine, AcquireMode, AcquireRequest, KnownSet};
use pcmcache_shared::api::actions::{self, PublishRequest};
use pcmcache_shared::api::leases::{self, Hold, ReleaseRequest, Renewed};
use pcmcache_shared::api::lookup::{self, LookupAnswer, LookupRequest};
use pcmcache_shared::api::problem::{Code, Problem};
use pcmcache_shared::api::{KeyedResult, blobs};
use pcmcache_shared::{
    ActionKey, ActionResult, Cost, Digest, Fence, Output, ReleaseReason, Role, Scope, Secret, Writer,
};

use super::super::contents::Content;
use super::super::line::{Act, End, Line, Op, Sight, Us};
use super::super::wire::{Broken, Request, Stream};
use super::{Client, Lease};
use crate::http::Answer;

/// After this nothing comes any more.
const HANG: Duration = Duration::from_secs(15);
/// The include set of every key: nothing is learnt.
const NO_SET: &str = "";
/// The content type of what is not a blob.
const JSON: &str = "Content-Type: application/json\r\n";
const OCTETS: &str = "Content-Type: application/octet-stream\r\n";

impl Client<'_> {
    /// Asks, and writes it down. Who has little patience gives up.
    fn ask(&mut self, act: Act, request: Request<'_>, judge: impl FnOnce(&Answer) -> Option<End>) -> End {
        let is_patient = self.settling || !self.percent(6);
        let patience = if is_patient { HANG } else { self.chance.moment(Duration::from_millis(80)) };
        let from = self.world.recorder.now();
        let answer = self.wire.ask(request, Instant::now() + patience);
        let end = match answer {
            Ok(answer) => judge(&answer).unwrap_or_else(|| refused(&answer)),
            Err(broken) => failed(broken, is_patient),
        };
        self.note(from, act, end)
    }

    fn note(&self, from: Us, act: Act, end: End) -> End {
        let (to, client, road) = (self.world.recorder.now(), self.number, self.road);
        self.was_cut.set(end == End::Cut);
        let (who, scope, settling) = (self.who.clone(), self.scope.clone(), self.settling);
        let op = Op { from, to, client, road, who, scope, act, end: end.clone(), settling };
        self.world.recorder.note(Line::Op(Box::new(op)));
        end
    }

    fn scope(&self) -> Scope {
        self.scope.parse().expect("a scope")
    }

    pub(super) fn read(&mut self, key: &str) -> End {
        let (act, action) = (Act::Read { key: key.to_owned() }, self.world.action(key));
        if self.percent(50) {
            let path = actions::path(&self.scope(), action);
            return self.ask(act, request("GET", &path, "", b""), |answer| match answer.status {
                200 => {
                    Some(read_as(answer, |keyed: KeyedResult| End::Found { result: sight(keyed, action) }))
                }
                404 if code(answer) == "no_result" => Some(End::Absent),
                _ => None,
            });
        }
        let asked = LookupRequest { units: Vec::new(), actions: vec![action] };
        let (path, body) = (lookup::path(&self.scope()), json(&asked));
        self.ask(act, request("POST", &path, JSON, &body), |answer| {
            (answer.status == 200).then(|| {
                read_as(answer, |mut found: LookupAnswer| {
                    found
                        .results
                        .pop()
                        .map_or(End::Absent, |keyed| End::Found { result: sight(keyed, action) })
                })
            })
        })
    }

    pub(super) fn acquire(
        &mut self,
        key: &str,
        id: &str,
        wait: Duration,
        hold: bool,
    ) -> (End, Option<Lease>) {
        let action = self.world.action(key);
        let asked = AcquireRequest {
            claim: action.into(),
            unit: Some(self.world.unit(key)),
            known: vec![KnownSet { set: Digest::of(NO_SET), action: Some(action) }],
            request_id: id.to_owned(),
            holder: format!("client {}", self.number),
            subject: key.to_owned(),
            mode: if self.builds { AcquireMode::Build } else { AcquireMode::Watch },
            wait_ms: wait.as_millis() as u64 * self.world.rate,
            hold,
        };
        let (path, body) = (acquire::path(&self.scope()), json(&asked));
        let act =
            Act::Acquire { key: key.to_owned(), request: id.to_owned(), wait: wait.as_micros() as Us, hold };
        let from = self.world.recorder.now();
        let deadline = Instant::now() + wait + HANG;
        let (end, lease) = self.heard(request("POST", &path, JSON, &body), action, deadline);
        let lease = lease.map(|(fence, secret, ttl_ms, stream)| {
            let ttl = self.world.real(Duration::from_millis(ttl_ms));
            let stream = Some(stream).filter(|_| hold);
            Lease { key: key.to_owned(), request: id.to_owned(), fence, secret, ttl, stream }
        });
        (self.note(from, act, end), lease)
    }

    /// The lines of an acquire, to the last.
    fn heard(
        &self,
        request: Request<'_>,
        action: ActionKey,
        deadline: Instant,
    ) -> (End, Option<(Fence, Secret, u64, Stream)>) {
        let (answer, mut stream) = match self.wire.stream(request, deadline) {
            Ok(opened) => opened,
            Err(broken) => return (failed(broken, true), None),
        };
        if answer.status != 200 {
            return (refused(&answer), None);
        }
        let mut was_busy = false;
        let end = loop {
            let line = match stream.line(deadline) {
                Ok(Some(line)) => line,
                Ok(None) if was_busy => break End::Busy,
                Ok(None) => break End::Cut,
                Err(broken) => break failed(broken, true),
            };
            match serde_json::from_str(&line) {
                Ok(AcquireLine::Busy { .. }) => was_busy = true,
                Ok(AcquireLine::Hit(keyed)) => break End::Found { result: sight(keyed, action) },
                Ok(AcquireLine::Alone { reason }) => break End::Alone { reason: named(&reason) },
                Ok(AcquireLine::Granted { claim, fence, secret, ttl_ms, .. }) if claim == action.into() => {
                    return (End::Granted { fence: fence.0, ttl_ms }, Some((fence, secret, ttl_ms, stream)));
                }
                Ok(AcquireLine::Granted { .. } | AcquireLine::Sets { .. }) | Err(_) => {
                    break End::Nonsense { what: line };
                }
            }
        };
        (end, None)
    }

    pub(super) fn renew(&mut self, lease: &Lease) -> End {
        let path = leases::path(&self.scope(), self.world.action(&lease.key).into());
        let act = Act::Renew { key: lease.key.clone(), fence: lease.fence.0 };
        self.ask(act, request("POST", &path, JSON, &json(&lease.hold())), |answer| {
            (answer.status == 200)
                .then(|| read_as(answer, |renewed: Renewed| End::Renewed { ttl_ms: renewed.ttl_ms }))
        })
    }

    pub(super) fn release(&mut self, lease: Lease, reason: ReleaseReason) {
        let path = leases::path(&self.scope(), self.world.action(&lease.key).into());
        let (key, fence) = (lease.key.clone(), lease.fence.0);
        let asked = ReleaseRequest { fence: lease.fence, secret: lease.secret.clone(), reason };
        let act = Act::Release { key, fence, reason: named(&reason) };
        self.ask(act, request("DELETE", &path, JSON, &json(&asked)), done);
        self.let_go(lease);
    }

    /// From now on nothing is heard of the holder.
    pub(super) fn let_go(&mut self, lease: Lease) {
        let act = Act::LetGo { key: lease.key.clone(), fence: lease.fence.0 };
        self.note(self.world.recorder.now(), act, End::Done { status: 204 });
        drop(lease);
    }

    pub(super) fn upload(&mut self, digest: Digest, content: Content, sent: u64) -> End {
        let (path, bytes) = (blobs::path(&self.scope(), digest), content.bytes());
        let act = Act::Upload { digest, content, sent };
        let request = Request { sent: sent as usize, ..request("PUT", &path, OCTETS, &bytes) };
        self.ask(act, request, done)
    }

    pub(super) fn publish(&mut self, key: &str, variant: u64, lease: Option<&Hold>) -> End {
        let action = self.world.action(key);
        let outputs = self.world.outputs(&self.scope, key, variant);
        let build = format!("b{}-{}", self.number, self.world.fresh());
        let named = outputs.iter().zip([Role::Bmi, Role::Object]);
        let result = ActionResult {
            outputs: named.map(|(of, role)| Output { role, digest: of.digest(), size: of.size }).collect(),
            cost: Cost { wall_ms: 5 },
            builder: build.clone(),
            signature: None,
        };
        self.world
            .published
            .lock()
            .expect("what was published")
            .extend(outputs.iter().take(1).map(|output| (self.scope.clone(), output.digest())));
        let asked = PublishRequest {
            result,
            recipe: self.world.recipe(key),
            include_set: NO_SET.to_owned(),
            claim: action.into(),
            lease: lease.cloned(),
        };
        let (path, body) = (actions::path(&self.scope(), action), json(&asked));
        let fence = lease.map(|lease| lease.fence.0);
        let act = Act::Publish { key: key.to_owned(), build, outputs, fence };
        self.ask(act, request("PUT", &path, JSON, &body), |answer| match answer.status {
            409 if code(answer) == "winner" => Some(read_as(answer, winner)),
            _ => done(answer),
        })
    }

    pub(super) fn fetch(&mut self, digest: Digest, range: Option<(u64, u64)>) -> End {
        let path = blobs::path(&self.scope(), digest);
        let fields =
            range.map(|(from, to)| format!("Range: bytes={from}-{}\r\n", to - 1)).unwrap_or_default();
        let act = Act::Fetch { digest, range };
        let status = if range.is_some() { 206 } else { 200 };
        self.ask(act, request("GET", &path, &fields, b""), |answer| {
            let (got, length) = (Digest::of(&answer.body), answer.body.len() as u64);
            (answer.status == status).then_some(End::Bytes { got, length })
        })
    }
}

fn request<'a>(method: &'a str, path: &'a str, fields: &'a str, body: &'a [u8]) -> Request<'a> {
    Request { method, path, fields, body, sent: body.len() }
}

fn json(body: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("JSON of a wire type")
}

/// A value of the wire by its name there.
fn named(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("JSON of a wire type").replace('"', "")
}

fn read_as<T: serde::de::DeserializeOwned>(answer: &Answer, end: impl FnOnce(T) -> End) -> End {
    serde_json::from_slice(&answer.body).map_or_else(|_| End::Nonsense { what: answer.text() }, end)
}

fn code(answer: &Answer) -> String {
    serde_json::from_slice(&answer.body).map(|problem: Problem| named(&problem.code)).unwrap_or_default()
}

fn done(answer: &Answer) -> Option<End> {
    matches!(answer.status, 200 | 201 | 204).then_some(End::Done { status: answer.status })
}

fn refused(answer: &Answer) -> End {
    let what = || format!("{} {}", answer.status, answer.text());
    match serde_json::from_slice::<Problem>(&answer.body) {
        Ok(problem) => {
            End::Refused { status: answer.status, code: named(&problem.code), missing: problem.missing }
        }
        Err(_) => End::Nonsense { what: what() },
    }
}

fn failed(broken: Broken, is_patient: bool) -> End {
    match broken {
        Broken::NotSent => End::NotSent,
        Broken::Cut => End::Cut,
        Broken::Late if is_patient => End::TimedOut,
        Broken::Late => End::GaveUp,
    }
}

fn sight(keyed: KeyedResult, asked: ActionKey) -> Sight {
    assert_eq!(keyed.action, asked, "a result of another key");
    let outputs = keyed.result.outputs.iter().map(|output| output.digest).collect();
    let inline = keyed.blobs.iter().map(|(name, bytes)| (*name, Digest::of(&bytes.0))).collect();
    let writers = keyed.writers.iter().map(|writer| writer.as_str().to_owned()).collect();
    Sight { scope: keyed.scope.to_string(), build: keyed.result.builder, outputs, writers, inline }
}

fn winner(problem: Problem) -> End {
    let (Some(result), Some(scope), Code::Winner) = (problem.winner, problem.winner_scope, problem.code)
    else {
        return End::Nonsense { what: "a winner that is not named".to_owned() };
    };
    let outputs = result.outputs.iter().map(|output| output.digest).collect();
    let writers = problem.winner_writers.iter().map(Writer::as_str).map(str::to_owned).collect();
    let build = result.builder;
    End::Winner { result: Sight { scope: scope.to_string(), build, outputs, writers, inline: Vec::new() } }
}
