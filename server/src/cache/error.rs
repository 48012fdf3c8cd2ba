//! What a request can end with, named by what the caller does next.

use std::io;

use pcmcache_shared::Digest;

use super::lookup::Found;
use crate::fault::Fault;
use crate::space::Shortage;

/// Why a request was not done. HTTP maps each to one problem code.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The request contradicts itself or the limits: mend it, do not repeat it.
    #[error("{0}")]
    BadRequest(String),
    /// The result, recipe or include set contradict the key or themselves: mend it, do not repeat it.
    #[error("{0}")]
    BadResult(String),
    /// The scope may be read only: wait for what others build, or compile.
    #[error(
        "this token may read the scope and not write it; `pcmcache-server token create --write SCOPE` makes one that may"
    )]
    ReadOnly,
    /// The credential ended while the request was under way: get another.
    #[error("the token has expired or was revoked")]
    Revoked,
    /// The bytes are not those of the name: what was read may have changed under the sender.
    #[error("the bytes have the digest {actual}, not {declared}")]
    DigestMismatch {
        /// The name they were sent under.
        declared: Digest,
        /// The name they have.
        actual: Digest,
    },
    /// The body ended before its declared length: send it again.
    #[error("the body has {received} bytes, {declared} were declared")]
    ShortBody {
        /// What was announced.
        declared: u64,
        /// What came.
        received: u64,
    },
    /// Larger than this server takes: compile without sharing this one.
    #[error("{length} bytes are more than the {limit} that are taken")]
    TooLarge {
        /// How large it is, or is at least.
        length: u64,
        /// How large it may be.
        limit: u64,
    },
    /// No such lease lives: the work may go on without it.
    #[error("no lease on this claim lives with this fence and secret")]
    NoLease,
    /// Someone else holds the claim: wait for its result.
    #[error("someone else holds the lease on this claim: {holder:?}")]
    LeaseHeld {
        /// Who, for people.
        holder: String,
    },
    /// Another result was published first: take that one's bytes.
    #[error("another result was published first")]
    Winner(Box<Found>),
    /// Upload these, then publish again.
    #[error("{} blobs of the result are missing", .0.len())]
    Missing(Vec<Digest>),
    /// The stored bytes are not those of the name, and have been moved aside: as if they never were there. Once part of
    /// the answer is out, it must be cut.
    #[error("the stored bytes of {0} are damaged")]
    Damaged(Digest),
    /// No space is left: share nothing until there is some.
    #[error("no space is left to {operation}")]
    StoreFull {
        /// What was to be done.
        operation: &'static str,
    },
    /// A bound of the store is reached, and what is there is still needed: share nothing until there is room.
    #[error("no room for {length} bytes: {}", shortage.bound)]
    NoRoom {
        /// How many bytes were to be stored.
        length: u64,
        /// What is in the way.
        shortage: Shortage,
    },
    /// Not now: ask again later.
    #[error("cannot {operation} now")]
    Unavailable {
        /// What was to be done.
        operation: &'static str,
    },
    /// The server is broken; a person must look.
    #[error(transparent)]
    Broken(Fault),
}

impl From<Fault> for CacheError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Full { operation } => Self::StoreFull { operation },
            Fault::Unavailable { operation } => Self::Unavailable { operation },
            broken @ Fault::Broken { .. } => Self::Broken(broken),
        }
    }
}

impl CacheError {
    /// The error that an I/O error is.
    pub(crate) fn io(operation: &'static str, error: io::Error) -> Self {
        Fault::io(operation, error).into()
    }
}
