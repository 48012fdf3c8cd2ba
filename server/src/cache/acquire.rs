//! (being written)
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use pcmcache_shared::api::acquire::AcquireLine;

/// The lines of an answer to acquire. After a grant that was asked for with `hold`, it stays open until the lease ends.
/// Dropping it is how a client goes away: a waiter leaves its queue, a held lease's deadline shrinks to the grace.
#[derive(Debug)]
pub struct AcquireStream {}

impl Stream for AcquireStream {
    type Item = AcquireLine;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<AcquireLine>> {
        Poll::Ready(None)
    }
}
