//! Sizes in bytes, as people write and read them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ByteSize(pub u64);

/// The text is no size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a size like 500M, 10G (powers of 1000) or 5GiB (powers of 1024), or 0 for no bound")]
pub struct BadSize;

const UNITS: [char; 4] = ['k', 'm', 'g', 't'];

impl FromStr for ByteSize {
    type Err = BadSize;

    fn from_str(text: &str) -> Result<Self, BadSize> {
        let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(split).ok_or(BadSize)?;
        let number: f64 = number.parse().map_err(|_| BadSize)?;
        let factor = factor(&unit.trim().to_ascii_lowercase()).ok_or(BadSize)?;
        let bytes = number * factor;
        if bytes.is_finite() && bytes < u64::MAX as f64 { Ok(Self(bytes as u64)) } else { Err(BadSize) }
    }
}

/// `k`, `kb`: a thousand; `ki`, `kib`: 1024; nothing or `b`: one.
fn factor(unit: &str) -> Option<f64> {
    let unit = unit.strip_suffix('b').unwrap_or(unit);
    let (letter, base) = match unit.strip_suffix('i') {
        Some(letter) if !letter.is_empty() => (letter, 1024_f64),
        Some(_) => return None,
        None => (unit, 1000_f64),
    };
    if letter.is_empty() {
        return Some(1.0);
    }
    let power = UNITS.iter().position(|unit| letter == unit.to_string())? + 1;
    Some(base.powi(i32::try_from(power).ok()?))
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        let mut unit = "B";
        for larger in ["KiB", "MiB", "GiB", "TiB"] {
            if value < 1024.0 {
                break;
            }
            value /= 1024.0;
            unit = larger;
        }
        let digits = if unit == "B" || value.fract() == 0.0 { 0 } else { 1 };
        write!(f, "{value:.digits$} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        let sizes = [
            ("0", 0),
            ("4096", 4096),
            ("10G", 10_000_000_000),
            ("500M", 500_000_000),
            ("500mb", 500_000_000),
            ("5GiB", 5 << 30),
            ("5 Gi", 5 << 30),
            ("1.5KiB", 1536),
            ("2T", 2_000_000_000_000),
            ("7B", 7),
        ];
        for (text, bytes) in sizes {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in ["", "G", "-1", "10X", "ten", "1e3", "10Gib5", "5i", "1..2", "99999999999T"] {
            assert_eq!(bad.parse::<ByteSize>(), Err(BadSize), "{bad}");
        }
    }

    #[test]
    fn sizes_as_people_read_them() {
        let shown = [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (10 << 30, "10 GiB")];
        for (bytes, text) in shown {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }
}
