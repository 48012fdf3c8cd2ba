//! A lease's parts: the fence, the holder's secret, and why a holder gives up.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A number that rises with each grant of a lease, over all claims of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Fence(pub u64);

/// What proves to the server that a renewal, a release or a publish comes from the lease's holder:
/// 1 to 64 letters and digits. Never logged: its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^[A-Za-z0-9]{1,64}$"))]
pub struct Secret(String);

/// The text is no secret of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the secret of a lease is 1 to 64 letters and digits")]
pub struct BadSecret;

impl Secret {
    /// A secret made from random bytes that were handed in.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Whether both are the same, in a time that does not tell how much of them is.
    pub fn matches(&self, other: &Self) -> bool {
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
    }
}

impl TryFrom<String> for Secret {
    type Error = BadSecret;

    fn try_from(text: String) -> Result<Self, BadSecret> {
        let is_one = (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if is_one { Ok(Self(text)) } else { Err(BadSecret) }
    }
}

impl From<Secret> for String {
    fn from(secret: Secret) -> Self {
        secret.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why a holder gives its lease back without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ReleaseReason {
    /// The compiler reported an error: everyone should see it for themselves, at once.
    Failed,
    /// The compile must not be cached (an input changed under it, it reads the clock, ...).
    Uncacheable,
    /// An output is larger than the server takes.
    TooLarge,
    /// The server's store is full.
    StoreFull,
    /// The holder goes away; somebody else should build.
    Abandoned,
}

impl ReleaseReason {
    /// Whether all who wait should compile for themselves (else one of them takes over).
    pub const fn wakes_all(self) -> bool {
        match self {
            Self::Failed | Self::Uncacheable | Self::TooLarge | Self::StoreFull => true,
            Self::Abandoned => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_matches_itself_only_and_does_not_show() {
        let secret = Secret::from_random([7; 16]);
        let stored = String::from(secret.clone());
        assert!(secret.matches(&Secret::try_from(stored.clone()).unwrap()));
        assert!(!secret.matches(&Secret::from_random([8; 16])));
        assert!(!secret.matches(&Secret::try_from(stored[1..].to_owned()).unwrap()));
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }

    #[test]
    fn a_secret_is_letters_and_digits_and_short() {
        assert!(serde_json::from_str::<Secret>(&format!("\"{}\"", "aZ0".repeat(21))).is_ok());
        for bad in ["", "a b", "ä", "a\n", &"a".repeat(65)] {
            assert_eq!(Secret::try_from(bad.to_owned()).err(), Some(BadSecret), "{bad}");
        }
    }
}
