//! Someone who asks.

use pcmcache_shared::{Scope, Writer, mutant};

use super::View;
use crate::clock::Moment;

/// Someone who asks, and what they may do. A request's extensions hold it as `Arc<Principal>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// What tells them from all others: a token's or session's id. Limits and logs go by it.
    pub id: String,
    /// What people call them.
    pub name: String,
    /// The names under which what they publish can be taken back: who they are, then the session if there is one. The
    /// first is also the one that blobs are uploaded under.
    pub writers: Vec<Writer>,
    /// The scopes they may read, in the order they are looked at; those that anyone may read are last.
    pub reads: Vec<Scope>,
    /// The scope they may write, and read before all others.
    pub writes: Option<Scope>,
    /// Whether they may read every scope.
    pub admin: bool,
    /// Whether they may see what goes on in all scopes: the metrics and the dashboard.
    pub observes: bool,
    /// When their credential ends.
    pub until: Option<Moment>,
}

impl Principal {
    const ANYONE: &str = "anyone";
    const ANONYMOUS: &str = "anonymous";

    /// Everyone, where there are no tokens.
    pub fn anyone() -> Self {
        Self {
            id: Self::ANYONE.to_owned(),
            name: Self::ANYONE.to_owned(),
            writers: vec![Writer::before_tokens()],
            reads: Vec::new(),
            writes: Some(Scope::default()),
            admin: false,
            observes: true,
            until: None,
        }
    }

    /// Who carries no credential, where there are tokens.
    pub fn anonymous(public: &[Scope]) -> Self {
        Self {
            id: Self::ANONYMOUS.to_owned(),
            name: Self::ANONYMOUS.to_owned(),
            writers: Vec::new(),
            reads: public.to_vec(),
            writes: None,
            admin: false,
            observes: false,
            until: None,
        }
    }

    /// Whether a credential says who they are.
    pub fn is_known(&self) -> bool {
        self.id != Self::ANYONE && self.id != Self::ANONYMOUS
    }

    /// Whether they carried no credential.
    pub fn is_anonymous(&self) -> bool {
        self.writers.is_empty()
    }

    /// What they see under the scope; `None` if they may not read it, and then it is as if it were not there.
    pub fn view(&self, scope: &Scope) -> Option<View> {
        let is_own = self.writes.as_ref() == Some(scope) || mutant!("pull-request-writes-trusted");
        if !is_own && !self.admin && !self.reads.contains(scope) {
            return None;
        }
        let mut scopes = vec![scope.clone()];
        if is_own {
            scopes.extend(self.reads.iter().filter(|other| *other != scope).cloned());
        }
        Some(View::new(scopes, self.writers.clone(), is_own, self.until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(name: &str) -> Scope {
        name.parse().unwrap()
    }

    fn pull_request() -> Principal {
        Principal {
            writes: Some(scope("pr-17")),
            reads: vec![scope("main"), scope("public")],
            ..Principal::anyone()
        }
    }

    fn seen(principal: &Principal, of: &str) -> Option<Vec<String>> {
        let view = principal.view(&scope(of))?;
        Some(view.scopes().iter().map(Scope::to_string).collect())
    }

    #[test]
    fn a_job_sees_its_own_scope_and_then_those_it_reads_but_never_the_reverse() {
        let job = pull_request();
        assert_eq!(seen(&job, "pr-17"), Some(vec!["pr-17".into(), "main".into(), "public".into()]));
        assert_eq!(seen(&job, "main"), Some(vec!["main".into()]));
        assert_eq!(seen(&job, "pr-18"), None);
        let main = Principal::anyone();
        assert_eq!(seen(&main, "main"), Some(vec!["main".into()]));
        assert_eq!(seen(&main, "pr-17"), None);
        assert_eq!(seen(&Principal { admin: true, ..main }, "pr-17"), Some(vec!["pr-17".into()]));
    }

    #[test]
    fn only_the_own_scope_can_be_written_and_only_there_do_uploads_count() {
        let job = pull_request();
        let own = job.view(&scope("pr-17")).unwrap();
        assert!(own.writing().is_some());
        assert_eq!(own.uploader(), Some(&Writer::before_tokens()));
        let beyond = job.view(&scope("main")).unwrap();
        assert!(beyond.writing().is_none());
        assert_eq!(beyond.uploader(), None);
    }

    #[test]
    fn without_a_credential_one_reads_what_is_public() {
        let anonymous = Principal::anonymous(&[scope("public")]);
        assert_eq!(seen(&anonymous, "public"), Some(vec!["public".into()]));
        assert_eq!(seen(&anonymous, "main"), None);
        assert!(anonymous.view(&scope("public")).unwrap().writing().is_none());
    }
}
