//! Leases: live ones in memory, and a row for each grant so that a restart duplicates no build.
//!
//! Invariant: a grant is answered after its row and its fence are durable. A row may outlive its lease (by a
//! kill, or because time ended it); the next start then lets it live for
//! [`RESTART_GRACE`](crate::leases::RESTART_GRACE), which costs whoever waits for it those seconds.

use std::time::Duration;

use async_trait::async_trait;
use pcmcache_shared::api::limits;
use pcmcache_shared::{Claim, Fence, Scope, mutant};
use redb::{ReadableTable, WriteTransaction};

use super::index::{Index, corrupted};
use super::tables::{LEASES, LeaseRow, META, decode, encode, lease_key};
use super::{Embedded, OpenError};
use crate::fault::Fault;
use crate::leases::{Ask, Grant, Lease, Leases};
use crate::memory::MemoryLeases;
use crate::trust::WriterSet;

#[async_trait]
impl Leases for Embedded {
    async fn grant(&self, scope: &Scope, claim: Claim, ask: Ask) -> Result<Grant, Fault> {
        let ttl = ask.ttl;
        let mut grant = self.leases.grant_now(scope, claim, ask.clone());
        let Grant::New { lease, .. } = &mut grant else { return Ok(grant) };
        let mut unwritten = Unwritten { leases: &self.leases, at: Some((scope, claim, lease.fence)) };
        let row = LeaseRow::new(lease.fence, ask);
        let key = scope.clone();
        let write = move |transaction: &WriteTransaction| insert_row(transaction, &key, claim, &row);
        self.writer.write("grant a lease", write).await?;
        unwritten.at = None;
        if let Some(expires_in) = self.leases.written_now(scope, claim, lease.fence, ttl) {
            lease.expires_in = expires_in;
        }
        Ok(grant)
    }

    async fn current(&self, scope: &Scope, claim: Claim) -> Result<Option<Lease>, Fault> {
        Ok(self.leases.current_now(scope, claim))
    }

    async fn extend(
        &self,
        scope: &Scope,
        claim: Claim,
        fence: Fence,
        ttl: Duration,
    ) -> Result<Option<Duration>, Fault> {
        Ok(self.leases.extend_now(scope, claim, fence, ttl))
    }

    async fn shrink(&self, scope: &Scope, claim: Claim, fence: Fence, to: Duration) -> Result<(), Fault> {
        self.leases.shrink_now(scope, claim, fence, to);
        Ok(())
    }

    /// The row is removed first: a lease that was ended does not come back with a restart. One that ended with
    /// its result has no row any more, and then nothing is written.
    async fn end(&self, scope: &Scope, claim: Claim, fence: Fence) -> Result<bool, Fault> {
        let key = scope.clone();
        let is_there = self.index.read("read a lease", move |transaction| {
            Ok(transaction.open_table(LEASES)?.get(lease_key(key.as_str(), &claim))?.is_some())
        });
        if is_there.await? {
            self.remove_rows(vec![(scope.clone(), claim, fence)]).await?;
        }
        Ok(self.leases.end_now(scope, claim, fence))
    }

    async fn held_by(&self, revoked: &WriterSet) -> Result<Vec<(Scope, Claim, Fence)>, Fault> {
        Ok(self.leases.held_by_now(revoked))
    }

    async fn forget_expired(&self) -> Result<usize, Fault> {
        let expired = self.leases.forget_expired_now();
        let count = expired.len();
        if count > 0 {
            self.remove_rows(expired).await?;
        }
        Ok(count)
    }
}

impl Embedded {
    async fn remove_rows(&self, ended: Vec<(Scope, Claim, Fence)>) -> Result<(), Fault> {
        let remove = move |transaction: &WriteTransaction| {
            ended.iter().try_for_each(|(scope, claim, fence)| remove_row(transaction, scope, *claim, *fence))
        };
        self.writer.write("end a lease", remove).await
    }
}

/// Takes a grant back that was not written, or whose asker went away before it was.
struct Unwritten<'a> {
    leases: &'a MemoryLeases,
    at: Option<(&'a Scope, Claim, Fence)>,
}

impl Drop for Unwritten<'_> {
    fn drop(&mut self) {
        if let Some((scope, claim, fence)) = self.at {
            self.leases.end_now(scope, claim, fence);
        }
    }
}

fn insert_row(
    transaction: &WriteTransaction,
    scope: &Scope,
    claim: Claim,
    row: &LeaseRow,
) -> Result<(), redb::Error> {
    let mut leases = transaction.open_table(LEASES)?;
    leases.insert(lease_key(scope.as_str(), &claim), encode(row)?.as_slice())?;
    let mut meta = transaction.open_table(META)?;
    let last = meta.get("fence")?.map_or(0, |row| row.value());
    meta.insert("fence", last.max(row.fence.0))?;
    Ok(())
}

/// Removes the row if it is of this grant.
pub(super) fn remove_row(
    transaction: &WriteTransaction,
    scope: &Scope,
    claim: Claim,
    fence: Fence,
) -> Result<(), redb::Error> {
    let mut leases = transaction.open_table(LEASES)?;
    let key = lease_key(scope.as_str(), &claim);
    let row: Option<LeaseRow> = leases.get(key)?.map(|row| decode(row.value())).transpose()?;
    if row.is_some_and(|row| row.fence == fence) {
        leases.remove(key)?;
    }
    Ok(())
}

/// Takes in what an earlier process granted.
pub(super) fn restore(index: &Index, leases: &MemoryLeases) -> Result<(), OpenError> {
    let restored = index.view(|transaction| {
        let fence = transaction.open_table(META)?.get("fence")?.map_or(0, |row| row.value());
        if !mutant!("fence-reset-at-start") {
            leases.fence_at_least(Fence(fence));
        }
        let mut count = 0;
        for entry in transaction.open_table(LEASES)?.iter()? {
            let (key, row) = entry?;
            let (scope, claim) = key.value();
            let row: LeaseRow = decode(row.value())?;
            let scope: Scope = scope.parse().map_err(|_| corrupted("a lease of no scope"))?;
            leases.restore(scope, Claim::from_bytes(*claim), row.fence, row.into_ask());
            count += 1;
        }
        Ok(count)
    });
    let restored = restored.map_err(|source| OpenError::Index { path: index.path(), source })?;
    if restored > 0 {
        tracing::info!(restored, "leases of before the restart live on for their holders to come back");
    }
    Ok(())
}

impl LeaseRow {
    fn new(fence: Fence, ask: Ask) -> Self {
        Self {
            fence,
            secret: ask.secret,
            request_id: ask.request_id,
            holder: ask.holder,
            writers: ask.writers,
            expected_ms: ask.expected.map(millis),
            at_most_ms: millis(ask.at_most),
        }
    }

    fn into_ask(self) -> Ask {
        Ask {
            request_id: self.request_id,
            holder: self.holder,
            writers: self.writers,
            secret: self.secret,
            expected: self.expected_ms.map(Duration::from_millis),
            ttl: limits::LEASE_TTL,
            at_most: Duration::from_millis(self.at_most_ms),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
