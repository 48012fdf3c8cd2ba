//! A lease, kept alive in the background while the caller compiles.
//!
//! The open acquire stream is the hold, renewals prove life behind proxies that buffer. When the stream drops the
//! server gives the holder a short grace, so it is renewed at once and then asked for a new stream with the same
//! request id; when the server is away that is tried over and over for as long as the lease may live, so that a
//! builder outlives a restart. A definite no loses the lease. Losing it costs work, never safety.
//!
//! A launcher may hand its lease over to another process of its host, which uploads what was made. That asks at once for a
//! stream by the same request id. To the server the newest stream is the hold, so the launcher's may drop then; until then
//! there is the grace. What lapsed before is granted anew unless somebody else has it: nobody need build what is made.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pcmcache_shared::api::acquire::AcquireRequest;
use pcmcache_shared::api::leases::Hold;
use pcmcache_shared::api::limits;
use pcmcache_shared::{Claim, ReleaseReason};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::acquire::{Grant, Verdict, acquire};
use super::answer::Answer;
use super::server::Server;
use super::{Engine, RemoteError};

/// The most that a holding stream may say, in bytes: it has nothing to say.
const MOST_SMALL_TALK: usize = 64 * 1024;

/// No server's word makes a lease live longer without a renewal.
const LONGEST_TTL: Duration = limits::LEASE_TTL.saturating_mul(4);

/// As often in a row it is renewed without waiting long, after it was handed over: its first holder's stream may drop
/// somewhat later, and take the renewals before with it.
const SHAKEN_BY_HAND_OVER: u32 = 4;

/// The right to build a claim. Dropped, it is given back for somebody else to build.
pub struct Lease {
    engine: Arc<Engine>,
    held: Arc<Held>,
    keeper: Option<JoinHandle<()>>,
}

/// What the caller and the keeper both know.
struct Held {
    server: Arc<Server>,
    claim: Claim,
    /// What proves it; another where it lapsed, and was granted anew before anybody else had it.
    hold: Mutex<Hold>,
    /// How to get a stream again; none if no stream was to be the hold.
    again: Option<AcquireRequest>,
    lost: AtomicBool,
    /// Whether the server has answered to who took it over.
    known: watch::Sender<bool>,
    /// Another process holds it, or is about to: this one asks for no stream any more.
    handed_over: AtomicBool,
}

