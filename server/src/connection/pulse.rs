//! What a connection is doing, told by its socket and its answers, and when that is no longer acceptable.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Limits;

/// Shared by a connection's socket, its answers and its watchdog.
#[derive(Debug)]
pub(super) struct Pulse {
    state: Mutex<State>,
    /// The next deadline may have come nearer.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// What the client does while nothing is in flight.
    quiet: Quiet,
    since: Instant,
    /// Requests in flight.
    busy: usize,
    /// Answers of which a part lies here for the client to take.
    handed: usize,
    /// When the client last took a part of an answer.
    moved: Instant,
    /// HTTP/2, where bytes do not mean that a request begins.
    multiplexed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quiet {
    /// A request's head is coming.
    Head,
    /// Nothing is.
    Idle,
}

/// Why a connection must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// The head of a request did not come to its end.
    Head,
    /// No further request came.
    Idle,
    /// The client does not take its answer.
    Stall,
}

impl Overdue {
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Head => "the request's head took too long",
            Self::Idle => "idle",
            Self::Stall => "the client takes nothing of its answer",
        }
    }
}

impl Pulse {
    /// A connection that was just accepted, and owes its first request.
    pub(super) fn new() -> Arc<Self> {
        let now = Instant::now();
        let (quiet, busy, handed) = (Quiet::Head, 0, 0);
        let state = State { quiet, since: now, busy, handed, moved: now, multiplexed: false };
        Arc::new(Self { state: Mutex::new(state), changed: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes came from the client.
    pub(super) fn read(&self) {
        let mut state = self.state();
        if state.busy == 0 && state.quiet == Quiet::Idle && !state.multiplexed {
            state.quiet = Quiet::Head;
            state.since = Instant::now();
            drop(state);
            self.changed.notify_one();
        }
    }

    /// The client took bytes.
    pub(super) fn wrote(&self) {
        self.state().moved = Instant::now();
    }

    /// A request's head is whole.
    pub(super) fn begin(self: &Arc<Self>, multiplexed: bool) -> InFlight {
        let mut state = self.state();
        state.busy += 1;
        state.multiplexed = multiplexed;
        InFlight { pulse: Arc::clone(self), handed: false }
    }

    /// Resolves once the connection is overdue.
    pub(super) async fn overdue(&self, limits: &Limits) -> Overdue {
        loop {
            let next = self.deadline(limits);
            match next {
                Some((overdue, at)) if at <= Instant::now() => return overdue,
                Some((_, at)) => {
                    let _ = tokio::time::timeout_at(at, self.changed.notified()).await;
                }
                None => self.changed.notified().await,
            }
        }
    }

    /// The same for a connection that is being ended: it is overdue as soon as nothing is in flight any more and the
    /// client had its time to read.
    pub(super) async fn overdue_at_end(&self, limits: &Limits) -> Overdue {
        let soon = limits.linger * 2;
        let ending = Limits { idle: soon, head: soon, ..limits.clone() };
        tokio::time::sleep(soon).await;
        self.overdue(&ending).await
    }

    fn deadline(&self, limits: &Limits) -> Option<(Overdue, Instant)> {
        let state = self.state();
        match (state.busy, state.quiet) {
            (0, Quiet::Head) => Some((Overdue::Head, state.since + limits.head)),
            (0, Quiet::Idle) => Some((Overdue::Idle, state.since + limits.idle)),
            _ if state.handed > 0 => Some((Overdue::Stall, state.moved + limits.stall)),
            _ => None,
        }
    }
}

/// A request in flight, to the end of its answer.
#[derive(Debug)]
pub(super) struct InFlight {
    pulse: Arc<Pulse>,
    handed: bool,
}

impl InFlight {
    /// A part of the answer lies here for the client to take (`true`), or we have nothing for it (`false`).
    fn hand(&mut self, handed: bool) {
        let mut state = self.pulse.state();
        match (self.handed, handed) {
            (false, true) => state.handed += 1,
            (true, false) => state.handed = state.handed.saturating_sub(1),
            (true, true) | (false, false) => {}
        }
        self.handed = handed;
        if handed {
            state.moved = Instant::now();
            if state.handed == 1 {
                drop(state);
                self.pulse.changed.notify_one();
            }
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.hand(false);
        let mut state = self.pulse.state();
        state.busy = state.busy.saturating_sub(1);
        if state.busy == 0 {
            state.quiet = Quiet::Idle;
            state.since = Instant::now();
            drop(state);
            self.pulse.changed.notify_one();
        }
    }
}

/// An answer's body that tells the watchdog how it goes. It is asked for its next part only when the client took
/// the last one.
pub(super) struct Answer {
    body: Body,
    flight: InFlight,
}

impl Answer {
    pub(super) fn new(body: Body, mut flight: InFlight) -> Self {
        flight.hand(true);
        Self { body, flight }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.flight.hand(frame.is_ready());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMITS: fn() -> Limits = Limits::default;

    async fn overdue_after(pulse: &Pulse, longest: u64) -> Option<(Overdue, u64)> {
        let from = Instant::now();
        let overdue =
            tokio::time::timeout(Duration::from_secs(longest), pulse.overdue(&LIMITS())).await.ok()?;
        Some((overdue, from.elapsed().as_secs()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_owes_its_first_head_from_the_start() {
        let pulse = Pulse::new();
        pulse.read();
        assert_eq!(overdue_after(&pulse, 3600).await, Some((Overdue::Head, 10)));
    }

    #[tokio::test(start_paused = true)]
    async fn between_requests_it_may_be_idle_and_then_owes_a_head_again() {
        let pulse = Pulse::new();
        drop(pulse.begin(false));
        assert_eq!(overdue_after(&pulse, 3600).await, Some((Overdue::Idle, 60)));
        drop(pulse.begin(false));
        let (overdue, ()) = tokio::join!(overdue_after(&pulse, 3600), async {
            tokio::time::sleep(Duration::from_secs(30)).await;
            pulse.read();
        });
        assert_eq!(overdue, Some((Overdue::Head, 40)));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_over_http2_begin_no_request() {
        let pulse = Pulse::new();
        drop(pulse.begin(true));
        pulse.read();
        assert_eq!(overdue_after(&pulse, 3600).await, Some((Overdue::Idle, 60)));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_us_is_never_overdue_but_not_taking_is() {
        let pulse = Pulse::new();
        let mut flight = pulse.begin(false);
        assert_eq!(overdue_after(&pulse, 3600).await, None);
        flight.hand(true);
        assert_eq!(overdue_after(&pulse, 3600).await, Some((Overdue::Stall, 30)));
        flight.hand(false);
        assert_eq!(overdue_after(&pulse, 3600).await, None);
    }
}
