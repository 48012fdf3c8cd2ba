//! Which bytes of a blob an answer has: RFC 9110, sections 13 and 14, for one representation that never changes.
//!
//! Of several ranges none is served: the answer is the whole, as section 14.2 allows.

use std::ops::Range;

use http::{HeaderMap, header};
use pcmcache_shared::mutant;

/// What a GET asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selected {
    /// All of it.
    Whole,
    /// These bytes, at least one.
    Part(Range<u64>),
    /// Bytes that there are none of.
    Unsatisfiable,
}

/// Whether the client has the blob already (`If-None-Match`).
pub(super) fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let lists = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    // Compared weakly, as it must be.
    lists.flat_map(|list| list.split(',')).map(str::trim).any(|tag| {
        let strong = tag.strip_prefix("W/").unwrap_or(tag);
        strong == "*" || strong == etag
    })
}

/// The bytes that `Range` and `If-Range` select of `size` bytes with this strong validator.
pub(super) fn select(headers: &HeaderMap, etag: &str, size: u64) -> Selected {
    let mut ranges = headers.get_all(header::RANGE).iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else { return Selected::Whole };
    // Compared strongly: a weak tag and a date never match.
    if headers.get(header::IF_RANGE).is_some_and(|validator| validator != etag) {
        return Selected::Whole;
    }
    range.to_str().ok().and_then(|range| parse(range, size)).unwrap_or(Selected::Whole)
}

/// What is no range of bytes selects nothing, and is passed over.
fn parse(range: &str, size: u64) -> Option<Selected> {
    let (unit, spec) = range.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = spec.trim().split_once('-')?;
    let (first, last) = (position(first)?, position(last)?);
    let selected = match (first, last) {
        (None, None) => return None,
        (Some(first), Some(last)) if last < first => return None,
        (Some(first), _) if first >= size => Selected::Unsatisfiable,
        (Some(first), None) => Selected::Part(first..size),
        (Some(first), Some(last)) if mutant!("off-by-one-range") => Selected::Part(first..last.min(size)),
        (Some(first), Some(last)) => Selected::Part(first..last.saturating_add(1).min(size)),
        (None, Some(0)) => Selected::Unsatisfiable,
        // An empty blob has no part that a Content-Range could name.
        (None, Some(_)) if size == 0 => Selected::Whole,
        (None, Some(suffix)) => Selected::Part(size.saturating_sub(suffix)..size),
    };
    Some(selected)
}

/// A position, `Some(None)` where there is none; one that is too large to count is past every end.
fn position(digits: &str) -> Option<Option<u64>> {
    match digits {
        "" => Some(None),
        _ if !digits.bytes().all(|b| b.is_ascii_digit()) => None,
        _ => Some(Some(digits.parse().unwrap_or(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    const ETAG: &str = "\"abc\"";

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn of(range: &str, size: u64) -> Selected {
        select(&headers(&[(header::RANGE, range)]), ETAG, size)
    }

    #[test]
    fn one_range_selects_its_bytes() {
        assert_eq!(of("bytes=0-0", 10), Selected::Part(0..1));
        assert_eq!(of("bytes=2-5", 10), Selected::Part(2..6));
        assert_eq!(of("Bytes=2-", 10), Selected::Part(2..10));
        assert_eq!(of("bytes=2-999", 10), Selected::Part(2..10));
        assert_eq!(of("bytes=-3", 10), Selected::Part(7..10));
        assert_eq!(of("bytes=-30", 10), Selected::Part(0..10));
        assert_eq!(of("bytes=9-99999999999999999999999", 10), Selected::Part(9..10));
        assert_eq!(of("bytes=0-18446744073709551615", 10), Selected::Part(0..10));
    }

    #[test]
    fn bytes_that_are_not_there_cannot_be_had() {
        for range in ["bytes=10-", "bytes=10-20", "bytes=99999999999999999999999-", "bytes=-0"] {
            assert_eq!(of(range, 10), Selected::Unsatisfiable, "{range}");
        }
        assert_eq!(of("bytes=0-", 0), Selected::Unsatisfiable);
        assert_eq!(of("bytes=-5", 0), Selected::Whole);
    }

    #[test]
    fn what_is_no_range_is_passed_over() {
        for range in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-2",
            "bytes=+1-2",
            "lines=1-2",
            "bytes=0-1,4-5",
            "bytes=1--2",
        ] {
            assert_eq!(of(range, 10), Selected::Whole, "{range}");
        }
        let twice = headers(&[(header::RANGE, "bytes=0-1"), (header::RANGE, "bytes=2-3")]);
        assert_eq!(select(&twice, ETAG, 10), Selected::Whole);
    }

    #[test]
    fn a_range_holds_only_under_its_strong_validator() {
        let select = |validator| {
            select(&headers(&[(header::RANGE, "bytes=0-0"), (header::IF_RANGE, validator)]), ETAG, 10)
        };
        assert_eq!(select(ETAG), Selected::Part(0..1));
        for other in ["W/\"abc\"", "\"other\"", "abc", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert_eq!(select(other), Selected::Whole, "{other}");
        }
    }

    #[test]
    fn a_known_blob_is_one_of_the_tags() {
        for known in ["\"abc\"", "W/\"abc\"", "\"x\", \"abc\"", "*"] {
            assert!(is_known(&headers(&[(header::IF_NONE_MATCH, known)]), ETAG), "{known}");
        }
        for other in ["\"x\"", "abc", ""] {
            assert!(!is_known(&headers(&[(header::IF_NONE_MATCH, other)]), ETAG), "{other}");
        }
    }
}
