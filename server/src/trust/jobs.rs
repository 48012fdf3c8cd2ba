//! CI jobs and their sessions: the way in for those who were given no token of this server.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pcmcache_shared::api::token;
use pcmcache_shared::{Scope, Writer};

use super::keys::Keys;
use super::oidc::{NotAdmitted, Oidc};
use super::secret;
use super::session::Session;
use super::spent::Spent;
use super::{Principal, Refused, TrustError, WriterSet};
use crate::clock::{Clock, Entropy};
use crate::fault::Fault;

/// Those who vouch for CI jobs, and what their sessions are signed with.
#[derive(Debug)]
pub struct Jobs {
    oidc: Oidc,
    keys: Keys,
    spent: Arc<dyn Spent>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

/// Why there is no session for a token.
#[derive(Debug, thiserror::Error)]
pub enum NoSession {
    /// This server knows no CI system.
    #[error("this server takes no tokens of CI systems; `pcmcache-server --oidc FILE` says whose it takes")]
    NotTaken,
    /// The token is not good, or no rule is for its job.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// It was exchanged before.
    #[error("the token was exchanged before; each is good once")]
    Spent,
    /// The repository was revoked.
    #[error("the jobs of this repository were revoked")]
    Revoked,
    /// The server failed.
    #[error("the session cannot be kept: {0}")]
    Fault(#[from] Fault),
    /// The server has nothing to sign with, or no randomness.
    #[error("the server cannot make a session")]
    Unsigned,
}

impl Jobs {
    /// Reads the rules at `file` and the keys at `keys`, which are made where they are not there.
    pub fn open(
        file: &Path,
        keys: PathBuf,
        public: &[Scope],
        spent: Arc<dyn Spent>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, TrustError> {
        let oidc = Oidc::open(file, public, Arc::clone(&clock)).map_err(TrustError::Rules)?;
        let keys = Keys::open(keys, clock.unix_s(), &*entropy).map_err(TrustError::Keys)?;
        Ok(Self { oidc, keys, spent, clock, entropy })
    }

    /// A session for the job that shows this token.
    pub(super) async fn exchange(&self, jwt: &str, refused: &WriterSet) -> Result<token::Session, NoSession> {
        let admitted = self.oidc.admit(jwt).await?;
        let subject = admitted.subject.writer();
        if refused.has_any([&subject]) {
            return Err(NoSession::Revoked);
        }
        let now_s = self.clock.unix_s();
        let id: Writer = secret::name("s", &*self.entropy).map_err(|_| NoSession::Unsigned)?;
        let session = Session {
            id,
            subject,
            name: admitted.subject.to_string(),
            reads: admitted.reads.clone(),
            writes: admitted.writes.clone(),
            ends_s: now_s.saturating_add(admitted.life.as_secs()),
        };
        let token = session.sign(&self.keys).ok_or(NoSession::Unsigned)?;
        if !self.spent.spend(admitted.token, admitted.until_s, now_s).await? {
            return Err(NoSession::Spent);
        }
        let writes = session.writes.as_ref().map(Scope::as_str);
        tracing::info!(session = %session.id, subject = session.name, writes, "a CI job has a session");
        let expires_in_s = admitted.life.as_secs();
        Ok(token::Session { token, expires_in_s, reads: admitted.reads, writes: admitted.writes })
    }

    /// Who shows this session token.
    pub(super) fn principal(
        &self,
        token: &str,
        refused: &WriterSet,
        public: &[Scope],
    ) -> Result<Principal, Refused> {
        let now_s = self.clock.unix_s();
        let session = Session::verify(token, &self.keys, now_s)?;
        let Session { id, subject, name, mut reads, writes, ends_s } = session;
        let writers = vec![subject, id.clone()];
        if refused.has_any(&writers) {
            return Err(Refused::Revoked);
        }
        let new: Vec<_> = public.iter().filter(|scope| !reads.contains(scope)).cloned().collect();
        reads.extend(new);
        let left = std::time::Duration::from_secs(ends_s.saturating_sub(now_s));
        let until = Some(self.clock.now() + left);
        let id = id.to_string();
        Ok(Principal { id, name, writers, reads, writes, admin: false, observes: false, until })
    }

    /// Whether a job of anybody's making could write the scope.
    pub(super) fn is_untrusted(&self, scope: &Scope) -> bool {
        self.oidc.is_untrusted(scope)
    }

    /// Makes a new key to sign with, where the newest is old.
    pub(super) fn renew_keys(&self) {
        if let Err(error) = self.keys.renew(self.clock.unix_s(), &*self.entropy) {
            tracing::warn!(%error, "no new key for sessions can be made; the old one signs on");
        }
    }
}
