//! Sizes, lengths of time and quotas, as people write them.

use std::str::FromStr;
use std::time::Duration;

use pcmcache_shared::Scope;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// The text is no size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a number of bytes, or one with K, M, G or T, as in 512M")]
pub struct BadSize;

impl FromStr for ByteSize {
    type Err = BadSize;

    fn from_str(text: &str) -> Result<Self, BadSize> {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at_checked(end).ok_or(BadSize)?;
        let unit: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" | "kib" => 1 << 10,
            "m" | "mb" | "mib" => 1 << 20,
            "g" | "gb" | "gib" => 1 << 30,
            "t" | "tb" | "tib" => 1 << 40,
            _ => return Err(BadSize),
        };
        let number: u64 = digits.parse().map_err(|_| BadSize)?;
        number.checked_mul(unit).map(Self).ok_or(BadSize)
    }
}

/// A length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// The text is no length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a number with s, m, h or d, as in 30d")]
pub struct BadSpan;

impl FromStr for Span {
    type Err = BadSpan;

    fn from_str(text: &str) -> Result<Self, BadSpan> {
        let end = text.find(|c: char| !c.is_ascii_digit()).ok_or(BadSpan)?;
        let (digits, unit) = text.split_at_checked(end).ok_or(BadSpan)?;
        let unit: u64 = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 60 * 60,
            "d" => 24 * 60 * 60,
            _ => return Err(BadSpan),
        };
        let number: u64 = digits.parse().map_err(|_| BadSpan)?;
        number.checked_mul(unit).map(|seconds| Self(Duration::from_secs(seconds))).ok_or(BadSpan)
    }
}

/// What may be visible in a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// In which.
    pub scope: Scope,
    /// How much.
    pub size: ByteSize,
}

impl FromStr for Quota {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scope, size) =
            text.split_once('=').ok_or("expected SCOPE=SIZE, as in pull-requests=20G".to_owned())?;
        let scope = scope.parse().map_err(|error| format!("'{scope}': {error}"))?;
        let size = size.parse().map_err(|error| format!("'{size}': {error}"))?;
        Ok(Self { scope, size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("0", 0), ("17", 17), ("1k", 1024), ("512M", 512 << 20), ("2GiB", 2 << 30), ("1T", 1 << 40)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in ["", "M", "-1", "1.5G", "1 G", "1X", "99999999999999999999", "99999999T"] {
            assert_eq!(bad.parse::<ByteSize>(), Err(BadSize), "{bad}");
        }
    }

    #[test]
    fn spans() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("5m", 300), ("12h", 43_200), ("30d", 2_592_000)] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_secs(seconds))), "{text}");
        }
        for bad in ["", "30", "d", "-1d", "1.5h", "1 d", "1w", "99999999999999999999d", "999999999999999d"] {
            assert_eq!(bad.parse::<Span>(), Err(BadSpan), "{bad}");
        }
    }

    #[test]
    fn quotas() {
        let quota = Quota { scope: "main".parse().unwrap(), size: ByteSize(1 << 30) };
        assert_eq!("main=1G".parse(), Ok(quota));
        for bad in ["main", "main=", "=1G", "Main=1G", "main=much"] {
            assert!(bad.parse::<Quota>().is_err(), "{bad}");
        }
    }
}
