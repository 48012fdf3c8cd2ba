//! Session tokens: what a CI job gets for the token of its CI system.
//!
//! `pcms_KEY.CLAIMS.TAG`: the id of a key, claims in base64url JSON, and the HMAC-SHA256 of both. All that a session may do is
//! in it, so that the server keeps nothing of it but who was revoked.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pcmcache_shared::{Scope, Writer};
use serde::{Deserialize, Serialize};

use super::Refused;
use super::keys::Keys;

/// How a session token begins.
const PREFIX: &str = "pcms_";
/// The longest that a session may live.
pub(super) const MAX_LIFE: Duration = Duration::from_secs(6 * 3600);

/// What a session may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Session {
    /// Its own name.
    pub(super) id: Writer,
    /// That of the repository behind it.
    pub(super) subject: Writer,
    /// What people call it.
    pub(super) name: String,
    /// The scopes it may read, in order.
    pub(super) reads: Vec<Scope>,
    /// The scope it may write.
    pub(super) writes: Option<Scope>,
    /// When it ends, in seconds since 1970.
    pub(super) ends_s: u64,
}

impl Session {
    /// Whether a credential looks like one.
    pub(super) fn is_one(token: &str) -> bool {
        token.starts_with(PREFIX)
    }

    /// The token, if there is a key to sign it with.
    pub(super) fn sign(&self, keys: &Keys) -> Option<String> {
        let claims = URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).ok()?);
        let (key, tag) = keys.sign(&signed(&claims))?;
        Some(format!("{PREFIX}{key}.{claims}.{}", URL_SAFE_NO_PAD.encode(tag)))
    }

    /// What the token says, if one of the keys signed it and it has not ended. Nothing of it is read before that is known.
    pub(super) fn verify(token: &str, keys: &Keys, now_s: u64) -> Result<Self, Refused> {
        let mut parts = token.strip_prefix(PREFIX).ok_or(Refused::Unknown)?.split('.');
        let (Some(key), Some(claims), Some(tag), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refused::Unknown);
        };
        let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| Refused::Unknown)?;
        if !keys.verifies(key, &signed(claims), &tag) {
            return Err(Refused::Unknown);
        }
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| Refused::Unknown)?;
        let session: Self = serde_json::from_slice(&claims).map_err(|_| Refused::Unknown)?;
        if session.ends_s <= now_s { Err(Refused::Expired) } else { Ok(session) }
    }
}

/// What is signed: the first line says what it is, so that a tag of this is never one of something else.
fn signed(claims: &str) -> Vec<u8> {
    format!("pcmcache session 1\n{claims}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::CountedEntropy;

    fn keys(name: &str) -> Keys {
        let path = std::env::temp_dir().join(format!("pcmcache-session-{name}-{}", std::process::id()));
        let keys = Keys::open(path.clone(), 0, &CountedEntropy::default()).unwrap();
        fs_err::remove_file(path).unwrap();
        keys
    }

    #[test]
    fn a_session_is_what_was_signed_until_it_ends_and_nothing_else_is_one() {
        let keys = keys("one");
        let session = Session {
            id: "s-1".parse().unwrap(),
            subject: "subject-1".parse().unwrap(),
            name: "github:1".to_owned(),
            reads: vec![Scope::default()],
            writes: Some("pr-17".parse().unwrap()),
            ends_s: 100,
        };
        let token = session.sign(&keys).unwrap();
        assert_eq!(Session::verify(&token, &keys, 99), Ok(session.clone()));
        assert_eq!(Session::verify(&token, &keys, 100), Err(Refused::Expired));

        // Somebody edits what it may do.
        let parts: Vec<_> = token.split('.').collect();
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
        let edited = URL_SAFE_NO_PAD.encode(text.replace("pr-17", "main"));
        for forged in [
            format!("{}.{edited}.{}", parts[0], parts[2]),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{}.{}.{}.x", parts[0], parts[1], parts[2]),
            format!("{}.{}", parts[0], parts[1]),
            format!("pcms_ffffffffffff.{}.{}", parts[1], parts[2]),
            "pcms_..".to_owned(),
            "pcms_".to_owned(),
            String::new(),
        ] {
            assert_eq!(Session::verify(&forged, &keys, 0), Err(Refused::Unknown), "{forged}");
        }
    }
}
