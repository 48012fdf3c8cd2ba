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

mod bearer;
pub mod book;
mod command;
mod file;
mod jobs;
mod keys;
mod oidc;
mod principal;
mod revoked;
mod secret;
mod session;
mod spent;
mod subject;
mod view;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::HeaderMap;
use pcmcache_shared::api::limits;
use pcmcache_shared::api::revocations::Revocations;
use pcmcache_shared::api::token;
use pcmcache_shared::{Digest, Scope};

use self::bearer::Bearer;
use self::book::{Book, Entry};
pub use self::command::TokenCommand;
use self::file::Stamp;
pub use self::file::{BookFile, FileError};
pub use self::jobs::{Jobs, NoSession};
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

/// What was read last.
#[derive(Debug, Default)]
struct Known {
    stamp: Option<Stamp>,
    state: State,
    revoked: Revoked,
    /// With what the clients of each scope need to know of the revoked.
    revocations: Vec<book::Revocation>,
    epoch: u64,
}

#[derive(Debug, Default)]
enum State {
    /// There are no tokens.
    #[default]
    Open,
    /// Those with a token get in.
    Closed(HashMap<Digest, Holder>),
    /// Nobody does, until the book can be read.
    Unreadable,
}

impl Known {
    /// Nobody is let in. Said once, however often it is tried.
    fn lose(&mut self, why: &str, path: &Path) {
        if !matches!(self.state, State::Unreadable) {
            let path = path.display();
            tracing::error!(%path, why, "the book of tokens cannot be read: nobody is let in until it can");
        }
        self.state = State::Unreadable;
    }
}

/// Someone who was given a token.
#[derive(Debug)]
struct Holder {
    sha256: Digest,
    expires_s: Option<u64>,
    principal: Arc<Principal>,
}

/// Who sent a request.
#[derive(Debug, Clone)]
pub struct Asker {
    /// Who; anonymous where the credential was refused.
    pub principal: Arc<Principal>,
    /// Why the credential was.
    pub refused: Option<Refused>,
    /// Whether a credential would be needed for more than what is public.
    pub needs_token: bool,
}

impl Asker {
    /// Whether they may see any scope at all.
    pub fn sees_anything(&self) -> bool {
        let Principal { reads, writes, admin, .. } = &*self.principal;
        self.refused.is_none() && (*admin || !reads.is_empty() || writes.is_some())
    }
}

