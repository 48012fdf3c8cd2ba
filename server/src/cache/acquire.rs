//! Acquire: look, and if nothing is there, get the right to build it or wait for who has.
//!
//! Each request runs as a task of its own that feeds the stream, so that one whose client reads slowly still acts
//! when it is woken. The stream's end is how the task learns that the client went away.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use pcmcache_shared::Fence;
use pcmcache_shared::api::acquire::{AcquireLine, AcquireMode, AcquireRequest, AloneReason};
use pcmcache_shared::api::limits;
use pcmcache_shared::recipe::MAX_SUBJECT;
use tokio::sync::futures::Notified;
use tokio::sync::mpsc;
use tracing::Instrument as _;

use super::holds::Holding;
use super::look::{Granted, Look, builder};
use super::waiters::{As, ScopedClaim, Waiter};
use super::{Cache, CacheError};
use crate::clock::Moment;
use crate::leases::Lease;
use crate::trust::View;

/// Lines that wait for a client to read them. A `busy` line too many is dropped; the last line never is.
const LINES: usize = 4;

/// A line on its way. The channel has room for many more than it may hold, and thousands of them only wait: so it is a
/// pointer.
type Line = Box<Result<AcquireLine, CacheError>>;

/// The lines of an answer to acquire. After a grant that was asked for with `hold`, it stays open until the lease ends.
/// Dropping it is how a client goes away: a waiter leaves its queue, a held lease's deadline shrinks to the grace.
#[derive(Debug)]
pub struct AcquireStream {
    first: Option<AcquireLine>,
    rest: mpsc::Receiver<Line>,
}

impl Stream for AcquireStream {
    type Item = AcquireLine;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<AcquireLine>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        // An error after the first line ends the stream, which a client takes for the end of its wait.
        self.rest.poll_recv(context).map(|line| line.and_then(|line| line.ok()))
    }
}

impl Cache {
    /// Looks, and if nothing is there, gets the right to build it or waits for who has.
    pub async fn acquire(
        self: &Arc<Self>,
        view: &View,
        request: AcquireRequest,
    ) -> Result<AcquireStream, CacheError> {
        check(&request)?;
        builder(view, &request)?;
        self.seen.asked(view.scope(), &request);
        let (lines, mut rest) = mpsc::channel(LINES);
        let wait = Duration::from_millis(request.wait_ms).min(limits::MAX_WAIT);
        let until = self.rooms.clock.now() + wait;
        let until = view.until().map_or(until, |end| until.min(end));
        let acquisition = Acquisition { cache: Arc::clone(self), view: view.clone(), request, until, lines };
        tokio::spawn(acquisition.run().in_current_span());
        match rest.recv().await.map(|line| *line) {
            Some(Ok(first)) => Ok(AcquireStream { first: Some(first), rest }),
            Some(Err(error)) => Err(error),
            None => Err(CacheError::Unavailable { operation: "acquire" }),
        }
    }
}

/// Refuses what no client sends.
fn check(request: &AcquireRequest) -> Result<(), CacheError> {
    let bad = |what: &str| Err(CacheError::BadRequest(what.to_owned()));
    let id = request.request_id.as_bytes();
    if id.is_empty()
        || id.len() > limits::MAX_NAME
        || !id.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    {
        return bad("a request id is 1 to 128 letters, digits and '-'");
    }
    if request.holder.len() > limits::MAX_NAME {
        return bad("a holder's name has at most 128 bytes");
    }
    if request.subject.len() > MAX_SUBJECT {
        return bad("a subject has at most 200 bytes");
    }
    if request.known.len() > limits::MAX_SETS {
        return bad("a request knows at most 8 include sets");
    }
    Ok(())
}

/// One request for a claim, from its first look to its last line.
struct Acquisition {
    cache: Arc<Cache>,
    view: View,
    request: AcquireRequest,
    /// When its wait is over.
    until: Moment,
    lines: mpsc::Sender<Line>,
}

/// Why a wait ended.
enum Waited {
    /// It is time to look again.
    Woken,
    /// As long as the client would.
    Over,
    /// The client went away.
    Gone,
}

impl Acquisition {
    async fn run(self) {
        let mut place: Option<Waiter> = None;
        let mut next_busy = None;
        loop {
            // Armed before looking: a wake-up between the look and the wait is not lost.
            let bell = place.as_ref().map(Waiter::bell).unwrap_or_default();
            let mut rung = std::pin::pin!(bell.notified());
            rung.as_mut().enable();
            let looked = self.cache.rooms.clock.now();
            // Apart: whoever waits then need not have room for a look.
            let look = Box::pin(self.cache.look(&self.view, &self.request));
            let (at, lease) = match look.await {
                Ok(Look::Busy(at, lease)) => (at, lease),
                Ok(Look::Answer(line)) => {
                    self.say(line).await;
                    return self.note_wait(place.as_ref());
                }
                Ok(Look::Granted(granted)) => return self.hold(granted, place).await,
                Err(error) => return self.fail(error).await,
            };
            let next_busy = next_busy.get_or_insert_with(|| self.say_busy(&lease));
            if self.request.wait_ms == 0 {
                return;
            }
            if !place.as_ref().is_some_and(|place| place.is_at(&at)) {
                let Some(entered) = self.enter(&at, place.is_none()) else {
                    return self.say_crowded().await;
                };
                // Nobody rang for this place before it was taken; so look once more.
                place = Some(entered);
                continue;
            }
            match self.wait(rung, &lease, looked + lease.expires_in, next_busy).await {
                Waited::Woken => {}
                Waited::Over => return self.cache.missed(self.view.scope(), &self.request),
                Waited::Gone => return,
            }
        }
    }

