//! The scope that a rule lets jobs write: a name with places to fill in.
//!
//! Parts of a name are split at `-`, `.` and `_`, and each part is a word or a place, so that whether two rules can ever lead
//! to one scope can be told for certain.

use std::str::FromStr;

use pcmcache_shared::{Digest, Scope};
use serde::Deserialize;

use super::job::Job;

/// A template, as `main` or `pr-{repository_id}-{number}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// As it is; also what splits the parts.
    Word(String),
    /// The number that the issuer knows the repository by.
    Repository,
    /// The number of the pull or merge request.
    Number,
    /// Sixteen hexadecimal digits that stand for the ref: names of branches are anybody's choice.
    Ref,
}

impl Part {
    /// Whether both can be the same text.
    fn can_equal(&self, other: &Self) -> bool {
        let is_number = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
        let is_ref = |word: &str| {
            word.len() == 16 && word.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        match (self, other) {
            (Self::Word(a), Self::Word(b)) => a == b,
            (Self::Word(word), Self::Repository | Self::Number)
            | (Self::Repository | Self::Number, Self::Word(word)) => is_number(word),
            (Self::Word(word), Self::Ref) | (Self::Ref, Self::Word(word)) => is_ref(word),
            (Self::Repository | Self::Number | Self::Ref, Self::Repository | Self::Number | Self::Ref) => {
                true
            }
        }
    }
}

/// The text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no scope: parts split by '-', '.' or '_', each a word or one of {{repository_id}}, {{number}} and {{ref}}"
)]
pub(super) struct BadTemplate(String);

const SPLITS: [char; 3] = ['-', '.', '_'];

impl FromStr for Template {
    type Err = BadTemplate;

    fn from_str(text: &str) -> Result<Self, BadTemplate> {
        let bad = || BadTemplate(text.to_owned());
        let part = |part: &str| match part {
            "{repository_id}" | "{project_id}" => Some(Part::Repository),
            "{number}" => Some(Part::Number),
            "{ref}" => Some(Part::Ref),
            word if word.contains(['{', '}']) => None,
            word => Some(Part::Word(word.to_owned())),
        };
        let mut parts = Vec::new();
        // `{repository_id}` has a split within.
        let spelled = text.replace("{repository_id}", "{r}").replace("{project_id}", "{r}");
        for piece in spelled.split_inclusive(SPLITS) {
            let word = piece.trim_end_matches(SPLITS);
            let split = piece.get(word.len()..).unwrap_or_default();
            let word = if word == "{r}" { "{repository_id}" } else { word };
            parts.extend(
                Some(word).filter(|word| !word.is_empty()).map(part).map(|part| part.ok_or_else(bad)),
            );
            parts.extend(
                Some(split).filter(|split| !split.is_empty()).map(|split| Ok(Part::Word(split.to_owned()))),
            );
        }
        let template = Self { text: text.to_owned(), parts: parts.into_iter().collect::<Result<_, _>>()? };
        // Filled in with the longest there is, it is still a name.
        template.fill(u64::MAX, Some(u64::MAX), "").map(|_| template).ok_or_else(bad)
    }
}

impl TryFrom<String> for Template {
    type Error = BadTemplate;

    fn try_from(text: String) -> Result<Self, BadTemplate> {
        text.parse()
    }
}

impl Template {
    /// The scope of this job, if it has what is to be filled in.
    pub(super) fn scope(&self, job: &Job) -> Option<Scope> {
        self.fill(job.repository, job.number, &job.git_ref)
    }

    /// The one scope that it leads to for this repository, whatever the job.
    pub(super) fn constant(&self, repository: u64) -> Option<Scope> {
        if self.is_of_one_change() { None } else { self.fill(repository, None, "") }
    }

