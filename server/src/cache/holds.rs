//! Which open stream holds which lease.
//!
//! Invariant: at most one stream holds a lease, the last that asked. An older one that drops does nothing to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pcmcache_shared::Fence;
use tokio_util::sync::CancellationToken;

use super::waiters::ScopedClaim;

#[derive(Debug, Default)]
pub(crate) struct Holds {
    streams: Mutex<HashMap<ScopedClaim, Stream>>,
}

#[derive(Debug)]
struct Stream {
    fence: Fence,
    over: CancellationToken,
}

/// A stream's hold; over when the lease ended or another stream took it.
#[derive(Debug)]
pub(crate) struct Holding {
    holds: Arc<Holds>,
    at: ScopedClaim,
    fence: Fence,
    over: CancellationToken,
}

impl Holds {
    fn streams(&self) -> MutexGuard<'_, HashMap<ScopedClaim, Stream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this stream holds the lease, in place of any other.
    pub(crate) fn take(self: &Arc<Self>, at: &ScopedClaim, fence: Fence) -> Holding {
        let over = CancellationToken::new();
        let stream = Stream { fence, over: over.clone() };
        if let Some(before) = self.streams().insert(at.clone(), stream) {
            before.over.cancel();
        }
        Holding { holds: Arc::clone(self), at: at.clone(), fence, over }
    }

    /// Whether a stream holds this grant.
    pub(crate) fn has(&self, at: &ScopedClaim, fence: Fence) -> bool {
        self.streams().get(at).is_some_and(|stream| stream.fence == fence)
    }

    /// The lease ended: so does the stream that held it.
    pub(crate) fn end(&self, at: &ScopedClaim, fence: Fence) {
        let mut streams = self.streams();
        if streams.get(at).is_some_and(|stream| stream.fence == fence)
            && let Some(stream) = streams.remove(at)
        {
            stream.over.cancel();
        }
    }
}

impl Holding {
    pub(crate) fn fence(&self) -> Fence {
        self.fence
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    pub(crate) async fn over(&self) {
        self.over.cancelled().await;
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        // If it is over, what stands there belongs to another stream.
        if !self.over.is_cancelled() {
            self.holds.streams().remove(&self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use pcmcache_shared::{Claim, Scope};

    use super::*;

    #[test]
    fn the_last_stream_holds_and_the_end_of_the_lease_ends_it() {
        let (holds, at) = (Arc::new(Holds::default()), (Scope::default(), Claim::of("c")));
        let first = holds.take(&at, Fence(1));
        let second = holds.take(&at, Fence(1));
        assert!(holds.has(&at, Fence(1)) && !holds.has(&at, Fence(2)));
        assert!(first.is_over() && !second.is_over());
        drop(first);
        holds.end(&at, Fence(9));
        assert!(!second.is_over(), "another grant's end");
        holds.end(&at, Fence(1));
        assert!(second.is_over());
        drop(second);
        assert!(holds.streams().is_empty());
    }
}
