//! Look, wait, get the lease: the acquire stream followed to its last line.
//!
//! A wait is as long as the client asked for, less where the build's cost is known, and ends early when the
//! server falls silent. A stream that breaks after it said `busy` is a server that restarts: it is asked again
//! with the same request id, for a few seconds.

use std::borrow::Cow;
use std::time::Duration;

use pcmcache_shared::api::acquire::{self as wire, AcquireLine, AcquireRequest, AloneReason};
use pcmcache_shared::api::leases::Hold;
use pcmcache_shared::api::{KeyedResult, OfferedSet, limits};
use pcmcache_shared::{ActionKey, Claim, Digest};
use reqwest::Method;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::RemoteError;
use super::answer::Answer;
use super::lines::Lines;
use super::server::{Deadlines, Server};

const DURING: &str = "acquire";

/// The shortest that a build of known cost is waited for, and how many times its cost.
const SHORTEST_LIMIT: Duration = Duration::from_secs(30);
const TIMES_EXPECTED: u32 = 5;

/// The longest line that offers no include sets, in bytes: a hit with a small blob for each of its outputs.
const LONGEST_LINE: usize = 1024 * 1024;

/// A stream's last line, and whether there were `busy` ones before it.
#[derive(Debug)]
pub(super) struct Heard {
    pub verdict: Verdict,
    pub waited: bool,
}

/// What a stream came to.
#[derive(Debug)]
pub(super) enum Verdict {
    Hit(Box<KeyedResult>),
    Sets(Vec<OfferedSet>),
    Alone(AloneReason),
    Granted(Box<Grant>),
    WaitOver,
}

/// A lease as it was granted.
#[derive(Debug)]
pub(super) struct Grant {
    pub claim: Claim,
    pub hold: Hold,
    pub ttl: Duration,
    /// The open stream, which holds the lease if the request said so.
    pub stream: Answer,
}

/// Asks, and waits as long as that makes sense.
pub(super) async fn acquire(
    server: &Server,
    request: &AcquireRequest,
    busy: &mut (dyn FnMut() + Send),
) -> Result<Heard, RemoteError> {
    let mut wait = Wait::new(server.deadlines, request.wait_ms);
    loop {
        let by_agent = server.is_by_agent();
        let error = match ask(server, request, &mut wait, busy).await {
            Ok(verdict) => return Ok(Heard { verdict, waited: wait.began }),
            Err(error) => error,
        };
        let Err(error) = server.turn_back(by_agent, error) else { continue };
        if !wait.outlives(&error) {
            return Err(error);
        }
        sleep(server.deadlines.retry_every).await;
    }
}

/// One request, followed to its last line or until the wait is over.
async fn ask(
    server: &Server,
    request: &AcquireRequest,
    wait: &mut Wait,
    busy: &mut (dyn FnMut() + Send),
) -> Result<Verdict, RemoteError> {
    let first = server.deadlines.first;
    let mut by = Instant::now() + first;
    let body = AcquireRequest { wait_ms: wait.left_ms(), ..request.clone() };
    let http = server.request(Method::POST, &wire::path(&server.scope)).json(&body);
    let answer = server.send(DURING, http, first).await?;
    if answer.status() != 200 {
        return Err(answer.refusal().await?.into());
    }
    let mut lines = Lines::new(answer);
    loop {
        let line = match lines.next(by).await {
            Ok(Some(line)) => parse(&line)?,
            Ok(None) if wait.is_over() => return Ok(Verdict::WaitOver),
            Ok(None) => return Err(RemoteError::broken(DURING, "the stream ended early")),
            Err(error) if error.is_silence() && wait.is_over() => return Ok(Verdict::WaitOver),
            Err(error) => return Err(error),
        };
        match line {
            AcquireLine::Busy { expected_ms, .. } => {
                busy();
                match wait.go_on(expected_ms) {
                    Some(next) => by = next,
                    None => return Ok(Verdict::WaitOver),
                }
            }
            AcquireLine::Hit(hit) => {
                return verified_hit(request, hit).map(|hit| Verdict::Hit(Box::new(hit)));
            }
            AcquireLine::Sets { sets } => return verified_sets(sets).map(Verdict::Sets),
            AcquireLine::Alone { reason } => return Ok(Verdict::Alone(reason)),
            AcquireLine::Granted { claim, fence, secret, ttl_ms, .. } => {
                let (hold, ttl) = (Hold { fence, secret }, Duration::from_millis(ttl_ms));
                let grant = Grant { claim, hold, ttl, stream: lines.into_answer() };
                return Ok(Verdict::Granted(Box::new(grant)));
            }
        }
    }
}

