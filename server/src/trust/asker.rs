//! Who sent a request, as far as it shows.

use std::sync::Arc;

use super::Principal;

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
