//! The document says what there is.

use http::{Method, Request};
use pcmcache_shared::Digest;
use pcmcache_shared::api::problem::Code;
use serde_json::Value;

use super::wire::Served;

async fn document(served: &Served) -> Value {
    let reply = served.get("/openapi.json").await;
    assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, "application/json"));
    serde_json::from_slice(&reply.body).unwrap()
}

#[tokio::test]
async fn every_path_has_the_methods_of_the_document_and_no_others() {
    let served = Served::start().await;
    let document = document(&served).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let name = Digest::of("a name").to_string();
    for (template, item) in document["paths"].as_object().unwrap() {
        let path =
            ["digest", "key", "claim"].iter().fold(template.replace("{scope}", "main"), |path, last| {
                path.replace(&format!("{{{last}}}"), &name)
            });
        let path = path.replace("{file}", "page.js").replace("{name}", "nightly");
        assert!(!path.contains('{'), "{path}");
        for method in [Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::PATCH] {
            let reply = served.send(Request::builder().method(&method).uri(&path).body("").unwrap()).await;
            let documented = item.get(method.as_str().to_lowercase()).is_some();
            assert_eq!(reply.status != 405, documented, "{method} {path}: {}", reply.status);
            if reply.header("content-type") == "application/problem+json" {
                assert_ne!(reply.code(), Code::NoRoute, "{path}");
            }
        }
    }
}

#[tokio::test]
async fn problems_paths_and_bodies_are_declared() {
    let served = Served::start().await;
    let document = document(&served).await;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            for (status, response) in operation["responses"].as_object().unwrap() {
                let problem = &response["content"]["application/problem+json"]["schema"]["$ref"];
                let wanted = status.as_str() >= "400" && method != "head";
                assert_eq!(problem.is_string(), wanted, "{method} {path} {status}");
            }
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert_eq!(parameter["required"].as_bool().unwrap(), parameter["in"] == "path");
            }
            if let Some(body) = operation.get("requestBody") {
                assert_eq!(body["required"], true, "{method} {path}");
            }
        }
    }
    let acquire = &document["paths"]["/v1/scopes/{scope}/acquire"]["post"]["responses"];
    for status in ["200", "400", "404", "408", "413", "415", "500", "503"] {
        assert!(acquire.get(status).is_some(), "{status}");
    }
}

/// Every `$ref` of the document leads somewhere.
#[tokio::test]
async fn every_reference_is_there() {
    let served = Served::start().await;
    let document = document(&served).await;
    let mut open = vec![&document];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(map) => {
                if let Some(reference) = map.get("$ref").and_then(Value::as_str) {
                    let pointer = reference.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{reference}");
                }
                open.extend(map.values());
            }
            Value::Array(list) => open.extend(list),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}