impl Held {
    fn new(server: &Arc<Server>, claim: Claim, hold: Hold, again: Option<AcquireRequest>) -> Arc<Self> {
        let (server, hold, known) = (Arc::clone(server), Mutex::new(hold), watch::Sender::new(false));
        let (lost, handed_over) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { server, claim, hold, again, lost, known, handed_over })
    }

    fn hold(&self) -> Hold {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Lease {
    /// Keeps what was granted for `request`.
    pub(super) fn keep(
        engine: &Arc<Engine>,
        server: &Arc<Server>,
        request: &AcquireRequest,
        grant: Grant,
    ) -> Self {
        let Grant { claim, hold, ttl, stream } = grant;
        let held = Held::new(server, claim, hold, request.hold.then(|| hold_again(request, claim)));
        let stream = held.again.is_some().then_some(stream);
        let keeper = Keeper { held: Arc::clone(&held), stream, next_hold: Instant::now(), shaken: 0 };
        let keeper = engine.spawn(keeper.run(ttl));
        Self { engine: Arc::clone(engine), held, keeper }
    }

    /// Keeps what another process of this host was granted and handed over: takes the hold at once.
    pub(super) fn adopt(
        engine: &Arc<Engine>,
        server: &Arc<Server>,
        hold: Hold,
        again: AcquireRequest,
    ) -> Self {
        let held = Held::new(server, again.claim, hold, Some(again));
        let (next_hold, shaken) = (Instant::now(), SHAKEN_BY_HAND_OVER);
        let keeper = Keeper { held: Arc::clone(&held), stream: None, next_hold, shaken };
        let keeper = engine.spawn(keeper.take_over());
        Self { engine: Arc::clone(engine), held, keeper }
    }

    /// What the lease is on.
    pub fn claim(&self) -> Claim {
        self.held.claim
    }

    /// What proves to the server that a publish is the holder's.
    pub fn hold(&self) -> Hold {
        self.held.hold()
    }

    /// What another process needs to go on keeping it, besides its claim and [`Lease::hold`]: the id of the request that it
    /// was granted for, and what people call what is built. None: no stream was to hold it.
    pub fn request(&self) -> Option<(&str, &str)> {
        self.held.again.as_ref().map(|request| (request.request_id.as_str(), request.subject.as_str()))
    }

    /// Whether the server gave it up, so that somebody else may be building the same.
    pub fn lost(&self) -> bool {
        self.held.lost.load(Ordering::Acquire) || self.keeper.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Gives it back without a result, and says why. Best effort, bounded by the timeout.
    pub fn release(mut self, reason: ReleaseReason) {
        self.give_back(reason);
    }

    /// Stops holding it after a publish, which discharged it.
    pub fn discharge(mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.abort();
        }
    }

    /// Of one that was adopted: waits until the server has said whether it goes on, at most for as long as that may take.
    /// What is published before might be under a fence that is no longer ours.
    pub fn wait_until_known(&self) {
        let heard = async {
            self.hear().await;
            Ok(())
        };
        let _ = self.engine.run(&|| false, heard);
    }

    pub(super) async fn hear(&self) {
        let mut known = self.held.known.subscribe();
        let by = Instant::now() + self.held.server.deadlines.first * 2;
        let _ = timeout_at(by, known.wait_for(|known| *known)).await;
    }

    /// Leaves it to another process of this host. The stream stays open for as long as this process has its
    /// [`Remote`](super::Remote), if no newer one takes its place; then there is the grace.
    pub fn hand_over(mut self) {
        self.held.handed_over.store(true, Ordering::Release);
        // The task goes on, until the runtime ends.
        drop(self.keeper.take());
    }

    fn give_back(&mut self, reason: ReleaseReason) {
        // Within a runtime nothing may block; there the end of the stream says it, after the grace.
        if Handle::try_current().is_err() {
            let engine = Arc::clone(&self.engine);
            let give_back = async {
                self.say_back(reason).await;
                Ok(())
            };
            let _ = engine.run(&|| false, give_back);
        }
        if let Some(keeper) = self.keeper.take() {
            keeper.abort();
        }
    }

    /// Says to the server that the lease is given back, unless it was lost, and lets go of it.
    pub(super) async fn say_back(&mut self, reason: ReleaseReason) {
        let lost = self.lost();
        let Some(keeper) = self.keeper.take() else { return };
        if !lost {
            let (Held { server, claim, .. }, hold) = (&*self.held, self.held.hold());
            // The answer's body may be slow too.
            let by = Instant::now() + server.deadlines.first;
            let _ = timeout_at(by, server.release(*claim, &hold, reason)).await;
        }
        keeper.abort();
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (claim, hold) = (&self.held.claim, self.held.hold());
        f.debug_struct("Lease").field("claim", claim).field("hold", &hold).finish_non_exhaustive()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.give_back(ReleaseReason::Abandoned);
    }
}

/// The request that gets a holder its stream back: the same id on the granted claim, and no waiting.
fn hold_again(request: &AcquireRequest, claim: Claim) -> AcquireRequest {
    AcquireRequest { claim, unit: None, known: Vec::new(), wait_ms: 0, ..request.clone() }
}

/// The background task of one lease.
struct Keeper {
    held: Arc<Held>,
    stream: Option<Answer>,
    /// Not before then is a stream asked for again: something on the way may cut every one of them.
    next_hold: Instant,
    /// The stream dropped just now, so many renewals ago. The server may notice later than we renewed, and then shrinks what
    /// we got.
    shaken: u32,
}

impl Keeper {
    /// The grace runs, or another process's stream is the hold. Renewed without a stream the lease would outlive this
    /// process by far, should that be killed; so this is for a server that gives none.
    async fn take_over(mut self) {
        let ttl = match self.hold_again().await {
            Some(ttl) => Some(ttl),
            None => self.renew(Instant::now() + limits::LEASE_TTL).await,
        };
        self.held.known.send_replace(true);
        match ttl {
            Some(ttl) => self.run(ttl).await,
            None => self.held.lost.store(true, Ordering::Release),
        }
    }

    async fn run(mut self, ttl: Duration) {
        let mut ttl = ttl.min(LONGEST_TTL);
        let mut alive_until = Instant::now() + ttl;
        loop {
            let deadlines = self.held.server.deadlines;
            let steady = deadlines.renew_every.min(ttl / 3);
            let pause = if self.shaken > 0 { steady.min(limits::GRACE / 2) } else { steady };
            self.shaken = self.shaken.saturating_sub(1);
            // A lease that lives for no time at all is not renewed without a pause.
            let pause = pause.max(deadlines.retry_every);
            self.rest(Instant::now() + pause).await;
            let Some(renewed) = self.renew(alive_until).await else { break };
            ttl = renewed.min(LONGEST_TTL);
            alive_until = Instant::now() + ttl;
            self.hold_again().await;
        }
        self.held.lost.store(true, Ordering::Release);
    }

    /// Rests until then, or until the stream drops.
    async fn rest(&mut self, until: Instant) {
        let mut small_talk = 0;
        while let Some(stream) = &mut self.stream {
            match stream.piece(until).await {
                Err(error) if error.is_silence() => return,
                Ok(Some(piece)) if small_talk + piece.len() <= MOST_SMALL_TALK => small_talk += piece.len(),
                Ok(_) | Err(_) => {
                    self.stream = None;
                    self.shaken = self.shaken.max(1);
                    return;
                }
            }
        }
        tokio::time::sleep_until(until).await;
    }

    /// Renews until the server answers or the lease is over: how long it lives now, or `None` if it is lost.
    async fn renew(&self, alive_until: Instant) -> Option<Duration> {
        let (Held { server, claim, .. }, hold) = (&*self.held, self.held.hold());
        loop {
            match server.renew(*claim, &hold).await {
                Ok(ttl) => return Some(ttl),
                Err(error) if is_definite(&error) || Instant::now() >= alive_until => return None,
                Err(_) => sleep(server.deadlines.retry_every).await,
            }
        }
    }

    /// Gets the stream back, so that the lease ends with this process and not a TTL later: how long it lives now. The lease
    /// lives by its renewals without.
    async fn hold_again(&mut self) -> Option<Duration> {
        let (None, Some(request)) = (&self.stream, &self.held.again) else { return None };
        if Instant::now() < self.next_hold || self.held.handed_over.load(Ordering::Acquire) {
            return None;
        }
        self.next_hold = Instant::now() + self.held.server.deadlines.renew_every;
        let heard = acquire(&self.held.server, request, &mut || {}).await.ok()?;
        let Verdict::Granted(grant) = heard.verdict else { return None };
        if grant.claim != self.held.claim {
            return None;
        }
        // Another one, if the server let ours go meanwhile: what is built is published under that.
        *self.held.hold.lock().unwrap_or_else(PoisonError::into_inner) = grant.hold;
        self.stream = Some(grant.stream);
        Some(grant.ttl)
    }
}

/// Whether the server knows that the lease is not ours, as opposed to not knowing anything just now.
fn is_definite(error: &RemoteError) -> bool {
    match error {
        RemoteError::Refused { status, .. } => (400..500).contains(status) && !matches!(status, 408 | 429),
        RemoteError::Unreachable { .. }
        | RemoteError::Damaged { .. }
        | RemoteError::Unsigned(_)
        | RemoteError::Gone
        | RemoteError::Local(_)
        | RemoteError::Interrupted
        | RemoteError::Misconfigured(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use pcmcache_shared::Fence;
    use pcmcache_shared::api::acquire::AcquireLine;
    use pcmcache_shared::api::leases::{ReleaseRequest, Renewed};
    use pcmcache_shared::api::problem::{Code, Problem};

    use super::super::fake::{Fake, Peer, Request, eventually, granted, never, request};
    use super::super::{Acquired, Remote};
    use super::*;

    const ACQUIRE: &str = "POST /v1/scopes/main/acquire";
    const RENEW: &str = "POST /v1/scopes/main/leases/";
    const RELEASE: &str = "DELETE /v1/scopes/main/leases/";

    /// A server that grants, renews and takes back.
    fn good(request: &Request, peer: &mut Peer) {
        if request.line.starts_with(ACQUIRE) {
            peer.chunked(200);
            peer.line(&granted(15_000));
            peer.hang();
        } else if request.line.starts_with(RENEW) {
            peer.json(200, &Renewed { ttl_ms: 15_000 });
        } else {
            peer.head(204, "");
        }
    }

    fn lease(remote: &Remote) -> Lease {
        let answer = remote.acquire(&request(0), &mut || {}, &never).unwrap();
        let Acquired::Granted(lease) = answer.acquired else { panic!("{answer:?}") };
        lease
    }

    fn released(fake: &Fake) -> Vec<ReleaseReason> {
        fake.seen(RELEASE).iter().map(|request| request.json::<ReleaseRequest>().reason).collect()
    }

    #[test]
    fn a_lease_is_renewed_until_it_is_given_back() {
        let fake = Fake::start(good);
        let remote = fake.remote();
        let lease = lease(&remote);
        eventually("three renewals", || fake.seen(RENEW).len() >= 3);
        assert!(!lease.lost());
        assert_eq!(fake.seen(RENEW)[0].json::<Hold>(), lease.hold());
        assert_eq!(fake.seen(ACQUIRE).len(), 1, "the stream was open all the while");
        lease.release(ReleaseReason::Failed);
        assert_eq!(released(&fake), [ReleaseReason::Failed]);
        let renewals = fake.seen(RENEW).len();
        std::thread::sleep(Duration::from_millis(300));
        assert!(fake.seen(RENEW).len() <= renewals + 1);
    }

    #[test]
    fn dropped_it_is_abandoned_and_discharged_it_is_not() {
        let fake = Fake::start(good);
        let remote = fake.remote();
        drop(lease(&remote));
        assert_eq!(released(&fake), [ReleaseReason::Abandoned]);
        lease(&remote).discharge();
        drop(remote);
        assert_eq!(released(&fake).len(), 1);
    }

    #[test]
    fn a_lease_outlives_its_remote() {
        let fake = Fake::start(good);
        let lease = lease(&fake.remote());
        eventually("renewals", || fake.seen(RENEW).len() >= 2);
        assert!(!lease.lost());
    }

    #[test]
    fn what_is_handed_over_is_held_at_once_under_the_same_request() {
        let fake = Fake::start(good);
        let first = fake.remote();
        let lease = lease(&first);
        let (claim, hold) = (lease.claim(), lease.hold());
        let (id, subject) = lease.request().map(|(id, subject)| (id.to_owned(), subject.to_owned())).unwrap();
        lease.hand_over();
        let second = fake.remote();
        let adopted = second.adopt(claim, hold.clone(), &id, &subject);
        eventually("another stream", || fake.seen(ACQUIRE).len() == 2);
        let again: AcquireRequest = fake.seen(ACQUIRE)[1].json();
        assert_eq!((again.request_id, again.claim, again.hold, again.wait_ms), (id, claim, true, 0));
        // The first holder ends: nothing is given back, and the second goes on.
        drop(first);
        let renewals = fake.seen(RENEW).len();
        eventually("more renewals", || fake.seen(RENEW).len() > renewals + 1);
        assert_eq!(fake.seen(RENEW)[renewals + 1].json::<Hold>(), hold);
        assert!(!adopted.lost() && released(&fake).is_empty());
        adopted.release(ReleaseReason::Abandoned);
        assert_eq!(released(&fake).len(), 1);
    }

    #[test]
    fn what_was_handed_over_is_not_taken_back_by_its_first_holder() {
        // Another stream is the hold now, so the first one ends.
        let fake = Fake::start(|request, peer| {
            if request.line.starts_with(ACQUIRE) {
                peer.chunked(200);
                peer.line(&granted(15_000));
                std::thread::sleep(Duration::from_millis(300));
                peer.end();
            } else {
                good(request, peer);
            }
        });
        let remote = fake.remote();
        lease(&remote).hand_over();
        eventually("renewals", || fake.seen(RENEW).len() >= 5);
        assert_eq!(fake.seen(ACQUIRE).len(), 1);
    }

    #[test]
    fn what_the_server_does_not_give_again_is_lost() {
        let fake = Fake::start(|_, peer| peer.problem(&Problem::new(Code::NoLease, "")));
        let remote = fake.remote();
        let hold: Hold = serde_json::from_str(r#"{"fence":1,"secret":"s"}"#).unwrap();
        let adopted = remote.adopt(Claim::of("claim"), hold, "request-1", "");
        adopted.wait_until_known();
        eventually("its loss", || adopted.lost());
        assert_eq!((fake.seen(ACQUIRE).len(), fake.seen(RENEW).len()), (1, 1));
    }

    #[test]
    fn a_builder_outlives_a_restart() {
        let first = Fake::start(good);
        let remote = first.remote();
        let lease = lease(&remote);
        eventually("a renewal", || !first.seen(RENEW).is_empty());
        let address = first.kill();
        std::thread::sleep(Duration::from_millis(400));
        assert!(!lease.lost());
        let second = Fake::start_at(address, good);
        eventually("a renewal", || !second.seen(RENEW).is_empty());
        eventually("a new stream", || !second.seen(ACQUIRE).is_empty());
        let again: AcquireRequest = second.seen(ACQUIRE)[0].json();
        assert_eq!((again.request_id.as_str(), again.claim, again.hold), ("request-1", lease.claim(), true));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!lease.lost());
        assert_eq!(second.seen(ACQUIRE).len(), 1, "the new stream holds");
        lease.release(ReleaseReason::Uncacheable);
        assert_eq!(released(&second), [ReleaseReason::Uncacheable]);
    }

    #[test]
    fn a_lease_that_lapsed_and_is_granted_anew_is_held_on() {
        let grants = AtomicU64::new(7);
        let fake = Fake::start(move |request, peer| {
            if request.line.starts_with(ACQUIRE) {
                let fence = grants.fetch_add(1, Ordering::SeqCst);
                let AcquireLine::Granted { claim, secret, ttl_ms, expected_ms, .. } = granted(15_000) else {
                    unreachable!("a grant")
                };
                peer.chunked(200);
                peer.line(&AcquireLine::Granted { claim, fence: Fence(fence), secret, ttl_ms, expected_ms });
                if fence > 7 {
                    peer.hang();
                }
            } else {
                good(request, peer);
            }
        });
        let remote = fake.remote();
        let lease = lease(&remote);
        eventually("the new grant", || lease.hold().fence == Fence(8));
        let renewed = || fake.seen(RENEW).last().map(|renewal| renewal.json::<Hold>().fence);
        eventually("a renewal of that", || renewed() == Some(Fence(8)));
        assert!(!lease.lost());
    }

    #[test]
    fn streams_that_something_cuts_are_not_asked_for_in_a_loop() {
        let fake = Fake::start(|request, peer| {
            if request.line.starts_with(ACQUIRE) {
                peer.chunked(200);
                peer.line(&granted(15_000));
                peer.end();
            } else {
                good(request, peer);
            }
        });
        let remote = fake.remote();
        let lease = lease(&remote);
        std::thread::sleep(Duration::from_millis(1000));
        assert!(!lease.lost());
        let (streams, renewals) = (fake.seen(ACQUIRE).len(), fake.seen(RENEW).len());
        assert!((2..=15).contains(&streams), "{streams} streams");
        assert!((2..=30).contains(&renewals), "{renewals} renewals");
    }

    #[test]
    fn a_holding_stream_that_chatters_is_dropped() {
        let fake = Fake::start(|request, peer| {
            if request.line.starts_with(ACQUIRE) {
                peer.chunked(200);
                peer.line(&granted(15_000));
                while peer.chunk([b'\n'; 4096]) {}
            } else {
                good(request, peer);
            }
        });
        let remote = fake.remote();
        let lease = lease(&remote);
        eventually("another stream", || fake.seen(ACQUIRE).len() >= 2);
        assert!(!lease.lost());
    }

    #[test]
    fn a_definite_no_loses_it_long_before_it_ran_out() {
        let fake = Fake::start(|request, peer| {
            if request.line.starts_with(ACQUIRE) {
                peer.chunked(200);
                peer.line(&granted(60_000));
                peer.hang();
            } else {
                peer.problem(&Problem::new(Code::NoLease, ""));
            }
        });
        let remote = fake.remote();
        let lease = lease(&remote);
        eventually("the loss", || lease.lost());
        drop(lease);
        assert!(released(&fake).is_empty(), "what is lost cannot be given back");
    }

    #[test]
    fn a_server_that_stays_away_loses_it_when_it_ran_out() {
        let fake = Fake::start(|request, peer| {
            if request.line.starts_with(ACQUIRE) {
                peer.chunked(200);
                peer.line(&granted(600));
                peer.hang();
            }
        });
        let remote = fake.remote();
        let lease = lease(&remote);
        fake.kill();
        assert!(!lease.lost());
        eventually("the loss", || lease.lost());
    }

    #[test]
    fn a_lease_that_lives_for_no_time_is_not_renewed_in_a_loop() {
        let fake = Fake::start(|request, peer| {
            if request.line.starts_with(ACQUIRE) {
                peer.chunked(200);
                peer.line(&granted(0));
                peer.hang();
            } else {
                peer.json(200, &Renewed { ttl_ms: 0 });
            }
        });
        let remote = fake.remote();
        let _lease = lease(&remote);
        std::thread::sleep(Duration::from_millis(500));
        let renewals = fake.seen(RENEW).len();
        assert!((1..=30).contains(&renewals), "{renewals} renewals");
    }

    #[test]
    fn errors_of_the_server_do_not_lose_it() {
        let fake = Fake::start(|request, peer| {
            if request.line.starts_with(RENEW) {
                peer.problem(&Problem::new(Code::Unavailable, ""));
            } else {
                good(request, peer);
            }
        });
        let remote = fake.remote();
        let lease = lease(&remote);
        eventually("many tries", || fake.seen(RENEW).len() >= 5);
        assert!(!lease.lost());
    }

    #[test]
    fn giving_it_back_to_a_server_that_hangs_does_not() {
        let fake =
            Fake::start(
                |request, peer| {
                    if request.line.starts_with(ACQUIRE) { good(request, peer) } else { peer.hang() }
                },
            );
        let remote = fake.remote();
        let lease = lease(&remote);
        let (done, was_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            lease.release(ReleaseReason::Failed);
            let _ = done.send(());
        });
        was_done.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(released(&fake), [ReleaseReason::Failed]);
    }
}
