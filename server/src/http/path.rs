//! What the path says: the scope, as far as whoever asks may see it, and the SHA-256 name at its end.

use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;
use pcmcache_shared::Scope;
use pcmcache_shared::api::problem::Code;
use pcmcache_shared::digest::NotHex;

use super::problem::Refused;
use crate::cache::CacheError;
use crate::trust::{Principal, View, Writing};

/// `{scope}`, to be read.
#[derive(Debug)]
pub(super) struct Reading(pub(super) View);

/// `{scope}`, to be written.
#[derive(Debug)]
pub(super) struct Write(pub(super) Writing);

/// `{digest}`, `{key}` or `{claim}`: the name that ends the path.
#[derive(Debug)]
pub(super) struct Named<T>(pub(super) T);

impl<S: Send + Sync> FromRequestParts<S> for Reading {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let text = segments(parts, state, |name, value| (name == "scope").then(|| value.to_owned())).await?;
        let scope: Scope =
            text.parse().map_err(|error| Refused::new(Code::BadScope, format!("'{text}': {error}")))?;
        let principal = parts.extensions.get::<Arc<Principal>>();
        let view = principal.and_then(|principal| principal.view(&scope));
        let unknown = || {
            let detail = format!("there is no scope '{scope}' here, or this token may not read it");
            Refused::new(Code::UnknownScope, detail)
        };
        view.map(Self).ok_or_else(unknown)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Write {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let Reading(view) = Reading::from_request_parts(parts, state).await?;
        view.writing().map(Self).ok_or_else(|| CacheError::ReadOnly.into())
    }
}

impl<S: Send + Sync, T: FromStr<Err = NotHex>> FromRequestParts<S> for Named<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let text = segments(parts, state, |name, value| (name != "scope").then(|| value.to_owned())).await?;
        let name =
            text.parse().map_err(|error| Refused::new(Code::BadDigest, format!("'{text}': {error}")))?;
        Ok(Self(name))
    }
}

async fn segments<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
    pick: impl Fn(&str, &str) -> Option<String>,
) -> Result<String, Refused> {
    let unreadable = |detail: String| Refused::new(Code::BadRequest, detail);
    let params = RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|error| unreadable(error.body_text()))?;
    params
        .iter()
        .find_map(|(name, value)| pick(name, value))
        .ok_or_else(|| unreadable("the path lacks a segment".to_owned()))
}

/// Whether the path is UTF-8 once its percent escapes are undone, and each of them is one.
pub(super) fn is_readable(path: &str) -> bool {
    let mut bytes = Vec::with_capacity(path.len());
    let mut parts = path.split('%');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let Some((hex, rest)) = part.split_at_checked(2) else { return false };
        let Some(byte) = hex_byte(hex) else { return false };
        bytes.push(byte);
        bytes.extend_from_slice(rest.as_bytes());
    }
    str::from_utf8(&bytes).is_ok()
}

/// Two hexadecimal digits; `from_str_radix` alone would take `+f`.
fn hex_byte(hex: &str) -> Option<u8> {
    hex.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u8::from_str_radix(hex, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_escapes_are_two_digits_of_utf8() {
        for good in ["/", "/v1/scopes/main", "/%61", "/%c3%A4", "/%00", "/%25zz"] {
            assert!(is_readable(good), "{good}");
        }
        for bad in ["/%", "/%f", "/%zz", "/%+f", "/%ff", "/%c3", "/%c3%28", "/a%é"] {
            assert!(!is_readable(bad), "{bad}");
        }
    }
}
