//! What the path says: the scope, and the SHA-256 name at its end.

use std::str::FromStr;

use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;
use pcmcache_shared::Scope;
use pcmcache_shared::api::problem::Code;
use pcmcache_shared::digest::NotHex;

use super::problem::Refused;

/// `{scope}`: one that is there. Until tokens say who may use which, there is one.
#[derive(Debug)]
pub(super) struct InScope(pub(super) Scope);

/// `{digest}`, `{key}` or `{claim}`: the name that ends the path.
#[derive(Debug)]
pub(super) struct Named<T>(pub(super) T);

impl<S: Send + Sync> FromRequestParts<S> for InScope {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let text = segments(parts, state, |name, value| (name == "scope").then(|| value.to_owned())).await?;
        let scope: Scope =
            text.parse().map_err(|error| Refused::new(Code::BadScope, format!("'{text}': {error}")))?;
        if scope == Scope::default() {
            Ok(Self(scope))
        } else {
            Err(Refused::new(Code::UnknownScope, format!("this server has the scope 'main', not '{scope}'")))
        }
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
