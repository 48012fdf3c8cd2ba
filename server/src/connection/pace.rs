//! A floor under the pace of a request's body.
//!
//! Only time spent waiting for the client counts: a disk of ours that is slow is not the client's fault.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

/// In each `window` of waiting for a client, `least` bytes must come.
#[derive(Debug, Clone, Copy)]
pub struct Floor {
    /// The time over which the pace is averaged.
    pub window: Duration,
    /// Bytes per window.
    pub least: u64,
}

/// The client sent its body too slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body came slower than {least} bytes in {} ms", .window.as_millis())]
pub struct TooSlow {
    least: u64,
    window: Duration,
}

/// A body that fails with [`TooSlow`] when it comes slower than a [`Floor`].
pub(super) struct Paced<B> {
    body: B,
    floor: Floor,
    /// Bytes in the present window.
    came: u64,
    /// What is left of the present window.
    left: Duration,
    /// Since when we wait, and until when at most.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<B> Paced<B> {
    pub(super) fn new(body: B, floor: Floor) -> Self {
        Self { body, floor, came: 0, left: floor.window, waiting: None }
    }

    /// Ends a wait, and takes it off the window.
    fn arrived(&mut self, bytes: u64) {
        self.came += bytes;
        if let Some((since, _)) = self.waiting.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
    }

    /// Waits on, unless the window is over and too little came in it.
    fn poll_window(&mut self, cx: &mut Context<'_>) -> Poll<TooSlow> {
        loop {
            let left = self.left;
            let (_, sleep) =
                self.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(left))));
            ready!(sleep.as_mut().poll(cx));
            if self.came < self.floor.least {
                return Poll::Ready(TooSlow { least: self.floor.least, window: self.floor.window });
            }
            (self.came, self.left, self.waiting) = (0, self.floor.window, None);
        }
    }
}

impl<B> Body for Paced<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                let bytes = match &frame {
                    Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
                    Some(Err(_)) | None => 0,
                };
                self.arrived(bytes as u64);
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => self.poll_window(cx).map(|slow| Some(Err(slow.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::StreamExt as _;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    const FLOOR: Floor = Floor { window: Duration::from_secs(10), least: 100 };

    /// A body of `(pause in ms, bytes)`, read to its end or its error.
    async fn read(parts: &'static [(u64, usize)]) -> Result<usize, axum::BoxError> {
        let frames = futures::stream::iter(parts).then(|(pause, bytes)| async move {
            tokio::time::sleep(Duration::from_millis(*pause)).await;
            Ok::<_, Infallible>(Frame::data(Bytes::from(vec![0; *bytes])))
        });
        let paced = Paced::new(StreamBody::new(Box::pin(frames)), FLOOR);
        paced.collect().await.map(|body| body.to_bytes().len())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_at_its_pace_is_read_whole() {
        assert_eq!(read(&[(0, 500), (9_000, 1)]).await.unwrap(), 501);
        assert_eq!(read(&[(9_999, 100), (9_999, 100), (9_999, 100)]).await.unwrap(), 300);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_dribbling_are_cut() {
        for parts in [&[(10_001, 500)][..], &[(0, 500), (20_001, 1)], &[(4_000, 1), (4_000, 1), (4_000, 200)]]
        {
            assert!(read(parts).await.unwrap_err().is::<TooSlow>(), "{parts:?}");
        }
    }
}