/// What only an offer may be as long as is read as an offer: what does not belong there is passed over, and takes no memory.
/// Read as any line, it would be kept at sixteen times its size until it is known which line it is.
fn parse(line: &[u8]) -> Result<AcquireLine, RemoteError> {
    let damaged = |error: serde_json::Error| RemoteError::damaged(DURING, error.to_string());
    if line.len() <= LONGEST_LINE {
        return serde_json::from_slice(line).map_err(damaged);
    }
    let Offer { state, sets } = serde_json::from_slice(line).map_err(damaged)?;
    match state.as_ref() {
        "sets" => Ok(AcquireLine::Sets { sets }),
        _ => Err(RemoteError::damaged(DURING, "a line is too long")),
    }
}

#[derive(Deserialize)]
struct Offer<'a> {
    #[serde(borrow)]
    state: Cow<'a, str>,
    #[serde(default)]
    sets: Vec<OfferedSet>,
}

/// A hit must be on something that was asked for: another action's result is another object file.
fn verified_hit(request: &AcquireRequest, hit: KeyedResult) -> Result<KeyedResult, RemoteError> {
    let asked = |key: ActionKey| {
        Claim::from(key) == request.claim || request.known.iter().any(|known| known.action == Some(key))
    };
    if asked(hit.action) {
        verified(hit)
    } else {
        Err(RemoteError::damaged(DURING, "a hit on an action that was not asked for"))
    }
}

fn verified_sets(sets: Vec<OfferedSet>) -> Result<Vec<OfferedSet>, RemoteError> {
    let verify = |mut offered: OfferedSet| {
        if Digest::of(&offered.text) != offered.set {
            return Err(RemoteError::damaged(DURING, "an include set that does not match its digest"));
        }
        offered.results = offered.results.into_iter().map(verified).collect::<Result<_, _>>()?;
        Ok(offered)
    };
    sets.into_iter().map(verify).collect()
}

/// A result someone could have made, with those inline blobs that match their digests; others are fetched.
pub(super) fn verified(mut keyed: KeyedResult) -> Result<KeyedResult, RemoteError> {
    keyed.result.check().map_err(|error| RemoteError::damaged(DURING, error.to_string()))?;
    keyed.blobs.retain(|digest, inline| Digest::of(&inline.0) == *digest);
    Ok(keyed)
}

/// How long is still waited, and for whom.
#[derive(Debug)]
struct Wait {
    deadlines: Deadlines,
    started: Instant,
    until: Instant,
    /// Whether someone was seen building.
    began: bool,
    /// Since when a server that was there is not.
    away_since: Option<Instant>,
}

impl Wait {
    fn new(deadlines: Deadlines, wait_ms: u64) -> Self {
        let started = Instant::now();
        let until = started + Duration::from_millis(wait_ms).min(limits::MAX_WAIT);
        Self { deadlines, started, until, began: false, away_since: None }
    }

