//! The texts of credentials: what they look like, how they are made and told apart.

use std::fmt;
use std::io;

use pcmcache_shared::{Digest, Writer};
use subtle::ConstantTimeEq as _;

use crate::clock::Entropy;

/// How a token begins: so that tools which look for leaked secrets find it.
const TOKEN: &str = "pcmc_";

/// A token's text. Shown to whom it is made for and nobody else: its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A new one, of 256 random bits.
    pub fn generate(entropy: &dyn Entropy) -> io::Result<Self> {
        let bits = [entropy.bytes()?, entropy.bytes()?].concat();
        Ok(Self(format!("{TOKEN}{}", hex(&bits))))
    }

    /// Whether a credential looks like one.
    pub fn is_one(text: &str) -> bool {
        text.starts_with(TOKEN)
    }

    /// The text, for printing it once.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub fn hash(&self) -> Digest {
        Digest::of(&self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Whether both are the same, in a time that does not tell how much of them is.
pub(super) fn same(a: &Digest, b: &Digest) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

/// A name that nobody else has.
pub(super) fn name(prefix: &str, entropy: &dyn Entropy) -> io::Result<Writer> {
    let bits = entropy.bytes()?;
    let bits = bits.first_chunk::<12>().copied().unwrap_or_default();
    format!("{prefix}-{}", hex(&bits)).parse().map_err(io::Error::other)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{CountedEntropy, SystemEntropy};

    #[test]
    fn a_token_is_found_by_scanners_and_not_by_logs() {
        let token = Token::generate(&SystemEntropy).unwrap();
        assert!(Token::is_one(token.expose()));
        assert_eq!(token.expose().len(), "pcmc_".len() + 64);
        assert!(!format!("{token:?}").contains(token.expose()));
        assert_ne!(token, Token::generate(&SystemEntropy).unwrap());
        assert!(same(&token.hash(), &Digest::of(token.expose())));
        assert!(!same(&token.hash(), &Digest::of("other")));
    }

    #[test]
    fn names_are_names_of_writers() {
        let entropy = CountedEntropy::default();
        let (a, b) = (name("t", &entropy).unwrap(), name("t", &entropy).unwrap());
        assert_ne!(a, b);
        assert_eq!(a.as_str().len(), 26);
    }
}
