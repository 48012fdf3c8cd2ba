//! The file that says which CI jobs may do what (`--oidc FILE`).
//!
//! Invariant: no scope that a job of anybody's making can write is one that a trusted job writes or reads. A file for which
//! that cannot be told is refused when the server starts.

use std::collections::BTreeSet;
use std::time::Duration;

use pcmcache_shared::Scope;
use reqwest::Url;
use serde::Deserialize;

use super::job::{Job, Kind, is_trusted_event};
use super::jwks::secure;
use super::template::Template;
use crate::trust::book::MAX_READS;
use crate::trust::session::MAX_LIFE;

/// The most issuers, and the most rules of each.
const MAX_ISSUERS: usize = 16;
const MAX_RULES: usize = 1000;

/// All of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rules {
    /// How long a session lives, in minutes.
    #[serde(default = "longest_life")]
    session_minutes: u64,
    #[serde(rename = "issuer")]
    pub(super) issuers: Vec<Issuer>,
}

/// A CI system that vouches for its jobs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Issuer {
    /// What it is called here; `token revoke --subject NAME:NUMBER` names it.
    pub(super) name: String,
    pub(super) kind: Kind,
    /// The `iss` of its tokens.
    pub(super) issuer: String,
    /// The `aud` of tokens that are for this server.
    pub(super) audience: String,
    /// Where its keys are; by default it is asked for that.
    #[serde(default)]
    pub(super) jwks_url: Option<String>,
    #[serde(rename = "rule")]
    pub(super) rules: Vec<Rule>,
}

/// Which jobs of a repository may do what. The first rule that fits decides.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    /// The number that the issuer knows the repository by: its name can come to be another's.
    #[serde(alias = "project_id")]
    pub(super) repository_id: u64,
    /// Why the job runs.
    pub(super) events: Vec<String>,
    /// What it builds; one that ends with `*` stands for all that begin so. By default anything.
    #[serde(default)]
    refs: Vec<String>,
    /// Whether only protected refs fit.
    #[serde(default)]
    protected: bool,
    #[serde(default)]
    pub(super) reads: Vec<Scope>,
    #[serde(default)]
    pub(super) writes: Option<Template>,
}

fn longest_life() -> u64 {
    MAX_LIFE.as_secs() / 60
}

impl Rule {
    /// Whether every job that fits builds what was reviewed.
    pub(super) fn is_trusted(&self) -> bool {
        self.protected && self.events.iter().all(|event| is_trusted_event(event))
    }

    /// Whether the job is one of those it is for.
    pub(super) fn fits(&self, job: &Job) -> bool {
        let names = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => job.git_ref.starts_with(start),
            None => job.git_ref == *pattern,
        };
        self.repository_id == job.repository
            && self.events.contains(&job.event)
            && (self.refs.is_empty() || self.refs.iter().any(names))
            && (!self.protected || job.is_protected)
    }

    /// Where its jobs write, with the repository filled in.
    fn template(&self) -> Option<Template> {
        self.writes.as_ref().map(|template| template.of(self.repository_id))
    }

    fn check(&self) -> Result<(), String> {
        let what = format!("the rule for {} of {}", self.events.join(", "), self.repository_id);
        let wrong = |why: &str| Err(format!("{what} {why}"));
        if self.events.is_empty() {
            return wrong("names no event");
        }
        if self.reads.is_empty() && self.writes.is_none() {
            return wrong("lets its jobs do nothing: give it reads or writes");
        }
        if self.reads.len() > MAX_READS {
            return wrong("reads too many scopes");
        }
        let Some(writes) = &self.writes else { return Ok(()) };
        match (self.is_trusted(), writes.constant(self.repository_id)) {
            (true, None) => wrong(
                "is for reviewed code and writes a scope for each change: name one scope, without {number} or {ref}",
            ),
            (false, Some(scope)) => wrong(&format!(
                "lets unreviewed code write '{scope}', which jobs of other changes would read; put {{number}} or \
                 {{ref}} into it, or take only protected refs (protected = true) and events like push"
            )),
            (true, Some(_)) | (false, None) => Ok(()),
        }
    }
}

impl Rules {
    /// Reads the file, and refuses one under which a job could reach what it must not.
    pub(super) fn parse(text: &str, public: &[Scope]) -> Result<Self, String> {
        let rules: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        rules.check(public)?;
        Ok(rules)
    }

    fn all(&self) -> impl Iterator<Item = (&Issuer, &Rule)> {
        self.issuers.iter().flat_map(|issuer| issuer.rules.iter().map(move |rule| (issuer, rule)))
    }

    /// How long a session lives.
    pub(super) fn life(&self) -> Duration {
        Duration::from_secs(self.session_minutes * 60).min(MAX_LIFE)
    }

    /// Where unreviewed code writes.
    pub(super) fn untrusted(&self) -> Vec<Template> {
        self.all().filter(|(_, rule)| !rule.is_trusted()).filter_map(|(_, rule)| rule.template()).collect()
    }

