//! What was read last of the book of tokens, ready to be asked.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use pcmcache_shared::Digest;
use pcmcache_shared::api::limits;
use pcmcache_shared::api::revocations::Revocations;

use super::bearer::Bearer;
use super::book::{Book, Revocation};
use super::file::Stamp;
use super::{Principal, Refused, Revoked, View, WriterSet, secret};

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The file that it was read from.
    pub(super) stamp: Option<Stamp>,
    pub(super) state: State,
    pub(super) revoked: Revoked,
    /// With what the clients of each scope need to know of the revoked.
    revocations: Vec<Revocation>,
    pub(super) epoch: u64,
}

#[derive(Debug, Default)]
pub(super) enum State {
    /// There are no tokens.
    #[default]
    Open,
    /// Those with a token get in.
    Closed(HashMap<Digest, Holder>),
    /// Nobody does, until the book can be read.
    Unreadable,
}

/// Someone who was given a token.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) sha256: Digest,
    pub(super) expires_s: Option<u64>,
    pub(super) principal: Arc<Principal>,
}

impl Known {
    /// Takes a book in, with those who hold its tokens. Who was revoked before stays so.
    pub(super) fn take(&mut self, book: &Book, holders: impl Iterator<Item = Holder>) {
        self.state = State::Closed(holders.map(|holder| (holder.sha256, holder)).collect());
        let both = |before: &WriterSet, now: &WriterSet| before.iter().chain(now.iter()).cloned().collect();
        let (refused, hidden) = (book.refused(), book.hidden());
        self.revocations.retain(|before| !refused.has_any([&before.writer]));
        self.revocations.extend(book.revocations().iter().cloned());
        self.revoked = Revoked {
            refused: both(&self.revoked.refused, &refused),
            hidden: both(&self.revoked.hidden, &hidden),
        };
        self.epoch = self.epoch.max(book.epoch());
        let (tokens, revoked, epoch) = (book.tokens().len(), book.revocations().len(), self.epoch);
        tracing::info!(tokens, revoked, epoch, "the book of tokens was read");
    }

    /// Nobody is let in. Said once, however often it is tried.
    pub(super) fn lose(&mut self, why: &str, path: &Path) {
        if !matches!(self.state, State::Unreadable) {
            let path = path.display();
            tracing::error!(%path, why, "the book of tokens cannot be read: nobody is let in until it can");
        }
        self.state = State::Unreadable;
    }

    /// Who holds this token, if it is good now.
    pub(super) fn holder(&self, bearer: &Bearer<'_>, now_s: u64) -> Result<Arc<Principal>, Refused> {
        let holders = match &self.state {
            State::Closed(holders) => holders,
            State::Open | State::Unreadable => return Err(Refused::Unreadable),
        };
        let hash = bearer.hash();
        let holder = holders.get(&hash).filter(|holder| secret::same(&holder.sha256, &hash));
        let holder = holder.ok_or(Refused::Unknown)?;
        if self.revoked.refused.has_any(&holder.principal.writers) {
            return Err(Refused::Revoked);
        }
        match holder.expires_s {
            Some(end) if end <= now_s => Err(Refused::Expired),
            Some(_) | None => Ok(Arc::clone(&holder.principal)),
        }
    }

    /// Whose results are taken back, as far as whoever sees this needs to know.
    pub(super) fn revocations(&self, view: &View) -> Revocations {
        let concerns = |revocation: &&Revocation| {
            revocation.hides && revocation.scope.as_ref().is_none_or(|scope| view.scopes().contains(scope))
        };
        let mut newest = self.revocations.iter().rev().filter(concerns);
        let writers = newest.by_ref().take(limits::MAX_REVOCATIONS);
        let writers = writers.map(|revocation| revocation.writer.clone()).collect();
        Revocations { epoch: self.epoch, writers, complete: newest.next().is_none() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_of_revocations_is_cut_and_says_so() {
        let mut book = Book::default();
        for n in 0..limits::MAX_REVOCATIONS {
            book.revoke(format!("t-{n}").parse().unwrap(), None, true, 5);
        }
        let view = Principal::anyone().view(&pcmcache_shared::Scope::default()).unwrap();
        let told = |book: &Book| {
            let mut known = Known::default();
            known.take(book, std::iter::empty());
            known.revocations(&view)
        };
        assert!(told(&book).complete);
        book.revoke("t-newest".parse().unwrap(), None, true, 5);
        let told = told(&book);
        assert_eq!((told.complete, told.writers.len()), (false, limits::MAX_REVOCATIONS));
        assert_eq!(told.writers[0].as_str(), "t-newest");
        assert_eq!(told.epoch, book.epoch());
    }
}
