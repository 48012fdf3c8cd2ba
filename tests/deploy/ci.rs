//! What lies ready for CI.

use pcmcache_tests::{Scratch, deployed};

use crate::started::is_ready;

#[test]
fn the_server_takes_the_rules_of_the_example() {
    let rules = deployed::file("deploy/ci/oidc.toml").display().to_string();
    is_ready(&Scratch::new("oidc"), &[("PCMCACHE_SERVER_OIDC".to_owned(), rules)]);
}