    /// Where reviewed code writes.
    pub(super) fn trusted(&self) -> BTreeSet<Scope> {
        let trusted = self.all().filter(|(_, rule)| rule.is_trusted());
        trusted.filter_map(|(_, rule)| rule.writes.as_ref()?.constant(rule.repository_id)).collect()
    }

    fn check(&self, public: &[Scope]) -> Result<(), String> {
        if !(1..=longest_life()).contains(&self.session_minutes) {
            return Err(format!("session_minutes is 1 to {}", longest_life()));
        }
        if self.issuers.is_empty() || self.issuers.len() > MAX_ISSUERS {
            return Err(format!("there must be 1 to {MAX_ISSUERS} issuers"));
        }
        let (mut names, mut urls) = (BTreeSet::new(), BTreeSet::new());
        for issuer in &self.issuers {
            issuer.check()?;
            if !names.insert(&issuer.name) || !urls.insert(&issuer.issuer) {
                return Err(format!("the issuer '{}' is there twice", issuer.name));
            }
        }
        self.check_reads(public)?;
        self.check_writes()
    }

    /// Nobody reads by rule where unreviewed code writes, but that code itself.
    fn check_reads(&self, public: &[Scope]) -> Result<(), String> {
        let untrusted = self.untrusted();
        let written = |scope: &&Scope| untrusted.iter().any(|template| template.can_be(scope));
        let read = self.all().flat_map(|(_, rule)| &rule.reads).find(written);
        if let Some(scope) = read.or_else(|| public.iter().find(written)) {
            return Err(format!("'{scope}' is read by others, and unreviewed code could write it"));
        }
        Ok(())
    }

    /// No unreviewed code writes where reviewed code does, or where that of another repository does.
    fn check_writes(&self) -> Result<(), String> {
        let trusted = self.trusted();
        let writers: Vec<_> = self
            .all()
            .filter(|(_, rule)| !rule.is_trusted())
            .filter_map(|(issuer, rule)| Some((&issuer.name, rule.repository_id, rule.template()?)))
            .collect();
        for (issuer, repository, template) in &writers {
            if let Some(scope) = trusted.iter().find(|scope| template.can_be(scope)) {
                return Err(format!("'{template}' can be '{scope}', which reviewed code writes"));
            }
            let is_another = |(other, number, _): &&(_, _, _)| (other, number) != (issuer, repository);
            let mut others = writers.iter().filter(is_another);
            if others.any(|(_, _, other)| other.can_equal(template)) {
                return Err(format!(
                    "'{template}' can be a scope of another repository: put {{repository_id}}, and a word for the issuer, \
                     into it"
                ));
            }
        }
        Ok(())
    }
}

