//! CI jobs: what their CI system says of them, in a signed token, is exchanged once for a session of this server.
//!
//! A job is what its issuer vouches for, and nothing that its repository's people can choose: numbers, not names. Where anyone
//! may have written what a job builds, it gets a scope of its own, which no other job reads.

mod job;
mod jwks;
mod jwt;
mod rules;
mod template;

use std::collections::{BTreeSet, HashMap};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pcmcache_shared::{Digest, Scope};

use self::job::{Claims, Job};
use self::jwks::{Jwks, NoKey};
use self::jwt::{BadJwt, Unverified};
use self::rules::{Issuer, Rules};
use self::template::Template;
use super::subject::Subject;
use crate::clock::Clock;
use crate::outward;

/// How far the clocks of an issuer and of this host may be apart.
const LEEWAY_S: u64 = 60;
/// How old a token may be.
const MAX_AGE_S: u64 = 600;
/// The largest file of rules that is read.
const MAX_FILE: u64 = 1024 * 1024;

/// The issuers and their rules.
#[derive(Debug)]
pub(super) struct Oidc {
    issuers: HashMap<String, (Issuer, Jwks)>,
    life: Duration,
    trusted: BTreeSet<Scope>,
    untrusted: Vec<Template>,
    clock: Arc<dyn Clock>,
}

/// What a job may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Admitted {
    pub(super) subject: Subject,
    pub(super) reads: Vec<Scope>,
    pub(super) writes: Option<Scope>,
    pub(super) life: Duration,
    /// What tells the token from all others.
    pub(super) token: Digest,
    /// Until when it could be exchanged again.
    pub(super) until_s: u64,
}

/// Why a CI job gets no session.
#[derive(Debug, thiserror::Error)]
pub enum NotAdmitted {
    /// The token is not what it must be.
    #[error("{0}")]
    Token(String),
    /// The token is good, and no rule is for such a job.
    #[error("{0}")]
    Job(String),
    /// It cannot be told now.
    #[error("{0}")]
    Unavailable(String),
}

impl From<BadJwt> for NotAdmitted {
    fn from(bad: BadJwt) -> Self {
        Self::Token(bad.to_string())
    }
}

impl Oidc {
    /// Reads the file of rules. Says what is wrong with it.
    pub(super) fn open(path: &Path, public: &[Scope], clock: Arc<dyn Clock>) -> Result<Self, String> {
        let wrong = |why: String| format!("{}: {why}", path.display());
        let file = fs_err::File::open(path).map_err(|error| error.to_string())?;
        let text =
            std::io::read_to_string(file.take(MAX_FILE + 1)).map_err(|error| wrong(error.to_string()))?;
        if text.len() as u64 > MAX_FILE {
            return Err(wrong(format!("it is larger than {MAX_FILE} bytes")));
        }
        let rules = Rules::parse(&text, public).map_err(wrong)?;
        let (life, trusted, untrusted) = (rules.life(), rules.trusted(), rules.untrusted());
        let http = outward::client(jwks::PATIENCE)?;
        let mut issuers = HashMap::new();
        for issuer in rules.issuers {
            let url = issuer.keys().map_err(wrong)?;
            let jwks = Jwks::new(issuer.issuer.clone(), url, http.clone(), Arc::clone(&clock));
            issuers.insert(issuer.issuer.clone(), (issuer, jwks));
        }
        Ok(Self { issuers, life, trusted, untrusted, clock })
    }

    /// Whether a job of anybody's making could write the scope.
    pub(super) fn is_untrusted(&self, scope: &Scope) -> bool {
        self.untrusted.iter().any(|template| template.can_be(scope))
    }

    /// What the job that shows this token may do.
    pub(super) async fn admit(&self, token: &str) -> Result<Admitted, NotAdmitted> {
        let unverified = Unverified::parse(token)?;
        let name = unverified.name();
        // Only to know whose keys to verify it with. What it says is believed once they did.
        let said: Said = unverified.peek()?;
        let unknown = || NotAdmitted::Token("this server does not know the token's issuer".to_owned());
        let (issuer, jwks) = self.issuers.get(&said.iss).ok_or_else(unknown)?;
        let key = match jwks.key(&unverified.kid, unverified.algorithm).await {
            Ok(key) => key,
            Err(error @ NoKey::Unknown) => return Err(NotAdmitted::Token(error.to_string())),
            Err(error @ NoKey::Unavailable(_)) => return Err(NotAdmitted::Unavailable(error.to_string())),
        };
        let claims: Claims = unverified.verify(&key)?;
        self.check(&claims, issuer)?;
        let no_job = || NotAdmitted::Token(BadJwt::Claims.to_string());
        let job = claims.job(issuer.kind).ok_or_else(no_job)?;
        let (reads, writes) = self.rights(issuer, &job)?;
        Ok(Admitted {
            subject: Subject { issuer: issuer.name.clone(), number: job.repository },
            reads,
            writes,
            life: self.life,
            token: name,
            until_s: claims.exp.saturating_add(2 * LEEWAY_S),
        })
    }

    /// That the token is of this issuer, for this server, and of now.
    fn check(&self, claims: &Claims, issuer: &Issuer) -> Result<(), NotAdmitted> {
        let now = self.clock.unix_s();
        let wrong = |why: String| Err(NotAdmitted::Token(why));
        if claims.iss != issuer.issuer {
            return wrong("the token is of another issuer".to_owned());
        }
        if !claims.aud.is_only(&issuer.audience) {
            return wrong(format!("the token's audience is not '{}'", issuer.audience));
        }
        if claims.exp.saturating_add(LEEWAY_S) <= now {
            return wrong("the token has expired".to_owned());
        }
        let from = claims.nbf.unwrap_or(claims.iat).max(claims.iat);
        if from > now.saturating_add(LEEWAY_S) {
            return wrong("the token is not valid yet".to_owned());
        }
        if claims.iat.saturating_add(MAX_AGE_S + LEEWAY_S) <= now {
            return wrong("the token is more than ten minutes old; get another".to_owned());
        }
        Ok(())
    }

    /// What the first rule that fits gives.
    fn rights(&self, issuer: &Issuer, job: &Job) -> Result<(Vec<Scope>, Option<Scope>), NotAdmitted> {
        let wrong = |why: String| Err(NotAdmitted::Job(why));
        let Some(rule) = issuer.rules.iter().find(|rule| rule.fits(job)) else {
            let Job { repository, event, git_ref, is_protected, .. } = job;
            let protected = if *is_protected { "protected" } else { "unprotected" };
            return wrong(format!(
                "no rule is for '{event}' of the repository {repository} on the {protected} ref '{git_ref}'"
            ));
        };
        let Some(template) = &rule.writes else { return Ok((rule.reads.clone(), None)) };
        let Some(scope) = template.scope(job) else {
            return wrong(format!("'{}' has no number to fill into '{template}'", job.event));
        };
        // Refused when the file was read. But should that ever be mistaken, it is not this that lets a job through.
        if !(rule.is_trusted() && job.is_trusted()) && self.trusted.contains(&scope) {
            return wrong(format!("unreviewed code may not write '{scope}', which reviewed code writes"));
        }
        Ok((rule.reads.clone(), Some(scope)))
    }
}

/// Who a token says that it is of.
#[derive(serde::Deserialize)]
struct Said {
    iss: String,
}
