//! What a back end may fail with, named by what the caller does next. A thing that is not there is no fault.

use std::error::Error;
use std::io;

/// A back end could not do what it was asked to. Nothing of it is visible, and what was there before still is.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No space is left: the caller says so, and may ask again once there is some.
    #[error("no space is left to {operation}")]
    Full {
        /// What was to be done.
        operation: &'static str,
    },
    /// The store is closing, or has more to do than it queues: the caller asks again later.
    #[error("the store cannot {operation} now")]
    Unavailable {
        /// What was to be done.
        operation: &'static str,
    },
    /// The store itself is broken: a person must look.
    #[error("cannot {operation}: {source}")]
    Broken {
        /// What was to be done.
        operation: &'static str,
        /// Why it could not.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl Fault {
    /// The fault that an I/O error is.
    pub fn io(operation: &'static str, error: io::Error) -> Self {
        match is_full(&error) {
            true => Self::Full { operation },
            false => Self::Broken { operation, source: Box::new(error) },
        }
    }
}

/// Whether the error says that no space is left (on the device, or of a quota).
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
