//! A history, from its seed.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use pcmcache_shared::api::token::{self, WhoAmI};

use super::client::{Client, Identity, World};
use super::line::{Line, Principal, Recorder, Setting, Us};
use super::nemesis;
use super::road::Road;
use crate::{Chance, Scratch, Server, http};

/// The principals: name, the rights of its token, the scope its clients ask under, how many they are.
const PRINCIPALS: [(&str, &[&str], &str, u32); 5] = [
    ("trusted", &["--write", "main"], "main", 6),
    ("nightly", &["--write", "main"], "main", 3),
    ("request", &["--write", "pr-17", "--read", "main"], "pr-17", 4),
    ("another", &["--write", "pr-18", "--read", "main"], "pr-18", 2),
    ("reader", &["--read", "main"], "main", 1),
];

/// A kind of history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Time goes as it does, and nothing is evicted.
    Plain,
    /// The server's time goes ten times as fast, so that leases run out; and nothing is evicted.
    Quick,
    /// It goes six hundred times as fast, and the store is small: what nobody used for a second goes.
    Small,
}

impl Kind {
    /// The one that follows from a seed.
    pub fn of(seed: u64) -> Self {
        match Chance::seeded(seed).below(5) {
            0 | 1 => Self::Plain,
            2 => Self::Quick,
            _ => Self::Small,
        }
    }

    const fn rate(self) -> u64 {
        match self {
            Self::Plain => 1,
            Self::Quick => 10,
            Self::Small => 600,
        }
    }

    /// The server's flags.
    fn flags(self) -> Vec<String> {
        let size: &[&str] = match self {
            Self::Plain | Self::Quick => &[],
            Self::Small => &["--max-size", "500K"],
        };
        size.iter().map(|flag| (*flag).to_owned()).collect()
    }

    /// By how much the sizes of two BMIs differ at most.
    const fn sizes(self) -> u64 {
        match self {
            Self::Plain | Self::Quick => 60_000,
            Self::Small => 8_000,
        }
    }

    /// How long a build takes at most, and how many of a hundred make other bytes than the rest.
    const fn builds(self) -> (Duration, u64) {
        match self {
            Self::Plain | Self::Quick => (Duration::from_millis(400), 30),
            Self::Small => (Duration::from_millis(40), 10),
        }
    }

    /// How many keys there are, how many of them are asked for at a time, and for how long.
    const fn keys(self) -> (usize, usize, Duration) {
        match self {
            Self::Plain | Self::Quick => (12, 4, Duration::from_millis(2500)),
            Self::Small => (24, 2, Duration::from_millis(400)),
        }
    }
}

/// Runs clients for so long while things go wrong, then has all keys settle.
pub fn run(seed: u64, lasts: Duration) -> Vec<Line> {
    let kind = Kind::of(seed);
    let scratch = Scratch::new("history");
    let hurry = vec![("PCMCACHE_TEST_CLOCK_RATE".to_owned(), kind.rate().to_string())];
    let mut server = Server::start_in(&scratch, kind.flags(), hurry);
    let identities: Vec<_> = PRINCIPALS
        .iter()
        .map(|(name, rights, scope, _)| {
            let token = server.new_token(name, rights);
            Identity {
                who: (*name).to_owned(),
                token,
                scope: (*scope).to_owned(),
                builds: rights.contains(&"--write"),
            }
        })
        .collect();
    let setting = Setting {
        seed,
        rate: kind.rate(),
        may_evict: kind == Kind::Small,
        principals: identities
            .iter()
            .map(|identity| (identity.who.clone(), principal(&server, identity)))
            .collect::<BTreeMap<_, _>>(),
    };
    let (keys, at_a_time, period) = kind.keys();
    let mut world = World {
        seed,
        rate: kind.rate(),
        keys: (0..keys).map(|index| format!("k{index}")).collect(),
        fashion: (at_a_time, period),
        sizes: kind.sizes(),
        builds: kind.builds(),
        scopes: ["main", "pr-17", "pr-18"].map(str::to_owned).to_vec(),
        roads: (0..3).map(|_| Road::start(server.address())).collect(),
        recorder: Recorder::begin(setting),
        until: lasts.as_micros() as Us,
        published: Mutex::default(),
        fresh: AtomicU64::default(),
    };
    let many = PRINCIPALS
        .iter()
        .zip(&identities)
        .flat_map(|((.., many), identity)| (0..*many).map(move |_| identity));
    let shared = &world;
    std::thread::scope(|scope| {
        for (number, identity) in (0..).zip(many) {
            scope.spawn(move || Client::new(shared, number, identity).live());
        }
        nemesis::rage(shared, &mut server, Chance::seeded(seed ^ 1));
    });
    // Nobody is on the roads that broke.
    world.roads = vec![Road::start(server.address())];
    let (shared, identities) = (&world, &identities);
    std::thread::scope(|scope| {
        for (number, identity) in (100..).zip(identities.iter().filter(|identity| identity.builds)) {
            scope.spawn(move || Client::new(shared, number, identity).settle());
        }
    });
    std::thread::scope(|scope| {
        for (number, identity) in (200..).zip(identities) {
            scope.spawn(move || Client::new(shared, number, identity).read_all());
        }
    });
    assert!(!server.log().contains("panicked"), "{}", server.log());
    world.recorder.end()
}

/// What the server takes the token for.
fn principal(server: &Server, identity: &Identity) -> Principal {
    let bearer = format!("Bearer {}", identity.token);
    let answer = http::ask(server.address(), "GET", token::PATH, &[("Authorization", &bearer)], b"");
    let known: WhoAmI = serde_json::from_slice(&answer.expect("an answer").body).expect("who it is");
    let writes = known.writes.map(|scope| scope.to_string());
    let reads = known.reads.iter().map(ToString::to_string).filter(|scope| Some(scope) != writes.as_ref());
    Principal { id: known.id, reads: reads.collect(), writes }
}
