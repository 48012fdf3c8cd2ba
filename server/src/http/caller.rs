//! Who asks, as lines of the log and the dashboard know them.

use std::sync::Arc;

use axum::extract::Request;
use pcmcache_shared::Scope;

use crate::trust::Principal;

/// Who sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    /// What tells them from all others.
    pub(super) id: String,
    /// What people call them.
    pub(super) name: String,
    /// Of which scopes they may see what goes on; `None`: of all, and of the whole server.
    pub(super) sees: Option<Vec<Scope>>,
}

impl Caller {
    /// Whom the request was found to be from.
    pub(super) fn of(request: &Request) -> Self {
        let Some(principal) = request.extensions().get::<Arc<Principal>>() else {
            return Self { id: "nobody".to_owned(), name: "nobody".to_owned(), sees: Some(Vec::new()) };
        };
        let own = || principal.writes.iter().chain(&principal.reads).cloned().collect();
        let sees = if principal.admin || principal.observes { None } else { Some(own()) };
        Self { id: principal.id.clone(), name: principal.name.clone(), sees }
    }
}
