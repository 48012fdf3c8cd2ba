//! (being written)
use bytes::Bytes;

use super::CacheError;

/// An upload on its way.
#[derive(Debug)]
pub struct Upload {}

/// What an upload did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uploaded {
    /// The scope has one blob more.
    Stored,
    /// The scope had it already.
    Existed,
}

impl Upload {
    /// Appends a piece of the body.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), CacheError> {
        drop(bytes);
        Err(CacheError::NoLease)
    }

    /// Ends the body.
    pub async fn finish(self) -> Result<Uploaded, CacheError> {
        Err(CacheError::NoLease)
    }
}
