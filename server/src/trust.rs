//! Who may do what: the one who asks is made a [`Principal`] from what their request carries, and what they may see and
//! write under a scope is a [`View`] of it.
//!
//! A principal reads scopes in order and writes one at most. Nothing that is published in a scope can be seen from another
//! unless whoever looks may read it there: `pr-17` reads `main`, never the reverse.
//!
//! The book of tokens is looked at with every request and read again when it changed, so that what
//! `pcmcache-server token` does holds from the next request on. **A book that cannot be read, or is gone, lets nobody in**:
//! what somebody tried to write there may be a revocation, and what it costs to wait for it is compiles. For the same reason
//! whoever was revoked once stays so until a restart, whatever the book says later.

mod asker;
mod bearer;
pub mod book;
mod command;
mod file;
mod jobs;
mod keys;
mod known;
mod oidc;
mod principal;
mod revoked;
mod secret;
mod session;
mod spent;
mod subject;
mod view;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use http::HeaderMap;
use pcmcache_shared::Scope;
use pcmcache_shared::api::revocations::Revocations;
use pcmcache_shared::api::token;

pub use self::asker::{Asker, Refused};
use self::bearer::Bearer;
use self::book::Entry;
pub use self::command::TokenCommand;
pub use self::file::{BookFile, FileError};
pub use self::jobs::{Jobs, NoSession};
use self::known::{Holder, Known, State};
pub use self::oidc::NotAdmitted;
pub use self::principal::Principal;
pub use self::revoked::{Revoked, WriterSet};
pub use self::secret::Token;
use self::session::Session;
pub use self::spent::{MAX_SPENT, MemorySpent, Spent};
pub use self::view::{View, Writing};
use crate::clock::Clock;

/// How a server is to be trusted with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where its book of tokens is.
    pub book: BookFile,
    /// What it means that there is none.
    pub without_book: WithoutBook,
    /// The scopes that anyone may read.
    pub public: Vec<Scope>,
}

/// What it means that there is no book of tokens when a server starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutBook {
    /// Everyone may read and write `main`, until there is one.
    Open,
    /// Nobody has a token yet, though they may come by others.
    Empty,
    /// That the server must not start.
    Mistake,
}

/// Whom the server knows.
#[derive(Debug)]
pub struct Trust {
    clock: Arc<dyn Clock>,
    settings: Option<Settings>,
    jobs: Option<Jobs>,
    known: RwLock<Known>,
    anyone: Arc<Principal>,
    anonymous: Arc<Principal>,
}

/// Why a server cannot be trusted with these settings.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The book cannot be read.
    #[error("cannot read the tokens: {0}")]
    File(#[from] FileError),
    /// There is none where one must be.
    #[error("there is no book of tokens at {}; `pcmcache-server token create` makes one", .0.display())]
    NoBook(PathBuf),
    /// What is public is so for those without a token, and nobody has one.
    #[error(
        "--public-read says what may be read without a token, but there are no tokens: everyone may read and write"
    )]
    PublicWithoutTokens,
    /// The rules for CI jobs cannot be used.
    #[error("cannot use the rules for CI jobs (--oidc): {0}")]
    Rules(String),
    /// The keys of sessions cannot.
    #[error("cannot use the keys of sessions: {0}")]
    Keys(std::io::Error),
}

