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
use crate::trust::{self, Asker, Principal, View, Writing};

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
        let asker = asker(parts)?;
        let scope: Result<Scope, _> = text.parse();
        if let Some(view) = scope.as_ref().ok().and_then(|scope| asker.principal.view(scope)) {
            return Ok(Self(view));
        }
        // Whatever it is that is not there, or is and is not for them.
        Known::of(asker)?;
        Err(match scope {
            Ok(scope) => {
                let detail = format!("there is no scope '{scope}', or it is not for this token");
                Refused::new(Code::UnknownScope, detail)
            }
            Err(error) => Refused::new(Code::BadScope, format!("'{text}': {error}")),
        })
    }
}

/// Who asks, where a bad credential is none.
fn asker(parts: &Parts) -> Result<&Asker, Refused> {
    let asker = parts.extensions.get::<Asker>();
    let asker = asker.ok_or_else(|| Refused::new(Code::Internal, "nobody looked who asks"))?;
    match asker.refused {
        Some(trust::Refused::Unreadable) => {
            Err(Refused::new(Code::Unavailable, trust::Refused::Unreadable.to_string()))
        }
        Some(refused) => Err(Refused::new(Code::Unauthorized, refused.to_string())),
        None => Ok(asker),
    }
}

/// Whoever asks, known or not.
#[derive(Debug)]
pub(super) struct Anyone(pub(super) Arc<Principal>);

/// Someone who is known: who showed no credential where one is needed is not.
#[derive(Debug)]
pub(super) struct Known;

impl Known {
    fn of(asker: &Asker) -> Result<Self, Refused> {
        match asker.needs_token && asker.principal.is_anonymous() {
            false => Ok(Self),
            true => Err(Refused::new(Code::Unauthorized, "send 'Authorization: Bearer' and a token")),
        }
    }
}

/// Someone who may see what goes on in all scopes.
#[derive(Debug)]
pub(super) struct Observer;

impl<S: Send + Sync> FromRequestParts<S> for Anyone {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        Ok(Self(Arc::clone(&asker(parts)?.principal)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Observer {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let asker = asker(parts)?;
        Known::of(asker)?;
        match asker.principal.observes {
            true => Ok(Self),
            false => Err(Refused::new(
                Code::Forbidden,
                "this token may not see what goes on in all scopes; `pcmcache-server token create --observe` makes one that may",
            )),
        }
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

pub(super) async fn segments<S: Send + Sync>(
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
