//! A client: it asks as a launcher does, in an order of its own, and writes down what came of it. Some of what it does no good
//! launcher would do: it dies, comes back late, publishes other bytes, sends half of an upload, tries what is not its own.

use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pcmcache_shared::api::acquire::{self, AcquireLine, AcquireMode, AcquireRequest, KnownSet};
use pcmcache_shared::api::actions::{self, PublishRequest};
use pcmcache_shared::api::leases::{self, Hold, ReleaseRequest, Renewed};
use pcmcache_shared::api::lookup::{self, LookupAnswer, LookupRequest};
use pcmcache_shared::api::problem::{Code, Problem};
use pcmcache_shared::api::{KeyedResult, blobs};
use pcmcache_shared::{
    ActionKey, ActionResult, Cost, Digest, Fence, Output, ReleaseReason, Role, Scope, Secret, UnitKey, Writer,
};

use super::contents::Content;
use super::line::{Act, End, Line, Op, Recorder, Sight, Us};
use super::road::Road;
use super::wire::{Broken, Request, Stream, Wire};
use crate::Chance;
use crate::http::Answer;

/// After this nothing comes any more.
const HANG: Duration = Duration::from_secs(15);
/// How long who was cut off waits at most.
const BACKS_OFF: Duration = Duration::from_millis(300);
/// The include set of every key: nothing is learnt.
const NO_SET: &str = "";
/// The content type of what is not a blob.
const JSON: &str = "Content-Type: application/json\r\n";
const OCTETS: &str = "Content-Type: application/octet-stream\r\n";

/// What all clients of a history share.
#[derive(Debug)]
pub struct World {
    /// What follows from it: keys and bytes.
    pub seed: u64,
    /// How many times as fast as the real one the server's clock goes.
    pub rate: u64,
    /// The keys' names.
    pub keys: Vec<String>,
    /// How many of them are asked for at a time, and for how long.
    pub fashion: (usize, Duration),
    /// By how much the sizes of two BMIs differ at most.
    pub sizes: u64,
    /// How long a build takes at most, and how many of a hundred make other bytes than the rest.
    pub builds: (Duration, u64),
    /// All scopes.
    pub scopes: Vec<String>,
    /// The ways to the server.
    pub roads: Vec<Road>,
    /// Where everything is written down.
    pub recorder: Recorder,
    /// When the clients go home.
    pub until: Us,
    /// What was published where: what others may not fetch.
    pub published: Mutex<Vec<(String, Digest)>>,
    /// Names that were never used.
    pub fresh: AtomicU64,
}

impl World {
    fn recipe(&self, key: &str) -> String {
        format!("schema 1\narg history {} {key}\n\n", self.seed)
    }

    fn action(&self, key: &str) -> ActionKey {
        ActionKey::of(self.recipe(key))
    }

    fn unit(&self, key: &str) -> UnitKey {
        UnitKey::of(self.recipe(key).trim_end_matches('\n').to_owned() + "\n")
    }

    /// What a compile makes: the same each time, unless the compiler is not deterministic.
    fn outputs(&self, scope: &str, key: &str, variant: u64) -> Vec<Content> {
        let seed = |what: String| Content::seed_of(&format!("{} {key} {variant} {what}", self.seed));
        let size = 17_000 + Content::seed_of(key) % self.sizes;
        // The object is the same in all scopes.
        vec![
            Content { seed: seed(format!("bmi {scope}")), size },
            Content { seed: seed("object".to_owned()), size: 700 },
        ]
    }

    fn fresh(&self) -> u64 {
        self.fresh.fetch_add(1, Ordering::SeqCst)
    }

    /// So much of the server's time.
    fn real(&self, server: Duration) -> Duration {
        server / u32::try_from(self.rate).unwrap_or(u32::MAX)
    }
}

/// A client.
#[derive(Debug)]
pub struct Client<'a> {
    world: &'a World,
    number: u32,
    who: String,
    scope: String,
    builds: bool,
    road: usize,
    wire: Wire,
    chance: Chance,
    settling: bool,
    was_cut: Cell<bool>,
}

/// Who a client is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The principal's name.
    pub who: String,
    /// Its token.
    pub token: String,
    /// The scope it asks under.
    pub scope: String,
    /// Whether it may publish there.
    pub builds: bool,
}

/// A lease that a client has.
struct Lease {
    key: String,
    request: String,
    fence: Fence,
    secret: Secret,
    ttl: Duration,
    stream: Option<Stream>,
}

impl Lease {
    fn hold(&self) -> Hold {
        Hold { fence: self.fence, secret: self.secret.clone() }
    }
}

impl<'a> Client<'a> {
    /// A client on one of the roads.
    pub fn new(world: &'a World, number: u32, identity: &Identity) -> Self {
        let road = number as usize % world.roads.len();
        let Identity { who, token, scope, builds } = identity.clone();
        let wire = Wire::new(world.roads[road].address(), &token);
        let chance = Chance::seeded(world.seed ^ (u64::from(number) << 32));
        Self {
            world,
            number,
            who,
            scope,
            builds,
            road,
            wire,
            chance,
            settling: false,
            was_cut: Cell::new(false),
        }
    }