    fn left_ms(&self) -> u64 {
        let left = self.until.saturating_duration_since(Instant::now());
        u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether there was something to wait for and it took too long.
    fn is_over(&self) -> bool {
        self.began && Instant::now() >= self.until
    }

    /// The last moment at which the server, which ends a wait by itself, should have done so.
    fn overdue(&self) -> Instant {
        self.until + self.deadlines.first
    }

    /// Someone builds it: when the next line is due, unless that is too late.
    fn go_on(&mut self, expected_ms: Option<u64>) -> Option<Instant> {
        let now = Instant::now();
        self.began = true;
        self.away_since = None;
        if let Some(expected_ms) = expected_ms {
            let expected = Duration::from_millis(expected_ms).min(limits::MAX_WAIT);
            self.until = self.until.min(self.started + SHORTEST_LIMIT.max(expected * TIMES_EXPECTED));
        }
        (now < self.overdue()).then(|| self.overdue().min(now + 3 * self.deadlines.busy_every))
    }

    /// Whether to ask again after this error.
    fn outlives(&mut self, error: &RemoteError) -> bool {
        let now = Instant::now();
        let since = *self.away_since.get_or_insert(now);
        self.began
            && error.may_be_restart()
            && now < self.overdue()
            && now.duration_since(since) < self.deadlines.restart
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};

    use pcmcache_shared::api::Inline;
    use pcmcache_shared::api::problem::{Code, Problem};
    use pcmcache_shared::{ActionResult, Cost, Output, Role, Scope};

    use super::super::fake::{Fake, busy, granted, is_silent, never, request, settings, short};
    use super::super::{Acquired, Remote};
    use super::*;

    /// What a client that waits this long makes of this server.
    fn asked(fake: &Fake, wait_ms: u64) -> Result<super::super::Answer, RemoteError> {
        fake.remote().acquire(&request(wait_ms), &mut || {}, &never)
    }

    fn hit(action: ActionKey) -> KeyedResult {
        let outputs = vec![Output { role: Role::Object, digest: Digest::of("object"), size: 6 }];
        let blobs = BTreeMap::from([
            (Digest::of("object"), Inline(b"object".to_vec())),
            (Digest::of("other"), Inline(b"damaged".to_vec())),
        ]);
        let result = ActionResult { outputs, cost: Cost::default(), builder: String::new(), signature: None };
        KeyedResult { action, result, scope: Scope::default(), writers: Vec::new(), blobs }
    }

    #[test]
    fn a_server_that_says_nothing_is_unreachable() {
        let fake = Fake::start(|_, peer| peer.hang());
        assert!(is_silent(&asked(&fake, 0).unwrap_err()));
        let fake = Fake::start(|_, peer| {
            peer.chunked(200);
            peer.hang();
        });
        assert!(is_silent(&asked(&fake, 60_000).unwrap_err()));
    }

    #[test]
    fn nobody_there_is_unreachable() {
        let address = Fake::start(|_, _| {}).kill();
        let remote = Remote::with_deadlines(settings(address), short(), None).unwrap();
        let error = remote.acquire(&request(60_000), &mut || {}, &never).unwrap_err();
        assert!(error.trips_breaker() && !error.is_silence(), "{error}");
        assert!(!remote.probe());
    }

    #[test]
    fn a_no_is_a_refusal_and_trips_nothing() {
        let fake = Fake::start(|_, peer| peer.body(500, "<html>oops</html>"));
        let error = asked(&fake, 0).unwrap_err();
        assert!(matches!(error, RemoteError::Refused { status: 500, code: None, .. }), "{error}");
        assert!(!error.trips_breaker());
        let fake = Fake::start(|_, peer| peer.problem(&Problem::new(Code::BadScope, "what?")));
        let error = asked(&fake, 0).unwrap_err();
        assert!(matches!(error, RemoteError::Refused { status: 400, code: Some(Code::BadScope), .. }));
        assert_eq!(error.to_string(), "acquire: refused with 400 not a scope name: what?");
        let fake = Fake::start(|_, peer| peer.problem(&Problem::new(Code::TooManyRequests, "later")));
        let error = asked(&fake, 60_000).unwrap_err();
        assert!(matches!(error, RemoteError::Refused { status: 429, .. }) && !error.trips_breaker());
        assert_eq!(fake.seen("POST").len(), 1, "not now means not now");
        let fake = Fake::start(|_, peer| peer.head(302, "location: http://127.0.0.1:1/\r\n"));
        assert!(matches!(asked(&fake, 0), Err(RemoteError::Refused { status: 302, .. })));
    }

    #[test]
    fn a_no_that_never_ends_is_cut() {
        let fake = Fake::start(|_, peer| {
            peer.head(500, "content-length: 1000\r\n");
            peer.hang();
        });
        assert!(is_silent(&asked(&fake, 0).unwrap_err()));
        let fake = Fake::start(|_, peer| {
            peer.chunked(500);
            while peer.chunk([b'x'; 4096]) {}
        });
        assert!(matches!(asked(&fake, 0), Err(RemoteError::Refused { status: 500, .. })));
    }

    #[test]
    fn lines_that_make_no_sense_are_damaged() {
        for line in ["\n\nnonsense\n", "{\"state\":\"dancing\"}\n", "\u{0}\n", "[[[[[[[[\n"] {
            let fake = Fake::start(move |_, peer| peer.body(200, line));
            assert!(matches!(asked(&fake, 0), Err(RemoteError::Damaged { .. })), "{line:?}");
        }
    }

    #[test]
    fn an_endless_line_and_a_dribbling_one_are_cut() {
        let fake = Fake::start(|_, peer| {
            peer.chunked(200);
            while peer.chunk([b'x'; 4096]) {}
        });
        assert!(matches!(asked(&fake, 60_000), Err(RemoteError::Damaged { .. })));
        let fake = Fake::start(|_, peer| {
            peer.chunked(200);
            while peer.chunk("x") {
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        assert!(is_silent(&asked(&fake, 60_000).unwrap_err()));
    }

    #[test]
    fn what_belongs_to_no_line_is_not_kept() {
        let junk = |state: &str| {
            format!("{{\"state\":\"{state}\",\"sets\":[],\"junk\":[{}0]}}", "0,".repeat(600_000))
        };
        assert!(matches!(parse(junk("sets").as_bytes()), Ok(AcquireLine::Sets { .. })));
        for state in ["hit", "busy", "alone", "granted", "dancing"] {
            assert!(matches!(parse(junk(state).as_bytes()), Err(RemoteError::Damaged { .. })), "{state}");
        }
    }

    #[test]
    fn busy_then_granted_is_a_lease_that_was_waited_for() {
        let fake = Fake::start(|request, peer| {
            if request.line.ends_with("/acquire") {
                peer.chunked(200);
                peer.line(&busy());
                std::thread::sleep(Duration::from_millis(300));
                peer.line(&busy());
                peer.line(&granted(15_000));
                peer.hang();
            }
        });
        let answer = asked(&fake, 60_000).unwrap();
        assert!(answer.waited);
        let Acquired::Granted(lease) = answer.acquired else { panic!("{answer:?}") };
        assert_eq!(lease.claim(), Claim::of("claim"));
        let sent: AcquireRequest = fake.seen("POST /v1/scopes/main/acquire")[0].json();
        assert_eq!((sent.holder.as_str(), sent.hold), ("test", true));
    }

    #[test]
    fn a_wait_ends_when_the_server_says_so_or_should_have() {
        let fake = Fake::start(|_, peer| {
            peer.chunked(200);
            peer.line(&busy());
            peer.end();
        });
        let answer = asked(&fake, 0).unwrap();
        assert!(matches!(answer.acquired, Acquired::WaitOver) && answer.waited);
        let fake = Fake::start(|_, peer| {
            peer.chunked(200);
            while peer.line(&busy()) {
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        assert!(matches!(asked(&fake, 200).unwrap().acquired, Acquired::WaitOver));
    }

    #[test]
    fn a_busy_server_that_falls_silent_is_unreachable() {
        let fake = Fake::start(|_, peer| {
            peer.chunked(200);
            peer.line(&busy());
            peer.hang();
        });
        assert!(is_silent(&asked(&fake, 60_000).unwrap_err()));
        assert_eq!(fake.seen("POST").len(), 1, "silence is not asked twice");
    }

    #[test]
    fn known_costs_shorten_the_wait() {
        let mut wait = Wait::new(short(), 300_000);
        wait.go_on(Some(10_000));
        assert_eq!(wait.until - wait.started, Duration::from_secs(50));
        wait.go_on(Some(1));
        assert_eq!(wait.until - wait.started, Duration::from_secs(30));
        wait.go_on(Some(u64::MAX));
        assert_eq!(wait.until - wait.started, Duration::from_secs(30));
        assert_eq!(Wait::new(short(), u64::MAX).until.elapsed(), Duration::ZERO);
    }

    #[test]
    fn each_restart_gets_its_own_patience_and_no_more() {
        let restart = || RemoteError::broken(DURING, "cut");
        let mut wait = Wait::new(Deadlines { restart: Duration::from_secs(5), ..short() }, 60_000);
        assert!(!wait.outlives(&restart()), "nobody was seen building");
        wait.go_on(None);
        assert!(wait.outlives(&restart()));
        assert!(!wait.outlives(&RemoteError::silent(DURING)));
        wait.away_since = wait.started.checked_sub(Duration::from_secs(6));
        assert!(!wait.outlives(&restart()));
        wait.go_on(None);
        assert!(wait.outlives(&restart()));
    }

    #[test]
    fn a_server_that_is_busy_beyond_the_wait_is_left() {
        let mut wait = Wait::new(short(), 0);
        assert!(!wait.is_over(), "a hit is a hit, however short the wait");
        assert!(wait.go_on(None).is_some());
        assert!(wait.is_over());
        wait.until = wait.started.checked_sub(Duration::from_secs(60)).unwrap();
        assert_eq!(wait.go_on(None), None);
    }

    #[test]
    fn a_waiter_outlives_a_restart() {
        let first = Fake::start(|_, peer| {
            peer.chunked(200);
            peer.line(&busy());
            peer.hang();
        });
        let remote = first.remote();
        let answer = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| remote.acquire(&request(60_000), &mut || {}, &never));
            super::super::fake::eventually("the request", || !first.seen("POST").is_empty());
            std::thread::sleep(Duration::from_millis(150));
            let seen = first.seen("POST");
            let address = first.kill();
            std::thread::sleep(Duration::from_millis(300));
            let second = Fake::start_at(address, |_, peer| {
                peer.chunked(200);
                peer.line(&AcquireLine::Hit(hit(ActionKey::of("claim"))));
                peer.end();
            });
            let answer = waiting.join().unwrap();
            let ids = [&seen[0], &second.seen("POST")[0]].map(|r| r.json::<AcquireRequest>().request_id);
            assert_eq!(ids[0], ids[1]);
            answer
        });
        let answer = answer.unwrap();
        assert!(answer.waited && matches!(answer.acquired, Acquired::Hit(_)));
    }

    #[test]
    fn a_server_that_does_not_come_back_is_unreachable() {
        let fake = Fake::start(|_, peer| {
            peer.chunked(200);
            peer.line(&busy());
            peer.hang();
        });
        let remote = fake.remote();
        let error = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| remote.acquire(&request(60_000), &mut || {}, &never));
            super::super::fake::eventually("the request", || !fake.seen("POST").is_empty());
            std::thread::sleep(Duration::from_millis(150));
            fake.kill();
            waiting.join().unwrap().unwrap_err()
        });
        assert!(error.trips_breaker(), "{error}");
    }

    #[test]
    fn only_what_was_asked_for_is_a_hit_and_inline_blobs_are_verified() {
        let fake = Fake::start(|_, peer| {
            peer.chunked(200);
            peer.line(&AcquireLine::Hit(hit(ActionKey::of("claim"))));
        });
        let Ok(Acquired::Hit(found)) = asked(&fake, 0).map(|answer| answer.acquired) else { panic!() };
        assert_eq!(found.blobs.into_keys().collect::<Vec<_>>(), [Digest::of("object")]);
        let fake = Fake::start(|_, peer| {
            peer.chunked(200);
            peer.line(&AcquireLine::Hit(hit(ActionKey::of("another"))));
        });
        assert!(matches!(asked(&fake, 0), Err(RemoteError::Damaged { .. })));
    }

    #[test]
    fn a_set_is_its_digest() {
        let offer = |text: &str| {
            let sets = vec![OfferedSet {
                set: Digest::of("file /a.h\n"),
                text: text.to_owned(),
                results: vec![hit(ActionKey::of("any"))],
            }];
            Fake::start(move |_, peer| {
                peer.chunked(200);
                peer.line(&AcquireLine::Sets { sets: sets.clone() });
            })
        };
        let Ok(Acquired::Sets(sets)) = asked(&offer("file /a.h\n"), 0).map(|answer| answer.acquired) else {
            panic!()
        };
        assert_eq!(sets[0].results[0].blobs.len(), 1);
        assert!(matches!(asked(&offer("file /b.h\n"), 0), Err(RemoteError::Damaged { .. })));
    }

    #[test]
    fn an_interrupt_ends_the_wait() {
        let fake = Fake::start(|_, peer| {
            peer.chunked(200);
            while peer.line(&busy()) {
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let (remote, stop) = (fake.remote(), AtomicBool::new(false));
        let error = std::thread::scope(|scope| {
            let waiting =
                scope.spawn(|| remote.acquire(&request(60_000), &mut || {}, &|| stop.load(Ordering::SeqCst)));
            super::super::fake::eventually("the request", || !fake.seen("POST").is_empty());
            stop.store(true, Ordering::SeqCst);
            waiting.join().unwrap().unwrap_err()
        });
        assert!(matches!(error, RemoteError::Interrupted));
    }
}
