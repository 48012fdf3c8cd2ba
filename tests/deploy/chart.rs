//! The chart, by Helm's own engine and by the schemas of Kubernetes. No cluster is asked.

use std::process::Command;

use pcmcache_tests::{Process, Scratch, deployed, tool};
use serde_json::{Value, json};

use crate::check;

/// The oldest that the chart says it is for, and one that is newer than this chart's first version.
const KUBERNETES: [&str; 2] = ["1.27.0", "1.35.0"];

#[test]
fn helm_and_kubernetes_find_nothing_wrong() {
    let scratch = Scratch::new("chart");
    for (what, values) in [("as it is", json!({})), ("with everything", everything())] {
        let seen = rendered(&scratch, &values);
        assert_eq!(seen["refused"], Value::Null, "{what}");
        // 1 is advice: it would like an icon.
        let findings = list(&seen["findings"]);
        assert!(findings.iter().all(|finding| finding["severity"] == 1), "{what}: {findings:?}");
        assert!(list(&seen["objects"]).len() > 2, "{what}: {seen}");
        for object in list(&seen["objects"]) {
            KUBERNETES.into_iter().for_each(|version| takes(&scratch, version, object));
        }
    }
}

/// Of objects that an operator brings (a ServiceMonitor) Kubernetes knows nothing.
fn takes(scratch: &Scratch, version: &str, object: &Value) {
    if object["kind"] == "ServiceMonitor" {
        return;
    }
    let file = scratch.file("object.yaml", object.to_string());
    let arguments = ["--strict", "--kubernetes-version", version];
    let end = check("PCMCACHE_TEST_KUBERNETES_VALIDATE", "kubernetes-validate", &arguments, &file);
    let said = format!("{}{}", end.stdout, end.stderr);
    assert!(end.status.success() && said.contains(" passed for resource "), "{object}\n{}", end.transcript());
}

#[test]
fn values_that_say_nothing_are_refused() {
    let scratch = Scratch::new("chart-values");
    for (values, why) in [
        (json!({ "maxsize": "90G" }), "maxsize"),
        (json!({ "maxSize": "90 GB" }), "maxSize"),
        (json!({ "quotas": { "Main": "1G" } }), "Main"),
        (json!({ "publicRead": ["pr/17"] }), "publicRead"),
        (json!({ "tls": { "secret": "a" } }), "secret"),
        (json!({ "replicas": 2 }), "replicas"),
    ] {
        let seen = rendered(&scratch, &values);
        let refused = seen["refused"].as_str().unwrap_or_default();
        assert!(refused.contains(why), "{values}: {seen}");
    }
}

/// What Kubernetes calls the restricted profile, and what this server can do without beside.
#[test]
fn the_pod_may_do_nothing_that_it_need_not() {
    let scratch = Scratch::new("chart-rights");
    for values in [json!({}), everything()] {
        let seen = rendered(&scratch, &values);
        let set = of_kind(&seen, "StatefulSet");
        assert_eq!(set["spec"]["replicas"], 1, "an index is one process's own");
        let pod = &set["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        let containers = list(&pod["containers"]);
        assert_eq!(containers.len(), 1);
        let rights = &containers[0]["securityContext"];
        assert_eq!(rights["allowPrivilegeEscalation"], false);
        assert_eq!(rights["readOnlyRootFilesystem"], true);
        assert_eq!(rights["capabilities"], json!({ "drop": ["ALL"] }));
        // The server needs ten seconds to drain.
        assert!(pod["terminationGracePeriodSeconds"].as_u64() > Some(10));
    }
}

/// Values that switch on all there is.
fn everything() -> Value {
    json!({
        "image": { "repository": "registry.example.com/pcmcache-server", "digest": format!("sha256:{}", "0".repeat(64)) },
        "imagePullSecrets": [{ "name": "registry" }],
        "tokens": { "existingSecret": "tokens" },
        "oidc": "[[issuer]]\nname = \"github\"\n",
        "publicRead": ["main"],
        "maxAge": "30d",
        "quotas": { "main": "50G", "pr-17": "1G" },
        "extraArgs": ["--max-connections", "20000"],
        "tls": { "existingSecret": "tls", "clientCaSecret": "clients" },
        "persistence": { "storageClassName": "fast" },
        "service": { "type": "LoadBalancer", "port": 443, "annotations": { "example.com/a": "b" } },
        "ingress": { "enabled": true, "tlsSecret": "front", "annotations": { "example.com/c": "d" } },
        "networkPolicy": { "from": [{ "podSelector": { "matchLabels": { "role": "build" } } }] },
        "serviceMonitor": { "enabled": true, "labels": { "release": "prometheus" }, "tokenSecret": "observer" },
        "podAnnotations": { "example.com/e": "f" },
        "nodeSelector": { "disk": "fast" },
        "tolerations": [{ "key": "build", "operator": "Exists" }],
        "affinity": { "nodeAffinity": {} },
        "priorityClassName": "build",
    })
}

fn rendered(scratch: &Scratch, values: &Value) -> Value {
    let chart = deployed::file("deploy/helm/pcmcache-server");
    let script = deployed::file("tests/deploy/chart.py");
    let values = scratch.file("values.json", json!([values]).to_string());
    let mut command = Command::new(tool::python());
    command.arg(script).arg(chart).arg(values);
    let end = Process::start(command).finish().ok();
    let seen: Vec<Value> = serde_json::from_str(&end.stdout).expect("what chart.py prints");
    seen.into_iter().next().expect("one for one")
}

fn of_kind<'a>(seen: &'a Value, kind: &str) -> &'a Value {
    let found = list(&seen["objects"]).iter().find(|object| object["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind} in {seen}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
