//! SHA-256 names. One type per meaning, so that a key can never be passed where a content digest is meant.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};

/// The text was not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 lower-case hexadecimal digits")]
pub struct NotHex;

/// All digits at once: names are written far more often than anything else is.
fn write_hex(bytes: &[u8; 32], to: &mut impl fmt::Write) -> fmt::Result {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    let mut text = [0; 64];
    for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 0xf)];
    }
    to.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
}

fn parse_hex(text: &str) -> Result<[u8; 32], NotHex> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Ok(b - b'0'),
        b'a'..=b'f' => Ok(b - b'a' + 10),
        _ => Err(NotHex),
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != 32 || !rest.is_empty() {
        return Err(NotHex);
    }
    let mut bytes = [0; 32];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Ok(bytes)
}

macro_rules! sha256_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The name whose 32 bytes are these.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes of the name.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The name of these bytes.
            pub fn of(bytes: impl AsRef<[u8]>) -> Self {
                Self(Sha256::digest(bytes.as_ref()).into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = NotHex;
            fn from_str(text: &str) -> Result<Self, NotHex> {
                parse_hex(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                // A visitor over borrowed or owned text; map keys arrive as either.
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .pattern(Some("^[0-9a-f]{64}$"))
                    .into()
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for $name {}
    };
}

sha256_name! {
    /// SHA-256 of some bytes: the name of a blob.
    Digest
}
sha256_name! {
    /// SHA-256 of a whole recipe. Equal action keys: interchangeable outputs.
    ActionKey
}
sha256_name! {
    /// SHA-256 of the part of a recipe that is known before anything is learnt by compiling.
    UnitKey
}
sha256_name! {
    /// What a lease is on: an [`ActionKey`] where an include set is known, else a [`UnitKey`].
    Claim
}

impl From<UnitKey> for Claim {
    fn from(unit: UnitKey) -> Self {
        Self(unit.0)
    }
}

impl From<ActionKey> for Claim {
    fn from(action: ActionKey) -> Self {
        Self(action.0)
    }
}

impl ActionKey {
    /// The blob that holds the recipe's text: a key is the hash of a text one can read.
    pub const fn recipe(self) -> Digest {
        Digest(self.0)
    }
}

/// Hashes what is written through it on its way to `inner`, and counts it.
#[derive(Debug)]
pub struct Hashing<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W> Hashing<W> {
    /// Hashes on the way to `inner`; nothing was written yet.
    pub fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), size: 0 }
    }

    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What is written to.
    pub fn inner(&self) -> &W {
        &self.inner
    }

    /// What was written to, the digest of what was written, and its size in bytes.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.inner, Digest(self.hash.finalize().into()), self.size)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..count).unwrap_or_default());
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// How much is read at a time wherever a file is hashed or copied: large enough that calls do not
/// count, small enough to stay in the second-level cache.
pub const CHUNK: usize = 256 * 1024;

/// The digest and size of all that `reader` gives.
pub fn hash_reader(mut reader: impl Read) -> io::Result<(Digest, u64)> {
    let mut hashing = Hashing::new(io::sink());
    copy_chunks(&mut reader, &mut hashing)?;
    let (_, digest, size) = hashing.finish();
    Ok((digest, size))
}

/// Copies all of `reader` to `writer` in [`CHUNK`]s.
pub fn copy_chunks(reader: &mut impl Read, writer: &mut impl Write) -> io::Result<u64> {
    let mut chunk = vec![0; CHUNK];
    let mut total = 0;
    loop {
        let count = match reader.read(&mut chunk) {
            Ok(0) => return Ok(total),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        writer.write_all(chunk.get(..count).unwrap_or_default())?;
        total += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_its_text_and_json() {
        let digest = Digest::of("hello");
        assert_eq!(digest.to_string(), "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
    }

    #[test]
    fn only_64_lower_case_hex_digits_are_a_name() {
        let good = Digest::of("").to_string();
        for bad in ["", "00", &good[1..], &good.to_uppercase(), &format!("{good}0"), &good.replace('e', "é")]
        {
            assert_eq!(bad.parse::<Digest>(), Err(NotHex), "{bad}");
        }
    }

    #[test]
    fn hashing_sees_what_was_written() {
        let mut hashing = Hashing::new(Vec::new());
        hashing.write_all(b"hel").unwrap();
        hashing.write_all(b"lo").unwrap();
        assert_eq!(hashing.finish(), (b"hello".to_vec(), Digest::of("hello"), 5));
    }
}
