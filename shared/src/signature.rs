//! What a builder signs, and how keys and signatures are spelled. Making and checking them is the client's.
//!
//! Ed25519 (RFC 8032) over [`signed_text`]. Its first line names what is signed and in which version, so that a signature
//! for this can never be one for something else; the scope is in it, so that what was signed for one scope is nothing
//! in another.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::{ActionKey, Output, Scope};

/// The text that a signature is over: the scope, the action, the outputs in the order of their lines.
///
/// ```text
/// pcmcache result 1
/// scope main
/// action 5f1c..
/// output bmi 9a0b.. 1048576
/// output object 77de.. 20480
/// ```
pub fn signed_text(scope: &Scope, action: ActionKey, outputs: &[Output]) -> String {
    let line = |output: &Output| format!("output {} {} {}\n", output.role, output.digest, output.size);
    let mut lines: Vec<String> = outputs.iter().map(line).collect();
    lines.sort_unstable();
    format!("pcmcache result 1\nscope {scope}\naction {action}\n{}", lines.concat())
}

/// The text is not base64 of as many bytes as it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {0} bytes in base64")]
pub struct NotBase64(usize);

fn decode<const N: usize>(text: &str) -> Result<[u8; N], NotBase64> {
    // Before decoding: what is longer than it can be is not worth the memory.
    if text.len() > N.div_ceil(3) * 4 {
        return Err(NotBase64(N));
    }
    let bytes = STANDARD.decode(text).map_err(|_| NotBase64(N))?;
    bytes.try_into().map_err(|_| NotBase64(N))
}

macro_rules! base64_bytes {
    ($(#[$doc:meta])* $name:ident, $length:literal, $pattern:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[cfg_attr(feature = "openapi", schema(value_type = String, pattern = $pattern))]
        pub struct $name([u8; $length]);

        impl $name {
            /// Of these bytes.
            pub const fn from_bytes(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NotBase64;

            fn from_str(text: &str) -> Result<Self, NotBase64> {
                decode(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotBase64;

            fn try_from(text: String) -> Result<Self, NotBase64> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&STANDARD.encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

base64_bytes! {
    /// An Ed25519 signature, in base64 wherever it is text.
    Signature, 64, "^[A-Za-z0-9+/]{86}==$"
}
base64_bytes! {
    /// An Ed25519 public key, in base64 wherever it is text.
    PublicKey, 32, "^[A-Za-z0-9+/]{43}=$"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Digest, Role};

    #[test]
    fn the_text_is_the_same_whatever_order_the_outputs_come_in() {
        let output = |role, bytes: &str| Output { role, digest: Digest::of(bytes), size: bytes.len() as u64 };
        let (bmi, object) = (output(Role::Bmi, "b"), output(Role::Object, "ob"));
        let text = |scope: &str, outputs: &[Output]| {
            signed_text(&scope.parse().unwrap(), ActionKey::of("recipe"), outputs)
        };
        let expected = format!(
            "pcmcache result 1\nscope main\naction {}\noutput bmi {} 1\noutput object {} 2\n",
            ActionKey::of("recipe"),
            bmi.digest,
            object.digest,
        );
        assert_eq!(text("main", &[object, bmi]), expected);
        assert_eq!(text("main", &[bmi, object]), expected);
        assert_ne!(text("pr-17", &[bmi, object]), expected);
    }

    #[test]
    fn keys_and_signatures_survive_text_and_nothing_else_is_one() {
        let (key, signature) = (PublicKey::from_bytes([7; 32]), Signature::from_bytes([9; 64]));
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!(signature.to_string().parse(), Ok(signature));
        for bad in ["", "AAAA", "a b", &signature.to_string(), &"A".repeat(1_000_000)] {
            assert_eq!(bad.parse::<PublicKey>(), Err(NotBase64(32)), "{bad:.20}");
        }
    }
}