    /// Whoever waited has its answer.
    fn note_wait(&self, place: Option<&Waiter>) {
        let (Some(place), now) = (place, self.cache.rooms.clock.now()) else { return };
        self.cache.seen.waited_for(now.since(place.since()));
        if let Some(rung) = place.rung() {
            self.cache.seen.woke(now.since(rung));
        }
    }

    /// A place in the queue, if there is one.
    fn enter(&self, at: &ScopedClaim, is_first: bool) -> Option<Waiter> {
        let takes = self.request.mode == AcquireMode::Build && at.0 == *self.view.scope();
        let waits_as = if takes { As::Taker } else { As::Guest };
        let (scope, now) = (self.view.scope(), self.cache.rooms.clock.now());
        let place = self.cache.waiters.enter(at, scope, waits_as, &self.request.holder, now)?;
        if is_first {
            self.cache.counters.waited.one();
            self.cache.seen.waited(self.view.scope());
        }
        Some(place)
    }

    /// Waits until there is reason to look again; says that it does every now and then.
    async fn wait(
        &self,
        mut rung: Pin<&mut Notified<'_>>,
        lease: &Lease,
        lease_ends: Moment,
        next_busy: &mut Moment,
    ) -> Waited {
        let clock = &self.cache.rooms.clock;
        loop {
            tokio::select! {
                biased;
                () = self.lines.closed() => return Waited::Gone,
                () = rung.as_mut() => return Waited::Woken,
                // Either it was renewed, or it is time to take over.
                () = clock.sleep_until(lease_ends) => return Waited::Woken,
                () = clock.sleep_until(self.until) => return Waited::Over,
                () = clock.sleep_until(*next_busy) => *next_busy = self.say_busy(lease),
            }
        }
    }

    /// Says that someone else builds it. Returns when to say so again.
    fn say_busy(&self, lease: &Lease) -> Moment {
        let expected_ms = lease.expected.map(millis);
        let line = AcquireLine::Busy { expected_ms, holder: lease.holder.clone() };
        // Who does not read need not hear it.
        let _ = self.lines.try_send(Box::new(Ok(line)));
        self.cache.rooms.clock.now() + limits::BUSY_EVERY
    }

    async fn say_crowded(&self) {
        self.cache.counters.alone.one();
        self.cache.missed(self.view.scope(), &self.request);
        self.say(AcquireLine::Alone { reason: AloneReason::Crowded }).await;
    }

    async fn fail(&self, error: CacheError) {
        tracing::warn!(scope = %self.view.scope(), %error, "an acquire failed");
        let _ = self.lines.send(Box::new(Err(error))).await;
    }

    async fn say(&self, line: AcquireLine) {
        let _ = self.lines.send(Box::new(Ok(line))).await;
    }

    /// Hands the lease over, and holds it for as long as the stream is open.
    async fn hold(self, granted: Granted, place: Option<Waiter>) {
        let Granted { at, lease, is_resumed } = granted;
        if let Some(place) = place {
            place.leave_with_lease();
        }
        let fence = lease.fence;
        if !is_resumed && self.cache.holds.has(&at, fence) {
            // While it was granted the client lost this stream and asked again: the newer stream has it.
            return;
        }
        let holding = self.request.hold.then(|| self.cache.holds.take(&at, fence));
        let line = AcquireLine::Granted {
            claim: at.1,
            fence,
            secret: lease.secret.clone(),
            ttl_ms: millis(limits::LEASE_TTL),
            expected_ms: lease.expected.map(millis),
        };
        let heard = self.lines.send(Box::new(Ok(line))).await.is_ok();
        let ended = match holding {
            Some(holding) if heard => self.hold_while_open(&at, holding, is_resumed).await,
            None if heard => Ok(()),
            holding @ (Some(_) | None) => {
                drop(holding);
                self.forgo(&at, fence).await
            }
        };
        if let Err(error) = ended {
            tracing::warn!(scope = %at.0, %error, "the deadline of a dropped lease could not be moved");
        }
    }

    /// Nobody heard of this grant. It lives for the grace only, unless the client asked again and another stream has it.
    async fn forgo(&self, at: &ScopedClaim, fence: Fence) -> Result<(), CacheError> {
        self.cache.drop_lease(at, fence, limits::GRACE).await?;
        if self.cache.holds.has(at, fence) {
            self.cache.rooms.leases.extend(&at.0, at.1, fence, limits::LEASE_TTL).await?;
        }
        Ok(())
    }

    /// Returns when the lease ended, or when the client went away; then it lives for the grace only.
    async fn hold_while_open(
        &self,
        at: &ScopedClaim,
        holding: Holding,
        is_resumed: bool,
    ) -> Result<(), CacheError> {
        let (clock, leases) = (&self.cache.rooms.clock, &self.cache.rooms.leases);
        let fence = holding.fence();
        if is_resumed {
            // The stream that it was taken from may have given it up just before.
            leases.extend(&at.0, at.1, fence, limits::LEASE_TTL).await?;
        }
        loop {
            let looked = clock.now();
            let current = leases.current(&at.0, at.1).await?;
            let Some(lease) = current.filter(|lease| lease.fence == fence) else { return Ok(()) };
            let lease_ends = looked + lease.expires_in;
            tokio::select! {
                biased;
                () = holding.over() => return Ok(()),
                () = self.lines.closed() => {
                    self.cache.counters.dropped_holds.one();
                    self.cache.drop_lease(at, fence, limits::GRACE).await?;
                    if holding.is_over() {
                        // Another stream of the same request took the hold at that very moment.
                        leases.extend(&at.0, at.1, fence, limits::LEASE_TTL).await?;
                    }
                    return Ok(());
                }
                () = clock.sleep_until(lease_ends) => {}
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