    /// Asks this and that until it is time to go home.
    pub fn live(mut self) {
        while self.world.recorder.now() < self.world.until {
            if self.was_cut.take() {
                std::thread::sleep(self.chance.moment(BACKS_OFF));
            }
            match self.chance.below(100) {
                0..15 => self.look(),
                15..25 => self.trespass(),
                25..30 => self.upload_badly(),
                30..35 => self.publish_unasked(),
                _ => self.compile(),
            }
            std::thread::sleep(self.chance.moment(Duration::from_millis(60)));
        }
    }

    /// Once all is well: a result for every key.
    pub fn settle(mut self) {
        self.settling = true;
        for key in self.world.keys.clone() {
            let wait = self.world.real(Duration::from_secs(30)) + Duration::from_secs(2);
            let request = self.request_id();
            match self.acquire(&key, &request, wait, true) {
                (End::Granted { .. }, Some(lease)) => {
                    self.upload_and_publish(&key, 0, Some(&lease));
                    self.let_go(lease);
                }
                (End::Alone { .. }, _) => drop(self.upload_and_publish(&key, 0, None)),
                _ => {}
            }
        }
    }

    /// Reads every key, and what its result names.
    pub fn read_all(mut self) {
        self.settling = true;
        for key in self.world.keys.clone() {
            if let End::Found { result: sight } = self.read(&key) {
                self.fetch_outputs(&sight);
            }
        }
    }

    /// A key that is asked for now.
    fn key(&mut self) -> String {
        let (many, period) = self.world.fashion;
        let period = self.world.recorder.now() / (period.as_micros() as Us).max(1);
        let index = (period * many as u64 + self.chance.below(many as u64)) as usize;
        self.world.keys[index % self.world.keys.len()].clone()
    }

    fn request_id(&self) -> String {
        format!("c{}-{}", self.number, self.world.fresh())
    }

    fn percent(&mut self, of: u64) -> bool {
        self.chance.below(100) < of
    }

    // What it does.

    fn look(&mut self) {
        let key = self.key();
        if let End::Found { result: sight } = self.read(&key)
            && self.percent(50)
        {
            self.fetch_outputs(&sight);
        }
    }

    /// As a launcher: take the result, or build it under a lease.
    fn compile(&mut self) {
        let (key, request) = (self.key(), self.request_id());
        let wait = if self.percent(30) { Duration::ZERO } else { self.chance.moment(Duration::from_secs(3)) };
        let hold = self.percent(70);
        let (mut end, mut lease) = self.acquire(&key, &request, wait, hold);
        if end.is_unknown() && self.percent(50) {
            (end, lease) = self.acquire(&key, &request, wait, hold);
        }
        match (end, lease) {
            (End::Found { result: sight }, _) if self.percent(60) => self.fetch_outputs(&sight),
            (End::Granted { .. }, Some(lease)) => self.build(lease),
            (End::Busy | End::Alone { .. }, _) if self.builds && self.percent(60) => {
                let variant = self.variant();
                self.upload_and_publish(&key, variant, None);
            }
            _ => {}
        }
    }

    fn build(&mut self, mut lease: Lease) {
        let works_for = self.chance.moment(self.world.builds.0);
        let fate = self.chance.below(100);
        let variant = self.variant();
        if fate < 12 {
            return self.let_go(lease);
        }
        self.work(&mut lease, works_for);
        match fate {
            12..16 => self.release(lease, ReleaseReason::Abandoned),
            16..18 => self.release(lease, ReleaseReason::Uncacheable),
            18..24 => {
                let content = self.world.outputs(&self.scope, &lease.key, variant)[0];
                self.upload(content.digest(), content, content.size / 2);
                self.let_go(lease);
            }
            24..36 => self.come_late(lease, variant),
            _ => {
                let key = lease.key.clone();
                let published = self.upload_and_publish(&key, variant, Some(&lease));
                if published.is_unknown() && self.percent(70) {
                    self.publish(&key, variant, Some(&lease.hold()));
                }
                self.let_go(lease);
            }
        }
    }

