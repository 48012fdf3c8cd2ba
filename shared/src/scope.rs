//! A scope: the trust namespace in which results, leases and the visibility of blobs live.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A scope's name: `[a-z0-9][a-z0-9._-]{0,63}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^[a-z0-9][a-z0-9._-]{0,63}$"))]
pub struct Scope(String);

/// The text is no scope name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a scope name is 1 to 64 of a-z, 0-9, '.', '_' and '-', and starts with a letter or digit")]
pub struct BadScope;

impl Scope {
    /// The scope that is there when nothing else was said.
    pub const DEFAULT: &str = "main";

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Scope {
    fn default() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

impl FromStr for Scope {
    type Err = BadScope;

    fn from_str(text: &str) -> Result<Self, BadScope> {
        if is_name(text) { Ok(Self(text.to_owned())) } else { Err(BadScope) }
    }
}

/// Whether the text is a name as scopes and profiles have it: `[a-z0-9][a-z0-9._-]{0,63}`.
pub(crate) fn is_name(text: &str) -> bool {
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= 64
        && text.as_bytes().first().is_some_and(plain)
        && text.as_bytes().iter().all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'))
}

impl TryFrom<String> for Scope {
    type Error = BadScope;

    fn try_from(text: String) -> Result<Self, BadScope> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.0
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["main", "pr-17", "0", "a.b_c-d", &"a".repeat(64)] {
            assert!(good.parse::<Scope>().is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "Main", "a/b", "a b", "ä", &"a".repeat(65)] {
            assert_eq!(bad.parse::<Scope>(), Err(BadScope), "{bad}");
        }
    }
}
