//! The OpenAPI document: the routes describe their good answers beside their code, and this adds the problems, from
//! one table.

use std::collections::BTreeMap;

use pcmcache_shared::api::PROBLEM_JSON;
use pcmcache_shared::api::problem::{Code, Problem};
use pcmcache_shared::{ActionKey, Claim, Digest, Scope};
use utoipa::OpenApi as _;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, ResponseBuilder};

use super::{actions, blobs, dashboard, leases, probes, profiles, token};

/// What any route may answer but those that tell whether the server lives.
const ANY: &[Code] = &[Code::TooManyRequests];
/// What any route under a scope may answer.
const SCOPED: &[Code] = &[
    Code::BadRequest,
    Code::WireVersion,
    Code::BadScope,
    Code::Unauthorized,
    Code::TooManyRequests,
    Code::UnknownScope,
    Code::Internal,
    Code::Unavailable,
    Code::StoreFull,
];
/// What a route that takes JSON may answer besides.
const JSON_IN: &[Code] =
    &[Code::BadJson, Code::ShortBody, Code::RequestTimeout, Code::TooLarge, Code::BadContentType];

/// What a route that shows all scopes may answer.
const OBSERVED: &[Code] = &[Code::Unauthorized, Code::Forbidden];
/// What a route that writes may answer besides.
const WRITES: &[Code] = &[Code::ReadOnly];

/// The problems of each operation.
const PROBLEMS: &[(&str, &[&[Code]])] = &[
    ("acquire", &[SCOPED, JSON_IN, WRITES]),
    ("renew", &[SCOPED, JSON_IN, WRITES, leases::PROBLEMS]),
    ("release", &[SCOPED, JSON_IN, WRITES, leases::PROBLEMS]),
    ("read_result", &[SCOPED, actions::READ_PROBLEMS]),
    ("publish", &[SCOPED, JSON_IN, WRITES, actions::PUBLISH_PROBLEMS]),
    ("lookup", &[SCOPED, JSON_IN]),
    ("read_blob", &[SCOPED, blobs::GET_PROBLEMS]),
    ("has_blob", &[SCOPED, blobs::HEAD_PROBLEMS]),
    ("upload_blob", &[SCOPED, WRITES, blobs::PUT_PROBLEMS]),
    ("read_profile", &[SCOPED, profiles::READ_PROBLEMS]),
    ("push_profile", &[SCOPED, JSON_IN, WRITES]),
    ("revocations", &[SCOPED]),
    ("who_am_i", &[ANY, token::PROBLEMS]),
    ("exchange_token", &[ANY, token::PROBLEMS, token::EXCHANGE_PROBLEMS, JSON_IN]),
    ("index", &[ANY]),
    ("dashboard_file", &[ANY]),
    ("dashboard", &[ANY, dashboard::PROBLEMS]),
    ("healthz", &[]),
    ("readyz", &[probes::READY_PROBLEMS]),
    ("metrics", &[ANY, OBSERVED]),
    ("openapi", &[ANY]),
];

const DESCRIPTION: &str = "\
A shared cache for C++ modules: build leases, complete uploads only, verified blobs.

Every error is `application/problem+json` (RFC 9457) with a `code` from one list. A path that is none of these answers 404 \
`no_route`, a method that a path does not have 405 `method_not_allowed` with `Allow`. Durations travel, timestamps never. \
Where the server has tokens, send `Authorization: Bearer`; what a token may not read looks as if it were not there. A client says \
which wire it speaks in `pcmcache-wire`. \
Unknown fields of a request are refused; a client passes over those of an answer.";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "pcmcache-server"),
    components(schemas(Problem, Scope, Digest, ActionKey, Claim)),
    tags(
        (name = "leases", description = "The right to build."),
        (name = "results", description = "What actions made."),
        (name = "blobs", description = "Bytes by their SHA-256."),
        (name = "profiles", description = "Named sets of results, fetched before a build."),
        (name = "tokens", description = "Who may do what."),
        (name = "server", description = "The server itself."),
    ),
)]
struct Head;

/// The document without its routes.
pub(super) fn head() -> OpenApi {
    let mut openapi = Head::openapi();
    openapi.info.description = Some(DESCRIPTION.to_owned());
    openapi
}

/// The document with the problems of every route.
pub(super) fn complete(mut openapi: OpenApi) -> OpenApi {
    for item in openapi.paths.paths.values_mut() {
        let operations = [
            (&mut item.get, true),
            (&mut item.put, true),
            (&mut item.post, true),
            (&mut item.delete, true),
            // An answer to HEAD has no body.
            (&mut item.head, false),
        ];
        for (operation, with_body) in operations {
            if let Some(operation) = operation {
                add_problems(operation, with_body);
            }
        }
    }
    openapi
}

fn add_problems(operation: &mut Operation, with_body: bool) {
    let id = operation.operation_id.as_deref().unwrap_or_default();
    let groups = PROBLEMS.iter().find(|(of, _)| *of == id).map_or(&[][..], |(_, groups)| groups);
    let mut by_status = BTreeMap::<u16, Vec<String>>::new();
    for code in groups.iter().copied().flatten() {
        by_status.entry(code.status()).or_default().push(format!("`{}`: {}", name(*code), code.title()));
    }
    for (status, causes) in by_status {
        let mut response = ResponseBuilder::new().description(causes.join("; "));
        if with_body {
            let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
            response = response.content(PROBLEM_JSON, problem);
        }
        operation.responses.responses.insert(status.to_string(), response.build().into());
    }
}

/// The code as it travels.
pub(super) fn name(code: Code) -> String {
    serde_json::to_value(code).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_table_has_every_operation_and_nothing_else() {
        let document = serde_json::to_value(super::super::openapi()).unwrap();
        let served: BTreeSet<_> = document["paths"]
            .as_object()
            .unwrap()
            .values()
            .flat_map(|item| item.as_object().unwrap().values())
            .filter_map(|operation| operation["operationId"].as_str())
            .collect();
        let table: BTreeSet<_> = PROBLEMS.iter().map(|(id, _)| *id).collect();
        assert_eq!(served, table);
    }

    #[test]
    fn every_code_is_some_operations() {
        let anywhere = [Code::NoRoute, Code::MethodNotAllowed];
        let told: Vec<_> = PROBLEMS.iter().flat_map(|(_, groups)| groups.iter().copied().flatten()).collect();
        for code in Code::ALL {
            assert!(told.contains(&code) != anywhere.contains(code), "{code:?}");
        }
    }
}
