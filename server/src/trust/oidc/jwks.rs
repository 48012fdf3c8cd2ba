//! The keys an issuer signs with: fetched, kept for an hour, and fetched again when a token names one that is not known.
//!
//! Invariants: at most one request is under way to an issuer, and at most one in [`REST`] is made, however many tokens name
//! keys that do not exist; everything that comes is bounded in time and size. An issuer that fails keeps nobody waiting but
//! those who come with its tokens, and those it gave us before are good for a day.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pcmcache_shared::causes::causes;
use reqwest::{Client, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use super::jwt::{Algorithm, Key};
use crate::clock::{Clock, Moment};
use crate::outward::is_here;

/// How long keys are good without asking again.
const FRESH: Duration = Duration::from_secs(3600);
/// How long they are when the issuer does not answer.
const GOOD: Duration = Duration::from_secs(24 * 3600);
/// The least time between two requests.
pub(super) const REST: Duration = Duration::from_secs(10);
/// How long a request may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The most that is read of an answer.
const MAX_BYTES: usize = 256 * 1024;
/// The most keys that are kept.
const MAX_KEYS: usize = 64;

/// An issuer's keys.
#[derive(Debug)]
pub(super) struct Jwks {
    issuer: String,
    /// Where they are; if it is not known, the issuer is asked.
    url: Option<Url>,
    http: Client,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    keys: HashMap<String, Known>,
    fetched: Option<Moment>,
    tried: Option<Moment>,
}

#[derive(Debug, Clone)]
struct Known {
    key: Key,
    algorithm: Algorithm,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoKey {
    /// The issuer has none of this name for this algorithm.
    #[error("the token's issuer has no such key")]
    Unknown,
    /// The issuer cannot be asked now.
    #[error("the token's issuer does not say which keys it has: {0}")]
    Unavailable(String),
}

/// The two things an issuer is asked for (OpenID Connect Discovery 1.0; RFC 7517).
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: String,
    #[serde(default)]
    alg: Option<String>,
    #[serde(rename = "use", default)]
    used_for: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
}

impl Jwks {
    pub(super) fn new(issuer: String, url: Option<Url>, http: Client, clock: Arc<dyn Clock>) -> Self {
        Self { issuer, url, http, clock, state: Mutex::default() }
    }

    /// The key of this id, if it is for this algorithm.
    pub(super) async fn key(&self, kid: &str, algorithm: Algorithm) -> Result<Key, NoKey> {
        let mut state = self.state.lock().await;
        let now = self.clock.now();
        let is_within = |since: Option<Moment>, span| since.is_some_and(|since| now.since(since) < span);
        let has_fresh = state.keys.contains_key(kid) && is_within(state.fetched, FRESH);
        let mut failure = None;
        if !has_fresh && !is_within(state.tried, REST) {
            state.tried = Some(now);
            match self.fetch().await {
                Ok(keys) => {
                    state.keys = keys;
                    state.fetched = Some(now);
                }
                Err(error) => {
                    tracing::warn!(issuer = %self.issuer, error, "the keys of an issuer cannot be fetched");
                    failure = Some(error);
                }
            }
        }
        if !is_within(state.fetched, GOOD) {
            return Err(NoKey::Unavailable(
                failure.unwrap_or_else(|| "it was asked a moment ago".to_owned()),
            ));
        }
        let known = state.keys.get(kid).filter(|known| known.algorithm == algorithm);
        known.map(|known| known.key.clone()).ok_or(NoKey::Unknown)
    }

    async fn fetch(&self) -> Result<HashMap<String, Known>, String> {
        let url = match &self.url {
            Some(url) => url.clone(),
            None => self.discover().await?,
        };
        let set: KeySet = self.get(url).await?;
        let jwks = set.keys.into_iter().filter_map(|jwk| serde_json::from_value::<Jwk>(jwk).ok());
        Ok(jwks.filter_map(|jwk| Some((jwk.kid.clone(), jwk.known()?))).take(MAX_KEYS).collect())
    }

    async fn discover(&self) -> Result<Url, String> {
        let url = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let discovery: Discovery = self.get(secure(&url)?).await?;
        if discovery.issuer != self.issuer {
            return Err("it says that it is another issuer".to_owned());
        }
        secure(&discovery.jwks_uri)
    }

    async fn get<T: DeserializeOwned>(&self, url: Url) -> Result<T, String> {
        let fetching = async {
            let mut answer = self.http.get(url.clone()).send().await?.error_for_status()?;
            let mut text = Vec::new();
            while let Some(piece) = answer.chunk().await? {
                text.extend_from_slice(&piece);
                if text.len() > MAX_BYTES {
                    break;
                }
            }
            Ok::<_, reqwest::Error>(text)
        };
        let text = match tokio::time::timeout(PATIENCE, fetching).await {
            Ok(text) => text.map_err(|error| causes(&error))?,
            Err(_) => return Err(format!("{url} takes longer than {PATIENCE:?}")),
        };
        if text.len() > MAX_BYTES {
            return Err(format!("{url} answers with more than {MAX_BYTES} bytes"));
        }
        serde_json::from_slice(&text).map_err(|error| format!("{url}: {error}"))
    }
}

impl Jwk {
    /// The key, if it is one to verify signatures with that we know how to.
    fn known(&self) -> Option<Known> {
        let decode = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_ref()?).ok();
        let (key, algorithm, name) = match self.kty.as_str() {
            "RSA" => (Key::Rsa { n: decode(&self.n)?, e: decode(&self.e)? }, Algorithm::RS256, "RS256"),
            "EC" if self.crv.as_deref() == Some("P-256") => {
                let point = [vec![4], decode(&self.x)?, decode(&self.y)?].concat();
                (Key::P256(point), Algorithm::ES256, "ES256")
            }
            _ => return None,
        };
        let fits = self.alg.as_deref().is_none_or(|alg| alg == name);
        let signs = self.used_for.as_deref().is_none_or(|used| used == "sig");
        (fits && signs).then_some(Known { key, algorithm })
    }
}

