//! What may happen on a link: to which requests, where in them, and what.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The requests that something happens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// The question for a result, or for the lease.
    Acquire,
    /// What proves that a holder lives.
    Renew,
    /// What gives a lease back.
    Release,
    /// A result on its way in.
    Publish,
    /// A blob on its way in.
    Upload,
    /// A blob on its way out.
    Fetch,
}

impl Of {
    fn is(self, method: &str, path: &str) -> bool {
        match self {
            Self::Acquire => method == "POST" && path.ends_with("/acquire"),
            Self::Renew => method == "POST" && path.contains("/leases/"),
            Self::Release => method == "DELETE" && path.contains("/leases/"),
            Self::Publish => method == "PUT" && path.contains("/actions/"),
            Self::Upload => method == "PUT" && path.contains("/blobs/"),
            Self::Fetch => method == "GET" && path.contains("/blobs/"),
        }
    }
}

/// Where in a connection, a request or its answer. Bytes are counted from the beginning of the part that is named, and those
/// before them pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Once the connection is accepted.
    Connect,
    /// After so many bytes of a connection went up, whatever they say.
    Up(usize),
    /// After so many bytes of a connection came down, whatever they say.
    Down(usize),
    /// Behind the request's head.
    RequestHead,
    /// In the request's body.
    RequestBody(usize),
    /// Before the first byte of the answer: the request was heard.
    Answer,
    /// In the answer's head.
    AnswerHead(usize),
    /// In the answer's body.
    AnswerBody(usize),
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The connection is closed, on both sides.
    Cut,
    /// The connection is reset, on both sides.
    Reset,
    /// Nothing passes any more, and neither side hears of it.
    LoseBoth,
    /// Nothing goes up any more, not even an end.
    LoseUp,
    /// Nothing comes down any more, not even an end.
    LoseDown,
    /// The whole request waits until a later one is answered. Where in it does not matter.
    Overtaken,
    /// The whole request goes to the server a second time, on another connection: earlier, or later.
    Twice {
        /// Whether the copy goes first.
        copy_first: bool,
    },
    /// The request never gets there, and is answered with 503 and the seconds after which to try again.
    Unavailable(u32),
}

/// What happens to which requests.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Which.
    pub of: Of,
    /// Where.
    pub at: At,
    /// What.
    pub what: What,
    /// To as many of them, the first ones.
    pub times: usize,
}

impl Fault {
    /// Every connection is cut as it begins: there is no server.
    pub const fn nobody_there() -> Self {
        Self { of: Of::Acquire, at: At::Connect, what: What::Cut, times: usize::MAX }
    }
}

/// What is to happen, and what has.
#[derive(Debug, Default)]
pub(super) struct Script {
    fault: Mutex<Option<Fault>>,
    befell: AtomicUsize,
    answers: AtomicUsize,
}

impl Script {
    pub(super) fn play(&self, fault: Fault) {
        *self.fault.lock().expect("the fault") = Some(fault);
    }

    pub(super) fn end(&self) {
        *self.fault.lock().expect("the fault") = None;
    }

    pub(super) fn befell(&self) -> usize {
        self.befell.load(Ordering::SeqCst)
    }

    /// What happens to a connection that begins now.
    pub(super) fn on_connection(&self) -> Option<(At, What)> {
        self.take(|fault| matches!(fault.at, At::Connect | At::Up(_) | At::Down(_)))
    }

    /// What happens to this request.
    pub(super) fn on_request(&self, method: &str, path: &str) -> Option<(At, What)> {
        self.take(|fault| {
            !matches!(fault.at, At::Connect | At::Up(_) | At::Down(_)) && fault.of.is(method, path)
        })
    }

    fn take(&self, is_meant: impl Fn(&Fault) -> bool) -> Option<(At, What)> {
        let mut fault = self.fault.lock().expect("the fault");
        let fault = fault.as_mut().filter(|fault| fault.times > 0 && is_meant(fault))?;
        fault.times -= 1;
        Some((fault.at, fault.what))
    }

    /// It did happen.
    pub(super) fn happened(&self) {
        self.befell.fetch_add(1, Ordering::SeqCst);
    }

    /// A request was answered.
    pub(super) fn answered(&self) {
        self.answers.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn wait_for_another_answer(&self, limit: Duration) {
        let (before, began) = (self.answers.load(Ordering::SeqCst), Instant::now());
        while self.answers.load(Ordering::SeqCst) == before && began.elapsed() < limit {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