/// Why a credential is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It cannot be read.
    #[error("the Authorization header must be one, 'Bearer' and a token")]
    Malformed,
    /// Nobody has it.
    #[error("this server does not know the token")]
    Unknown,
    /// It was good once.
    #[error("the token has expired; make another with `pcmcache-server token create`")]
    Expired,
    /// It was good once.
    #[error("the token was revoked")]
    Revoked,
    /// None can be looked up now.
    #[error("the server cannot read its tokens; its log says why")]
    Unreadable,
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
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let holders = match &known.state {
            State::Open => {
                return Asker { principal: Arc::clone(&self.anyone), refused: None, needs_token: false };
            }
            State::Closed(holders) => Ok(holders),
            State::Unreadable => Err(Refused::Unreadable),
        };
        let found = match Bearer::of(headers) {
            Ok(None) => Ok(Arc::clone(&self.anonymous)),
            Ok(Some(bearer)) => holders.and_then(|holders| self.holder(holders, &known.revoked, &bearer)),
            Err(refused) => Err(refused),
        };
        let (principal, refused) = match found {
            Ok(principal) => (principal, None),
            Err(refused) => (Arc::clone(&self.anonymous), Some(refused)),
        };
        Asker { principal, refused, needs_token: true }
    }

    fn holder(
        &self,
        holders: &HashMap<Digest, Holder>,
        revoked: &Revoked,
        bearer: &Bearer<'_>,
    ) -> Result<Arc<Principal>, Refused> {
        if Session::is_one(bearer.text()) {
            let jobs = self.jobs.as_ref().ok_or(Refused::Unknown)?;
            return jobs.principal(bearer.text(), &revoked.refused, &self.anonymous.reads).map(Arc::new);
        }
        let hash = bearer.hash();
        let holder = holders.get(&hash).filter(|holder| secret::same(&holder.sha256, &hash));
        let holder = holder.ok_or(Refused::Unknown)?;
        if revoked.refused.has_any(&holder.principal.writers) {
            return Err(Refused::Revoked);
        }
        if holder.expires_s.is_some_and(|end| end <= self.clock.unix_s()) {
            return Err(Refused::Expired);
        }
        Ok(Arc::clone(&holder.principal))
    }

    /// A session for the CI job that shows this token of its CI system.
    pub async fn exchange(&self, jwt: &str) -> Result<token::Session, NoSession> {
        let jobs = self.jobs.as_ref().ok_or(NoSession::NotTaken)?;
        let (refused, taken) = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            let taken: HashSet<Scope> = match &known.state {
                State::Closed(holders) => {
                    holders.values().filter_map(|holder| holder.principal.writes.clone()).collect()
                }
                State::Open => HashSet::new(),
                State::Unreadable => {
                    let why = Refused::Unreadable.to_string();
                    return Err(NotAdmitted::Unavailable(why).into());
                }
            };
            (known.revoked.refused.clone(), taken)
        };
        jobs.exchange(jwt, &refused, |scope| taken.contains(scope)).await
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
        if is_same(&self.known.read().unwrap_or_else(PoisonError::into_inner)) {
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
                self.take(&mut known, &book);
                revoke(known.revoked.clone());
            }
            Ok(None) if !was_there => {}
            Ok(None) => known.lose("it is gone", settings.book.path()),
            Err(error) => known.lose(&error.to_string(), settings.book.path()),
        }
    }

    fn take(&self, known: &mut Known, book: &Book) {
        let holders = book.tokens().iter().map(|entry| (entry.sha256, self.admit(entry)));
        known.state = State::Closed(holders.collect());
        let both = |before: &WriterSet, now: &WriterSet| before.iter().chain(now.iter()).cloned().collect();
        known.revoked = Revoked {
            refused: both(&known.revoked.refused, &book.refused()),
            hidden: both(&known.revoked.hidden, &book.hidden()),
        };
        let gone: Vec<_> = known
            .revocations
            .iter()
            .filter(|before| book.revocation(&before.writer).is_none())
            .cloned()
            .collect();
        known.revocations = gone.into_iter().chain(book.revocations().iter().cloned()).collect();
        known.epoch = known.epoch.max(book.epoch());
        tracing::info!(
            tokens = book.tokens().len(),
            revoked = book.revocations().len(),
            epoch = known.epoch,
            "the book of tokens was read"
        );
    }

    fn admit(&self, entry: &Entry) -> Holder {
        let left = entry.expires_s.map(|end| Duration::from_secs(end.saturating_sub(self.clock.unix_s())));
        let public = &self.anonymous.reads;
        let mut reads = entry.rights.reads.clone();
        reads.extend(public.iter().filter(|scope| !entry.rights.reads.contains(scope)).cloned());
        if entry.rights.writes.is_some() {
            reads.retain(|scope| !self.is_untrusted_to(entry, scope));
        }
        let principal = Principal {
            id: entry.id.to_string(),
            name: entry.name.clone(),
            writers: vec![entry.id.clone()],
            reads,
            writes: entry.rights.writes.clone(),
            admin: entry.rights.admin,
            observes: entry.rights.observes || entry.rights.admin,
            until: left.map(|left| self.clock.now() + left),
        };
        Holder { sha256: entry.sha256, expires_s: entry.expires_s, principal: Arc::new(principal) }
    }

    /// Whether unreviewed code could write what this writer would read, and thereby what its readers link.
    fn is_untrusted_to(&self, entry: &Entry, scope: &Scope) -> bool {
        let is_untrusted = self.jobs.as_ref().is_some_and(|jobs| jobs.is_untrusted(scope));
        if is_untrusted {
            let name = &entry.name;
            tracing::warn!(name, %scope, "a token that writes does not read what unreviewed code may write");
        }
        is_untrusted
    }

    /// Changes whenever someone is revoked.
    pub fn epoch(&self) -> u64 {
        self.known.read().unwrap_or_else(PoisonError::into_inner).epoch
    }

    /// Whose results are taken back, as far as whoever sees this needs to know.
    pub fn revocations(&self, view: &View) -> Revocations {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let concerns = |revocation: &&book::Revocation| {
            revocation.hides && revocation.scope.as_ref().is_none_or(|scope| view.scopes().contains(scope))
        };
        let mut newest = known.revocations.iter().rev().filter(concerns);
        let writers = newest.by_ref().take(limits::MAX_REVOCATIONS);
        let writers = writers.map(|revocation| revocation.writer.clone()).collect();
        Revocations { epoch: known.epoch, writers, complete: newest.next().is_none() }
    }
}
