//! How a CI job that was given no token comes by one: the CI system vouches for it, and the server takes that for a session.

use pcmcache_shared::api::limits;
use pcmcache_shared::api::token::{self, ExchangeRequest, Session};
use reqwest::{Method, Url};
use serde::Deserialize;

use super::{Remote, RemoteError, Settings};

const EXCHANGE: &str = "exchange";
const ASK_GITHUB: &str = "GitHub";

impl Remote {
    /// Exchanges what a CI system says of a job for a session. A server that is not up for a moment is asked again.
    ///
    /// # Errors
    /// Any but [`RemoteError::Gone`] and [`RemoteError::Local`].
    pub fn exchange(&self, oidc: &str) -> Result<Session, RemoteError> {
        let server = &self.server;
        let request = || {
            let body = ExchangeRequest { token: oidc.to_owned() };
            server.request(Method::POST, token::PATH).json(&body)
        };
        self.engine.run(&|| false, async {
            let answer = server.send(EXCHANGE, request(), server.deadlines.answer).await?;
            match answer.status() {
                200 => good(answer.small_json::<Session>().await?),
                _ => Err(answer.refusal().await?.into()),
            }
        })
    }
}

/// A session whose token can be a header, a line and a variable. Nobody writes lines of their own into a job's environment.
fn good(session: Session) -> Result<Session, RemoteError> {
    match is_plain(&session.token) {
        true => Ok(session),
        false => Err(RemoteError::damaged(EXCHANGE, "what came as a token is none")),
    }
}

fn is_plain(token: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
    !token.is_empty() && token.len() <= limits::MAX_TOKEN && token.bytes().all(plain)
}

/// Has GitHub vouch for the job that runs this, for a server that goes by `audience`. `asking` says where GitHub is asked
/// and by which token.
///
/// # Errors
/// Any but [`RemoteError::Gone`] and [`RemoteError::Local`].
pub fn vouched_by_github(asking: Settings, audience: &str) -> Result<String, RemoteError> {
    #[derive(Deserialize)]
    struct Vouched {
        value: String,
    }
    let wrong = |what: &str| RemoteError::Misconfigured(format!("ACTIONS_ID_TOKEN_REQUEST_URL {what}"));
    let mut url = Url::parse(&asking.url).map_err(|error| wrong(&format!("is no URL: {error}")))?;
    url.query_pairs_mut().append_pair("audience", audience);
    let query = format!("?{}", url.query().unwrap_or_default());
    url.set_query(None);
    url.set_fragment(None);
    let github = Remote::new(Settings { url: url.into(), ..asking })?;
    let vouched: Vouched = github.engine.run(&|| false, github.server.get(ASK_GITHUB, &query))?;
    match is_plain(&vouched.value) {
        true => Ok(vouched.value),
        false => Err(RemoteError::damaged(ASK_GITHUB, "what came as a token is none")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, settings};
    use super::*;

    fn session(token: &str) -> String {
        serde_json::json!({ "token": token, "expires_in_s": 60, "reads": [] }).to_string()
    }

    #[test]
    fn a_session_comes_for_what_the_ci_system_said() {
        let fake = Fake::start(|_, peer| peer.body(200, session("pcms_a.b-c")));
        assert_eq!(fake.remote().exchange("jwt").unwrap().token, "pcms_a.b-c");
        let seen = &fake.seen("POST /v1/token")[0];
        assert_eq!(seen.json::<ExchangeRequest>().token, "jwt");
        let refusing = Fake::start(|_, peer| peer.body(403, "no"));
        assert!(matches!(refusing.remote().exchange("jwt"), Err(RemoteError::Refused { status: 403, .. })));
    }

    #[test]
    fn no_token_writes_lines_into_an_environment() {
        for token in
            ["", "a b", "a\nLD_PRELOAD=/tmp/x", "a\r", "a%0A", "::set-env::", "ä", &"a".repeat(20_000)]
        {
            let body = session(token);
            let fake = Fake::start(move |_, peer| peer.body(200, &body));
            assert!(matches!(fake.remote().exchange("jwt"), Err(RemoteError::Damaged { .. })), "{token:?}");
        }
    }

    #[test]
    fn github_is_asked_at_its_own_url_for_this_audience() {
        let fake = Fake::start(|_, peer| peer.body(200, "{\"value\":\"the.jwt\",\"count\":1}"));
        let url = format!("http://{}/ask/me?api-version=2.0&x=1", fake.address());
        let asking = Settings { url, token: Some("request".to_owned()), ..settings(fake.address()) };
        assert_eq!(vouched_by_github(asking, "https://cache.example/a b").unwrap(), "the.jwt");
        let seen = &fake.seen("GET ")[0];
        let line = "GET /ask/me?api-version=2.0&x=1&audience=https%3A%2F%2Fcache.example%2Fa+b";
        assert_eq!(seen.line, line);
        assert!(seen.head.contains("authorization: bearer request\r\n"), "{}", seen.head);
    }
}
