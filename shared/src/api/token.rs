//! `POST|GET /v1/token`: exchange a CI job's OIDC token for one of this server; ask what a token allows.
//!
//! `POST` takes each OIDC token once. `GET` answers for whatever credential the request carries, none included.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Scope;

/// The endpoint's path.
pub const PATH: &str = "/v1/token";

/// What the CI system gave the job.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExchangeRequest {
    /// The OIDC token: a signed JWT.
    #[cfg_attr(feature = "openapi", schema(max_length = 16384))]
    pub token: String,
}

/// A session of this server.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Session {
    /// What to send from now on, as `Authorization: Bearer`.
    pub token: String,
    /// How long it is good for, in seconds.
    pub expires_in_s: u64,
    /// The scopes it may read beside the one it writes, in the order they are looked at.
    pub reads: Vec<Scope>,
    /// The scope it may write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writes: Option<Scope>,
}

/// Who the server takes the client for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WhoAmI {
    /// The name under which the credential can be revoked; `anonymous` where there is none.
    pub id: String,
    /// The scopes it may read beside the one it writes, in the order they are looked at.
    pub reads: Vec<Scope>,
    /// The scope it may write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writes: Option<Scope>,
    /// Whether it may read every scope.
    #[serde(default)]
    pub admin: bool,
    /// Whether it may see the metrics.
    #[serde(default)]
    pub observes: bool,
    /// How long it is good for, in seconds, where that ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u64>,
}

impl fmt::Debug for ExchangeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExchangeRequest(..)")
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("expires_in_s", &self.expires_in_s)
            .field("reads", &self.reads)
            .field("writes", &self.writes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_token_shows_in_a_log() {
        let session =
            Session { token: "secret".to_owned(), expires_in_s: 1, reads: Vec::new(), writes: None };
        let request = ExchangeRequest { token: "secret".to_owned() };
        assert!(!format!("{session:?} {request:?}").contains("secret"));
    }
}
