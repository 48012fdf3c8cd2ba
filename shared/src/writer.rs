//! Who published something, as far as others need to know: a name whose revocation takes away what it published.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::api::limits;

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

/// Reads who published a result: never more than [`limits::MAX_WRITERS`], however many are sent.
pub(crate) fn few<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Writer>, D::Error> {
    struct Few;

    impl<'de> Visitor<'de> for Few {
        type Value = Vec<Writer>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {} writers", limits::MAX_WRITERS)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut sent: A) -> Result<Vec<Writer>, A::Error> {
            let mut writers = Vec::new();
            while let Some(writer) = sent.next_element()? {
                if writers.len() == limits::MAX_WRITERS {
                    return Err(A::Error::invalid_length(writers.len() + 1, &self));
                }
                writers.push(writer);
            }
            Ok(writers)
        }
    }

    deserializer.deserialize_seq(Few)
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

    #[test]
    fn no_result_has_a_thousand_of_them() {
        let read = |count: usize| few(serde_json::json!(vec!["t-0a1b"; count]));
        assert_eq!(read(limits::MAX_WRITERS).unwrap().len(), limits::MAX_WRITERS);
        assert!(read(limits::MAX_WRITERS + 1).is_err());
    }
}