    /// Compiles, and says now and then that it lives. Who hears that the lease is lost goes on without it.
    fn work(&mut self, lease: &mut Lease, works_for: Duration) {
        let done = Instant::now() + works_for;
        let step = (lease.ttl / 3).max(Duration::from_millis(2));
        let mut is_held = true;
        loop {
            let left = done.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(step));
            let was_cut = lease.stream.as_mut().is_some_and(|stream| !stream.is_open());
            if is_held && was_cut && self.percent(70) {
                let (key, request) = (lease.key.clone(), lease.request.clone());
                match self.acquire(&key, &request, Duration::ZERO, true) {
                    (End::Granted { .. }, Some(again)) => *lease = again,
                    _ => is_held = false,
                }
            } else if is_held && self.percent(50) {
                is_held = !matches!(self.renew(lease), End::Refused { .. });
            }
        }
    }

    /// Nobody waits for it any more when it publishes.
    fn come_late(&mut self, lease: Lease, variant: u64) {
        let (key, hold) = (lease.key.clone(), lease.hold());
        self.let_go(lease);
        let late = self.world.real(Duration::from_millis(2500)).min(Duration::from_millis(1500));
        std::thread::sleep(self.chance.moment(late));
        for output in self.world.outputs(&self.scope, &key, variant) {
            self.upload(output.digest(), output, output.size);
        }
        self.publish(&key, variant, Some(&hold));
    }

    fn publish_unasked(&mut self) {
        if self.builds {
            let (key, variant) = (self.key(), self.variant());
            self.upload_and_publish(&key, variant, None);
        }
    }

    /// Half of the bytes, or others.
    fn upload_badly(&mut self) {
        let content = Content { seed: self.chance.below(u64::MAX), size: 1 + self.chance.below(40_000) };
        match self.percent(50) {
            true => self.upload(content.digest(), content, content.size / 2),
            false => self.upload(Digest::of("something else"), content, content.size),
        };
    }

    /// Tries what is not its own.
    fn trespass(&mut self) {
        let own = self.scope.clone();
        let index = self.chance.below(self.world.scopes.len() as u64) as usize;
        let other = self.world.scopes[index].clone();
        let foreign: Vec<Digest> = {
            let published = self.world.published.lock().expect("what was published");
            published.iter().filter(|(scope, _)| *scope != own).map(|(_, digest)| *digest).collect()
        };
        let key = self.key();
        match self.chance.below(4) {
            0 if !foreign.is_empty() => {
                let index = self.chance.below(foreign.len() as u64) as usize;
                self.fetch(foreign[index], None);
            }
            1 if other != own => {
                self.scope = other;
                self.upload_and_publish(&key, 1, None);
            }
            2 if other != own => {
                self.scope = other;
                let request = self.request_id();
                let (_, lease) = self.acquire(&key, &request, Duration::ZERO, false);
                lease.into_iter().for_each(|lease| self.let_go(lease));
            }
            _ => {
                self.scope = other;
                self.read(&key);
            }
        }
        self.scope = own;
    }

    /// Which bytes a compile makes: mostly the ones that everyone makes.
    fn variant(&mut self) -> u64 {
        if self.percent(self.world.builds.1) { 1 + self.chance.below(1 << 40) } else { 0 }
    }

    fn fetch_outputs(&mut self, sight: &Sight) {
        for digest in sight.outputs.clone() {
            let range = self.percent(40).then(|| {
                let from = self.chance.below(600);
                (from, from + 1 + self.chance.below(30_000))
            });
            self.fetch(digest, range);
        }
    }

    fn upload_and_publish(&mut self, key: &str, variant: u64, lease: Option<&Lease>) -> End {
        for output in self.world.outputs(&self.scope, key, variant) {
            let end = self.upload(output.digest(), output, output.size);
            if !matches!(end, End::Done { .. }) && (self.settling || !self.percent(10)) {
                return end;
            }
        }
        self.publish(key, variant, lease.map(Lease::hold).as_ref())
    }

    // What it asks.

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

    fn read(&mut self, key: &str) -> End {
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

    fn acquire(&mut self, key: &str, id: &str, wait: Duration, hold: bool) -> (End, Option<Lease>) {
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

    fn renew(&mut self, lease: &Lease) -> End {
        let path = leases::path(&self.scope(), self.world.action(&lease.key).into());
        let act = Act::Renew { key: lease.key.clone(), fence: lease.fence.0 };
        self.ask(act, request("POST", &path, JSON, &json(&lease.hold())), |answer| {
            (answer.status == 200)
                .then(|| read_as(answer, |renewed: Renewed| End::Renewed { ttl_ms: renewed.ttl_ms }))
        })
    }

    fn release(&mut self, lease: Lease, reason: ReleaseReason) {
        let path = leases::path(&self.scope(), self.world.action(&lease.key).into());
        let (key, fence) = (lease.key.clone(), lease.fence.0);
        let asked = ReleaseRequest { fence: lease.fence, secret: lease.secret.clone(), reason };
        let act = Act::Release { key, fence, reason: named(&reason) };
        self.ask(act, request("DELETE", &path, JSON, &json(&asked)), done);
        self.let_go(lease);
    }

    /// From now on nothing is heard of the holder.
    fn let_go(&mut self, lease: Lease) {
        let act = Act::LetGo { key: lease.key.clone(), fence: lease.fence.0 };
        self.note(self.world.recorder.now(), act, End::Done { status: 204 });
        drop(lease);
    }

    fn upload(&mut self, digest: Digest, content: Content, sent: u64) -> End {
        let (path, bytes) = (blobs::path(&self.scope(), digest), content.bytes());
        let act = Act::Upload { digest, content, sent };
        let request = Request { sent: sent as usize, ..request("PUT", &path, OCTETS, &bytes) };
        self.ask(act, request, done)
    }

    fn publish(&mut self, key: &str, variant: u64, lease: Option<&Hold>) -> End {
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

    fn fetch(&mut self, digest: Digest, range: Option<(u64, u64)>) -> End {
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
