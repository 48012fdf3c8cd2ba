//! The alerts and the board: by promtool, and by the names that a running server's counts have.

use std::collections::BTreeSet;

use pcmcache_tests::{Scratch, deployed, spoken};
use serde_json::Value;

use crate::check;

const RULES: &str = "deploy/prometheus/pcmcache.rules.yml";
const TESTS: &str = "deploy/prometheus/pcmcache.rules.test.yml";
const BOARD: &str = "deploy/grafana/pcmcache.json";

#[test]
fn the_rules_are_well_formed_and_fire_when_they_should() {
    let arguments = ["check", "rules", "--lint=all", "--lint-fatal"];
    let end = check("PCMCACHE_TEST_PROMTOOL", "promtool", &arguments, &deployed::file(RULES));
    assert!(end.status.success(), "{}", end.transcript());
    let end = check("PCMCACHE_TEST_PROMTOOL", "promtool", &["test", "rules"], &deployed::file(TESTS));
    assert!(end.status.success(), "{}", end.transcript());
    let tested = deployed::text(TESTS);
    for alert in alerts() {
        assert!(tested.contains(&format!("alertname=\"{alert}\"")), "no test of {alert}");
    }
}

#[test]
fn each_alert_has_its_section_in_the_guide() {
    let guide = deployed::text("deploy/OPERATIONS.md");
    let sections: BTreeSet<_> = guide.lines().filter_map(|line| line.strip_prefix("### Pcmcache")).collect();
    let alerts = alerts();
    let named: BTreeSet<_> = alerts.iter().filter_map(|alert| alert.strip_prefix("Pcmcache")).collect();
    assert_eq!(named, sections);
}

/// Grafana does not say that a query is wrong: its panel is empty.
#[test]
fn each_query_of_the_board_is_one() {
    let scratch = Scratch::new("board");
    let queries = queries(&board());
    assert!(queries.len() > 20, "{queries:?}");
    let rules: Vec<_> = queries
        .iter()
        .enumerate()
        .map(|(number, query)| {
            let query = ["$__rate_interval", "$__interval"]
                .iter()
                .fold(query.clone(), |query, name| query.replace(name, "5m"));
            serde_json::json!({ "record": format!("query:{number}"), "expr": query })
        })
        .collect();
    let groups = serde_json::json!({ "groups": [{ "name": "board", "rules": rules }] });
    let file = scratch.file("board.yml", groups.to_string());
    let end = check("PCMCACHE_TEST_PROMTOOL", "promtool", &["check", "rules"], &file);
    assert!(end.status.success(), "{}", end.transcript());
}

#[test]
fn the_board_has_a_place_for_each_panel() {
    let board = board();
    let panels = board["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().expect("an id")).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have one id");
    let mut taken = BTreeSet::new();
    for panel in panels {
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("a place"));
        assert!(x + w <= 24, "{}", panel["title"]);
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{} lies over another", panel["title"]);
        }
    }
}

#[test]
fn rules_and_board_name_only_what_a_server_counts() {
    let scratch = Scratch::new("counts");
    let counts: BTreeSet<String> = spoken::counts(&scratch).into_iter().map(|count| count.name).collect();
    let known = |name: &str| {
        let whole = ["_bucket", "_count", "_sum"].iter().find_map(|part| name.strip_suffix(part));
        counts.contains(name) || whole.is_some_and(|whole| counts.contains(whole))
    };
    let texts = [deployed::text(RULES), deployed::text(TESTS), queries(&board()).join("\n")];
    let named: BTreeSet<_> = texts.iter().flat_map(|text| metrics_in(text)).collect();
    assert!(named.len() > 25, "{named:?}");
    let unknown: Vec<_> = named.into_iter().filter(|name| !known(name)).collect();
    assert!(unknown.is_empty(), "no server counts {unknown:?}");
}

/// What recording rules make has a colon in its name.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    words
        .filter(|word| word.starts_with("pcmcache_") || word.starts_with("process_"))
        .filter(|word| !word.contains(':'))
        .collect()
}

fn alerts() -> Vec<String> {
    let text = deployed::text(RULES);
    let names = text.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    names.map(str::to_owned).collect()
}

fn board() -> Value {
    serde_json::from_str(&deployed::text(BOARD)).expect("JSON")
}

/// Every `expr` of it, wherever it stands, and what its variables ask for.
fn queries(value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match value.as_str() {
                Some(query) if name == "expr" => vec![query.to_owned()],
                _ => queries(value),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(queries).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}
