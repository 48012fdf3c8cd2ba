//! What a CI system says of a job, in the claims of GitHub Actions and of GitLab.

use serde::{Deserialize, Deserializer};

/// Which claims an issuer uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// GitHub Actions.
    Github,
    /// GitLab.
    Gitlab,
}

/// A job, as far as its issuer vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    /// The number that the issuer knows the repository by.
    pub(super) repository: u64,
    /// Why it runs.
    pub(super) event: String,
    /// What it builds: `refs/heads/main`.
    pub(super) git_ref: String,
    /// Whether the issuer lets only chosen people change that ref.
    pub(super) is_protected: bool,
    /// The number of the pull or merge request.
    pub(super) number: Option<u64>,
}

/// Events that run what was reviewed, if the ref is protected. All others can be set off, or what they build be chosen, by
/// whoever may open a pull request: `pull_request_target`, `issue_comment` and `workflow_run` run beside the protected ref and
/// with its rights, which is what makes them dangerous.
const TRUSTED_EVENTS: &[&str] = &["push", "schedule", "workflow_dispatch", "release", "web"];

impl Job {
    /// Whether what it builds can be that of anybody.
    pub(super) fn is_trusted(&self) -> bool {
        self.is_protected && is_trusted_event(&self.event)
    }
}

/// Whether the event runs what was reviewed, if the ref is protected.
pub(super) fn is_trusted_event(event: &str) -> bool {
    TRUSTED_EVENTS.contains(&event)
}

/// The claims of a token. What another kind of issuer says is not looked at.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    pub(super) aud: Audience,
    pub(super) exp: u64,
    pub(super) iat: u64,
    #[serde(default)]
    pub(super) nbf: Option<u64>,
    #[serde(rename = "ref", default)]
    git_ref: Option<String>,
    #[serde(default)]
    ref_path: Option<String>,
    #[serde(default)]
    ref_protected: Option<Flag>,
    #[serde(default, deserialize_with = "number")]
    repository_id: Option<u64>,
    #[serde(default, deserialize_with = "number")]
    project_id: Option<u64>,
    #[serde(default)]
    event_name: Option<String>,
    #[serde(default)]
    pipeline_source: Option<String>,
}

/// For whom a token is.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Some(Vec<String>),
}

impl Audience {
    /// Whether it is for this one and nobody else.
    pub(super) fn is_only(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Some(all) => all.len() == 1 && all.iter().all(|one| one == audience),
        }
    }
}

/// True or false; both systems send it as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Flag {
    Plain(bool),
    Text(Spelled),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Spelled {
    True,
    False,
}

/// A number; both systems send it as text.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Plain(u64),
        Text(String),
    }
    Ok(match Option::<Number>::deserialize(deserializer)? {
        Some(Number::Plain(number)) => Some(number),
        Some(Number::Text(text)) => decimal(&text),
        None => None,
    })
}

/// A number spelled as numbers are: no sign, no leading zero.
fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

impl Claims {
    /// The job, if the claims are those of this kind.
    pub(super) fn job(&self, kind: Kind) -> Option<Job> {
        let (repository, event, git_ref) = match kind {
            Kind::Github => (self.repository_id?, self.event_name.clone()?, self.git_ref.clone()?),
            Kind::Gitlab => (self.project_id?, self.pipeline_source.clone()?, self.ref_path.clone()?),
        };
        let is_protected = matches!(self.ref_protected, Some(Flag::Plain(true) | Flag::Text(Spelled::True)));
        let number = change(&git_ref);
        Some(Job { repository, event, git_ref, is_protected, number })
    }
}

/// The number of the pull or merge request that a ref is of. No branch has such a ref: those are under `refs/heads/`.
fn change(git_ref: &str) -> Option<u64> {
    let rest = git_ref.strip_prefix("refs/pull/").or_else(|| git_ref.strip_prefix("refs/merge-requests/"))?;
    let (number, end) = rest.split_once('/')?;
    decimal(number).filter(|_| matches!(end, "merge" | "head"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_of_github_and_one_of_gitlab() {
        let github = json!({
            "iss": "i", "aud": "a", "exp": 2, "iat": 1, "nbf": 1, "jti": "x", "sub": "repo:o/r:pull_request",
            "repository_id": "12", "repository": "o/r", "event_name": "pull_request", "ref": "refs/pull/7/merge",
            "ref_protected": "false", "project_id": "99",
        });
        let claims: Claims = serde_json::from_value(github).unwrap();
        let job = claims.job(Kind::Github).unwrap();
        assert_eq!(
            (job.repository, job.number, job.is_protected, job.is_trusted()),
            (12, Some(7), false, false)
        );
        assert_eq!(claims.job(Kind::Gitlab), None);

        let gitlab = json!({
            "iss": "i", "aud": ["a"], "exp": 2, "iat": 1, "project_id": 12, "pipeline_source": "push", "ref": "main",
            "ref_path": "refs/heads/main", "ref_protected": "true", "ref_type": "branch",
        });
        let claims: Claims = serde_json::from_value(gitlab).unwrap();
        let job = claims.job(Kind::Gitlab).unwrap();
        assert_eq!((job.git_ref.as_str(), job.number, job.is_trusted()), ("refs/heads/main", None, true));
    }

    #[test]
    fn only_reviewed_events_on_protected_refs_are_trusted() {
        let job = |event: &str, is_protected| Job {
            repository: 1,
            event: event.to_owned(),
            git_ref: "refs/heads/main".to_owned(),
            is_protected,
            number: None,
        };
        assert!(job("push", true).is_trusted() && !job("push", false).is_trusted());
        for event in [
            "pull_request",
            "pull_request_target",
            "merge_request_event",
            "issue_comment",
            "workflow_run",
            "fork",
            "PUSH",
            "",
        ] {
            assert!(!job(event, true).is_trusted(), "{event}");
        }
    }

    #[test]
    fn a_change_has_its_number_from_its_ref_alone() {
        for (git_ref, number) in [
            ("refs/pull/7/merge", Some(7)),
            ("refs/merge-requests/7/head", Some(7)),
            ("refs/heads/refs/pull/7/merge", None),
            ("refs/heads/pull/7/merge", None),
            ("refs/pull/07/merge", None),
            ("refs/pull/+7/merge", None),
            ("refs/pull/7/other", None),
            ("refs/pull/7", None),
            ("refs/pull/99999999999999999999/merge", None),
        ] {
            assert_eq!(change(git_ref), number, "{git_ref}");
        }
    }

    #[test]
    fn an_audience_is_exact_and_alone() {
        let is = |audience: serde_json::Value| {
            serde_json::from_value::<Audience>(audience).is_ok_and(|audience| audience.is_only("a"))
        };
        assert!(is(json!("a")) && is(json!(["a"])));
        for other in [json!("b"), json!("a "), json!(["a", "b"]), json!([]), json!(7), json!(["a", "a"])] {
            assert!(!is(other.clone()), "{other}");
        }
    }
}
