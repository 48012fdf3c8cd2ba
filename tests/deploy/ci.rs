//! What lies ready for CI, by the schemas of its systems. That its commands and flags exist is seen to with all papers.

use pcmcache_tests::deployed;

use crate::check;

#[test]
fn the_workflows_are_ones() {
    for (file, arguments) in [
        ("deploy/ci/github.yml", &["--builtin-schema", "vendor.github-workflows"][..]),
        ("deploy/ci/gitlab.yml", &["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"]),
    ] {
        let end =
            check("PCMCACHE_TEST_CHECK_JSONSCHEMA", "check-jsonschema", arguments, &deployed::file(file));
        assert!(end.status.success(), "{}", end.transcript());
    }
}

/// What would give anybody's code the rights of this repository.
#[test]
fn the_workflow_runs_nobodys_code_with_rights() {
    let text = deployed::text("deploy/ci/github.yml");
    let events = text.lines().filter(|line| line.trim_start().starts_with("pull_request_target:"));
    assert_eq!(events.count(), 0);
    assert!(text.contains("contents: read") && !text.contains("secrets."), "{text}");
}
