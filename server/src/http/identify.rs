//! Before every request: who sent it, and whether they speak this server's wire. Whatever comes after finds who it was among
//! the request's extensions, as `Arc<Principal>`; what a route does with them is its own matter.
//!
//! The book of tokens is read again first if it changed, so that a revocation holds for this very request.
//!
//! A server without tokens trusts whoever reaches it, and that is this host's programs, a browser among them. A page from
//! elsewhere can have its own name lead here, and then it may ask what it likes: but it cannot ask by another name.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, header};
use pcmcache_shared::api::problem::Code;
use pcmcache_shared::api::{EPOCH_HEADER, OLDEST_WIRE, WIRE, WIRE_HEADER};

use super::App;
use super::problem::Refused;

pub(super) async fn identify(State(app): State<App>, mut request: Request, next: Next) -> Response {
    app.trust.refresh(|revoked| app.cache.hide(revoked));
    let asker = app.trust.identify(request.headers());
    let sees_scopes = request.uri().path().starts_with("/v1/scopes/") && asker.sees_anything();
    let may_ask = match !asker.needs_token && app.gate.is_here_only {
        true => asks_by_address(&request).and_then(|()| speaks_our_wire(request.headers())),
        false => speaks_our_wire(request.headers()),
    };
    let mut response = match may_ask {
        Ok(()) => {
            request.extensions_mut().insert(std::sync::Arc::clone(&asker.principal));
            request.extensions_mut().insert(asker);
            next.run(request).await
        }
        Err(refused) => refused.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(WIRE_HEADER, HeaderValue::from(WIRE));
    if sees_scopes {
        headers.insert(EPOCH_HEADER, HeaderValue::from(app.trust.epoch()));
    }
    response
}

/// Refuses what was sent to a name that only its maker's name server knows.
fn asks_by_address<B>(request: &http::Request<B>) -> Result<(), Refused> {
    let named = request.uri().authority().map(Authority::as_str);
    let named = named.or_else(|| request.headers().get(header::HOST)?.to_str().ok());
    // Only an old and plain program says no name, and no browser is one.
    let Some(named) = named else { return Ok(()) };
    let host = named.parse::<Authority>();
    let host = host.as_ref().map_or(named, Authority::host).trim_end_matches('.');
    let is_ours =
        host.eq_ignore_ascii_case("localhost") || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    if is_ours {
        return Ok(());
    }
    let words = format!(
        "a server without tokens is asked by address or as localhost, not as '{}'",
        named.escape_debug().take(64).collect::<String>()
    );
    Err(Refused::new(Code::BadRequest, words))
}

/// Refuses a client whose wire is not ours, and says which program is to be brought up to date. One that does not say speaks
/// the oldest.
fn speaks_our_wire(headers: &HeaderMap) -> Result<(), Refused> {
    let Some(value) = headers.get(WIRE_HEADER) else { return Ok(()) };
    let spoken = value.to_str().ok().and_then(|text| text.parse::<u32>().ok());
    let version = env!("CARGO_PKG_VERSION");
    let ours = format!("pcmcache-server {version} speaks the wires {OLDEST_WIRE} to {WIRE}");
    match spoken {
        Some(spoken) if spoken < OLDEST_WIRE => Err(Refused::new(
            Code::WireVersion,
            format!("{ours}, this client {spoken}: install pcmcache {version} or newer"),
        )),
        Some(spoken) if spoken > WIRE => Err(Refused::new(
            Code::WireVersion,
            format!("{ours}, this client {spoken}: install a newer pcmcache-server, or pcmcache {version}"),
        )),
        Some(_) => Ok(()),
        None => Err(Refused::new(Code::BadRequest, format!("{WIRE_HEADER} must be a number"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(value: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(WIRE_HEADER, value.parse().unwrap());
        speaks_our_wire(&headers).err().map(|refused| format!("{refused:?}"))
    }

    #[test]
    fn a_name_that_leads_here_is_not_ours() {
        let may_ask = |host: &str| {
            asks_by_address(&http::Request::get("/").header(header::HOST, host).body(()).unwrap()).is_ok()
        };
        for ours in ["127.0.0.1:7733", "localhost", "LocalHost.:80", "[::1]:7733", "10.0.0.7"] {
            assert!(may_ask(ours), "{ours}");
        }
        for others in
            ["evil.example", "evil.example:7733", "127.0.0.1.evil.example", "localhost.evil", "", "a b"]
        {
            assert!(!may_ask(others), "{others}");
        }
        let by_uri = |uri: &str| asks_by_address(&http::Request::get(uri).body(()).unwrap()).is_ok();
        assert!(by_uri("/") && by_uri("http://localhost/") && !by_uri("http://evil.example/"));
    }

    #[test]
    fn an_older_and_a_newer_client_are_told_what_to_install() {
        assert!(speaks_our_wire(&HeaderMap::new()).is_ok());
        for spoken in OLDEST_WIRE..=WIRE {
            assert_eq!(answer(&spoken.to_string()), None);
        }
        let version = env!("CARGO_PKG_VERSION");
        let older = answer(&(OLDEST_WIRE - 1).to_string()).unwrap();
        assert!(older.contains(&format!("install pcmcache {version} or newer")), "{older}");
        let newer = answer(&(WIRE + 1).to_string()).unwrap();
        assert!(newer.contains("install a newer pcmcache-server"), "{newer}");
        for bad in ["", "x", "-1", "99999999999"] {
            assert!(answer(bad).unwrap().contains("BadRequest"), "{bad}");
        }
    }
}
