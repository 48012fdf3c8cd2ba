//! A client: it asks as a launcher does, in an order of its own, and writes down what came of it. Some of what it does no good
//! launcher would do: it dies, comes back late, publishes other bytes, sends half of an upload, tries what is not its own.

mod asks;

use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pcmcache_shared::api::leases::Hold;
use pcmcache_shared::{ActionKey, Digest, Fence, ReleaseReason, Secret, UnitKey};

use super::contents::Content;
use super::line::{End, Recorder, Sight, Us};
use super::road::Road;
use super::wire::{Stream, Wire};
use crate::Chance;

/// How long who was cut off waits at most.
const BACKS_OFF: Duration = Duration::from_millis(300);

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
}
