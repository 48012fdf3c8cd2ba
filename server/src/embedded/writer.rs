//! The one writer of the index: a thread that takes all that is waiting and commits it in one transaction.
//!
//! A durable commit costs two fsyncs whatever is in it, so a fleet's worth of writes is as cheap as one as long as they
//! share it. The queue is bounded: who writes faster than the disk waits in line, and memory does not grow.
//!
//! **Two-phase commit** is on because with it the primary commit slot is valid by construction: one-phase commits
//! tell a whole commit from a torn one by checksums alone, and part of what a commit holds comes from strangers. **Quick
//! repair** is on because the server may be killed at any moment: without it a reopen walks the whole database
//! (9.9 s at 3 million rows, during which a fleet compiles everything itself), with it a reopen costs nothing.
//!
//! Invariant: a reply is sent after the commit that holds its write returned, never before; and what a batch has for the
//! journal, and the files that its rows speak of, are durable before its commit. Crash story: a kill loses the writes of the
//! batch under way, all of them, and nobody was told of any.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use pcmcache_shared::mutant;
use redb::WriteTransaction;
use tokio::sync::{mpsc, oneshot};

use super::files::{Files, Unsynced};
use super::index::{Index, fault};
use super::journal::Journal;
use super::ledger::Ledger;
use super::scopes;
use crate::fault::Fault;

/// Writes that may wait in line.
const QUEUE: usize = 1024;
/// Writes that share one transaction at most, so that the first of them does not wait for ever.
const BATCH: usize = 512;

#[derive(Debug)]
pub(super) struct Writer {
    /// `None` only while dropping.
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(
        index: Arc<Index>,
        files: Arc<Files>,
        ledger: Arc<Ledger>,
        journal: Arc<Journal>,
    ) -> io::Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("index-writer".to_owned())
            .spawn(move || write_batches(&index, &files, &ledger, &journal, jobs))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Applies `write` in a transaction that it shares with others; returns once that is durable. If the future is
    /// dropped meanwhile the write may or may not be done.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        write: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, Fault> {
        self.write_after(operation, None, write).await
    }

    /// The same of rows that speak of a file, which is made durable before.
    pub(super) async fn write_after<T: Send + 'static>(
        &self,
        operation: &'static str,
        unsynced: Option<Unsynced>,
        write: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, Fault> {
        let queue = self.queue.as_ref().ok_or(Fault::Unavailable { operation })?;
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Write { operation, unsynced, write: Some(write), value: None, reply });
        queue.send(job).await.map_err(|_| Fault::Unavailable { operation })?;
        answer.await.unwrap_or(Err(Fault::Unavailable { operation }))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // What is in line is written, then the thread ends.
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write_batches(
    index: &Index,
    files: &Files,
    ledger: &Ledger,
    journal: &Journal,
    mut jobs: mpsc::Receiver<Box<dyn Job>>,
) {
    let mut batch = Vec::new();
    while let Some(first) = jobs.blocking_recv() {
        batch.push(first);
        while batch.len() < BATCH
            && let Ok(next) = jobs.try_recv()
        {
            batch.push(next);
        }
        let outcome = index.commit(|transaction| {
            if ledger.doubts_scopes() {
                scopes::restore(transaction, ledger)?;
            }
            batch.iter_mut().try_for_each(|job| job.apply(transaction))?;
            scopes::note(transaction, ledger)?;
            let unsynced: Vec<_> = batch.iter_mut().filter_map(|job| job.take_unsynced()).collect();
            files.sync(&unsynced).map_err(redb::Error::Io)?;
            if mutant!("answer-before-commit") {
                batch.drain(..).for_each(|job| job.answer(Ok(())));
            }
            journal.flush().map_err(redb::Error::Io)
        });
        if let Err(error) = &outcome {
            ledger.doubt_scopes();
            journal.discard();
            tracing::error!(%error, writes = batch.len(), "a batch of writes failed");
        }
        for job in batch.drain(..) {
            job.answer(outcome.as_ref().copied());
        }
    }
}

/// A write in the queue.
trait Job: Send {
    /// Does it, as part of a transaction.
    fn apply(&mut self, transaction: &WriteTransaction) -> Result<(), redb::Error>;

    /// The file that its rows speak of, where it is yet to be made durable.
    fn take_unsynced(&mut self) -> Option<Unsynced>;

    /// Tells who asked for it what became of the transaction.
    fn answer(self: Box<Self>, outcome: Result<(), &redb::Error>);
}

struct Write<T, F> {
    operation: &'static str,
    unsynced: Option<Unsynced>,
    write: Option<F>,
    value: Option<T>,
    reply: oneshot::Sender<Result<T, Fault>>,
}

impl<T, F> Job for Write<T, F>
where
    T: Send,
    F: FnOnce(&WriteTransaction) -> Result<T, redb::Error> + Send,
{
    fn apply(&mut self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        if let Some(write) = self.write.take() {
            self.value = Some(write(transaction)?);
        }
        Ok(())
    }

    fn take_unsynced(&mut self) -> Option<Unsynced> {
        self.unsynced.take()
    }

    fn answer(self: Box<Self>, outcome: Result<(), &redb::Error>) {
        let answer = match outcome {
            Ok(()) => self.value.ok_or(Fault::Unavailable { operation: self.operation }),
            Err(error) => Err(fault(self.operation, error)),
        };
        // Who asked may have gone away.
        let _ = self.reply.send(answer);
    }
}
