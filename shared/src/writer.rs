//! Who published something, as far as others need to know: a name whose revocation takes away what it published.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An opaque name, `[a-z0-9-]{1,64}`: of a token, of a CI job's session, of the repository behind it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^[a-z0-9-]{1,64}$"))]
pub struct Writer(String);

/// The text is no writer's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a writer's name is 1 to 64 of a-z, 0-9 and '-'")]
pub struct BadWriter;

impl Writer {
    /// Who wrote what was published without a token. Revoking it takes that away.
    pub fn before_tokens() -> Self {
        Self("before-tokens".to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Writer {
    type Err = BadWriter;

    fn from_str(text: &str) -> Result<Self, BadWriter> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        match !text.is_empty() && text.len() <= 64 && text.bytes().all(plain) {
            true => Ok(Self(text.to_owned())),
            false => Err(BadWriter),
        }
    }
}

impl TryFrom<String> for Writer {
    type Error = BadWriter;

    fn try_from(text: String) -> Result<Self, BadWriter> {
        text.parse()
    }
}

impl From<Writer> for String {
    fn from(writer: Writer) -> Self {
        writer.0
    }
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["t-0a1b", "before-tokens", "0", &"a".repeat(64)] {
            assert!(good.parse::<Writer>().is_ok(), "{good}");
        }
        for bad in ["", "A", "a b", "a.b", "a_b", "ä", &"a".repeat(65)] {
            assert_eq!(bad.parse::<Writer>(), Err(BadWriter), "{bad}");
        }
        assert!(Writer::before_tokens().as_str().parse::<Writer>().is_ok());
    }
}