    /// Whether it leads to another scope for each pull request or each ref.
    pub(super) fn is_of_one_change(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Number | Part::Ref))
    }

    /// The same with the repository filled in.
    pub(super) fn of(&self, repository: u64) -> Self {
        let fill = |part: &Part| match part {
            Part::Repository => Part::Word(repository.to_string()),
            part @ (Part::Word(_) | Part::Number | Part::Ref) => part.clone(),
        };
        Self { text: self.text.clone(), parts: self.parts.iter().map(fill).collect() }
    }

    /// Whether both can lead to one scope.
    pub(super) fn can_equal(&self, other: &Self) -> bool {
        self.parts.len() == other.parts.len()
            && self.parts.iter().zip(&other.parts).all(|(a, b)| a.can_equal(b))
    }

    /// Whether it can lead to this scope.
    pub(super) fn can_be(&self, scope: &Scope) -> bool {
        scope.as_str().parse().is_ok_and(|scope| self.can_equal(&scope))
    }

    fn fill(&self, repository: u64, number: Option<u64>, git_ref: &str) -> Option<Scope> {
        let mut name = String::new();
        for part in &self.parts {
            match part {
                Part::Word(word) => name.push_str(word),
                Part::Repository => name.push_str(&repository.to_string()),
                Part::Number => name.push_str(&number?.to_string()),
                Part::Ref => name.push_str(Digest::of(git_ref).to_string().get(..16)?),
            }
        }
        name.parse().ok()
    }
}

impl std::fmt::Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Template {
        text.parse().unwrap()
    }

    fn filled(text: &str, number: Option<u64>) -> Option<String> {
        template(text).fill(12, number, "refs/heads/x").map(|scope| scope.to_string())
    }

    #[test]
    fn a_template_is_filled_in() {
        assert_eq!(filled("main", None).as_deref(), Some("main"));
        assert_eq!(filled("pr-{repository_id}-{number}", Some(7)).as_deref(), Some("pr-12-7"));
        assert_eq!(filled("mr.{project_id}_{number}", Some(7)).as_deref(), Some("mr.12_7"));
        assert_eq!(filled("pr-{number}", None), None);
        let of_ref = filled("branch-{ref}", None).unwrap();
        assert_eq!((of_ref.len(), &of_ref[..7]), (23, "branch-"));
        assert_ne!(
            Some(of_ref),
            template("branch-{ref}").fill(12, None, "refs/heads/y").map(|s| s.to_string())
        );
    }

    #[test]
    fn what_is_no_scope_is_refused() {
        for bad in [
            "",
            "Main",
            "pr{number}",
            "{number}x",
            "pr-{nmber}",
            "-{number}",
            "a b",
            "pr-{number",
            &"a".repeat(60),
        ] {
            let long = format!("{bad}{}", if bad.len() == 60 { "-{number}" } else { "" });
            assert!(long.parse::<Template>().is_err(), "{long}");
        }
    }

    #[test]
    fn whether_two_can_lead_to_one_scope_is_known() {
        for (a, b, can) in [
            ("main", "main", true),
            ("main", "pr-{number}", false),
            ("pr-17", "pr-{number}", true),
            ("pr-x", "pr-{number}", false),
            ("pr-{number}", "pr-{repository_id}", true),
            ("pr-{number}", "pr-{repository_id}-{number}", false),
            ("pr_17", "pr-{number}", false),
            ("b-0123456789abcdef", "b-{ref}", true),
            ("b-0123456789abcdeg", "b-{ref}", false),
            ("b-{ref}", "b-{number}", true),
            ("{number}-{ref}", "1-{ref}", true),
        ] {
            assert_eq!(template(a).can_equal(&template(b)), can, "{a} {b}");
            assert_eq!(template(b).can_equal(&template(a)), can, "{b} {a}");
        }
        assert!(
            !template("pr-{repository_id}-{number}")
                .of(1)
                .can_equal(&template("pr-{repository_id}-{number}").of(2))
        );
        assert!(template("pr-{number}").can_be(&"pr-99999".parse().unwrap()));
        assert!(!template("pr-{number}").can_be(&Scope::default()));
    }
}
