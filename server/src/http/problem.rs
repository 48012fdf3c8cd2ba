//! Errors as they leave: RFC 9457 problems, each code with its one status.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, Uri, header};
use pcmcache_shared::api::PROBLEM_JSON;
use pcmcache_shared::api::problem::{Code, Problem};

use crate::cache::{CacheError, Found};

/// The longest detail; what a client sent may come back in it.
const MAX_DETAIL: usize = 400;

/// A request that was not done, on its way to the client.
#[derive(Debug)]
pub(super) struct Refused(Box<Problem>);

impl Refused {
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        detail.truncate(detail.floor_char_boundary(MAX_DETAIL));
        Self(Box::new(Problem::new(code, detail)))
    }
}

impl From<CacheError> for Refused {
    fn from(error: CacheError) -> Self {
        let detail = error.to_string();
        match error {
            CacheError::BadRequest(_) => Self::new(Code::BadJson, detail),
            CacheError::BadResult(_) => Self::new(Code::BadResult, detail),
            CacheError::ReadOnly => Self::new(Code::ReadOnly, detail),
            CacheError::Revoked => Self::new(Code::Unauthorized, detail),
            CacheError::DigestMismatch { .. } => Self::new(Code::DigestMismatch, detail),
            CacheError::ShortBody { .. } => Self::new(Code::ShortBody, detail),
            CacheError::TooLarge { .. } => Self::new(Code::TooLarge, detail),
            CacheError::NoLease => Self::new(Code::NoLease, detail),
            CacheError::LeaseHeld { .. } => Self::new(Code::LeaseHeld, detail),
            CacheError::Winner(winner) => {
                let mut refused = Self::new(Code::Winner, detail);
                let Found { scope, stored } = *winner;
                refused.0.winner = Some(stored.result);
                refused.0.winner_scope = Some(scope);
                refused.0.winner_writers = stored.writers;
                refused
            }
            CacheError::Missing(missing) => {
                let mut refused = Self::new(Code::MissingBlobs, detail);
                refused.0.missing = missing;
                refused
            }
            CacheError::Damaged(_) => Self::new(Code::NoBlob, detail),
            CacheError::StoreFull { .. } | CacheError::NoRoom { .. } => Self::new(Code::StoreFull, detail),
            CacheError::Unavailable { .. } => Self::new(Code::Unavailable, detail),
            CacheError::Broken(fault) => {
                tracing::error!(%fault, "the store is broken");
                Self::new(Code::Internal, "the store is broken; the server's log says more")
            }
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&*self.0)).into_response();
        // For whoever stands around the handlers.
        response.extensions_mut().insert(self.0.code);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"pcmcache\""));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// For every path that is none.
pub(super) async fn no_route(uri: Uri) -> Refused {
    Refused::new(Code::NoRoute, format!("there is no {}", uri.path()))
}

/// For every method that a path does not have; `Allow` is added by the router.
pub(super) async fn no_method(method: Method, uri: Uri) -> Refused {
    Refused::new(Code::MethodNotAllowed, format!("{} has no {method}", uri.path()))
}
