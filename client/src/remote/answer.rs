//! One answer of the server, read within its deadlines and never beyond its bounds.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pcmcache_shared::api::problem::{Code, Problem};
use pcmcache_shared::api::{KeyedResult, limits};
use pcmcache_shared::packed::CODING;
use pcmcache_shared::{ActionKey, Digest, Scope};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::RemoteError;
use super::server::Deadlines;

/// How much of the server's words is kept, in characters.
const MOST_WORDS: usize = 300;

/// An answer whose head is here and whose body is not.
#[derive(Debug)]
pub(super) struct Answer {
    during: &'static str,
    response: reqwest::Response,
    deadlines: Deadlines,
}

impl Answer {
    pub(super) fn new(during: &'static str, response: reqwest::Response, deadlines: Deadlines) -> Self {
        Self { during, response, deadlines }
    }

    pub(super) fn during(&self) -> &'static str {
        self.during
    }

    pub(super) fn deadlines(&self) -> Deadlines {
        self.deadlines
    }

    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// The server's time, as HTTP spells it.
    pub(super) fn date(&self) -> Option<&str> {
        self.response.headers().get(reqwest::header::DATE)?.to_str().ok()
    }

    /// The length that the head declares, if it does.
    pub(super) fn declared(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// Whether the body is one that travels packed.
    pub(super) fn is_packed(&self) -> bool {
        self.response.headers().get(reqwest::header::CONTENT_ENCODING).is_some_and(|coding| coding == CODING)
    }

    /// The next piece of the body, or `None` at its end.
    pub(super) async fn piece(&mut self, by: Instant) -> Result<Option<Bytes>, RemoteError> {
        match tokio::time::timeout_at(by, self.response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => Err(RemoteError::cut(self.during, error)),
            Err(_) => Err(RemoteError::silent(self.during)),
        }
    }

    /// The next piece of a body that comes without long pauses.
    pub(super) async fn steady_piece(&mut self, by: Instant) -> Result<Option<Bytes>, RemoteError> {
        self.piece(by.min(Instant::now() + self.deadlines.idle)).await
    }

    async fn whole(&mut self, most: usize) -> Result<Vec<u8>, RemoteError> {
        let by = Instant::now() + self.deadlines.answer;
        let mut body = Vec::new();
        while let Some(piece) = self.steady_piece(by).await? {
            if body.len() + piece.len() > most {
                return Err(RemoteError::damaged(self.during, "the answer is too long"));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// The body, which is JSON.
    pub(super) async fn json<T: DeserializeOwned>(mut self) -> Result<T, RemoteError> {
        let body = self.whole(self.deadlines.most).await?;
        serde_json::from_slice(&body).map_err(|error| RemoteError::damaged(self.during, error.to_string()))
    }

    /// The body, which is JSON that is never long.
    pub(super) async fn small_json<T: DeserializeOwned>(mut self) -> Result<T, RemoteError> {
        let body = self.whole(limits::MAX_JSON).await?;
        serde_json::from_slice(&body).map_err(|error| RemoteError::damaged(self.during, error.to_string()))
    }

    /// Why the server said no: its problem, if it sent one.
    pub(super) async fn refusal(mut self) -> Result<Refusal, RemoteError> {
        let status = self.status();
        let body = match self.whole(limits::MAX_JSON).await {
            // What is missing, or who was first, is in the words: cut short, they say nothing, and may be asked for again.
            Err(error) if matches!(status, 409 | 422) && error.may_be_restart() => return Err(error),
            // Else it did say no; that its words were cut short or are no words does not change that.
            Err(error) if !error.is_silence() => Vec::new(),
            body => body?,
        };
        Ok(Refusal { during: self.during, status, problem: serde_json::from_slice(&body).ok() })
    }
}

/// The server said no.
#[derive(Debug)]
pub(super) struct Refusal {
    during: &'static str,
    status: u16,
    problem: Option<Problem>,
}

impl Refusal {
    /// The result of the action that was published first, if this is about one. It is in the scope that was written, unless
    /// it says otherwise.
    pub(super) fn winner(&self, scope: &Scope, action: ActionKey) -> Option<KeyedResult> {
        let problem = self.of(Code::Winner).filter(|p| p.winner_writers.len() <= limits::MAX_WRITERS)?;
        let result = problem.winner.clone().filter(|winner| winner.check().is_ok())?;
        let scope = problem.winner_scope.as_ref().unwrap_or(scope).clone();
        let writers = problem.winner_writers.clone();
        Some(KeyedResult { action, result, scope, writers, blobs: BTreeMap::new() })
    }

    /// The blobs that the server asks for, if this is about any.
    pub(super) fn missing(&self) -> Option<BTreeSet<Digest>> {
        let missing = &self.of(Code::MissingBlobs)?.missing;
        (!missing.is_empty()).then(|| missing.iter().copied().collect())
    }

    fn of(&self, code: Code) -> Option<&Problem> {
        self.problem.as_ref().filter(|problem| problem.code == code)
    }
}

impl From<Refusal> for RemoteError {
    fn from(refusal: Refusal) -> Self {
        let Refusal { during, status, problem } = refusal;
        let code = problem.as_ref().map(|problem| problem.code);
        // They go to logs and terminals, on one line.
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let detail = problem.map(|problem| problem.detail.chars().take(MOST_WORDS).map(plain).collect());
        Self::Refused { during, status, code, detail: detail.unwrap_or_default() }
    }
}
