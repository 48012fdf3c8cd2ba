//! Who may do what: the one who asks is made a [`Principal`] from what their request carries, and what they may see and
//! write under a scope is a [`View`] of it.
//!
//! A principal reads scopes in order and writes one at most. Nothing that is published in a scope can be seen from another
//! unless whoever looks may read it there: `pr-17` reads `main`, never the reverse.

mod principal;
mod revoked;
mod view;

use std::sync::Arc;

use http::HeaderMap;

pub use self::principal::Principal;
pub use self::revoked::{Revoked, WriterSet};
pub use self::view::{View, Writing};

/// Whom the server knows.
#[derive(Debug)]
pub struct Trust {
    anyone: Arc<Principal>,
}

impl Trust {
    /// Everyone who reaches the port may read and write `main`.
    pub fn open() -> Arc<Self> {
        Arc::new(Self { anyone: Arc::new(Principal::anyone()) })
    }

    /// Who sent a request with these headers.
    pub fn identify(&self, _headers: &HeaderMap) -> Arc<Principal> {
        Arc::clone(&self.anyone)
    }
}
