//! Whose results are used: our own, those that a server has not taken back, and where keys are pinned, those that are
//! signed by one.

use pcmcache_shared::{ActionKey, ActionResult, Scope};

use super::session::Session;
use crate::local::Store;
use crate::local::origin::{Kept, Origin};
use crate::remote::RemoteError;
use crate::signing::SigningKey;

/// Why a result that is stored is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Distrust {
    /// Keys are pinned, and none of them signed it; or it is not known who made it.
    Unsigned,
    /// Its server took it back.
    TakenBack,
}

impl Distrust {
    /// What `stats` counts it under.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::TakenBack => "revoked",
        }
    }
}

impl Session {
    /// Whether something speaks against using a stored result. Our own is as good as the store, which is our own.
    pub(super) fn distrust(&self, store: &Store, action: ActionKey, kept: &Kept) -> Option<Distrust> {
        match &kept.origin {
            Origin::Own => None,
            Origin::Unknown => self.settings.trusted_keys.is_some().then_some(Distrust::Unsigned),
            Origin::Fetched(fetched) if !store.still_allows(fetched) => Some(Distrust::TakenBack),
            Origin::Fetched(fetched) => {
                (!self.vouches(&fetched.scope, action, &kept.result)).then_some(Distrust::Unsigned)
            }
        }
    }

    /// Refuses what no pinned key vouches for.
    pub(super) fn refuse_unsigned(
        &self,
        scope: &Scope,
        action: ActionKey,
        result: &ActionResult,
    ) -> Result<(), RemoteError> {
        if self.vouches(scope, action, result) {
            return Ok(());
        }
        let why = if result.signature.is_some() { "signed by none of the pinned keys" } else { "not signed" };
        Err(RemoteError::Unsigned(format!("the result {action} in the scope {scope} is {why}")))
    }

    fn vouches(&self, scope: &Scope, action: ActionKey, result: &ActionResult) -> bool {
        let pinned = self.settings.trusted_keys.as_ref();
        pinned.is_none_or(|keys| keys.vouch(&self.settings.scope, scope, action, result))
    }

    /// The result as it is published: signed, if there is a key to sign with. Without that key nothing is published: what
    /// is there unsigned would keep everybody from publishing it signed.
    pub(super) fn signed(&mut self, action: ActionKey, result: &ActionResult) -> Option<ActionResult> {
        let Some(path) = &self.settings.sign_key else { return Some(result.clone()) };
        match SigningKey::read(path) {
            Ok(key) => {
                let signature = Some(key.sign(&self.settings.scope, action, result));
                Some(ActionResult { signature, ..result.clone() })
            }
            Err(error) => {
                self.fault("sign_key", &error);
                None
            }
        }
    }
}