impl Issuer {
    fn check(&self) -> Result<(), String> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(plain) {
            return Err(format!("an issuer's name is 1 to 64 of a-z, 0-9 and '-', not '{}'", self.name));
        }
        if self.audience.is_empty() {
            return Err(format!(
                "the issuer '{}' needs an audience: the URL of this server is a good one",
                self.name
            ));
        }
        if self.rules.is_empty() || self.rules.len() > MAX_RULES {
            return Err(format!("the issuer '{}' must have 1 to {MAX_RULES} rules", self.name));
        }
        secure(&self.issuer)?;
        self.keys()?;
        self.rules.iter().try_for_each(Rule::check)
    }

    /// Where its keys are, if the file says so.
    pub(super) fn keys(&self) -> Result<Option<Url>, String> {
        self.jwks_url.as_deref().map(secure).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = r#"
        [[issuer]]
        name = "github"
        kind = "github"
        issuer = "https://token.actions.githubusercontent.com"
        audience = "https://cache.example"
    "#;

    fn rule(text: &str) -> String {
        format!("[[issuer.rule]]\nrepository_id = 12\n{text}\n")
    }

    fn parse(rules: &[&str]) -> Result<Rules, String> {
        let rules: String = rules.iter().map(|text| rule(text)).collect();
        Rules::parse(&format!("{HEAD}{rules}"), &["public".parse().unwrap()])
    }

    const PUSH: &str = r#"
        events = ["push", "schedule"]
        refs = ["refs/heads/main"]
        protected = true
        writes = "main""#;
    const PULL: &str = r#"
        events = ["pull_request"]
        reads = ["main"]
        writes = "pr-{repository_id}-{number}""#;

    #[test]
    fn the_usual_rules_are_well() {
        let rules = parse(&[PUSH, PULL]).unwrap();
        assert_eq!(rules.life(), MAX_LIFE);
        assert_eq!(rules.trusted(), BTreeSet::from([Scope::default()]));
        assert!(rules.untrusted().iter().any(|template| template.can_be(&"pr-12-7".parse().unwrap())));
        assert!(rules.issuers[0].rules[0].is_trusted() && !rules.issuers[0].rules[1].is_trusted());
    }

    #[test]
    fn the_example_is_a_good_one() {
        let rules = Rules::parse(include_str!("../../../../deploy/oidc.example.toml"), &[]).unwrap();
        assert_eq!(rules.issuers.len(), 2);
        let trusted = rules.all().map(|(_, rule)| rule.is_trusted()).collect::<Vec<_>>();
        assert_eq!(trusted, [true, false, false, true, false]);
    }

    #[test]
    fn what_lets_unreviewed_code_reach_others_is_refused() {
        let writes = |events: &str, writes: &str| format!("events = [\"{events}\"]\nwrites = \"{writes}\"");
        for (rule, says) in [
            (writes("pull_request", "main"), "lets unreviewed code write 'main'"),
            (writes("pull_request_target", "main"), "lets unreviewed code write"),
            (
                format!("protected = true\n{}", writes("pull_request_target", "main")),
                "lets unreviewed code write",
            ),
            (format!("protected = true\n{}", writes("issue_comment", "x")), "lets unreviewed code write"),
            // Anybody who may push a branch chooses what is built.
            (writes("push", "main"), "lets unreviewed code write"),
            (writes("push", "branches"), "lets unreviewed code write"),
            (writes("pull_request", "{number}"), ""),
            (writes("pull_request", "pr-{nmber}"), "is no scope"),
            (format!("protected = true\n{}", writes("push", "pr-{number}")), "for reviewed code"),
            ("events = []\nreads = [\"main\"]".to_owned(), "names no event"),
            ("events = [\"push\"]".to_owned(), "do nothing"),
            ("events = [\"push\"]\nreads = [\"main\"]\nextra = 1".to_owned(), "extra"),
            ("events = [\"push\"]\nreads = [\"pr-12-7\"]".to_owned(), "'pr-12-7' is read by others"),
        ] {
            match parse(&[PUSH, PULL, &rule]) {
                Err(error) => assert!(!says.is_empty() && error.contains(says), "{rule}: {error}"),
                Ok(_) => assert!(says.is_empty(), "{rule}"),
            }
        }
        let public = parse(&[PUSH, "events = [\"pull_request\"]\nwrites = \"{ref}\""]);
        assert!(public.is_ok(), "{public:?}");
    }

    #[test]
    fn no_scope_is_of_two_repositories() {
        let other = |writes: &str| {
            format!(
                "[[issuer.rule]]\nrepository_id = 13\nevents = [\"pull_request\"]\nwrites = \"{writes}\"\n"
            )
        };
        let parse = |writes: &str| Rules::parse(&format!("{HEAD}{}{}", rule(PULL), other(writes)), &[]);
        assert!(parse("pr-{repository_id}-{number}").is_ok());
        for bad in ["pr-12-{number}", "pr-{number}-{number}"] {
            assert!(parse(bad).unwrap_err().contains("another repository"), "{bad}");
        }
        // A trusted scope of one that an untrusted job of another could write.
        let trusted = "[[issuer.rule]]\nrepository_id = 13\nevents = [\"push\"]\nprotected = true\nwrites = \"pr-12-9\"";
        let refused = Rules::parse(&format!("{HEAD}{}{trusted}", rule(PULL)), &[]).unwrap_err();
        assert!(refused.contains("which reviewed code writes"), "{refused}");
        let public =
            Rules::parse(&format!("{HEAD}{}", rule(PULL)), &["pr-12-3".parse().unwrap()]).unwrap_err();
        assert!(public.contains("is read by others"), "{public}");
    }

    #[test]
    fn issuers_are_what_they_must_be() {
        let rules = rule(PULL);
        for (from, to, says) in [
            ("https://token", "http://token", "https only"),
            ("\"https://cache.example\"", "\"\"", "needs an audience"),
            ("name = \"github\"", "name = \"Git Hub\"", "an issuer's name"),
            ("kind = \"github\"", "kind = \"other\"", "unknown variant"),
        ] {
            let error = Rules::parse(&format!("{}{rules}", HEAD.replace(from, to)), &[]).unwrap_err();
            assert!(error.contains(says), "{to}: {error}");
        }
        let twice = Rules::parse(&format!("{HEAD}{rules}{HEAD}{rules}"), &[]).unwrap_err();
        assert!(twice.contains("twice"), "{twice}");
        let long = Rules::parse(&format!("session_minutes = 361\n{HEAD}{rules}"), &[]).unwrap_err();
        assert!(long.contains("1 to 360"), "{long}");
        assert!(Rules::parse("", &[]).is_err());
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rules = parse(&[PUSH, PULL]).unwrap();
        let job = |event: &str, git_ref: &str, is_protected, repository| Job {
            repository,
            event: event.to_owned(),
            git_ref: git_ref.to_owned(),
            is_protected,
            number: Some(7),
        };
        let fit = |job: Job| rules.issuers[0].rules.iter().position(|rule| rule.fits(&job));
        assert_eq!(fit(job("push", "refs/heads/main", true, 12)), Some(0));
        assert_eq!(fit(job("pull_request", "refs/pull/7/merge", false, 12)), Some(1));
        assert_eq!(fit(job("push", "refs/heads/main", false, 12)), None);
        assert_eq!(fit(job("push", "refs/heads/main2", true, 12)), None);
        assert_eq!(fit(job("push", "refs/heads/main", true, 13)), None);
        assert_eq!(fit(job("pull_request_target", "refs/heads/main", true, 12)), None);
    }
}
