//! A signed JWT (RFC 7519 in the compact form of RFC 7515), read as strictly as it can be.
//!
//! Only RS256 and ES256, and only with a key that the issuer publishes for it: the token's own header decides nothing but
//! which of these keys is asked. `none`, a MAC made with a public key, keys that the token brings along: no code path leads
//! there. `ring` verifies; libraries for JWTs bring a second crypto provider, ask the system for the time, or
//! take a missing claim for a good one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pcmcache_shared::Digest;
use pcmcache_shared::api::limits::MAX_TOKEN;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A token whose signature nobody looked at yet.
pub(super) struct Unverified<'a> {
    pub(super) algorithm: Algorithm,
    /// The id of the key that is said to have signed it.
    pub(super) kid: String,
    signed: &'a str,
    claims: Vec<u8>,
    signature: Vec<u8>,
}

/// How a token may be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum Algorithm {
    /// RSA with PKCS #1 v1.5 and SHA-256.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
}

/// An issuer's public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// For RS256.
    Rsa {
        /// The modulus.
        n: Vec<u8>,
        /// The exponent.
        e: Vec<u8>,
    },
    /// For ES256: the point, uncompressed.
    P256(Vec<u8>),
}

/// Why a token is not what it says. The texts tell an honest sender what to mend, and hold nothing of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadJwt {
    #[error("the token is not a signed JWT of at most {MAX_TOKEN} bytes")]
    Form,
    #[error("the token must be signed with RS256 or ES256")]
    Algorithm,
    #[error("the token does not say which key signed it")]
    NoKey,
    #[error("the token's signature is not that of its issuer")]
    Signature,
    #[error("the token's claims cannot be read")]
    Claims,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood (RFC 7515, 4.1.11): none is.
    crit: Option<serde_json::Value>,
}

impl<'a> Unverified<'a> {
    /// Takes the token apart.
    pub(super) fn parse(token: &'a str) -> Result<Self, BadJwt> {
        if token.len() > MAX_TOKEN {
            return Err(BadJwt::Form);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(BadJwt::Form)?;
        let (header, claims) = signed.split_once('.').ok_or(BadJwt::Form)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| BadJwt::Form);
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| BadJwt::Form)?;
        let algorithm = match header.alg.as_str() {
            "RS256" => Algorithm::RS256,
            "ES256" => Algorithm::ES256,
            _ => return Err(BadJwt::Algorithm),
        };
        if header.crit.is_some() {
            return Err(BadJwt::Form);
        }
        let kid = header.kid.filter(|kid| !kid.is_empty() && kid.len() <= 256).ok_or(BadJwt::NoKey)?;
        Ok(Self { algorithm, kid, signed, claims: decode(claims)?, signature: decode(signature)? })
    }

    /// What the token says, believed by nobody: to find out whose keys to verify it with.
    pub(super) fn peek<T: DeserializeOwned>(&self) -> Result<T, BadJwt> {
        serde_json::from_slice(&self.claims).map_err(|_| BadJwt::Claims)
    }

    /// Says what the token claims, once the key has verified it.
    pub(super) fn verify<T: DeserializeOwned>(self, key: &Key) -> Result<T, BadJwt> {
        let message = self.signed.as_bytes();
        let verified = match (self.algorithm, key) {
            (Algorithm::RS256, Key::Rsa { n, e }) => RsaPublicKeyComponents { n, e }.verify(
                &signature::RSA_PKCS1_2048_8192_SHA256,
                message,
                &self.signature,
            ),
            (Algorithm::ES256, Key::P256(point)) => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point)
                    .verify(message, &self.signature)
            }
            (Algorithm::RS256, Key::P256(_)) | (Algorithm::ES256, Key::Rsa { .. }) => {
                return Err(BadJwt::Signature);
            }
        };
        verified.map_err(|_| BadJwt::Signature)?;
        serde_json::from_slice(&self.claims).map_err(|_| BadJwt::Claims)
    }

    /// What tells the token from all others. Not its whole text: to one signature there may be another as good.
    pub(super) fn name(&self) -> Digest {
        Digest::of(self.signed)
    }
}
