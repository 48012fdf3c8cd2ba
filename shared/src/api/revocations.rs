//! `GET /v1/scopes/{scope}/revocations`: whose results are taken back.
//!
//! Every answer under a scope says the epoch ([`super::EPOCH_HEADER`]), which changes whenever a writer is revoked. A client
//! that saw another before asks here, and forgets what these writers published.

use serde::{Deserialize, Serialize};

use crate::{Scope, Writer};

/// The endpoint's path.
pub fn path(scope: &Scope) -> String {
    format!("/v1/scopes/{scope}/revocations")
}

/// The writers whose results were taken back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Revocations {
    /// The epoch of this list.
    pub epoch: u64,
    /// Writers of the scopes that the client sees here, the last revoked one first; at most
    /// [`super::limits::MAX_REVOCATIONS`].
    #[cfg_attr(feature = "openapi", schema(max_items = 1000))]
    pub writers: Vec<Writer>,
    /// Whether these are all. If not, a client forgets everything it has from this server.
    pub complete: bool,
}
