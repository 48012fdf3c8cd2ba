//! What an honest server says about the unit: lies are made of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, OnceLock};

use pcmcache::signing::SigningKey;
use pcmcache_shared::api::acquire::{self, AcquireLine, AcquireMode, AcquireRequest};
use pcmcache_shared::api::leases::Renewed;
use pcmcache_shared::api::{KeyedResult, OfferedSet};
use pcmcache_shared::{Fence, Scope, Secret, Writer};
use pcmcache_tests::http::{self, Answer};
use pcmcache_tests::liar::{Liar, Peer, Request};
use pcmcache_tests::{Machine, Scratch, Server, Unit};

/// What a launcher sends as its token, to nobody but its server.
pub(super) const TOKEN: &str = "pcmc_not-for-strangers";

/// An honest server that knows the unit, and a stranger to whom nobody should be led.
pub(super) struct Truth {
    /// Until the stage is left.
    server: Mutex<Option<Server>>,
    address: SocketAddr,
    thief: Liar,
    offered: OnceLock<OfferedSet>,
    key: SigningKey,
    other_key: SigningKey,
}

impl Truth {
    /// Builds the unit once, honestly.
    pub(super) fn of(scratch: &Scratch, unit: &Unit) -> Self {
        let server = Server::start(scratch);
        let machine = Machine::new(scratch, "honest").remote(&server.url());
        machine.compile(unit.arguments()).ok();
        assert_eq!(server.results(), 1, "{}", machine.log());
        let address = server.address();
        let thief = Liar::telling(|_, peer| peer.body(200, "thank you"));
        let key = |name: &str| SigningKey::create(&scratch.path().join(name)).expect("a key");
        let (key, other_key) = (key("key.pem"), key("other-key.pem"));
        Self { server: Mutex::new(Some(server)), address, thief, offered: OnceLock::new(), key, other_key }
    }

    /// The key that is pinned where one is.
    pub(super) fn key(&self) -> &SigningKey {
        &self.key
    }

    /// One that nobody pinned.
    pub(super) fn other_key(&self) -> &SigningKey {
        &self.other_key
    }

    /// Who published the unit's result.
    pub(super) fn writers(&self) -> Vec<Writer> {
        self.offered.get().map(|offered| offered.results[0].writers.clone()).unwrap_or_default()
    }

    /// Where the stranger listens.
    pub(super) fn thief(&self) -> String {
        self.thief.url()
    }

    /// Panics if anybody was led to the stranger.
    pub(super) fn no_token_came_to_the_thief(&self) {
        assert_eq!(self.thief.connections(), 0);
        let mut server = self.server.lock().expect("the server");
        assert!(!server.as_mut().expect("not ended yet").ended(), "the honest server is gone");
    }

    /// Ends the honest server. A liar that still talks to somebody who hung up has a share in this truth, and would keep
    /// it running.
    pub(super) fn end(&self) {
        drop(self.server.lock().map(|mut server| server.take()));
    }

    /// What the honest server answers.
    pub(super) fn answer(&self, request: &Request) -> Answer {
        let json = [("Content-Type", "application/json")];
        http::ask(self.address, &request.method, &request.path, &json, &request.body).expect("an answer")
    }

    /// The honest answer, sent on.
    pub(super) fn tell(&self, request: &Request, peer: &mut Peer) {
        let answer = self.answer(request);
        peer.body(answer.status, answer.body);
    }

    /// The unit's include set, with the one result that is known under it.
    pub(super) fn offer(&self, request: &Request) -> OfferedSet {
        self.offered.get_or_init(|| self.ask(request)).clone()
    }

    fn ask(&self, request: &Request) -> OfferedSet {
        let asked: AcquireRequest = request.json();
        let watching =
            AcquireRequest { known: Vec::new(), mode: AcquireMode::Watch, wait_ms: 0, hold: false, ..asked };
        let path = acquire::path(&Scope::default());
        let answer = http::ask_json(self.address, "POST", &path, &watching).expect("an answer");
        let line = serde_json::from_slice(&answer.body).unwrap_or_else(|e| panic!("{e}: {}", answer.text()));
        let AcquireLine::Sets { mut sets } = line else { panic!("no sets: {line:?}") };
        assert_eq!((sets.len(), sets[0].results.len()), (1, 1));
        sets.remove(0)
    }

    /// The unit's result, without the blobs that ride along.
    pub(super) fn result(&self, request: &Request) -> KeyedResult {
        let keyed = self.offer(request).results.remove(0);
        KeyedResult { blobs: BTreeMap::new(), ..keyed }
    }
}

/// Grants, renews, takes everything, and has nothing.
pub(super) fn polite(request: &Request, peer: &mut Peer) {
    if request.is("POST", "/acquire") {
        peer.chunked(200);
        peer.line(&granted(request, 15_000));
        peer.hang();
    } else if request.is("POST", "/leases/") {
        peer.json(200, &Renewed { ttl_ms: 15_000 });
    } else if request.method == "PUT" {
        peer.body(201, "{}");
    } else if request.method == "DELETE" {
        peer.head(204, "");
    } else {
        peer.body(404, "");
    }
}

/// A grant of what was asked for.
pub(super) fn granted(request: &Request, ttl_ms: u64) -> AcquireLine {
    let asked: AcquireRequest = request.json();
    let secret = Secret::from_random([7; 16]);
    AcquireLine::Granted { claim: asked.claim, fence: Fence(7), secret, ttl_ms, expected_ms: None }
}

/// One line, and the stream's end.
pub(super) fn say(peer: &mut Peer, line: &AcquireLine) {
    peer.chunked(200);
    peer.line(line);
    peer.end();
}

/// A hit on what was asked for that is not quite the honest one. Who does not know the include set learns it first.
pub(super) fn hit(
    request: &Request,
    peer: &mut Peer,
    truth: &Truth,
    change: impl Fn(&mut KeyedResult),
) -> bool {
    if request.is("GET", "/blobs/") {
        truth.tell(request, peer);
        return false;
    }
    if !request.is("POST", "/acquire") {
        polite(request, peer);
        return false;
    }
    let knows = request.json::<AcquireRequest>().known.iter().any(|known| known.action.is_some());
    if knows {
        let mut keyed = truth.result(request);
        change(&mut keyed);
        say(peer, &AcquireLine::Hit(keyed));
    } else {
        let set = OfferedSet { results: Vec::new(), ..truth.offer(request) };
        say(peer, &AcquireLine::Sets { sets: vec![set] });
    }
    knows
}
