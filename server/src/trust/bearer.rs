//! What a request carries to say who sends it: `Authorization: Bearer TOKEN` (RFC 6750), once.

use http::{HeaderMap, header};
use pcmcache_shared::Digest;
use pcmcache_shared::api::limits::MAX_TOKEN;

use super::Refused;

/// A token that came with a request. It has no `Debug`.
pub(super) struct Bearer<'a>(&'a str);

impl<'a> Bearer<'a> {
    /// The token of these headers, if they have one.
    pub(super) fn of(headers: &'a HeaderMap) -> Result<Option<Self>, Refused> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Refused::Malformed);
        }
        let text = value.to_str().map_err(|_| Refused::Malformed)?;
        let (scheme, token) = text.split_once(' ').ok_or(Refused::Malformed)?;
        let token = token.trim_matches(' ');
        let is_plain = token.bytes().all(|b| b.is_ascii_graphic());
        match scheme.eq_ignore_ascii_case("bearer") && is_plain && (1..=MAX_TOKEN).contains(&token.len()) {
            true => Ok(Some(Self(token))),
            false => Err(Refused::Malformed),
        }
    }

    /// The text.
    pub(super) fn text(&self) -> &'a str {
        self.0
    }

    /// What would be kept of it.
    pub(super) fn hash(&self) -> Digest {
        Digest::of(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Result<Option<String>, Refused> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        Ok(Bearer::of(&headers)?.map(|bearer| bearer.0.to_owned()))
    }

    #[test]
    fn one_bearer_token_and_nothing_else() {
        assert_eq!(read(&[]), Ok(None));
        for good in ["Bearer abc", "bearer abc", "BEARER  abc "] {
            assert_eq!(read(&[good]), Ok(Some("abc".to_owned())), "{good}");
        }
        let long = format!("Bearer {}", "a".repeat(MAX_TOKEN + 1));
        for bad in ["", "Bearer", "Bearer ", "Basic abc", "abc", "Bearer a b", "Bearer\tabc", &long] {
            assert_eq!(read(&[bad]), Err(Refused::Malformed), "{bad:.30}");
        }
        assert_eq!(read(&["Bearer abc", "Bearer abc"]), Err(Refused::Malformed));
    }
}