impl Trust {
    /// Everyone who reaches the port may read and write `main`, and that stays so.
    pub fn open(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self::new(clock, None, None))
    }

    /// As the settings have it, and as the book does from now on; with those who vouch for CI jobs, if there are.
    pub fn with(
        settings: Settings,
        jobs: Option<Jobs>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, TrustError> {
        let (without, has_public) = (settings.without_book, !settings.public.is_empty());
        let has_book = settings.book.read()?.is_some();
        match without {
            WithoutBook::Mistake if !has_book => {
                return Err(TrustError::NoBook(settings.book.path().to_owned()));
            }
            WithoutBook::Open if !has_book && has_public => return Err(TrustError::PublicWithoutTokens),
            WithoutBook::Open | WithoutBook::Empty | WithoutBook::Mistake => {}
        }
        let trust = Self::new(clock, Some(settings), jobs);
        let state = match (has_book, without) {
            // Until the first refresh reads it.
            (true, _) => State::Unreadable,
            (false, WithoutBook::Open) => State::Open,
            (false, WithoutBook::Empty | WithoutBook::Mistake) => State::Closed(HashMap::new()),
        };
        trust.known.write().unwrap_or_else(PoisonError::into_inner).state = state;
        Ok(Arc::new(trust))
    }

    fn new(clock: Arc<dyn Clock>, settings: Option<Settings>, jobs: Option<Jobs>) -> Self {
        let public = settings.as_ref().map(|settings| settings.public.clone()).unwrap_or_default();
        Self {
            clock,
            settings,
            jobs,
            known: RwLock::default(),
            anyone: Arc::new(Principal::anyone()),
            anonymous: Arc::new(Principal::anonymous(&public)),
        }
    }

    /// Who sent a request with these headers.
    pub fn identify(&self, headers: &HeaderMap) -> Asker {
        let known = self.known();
        if matches!(known.state, State::Open) {
            return Asker { principal: Arc::clone(&self.anyone), refused: None, needs_token: false };
        }
        let found = match Bearer::of(headers) {
            Ok(None) => Ok(Arc::clone(&self.anonymous)),
            Ok(Some(bearer)) => self.holder(&known, &bearer),
            Err(refused) => Err(refused),
        };
        let (principal, refused) = match found {
            Ok(principal) => (principal, None),
            Err(refused) => (Arc::clone(&self.anonymous), Some(refused)),
        };
        Asker { principal, refused, needs_token: true }
    }

    fn holder(&self, known: &Known, bearer: &Bearer<'_>) -> Result<Arc<Principal>, Refused> {
        if !Session::is_one(bearer.text()) {
            return known.holder(bearer, self.clock.unix_s());
        }
        if matches!(known.state, State::Unreadable) {
            // Who of them is revoked stands there too.
            return Err(Refused::Unreadable);
        }
        let jobs = self.jobs.as_ref().ok_or(Refused::Unknown)?;
        jobs.principal(bearer.text(), &known.revoked.refused, &self.anonymous.reads).map(Arc::new)
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session for the CI job that shows this token of its CI system.
    pub async fn exchange(&self, jwt: &str) -> Result<token::Session, NoSession> {
        let jobs = self.jobs.as_ref().ok_or(NoSession::NotTaken)?;
        let refused = {
            let known = self.known();
            if matches!(known.state, State::Unreadable) {
                return Err(NotAdmitted::Unavailable(Refused::Unreadable.to_string()).into());
            }
            known.revoked.refused.clone()
        };
        jobs.exchange(jwt, &refused).await
    }

    /// Makes a new key for sessions, where the newest is old.
    pub fn renew_keys(&self) {
        if let Some(jobs) = &self.jobs {
            jobs.renew_keys();
        }
    }

    /// Reads the book again if it changed. `revoke` learns who is revoked before anyone is let in by the new one.
    pub fn refresh(&self, revoke: impl FnOnce(Revoked)) {
        let Some(settings) = &self.settings else { return };
        let stamp = settings.book.stamp();
        let is_same = |known: &Known| stamp.as_ref().is_ok_and(|stamp| *stamp == known.stamp);
        if is_same(&self.known()) {
            return;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if is_same(&known) {
            return;
        }
        // The stamp is from before the reading: a change in between is seen next time.
        let was_there = known.stamp.is_some();
        known.stamp = stamp.unwrap_or_default();
        match settings.book.read() {
            Ok(Some(book)) => {
                known.take(&book, book.tokens().iter().map(|entry| self.admit(entry)));
                revoke(known.revoked.clone());
            }
            Ok(None) if !was_there => {}
            Ok(None) => known.lose("it is gone", settings.book.path()),
            Err(error) => known.lose(&error.to_string(), settings.book.path()),
        }
    }

    fn admit(&self, entry: &Entry) -> Holder {
        let left = entry.expires_s.map(|end| Duration::from_secs(end.saturating_sub(self.clock.unix_s())));
        let public = &self.anonymous.reads;
        let mut reads = entry.rights.reads.clone();
        reads.extend(public.iter().filter(|scope| !entry.rights.reads.contains(scope)).cloned());
        let mut writes = entry.rights.writes.clone();
        if writes.is_some() {
            reads.retain(|scope| !self.is_untrusted_to(entry, scope));
            writes = writes.filter(|scope| !self.is_untrusted_to(entry, scope));
        }
        let principal = Principal {
            id: entry.id.to_string(),
            name: entry.name.clone(),
            writers: vec![entry.id.clone()],
            reads,
            writes,
            admin: entry.rights.admin,
            observes: entry.rights.observes || entry.rights.admin,
            until: left.map(|left| self.clock.now() + left),
        };
        Holder { sha256: entry.sha256, expires_s: entry.expires_s, principal: Arc::new(principal) }
    }

    /// Whether unreviewed code could write what this writer would read or write, and thereby what its readers link.
    fn is_untrusted_to(&self, entry: &Entry, scope: &Scope) -> bool {
        let is_untrusted = self.jobs.as_ref().is_some_and(|jobs| jobs.is_untrusted(scope));
        if is_untrusted {
            let name = &entry.name;
            tracing::warn!(name, %scope, "a token that writes may not use a scope that unreviewed code may write");
        }
        is_untrusted
    }

    /// Changes whenever someone is revoked.
    pub fn epoch(&self) -> u64 {
        self.known().epoch
    }

    /// Whose results are taken back, as far as whoever sees this needs to know.
    pub fn revocations(&self, view: &View) -> Revocations {
        self.known().revocations(view)
    }
}