/// A place that keys may be fetched from: https, or this very host.
pub(super) fn secure(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("'{text}': {error}"))?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_here(&url) => Ok(url),
        _ => {
            Err(format!("'{text}': keys are fetched by https only, for whoever is between could give others"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_by_https_or_from_this_host() {
        for good in
            ["https://a.example/keys", "http://127.0.0.1:80/k", "http://[::1]/k", "http://localhost/k"]
        {
            assert!(secure(good).is_ok(), "{good}");
        }
        for bad in [
            "http://a.example/k",
            "file:///etc/passwd",
            "ftp://127.0.0.1/",
            "keys",
            "http://localhost.evil/k",
        ] {
            assert!(secure(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_is_of_its_own_algorithm_only() {
        let known =
            |text: &str| serde_json::from_str::<Jwk>(text).unwrap().known().map(|known| known.algorithm);
        assert_eq!(known(r#"{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB"}"#), Some(Algorithm::RS256));
        let ec = r#"{"kty":"EC","kid":"a","crv":"P-256","x":"AQAB","y":"AQAB","alg":"ES256","use":"sig"}"#;
        assert_eq!(known(ec), Some(Algorithm::ES256));
        for bad in [
            r#"{"kty":"oct","kid":"a","k":"AQAB","alg":"HS256"}"#,
            r#"{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB","alg":"PS256"}"#,
            r#"{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB","use":"enc"}"#,
            r#"{"kty":"RSA","kid":"a","n":"AQAB"}"#,
            r#"{"kty":"EC","kid":"a","crv":"P-384","x":"AQAB","y":"AQAB"}"#,
        ] {
            assert_eq!(known(bad), None, "{bad}");
        }
    }
}
