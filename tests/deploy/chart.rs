//! The chart, by Helm's own engine and by the schemas of Kubernetes. No cluster is asked.

use std::process::Command;

use pcmcache_tests::{Process, Scratch, deployed, http, tool};
use serde_json::{Value, json};

use crate::check;
use crate::started::listening;

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
        assert_eq!(list(&pod["containers"]).len(), 1);
        for container in list(&pod["containers"]).iter().chain(list(&pod["initContainers"])) {
            let rights = &container["securityContext"];
            assert_eq!(rights["allowPrivilegeEscalation"], false);
            assert_eq!(rights["readOnlyRootFilesystem"], true);
            assert_eq!(rights["capabilities"], json!({ "drop": ["ALL"] }));
        }
        // The server needs ten seconds to drain.
        assert!(pod["terminationGracePeriodSeconds"].as_u64() > Some(10));
    }
}

/// What the pod would do, on a host's disk: first the containers that prepare, then the server.
#[test]
fn what_the_chart_passes_the_server_understands() {
    for values in [json!({}), everything()] {
        let scratch = Scratch::new("chart-server");
        let seen = rendered(&scratch, &values);
        let pod = &of_kind(&seen, "StatefulSet")["spec"]["template"]["spec"];
        let [etc, data] = ["etc", "data"].map(|name| scratch.dir(name).display().to_string());
        fill(&scratch, list(&seen["objects"]));
        let here = |argument: &Value| {
            let argument = argument.as_str().expect("an argument");
            let argument =
                argument.replace("/etc/pcmcache-server", &etc).replace("/var/lib/pcmcache-server", &data);
            argument.replace("0.0.0.0:7733", "127.0.0.1:0")
        };
        for container in list(&pod["initContainers"]) {
            run(list(&container["args"]).iter().map(here)).finish().ok();
        }
        let arguments: Vec<_> = list(&pod["containers"][0]["args"]).iter().map(here).collect();
        let (_process, address) = listening(run(arguments.iter().cloned()));
        // Under TLS that it listens says that it understood.
        if !arguments.iter().any(|argument| argument.starts_with("--tls-cert")) {
            assert_eq!(http::get(address, "/readyz").status, 200);
            assert_eq!(http::get(address, "/metrics").status, 401, "nobody has a token yet");
        }
    }
}

fn run(arguments: impl Iterator<Item = String>) -> Process {
    let mut command = Command::new(tool::server());
    command.env_clear().args(arguments);
    Process::start(command)
}

/// Puts there what the cluster would mount.
fn fill(scratch: &Scratch, objects: &[Value]) {
    let etc = scratch.dir("etc");
    let book = scratch.dir("etc/tokens").join("tokens.json").display().to_string();
    let create =
        ["token", "create", "--name", "one", "--write", "main", "--tokens", &book].map(str::to_owned);
    run(create.into_iter()).finish().ok();
    tool::certificate(&scratch.dir("etc/tls"), "tls");
    scratch.dir("etc/client-ca");
    fs_err::copy(etc.join("tls/tls.crt"), etc.join("client-ca/ca.crt")).expect("a copy");
    let rules = objects.iter().find_map(|object| object["data"]["oidc.toml"].as_str());
    scratch.file("etc/oidc/oidc.toml", rules.unwrap_or_default());
}

/// Values that switch on all there is.
fn everything() -> Value {
    json!({
        "image": { "repository": "registry.example.com/pcmcache-server", "digest": format!("sha256:{}", "0".repeat(64)) },
        "imagePullSecrets": [{ "name": "registry" }],
        "tokens": { "existingSecret": "tokens" },
        "oidc": deployed::text("deploy/oidc.example.toml"),
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
