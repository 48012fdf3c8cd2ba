//! A line for every write: who, from where, what, in which scope, to what end. A refused one has its line too.
//!
//! Everything that is not a read is a write until it is listed as none: a route that is added tomorrow is audited.

use std::sync::Arc;

use axum::extract::{MatchedPath, RawPathParams, Request};
use axum::middleware::Next;
use axum::response::Response;
use http::Method;
use pcmcache_shared::api::problem::Code;
use pcmcache_shared::{Digest, ProfileName, Scope};

use super::document;
use super::oversee::RequestId;
use crate::connection::Peer;
use crate::log::AUDIT;
use crate::trust::Principal;

/// What changes nothing that lasts, whatever its method.
const NO_WRITES: &[(Method, &str)] = &[
    (Method::POST, "/v1/scopes/{scope}/acquire"),
    (Method::POST, "/v1/scopes/{scope}/leases/{claim}"),
    (Method::POST, "/v1/scopes/{scope}/lookup"),
];

/// What writes are called; others by their method and route.
const NAMES: &[(Method, &str, &str)] = &[
    (Method::PUT, "/v1/scopes/{scope}/actions/{key}", "publish"),
    (Method::PUT, "/v1/scopes/{scope}/blobs/{digest}", "upload"),
    (Method::PUT, "/v1/scopes/{scope}/profiles/{name}", "push a profile"),
    (Method::DELETE, "/v1/scopes/{scope}/leases/{claim}", "release"),
    (Method::POST, "/v1/token", "exchange"),
];

pub(super) async fn audit(mut request: Request, next: Next) -> Response {
    let Some(act) = act(&request) else { return next.run(request).await };
    let extensions = request.extensions();
    let id = extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
    let from = extensions.get::<Peer>().map(|peer| peer.0.to_string());
    let who = extensions.get::<Arc<Principal>>().cloned();
    let (scope, what) = named(&mut request).await;
    let response = next.run(request).await;
    let status = response.status();
    let code = response.extensions().get::<Code>().copied().map(document::name);
    let outcome = match status.as_u16() {
        0..400 => "done",
        400..500 => "refused",
        _ => "failed",
    };
    tracing::info!(
        target: AUDIT,
        request = id.as_str(),
        who = who.as_ref().map(|who| who.id.as_str()),
        name = who.as_ref().map(|who| who.name.as_str()),
        from = from.as_deref(),
        act = act.as_str(),
        scope = scope.as_ref().map(Scope::as_str),
        what = what.as_deref(),
        status = status.as_u16(),
        code = code.as_deref(),
        outcome,
    );
    response
}

/// What the request would do, if it is a write.
fn act(request: &Request) -> Option<String> {
    let method = request.method();
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS];
    // What no route takes changes nothing.
    let route = request.extensions().get::<MatchedPath>()?.as_str();
    if reads.contains(method) || NO_WRITES.iter().any(|(of, at)| of == method && *at == route) {
        return None;
    }
    let name = NAMES.iter().find(|(of, at, _)| of == method && *at == route).map(|(_, _, name)| *name);
    Some(name.map_or_else(|| format!("{method} {route}"), str::to_owned))
}

/// The scope and the name in the path, as far as they are such.
async fn named(request: &mut Request) -> (Option<Scope>, Option<String>) {
    use axum::RequestExt as _;
    let Ok(params) = request.extract_parts::<RawPathParams>().await else { return (None, None) };
    let scope = params.iter().find(|(name, _)| *name == "scope").and_then(|(_, value)| value.parse().ok());
    let name = params.iter().find_map(|(name, value)| match name {
        "scope" => None,
        "name" => value.parse::<ProfileName>().ok().map(|name| name.to_string()),
        _ => value.parse::<Digest>().ok().map(|digest| digest.to_string()),
    });
    (scope, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A write that nobody named is told by its route, so the only mistake one can make is to list a route that is not.
    #[test]
    fn every_listed_route_is_there() {
        let document = serde_json::to_value(super::super::openapi()).unwrap();
        let listed = NAMES.iter().map(|(method, route, _)| (method, route));
        for (method, route) in listed.chain(NO_WRITES.iter().map(|(method, route)| (method, route))) {
            let is_there = document["paths"][*route].get(method.as_str().to_lowercase()).is_some();
            assert!(is_there, "{method} {route}");
        }
    }
}
