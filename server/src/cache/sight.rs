//! What may be seen: a result whose writers are not revoked, in a scope of the view; a blob that such a result names, or that
//! whoever looks has put there.
//!
//! Invariant: what may not be seen is told from what is not there by nothing.

use std::sync::{Arc, PoisonError};

use pcmcache_shared::Digest;

use super::{Cache, CacheError};
use crate::results::StoredResult;
use crate::trust::{Revoked, View, WriterSet};

impl Cache {
    /// From now on what the hidden ones published is as if it were not there, and the refused ones get no lease. Those that
    /// they hold end soon after.
    pub fn hide(self: &Arc<Self>, revoked: Revoked) {
        let has_refused = !revoked.refused.is_empty();
        *self.revoked.write().unwrap_or_else(PoisonError::into_inner) = revoked;
        self.near.forget([]);
        if has_refused && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let cache = Arc::clone(self);
            runtime.spawn(async move {
                if let Err(error) = cache.end_leases_of_refused().await {
                    tracing::warn!(%error, "leases of a revoked token go on until they run out");
                }
            });
        }
    }

    async fn end_leases_of_refused(&self) -> Result<(), CacheError> {
        for (scope, claim, fence) in self.rooms.leases.held_by(&self.revoked().refused).await? {
            let at = (scope, claim);
            self.drop_lease(&at, fence, std::time::Duration::ZERO).await?;
            self.holds.end(&at, fence);
            tracing::info!(scope = %at.0, %claim, "a lease ended with its holder's token");
        }
        Ok(())
    }

    /// Whether the credential of whoever looks ended meanwhile.
    pub(super) fn refuses(&self, view: &View) -> bool {
        let has_ended = view.until().is_some_and(|until| until <= self.rooms.clock.now());
        has_ended || self.revoked().refused.has_any(view.asker())
    }

    /// Whether the result is as if it were not there.
    pub(super) fn hides(&self, stored: &StoredResult) -> bool {
        self.hidden().has_any(&stored.writers)
    }

    /// Whose results are taken back.
    pub(super) fn hidden(&self) -> WriterSet {
        self.revoked().hidden
    }

    fn revoked(&self) -> Revoked {
        self.revoked.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the blob may be seen. It may be lost all the same.
    pub(super) async fn sees(&self, view: &View, digest: Digest) -> Result<bool, CacheError> {
        if self.near.sees(view, digest) {
            return Ok(true);
        }
        let epoch = self.near.epoch();
        let sees = self.rooms.results.names(view.scopes(), digest, &self.hidden()).await?
            || match view.uploader() {
                Some(uploader) => self.rooms.blobs.was_put(view.scope(), uploader, digest).await?,
                None => false,
            };
        if sees {
            self.near.saw(epoch, view, digest);
        }
        Ok(sees)
    }
}
