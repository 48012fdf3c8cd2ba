//! Where a stored result comes from, and what its server has taken back since.
//!
//! ```text
//! results/ab/KEY     a line of JSON: the result; another: its origin. Without the second it is not known
//! servers/ab/URL     sealed JSON: the epoch that the server had last, and for each scope the writers that it took back
//! ```
//!
//! What a server took back is not looked for and removed: it is known by its writers, and no longer a result when it is
//! asked for. So there is one write, by rename, and no moment at which an epoch is known and what it takes away is still
//! used; and a result that was fetched before and is stored after that write is refused as well.
//!
//! Invariants: a fetched result is used under the notes of its server and scope only, so notes that are lost cost hits. What
//! was refused once stays refused: writers leave a list only with everything that was fetched until then.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use pcmcache_shared::api::revocations::Revocations;
use pcmcache_shared::{ActionResult, Digest, Scope, Writer, disk};
use serde::{Deserialize, Serialize};

use super::sealed::{self, Sealed};
use super::{Kind, Store};
use crate::os::{self, Moment};

/// The largest notes about a server, in bytes: a thousand writers.
const MAX_NOTES: u64 = 1024 * 1024;

/// A result of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What the action made.
    pub result: ActionResult,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a result comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// An earlier version did not say.
    #[default]
    Unknown,
    /// It was compiled here.
    Own,
    /// It was fetched.
    Fetched(Fetched),
}

impl Origin {
    /// The server that it was fetched from, if it was.
    pub fn server(&self) -> Option<ServerId> {
        match self {
            Self::Fetched(fetched) => Some(fetched.server),
            Self::Own | Self::Unknown => None,
        }
    }
}

/// Where a result was fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// The server.
    pub server: ServerId,
    /// The scope it was found in.
    pub scope: Scope,
    /// Who published it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writers: Vec<Writer>,
    /// The generation of what was known of the server, at the epoch that it answered in.
    pub generation: u64,
}

/// A server, by the digest of its URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServerId(Digest);

impl std::fmt::Display for ServerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl ServerId {
    /// The server at this URL.
    pub fn of(url: &str) -> Self {
        Self(Digest::of(url))
    }
}

/// The scopes of a server whose results are used side by side.
pub const MAX_SCOPES: usize = 8;

/// What is known of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerNotes {
    /// The epoch it had last; none: it never said one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    /// A random number: another one, and what was fetched until then is forgotten.
    pub generation: u64,
    /// Whose results are not used, by the scope they are in. What is in other scopes is not used at all.
    revoked: BTreeMap<Scope, BTreeSet<Writer>>,
}

impl ServerNotes {
    /// Nothing is known yet. `fresh` is a number that never was: where notes were lost, what was fetched under them is too.
    pub fn new(fresh: u64) -> Self {
        Self { epoch: None, generation: fresh, revoked: BTreeMap::new() }
    }

    /// Whether what was fetched there may still be used.
    pub fn allow(&self, fetched: &Fetched) -> bool {
        let is_clean =
            |revoked: &BTreeSet<Writer>| !fetched.writers.iter().any(|writer| revoked.contains(writer));
        fetched.generation == self.generation && self.revoked.get(&fetched.scope).is_some_and(is_clean)
    }

    /// Whether they say all that there is to say of these scopes at this epoch.
    pub fn cover(&self, epoch: Option<u64>, scopes: &BTreeSet<Scope>) -> bool {
        self.epoch == epoch && scopes.iter().all(|scope| self.revoked.contains_key(scope))
    }

    /// The scopes to ask about: these, and some of those that were used before.
    pub fn with_scopes(&self, scopes: &BTreeSet<Scope>) -> BTreeSet<Scope> {
        let others = self.revoked.keys().filter(|scope| !scopes.contains(*scope));
        scopes.iter().chain(others).take(MAX_SCOPES).cloned().collect()
    }

    /// What is known once the server has said this, a list for each scope. Where it does not say all, and where it says
    /// less than before (it was set back), everything from there is forgotten, and `fresh` is the generation.
    pub fn after(&self, epoch: Option<u64>, said: Vec<(Scope, Revocations)>, fresh: u64) -> Self {
        let mut goes_on = self.epoch <= epoch;
        let mut revoked = BTreeMap::new();
        for (scope, Revocations { writers, complete, .. }) in said {
            let writers: BTreeSet<Writer> = writers.into_iter().collect();
            goes_on &= complete && self.revoked.get(&scope).is_none_or(|before| before.is_subset(&writers));
            revoked.insert(scope, writers);
        }
        Self { epoch, generation: if goes_on { self.generation } else { fresh }, revoked }
    }
}

impl Kept {
    pub(super) fn text(&self) -> io::Result<Vec<u8>> {
        let mut text = serde_json::to_vec(&self.result)?;
        text.push(b'\n');
        serde_json::to_writer(&mut text, &self.origin)?;
        text.push(b'\n');
        Ok(text)
    }

    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut lines = text.splitn(3, |byte| *byte == b'\n');
        let result: ActionResult = serde_json::from_slice(lines.next()?).ok()?;
        let origin = match lines.next() {
            Some(line) => serde_json::from_slice(line).ok()?,
            None => Origin::Unknown,
        };
        result.check().is_ok().then_some(Self { result, origin })
    }
}

impl Store {
    /// What is known of a server. Nothing, where it was never asked. The time of its file says when it was last asked, so
    /// reading leaves that alone.
    pub fn server_notes(&self, server: ServerId) -> Option<ServerNotes> {
        match self.peek(Kind::Servers, &server.0.to_string(), MAX_NOTES) {
            Sealed::Whole(body) => serde_json::from_slice(&body).ok(),
            Sealed::Missing | Sealed::Damaged => None,
        }
    }

    /// Whether the server was not asked for so long, or nobody knows for how long: the clock was set back. If so, whoever
    /// finds that out is the one to ask.
    pub fn is_to_be_asked(&self, server: ServerId, after: Duration) -> bool {
        let path = self.entry(Kind::Servers, &server.0.to_string());
        let long_ago = disk::metadata(&path)
            .is_ok_and(|metadata| Moment::modified(&metadata).is_apart(Moment::now(), after));
        if long_ago {
            os::renew(&path);
        }
        long_ago
    }

    /// Writes down what is known of a server. It survives a power cut: it says what must not be used.
    pub fn note_server(&self, server: ServerId, notes: &ServerNotes) -> io::Result<()> {
        let body = serde_json::to_vec(notes)?;
        self.grew_by(body.len() as u64);
        sealed::write_durably(&self.entry(Kind::Servers, &server.0.to_string()), &body)
    }

    /// Whether its server has not taken it back.
    pub fn still_allows(&self, fetched: &Fetched) -> bool {
        self.server_notes(fetched.server).is_some_and(|notes| notes.allow(fetched))
    }
}

#[cfg(test)]
mod tests {
    use pcmcache_shared::{Cost, Output, Role};

    use super::*;

    fn writers(names: &[&str]) -> Vec<Writer> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn fetched(by: &[&str], generation: u64) -> Fetched {
        let server = ServerId::of("http://cache");
        Fetched { server, scope: Scope::default(), writers: writers(by), generation }
    }

    fn elsewhere(by: &[&str]) -> Fetched {
        Fetched { scope: "pr-17".parse().unwrap(), ..fetched(by, 1) }
    }

    /// The notes once the server has said this of `main`.
    fn told(
        notes: &ServerNotes,
        epoch: Option<u64>,
        revoked: &[&str],
        complete: bool,
        fresh: u64,
    ) -> ServerNotes {
        let said = Revocations { epoch: epoch.unwrap_or(0), writers: writers(revoked), complete };
        notes.after(epoch, vec![(Scope::default(), said)], fresh)
    }

    #[test]
    fn what_any_of_its_writers_lost_is_not_used_nor_is_what_lies_in_a_scope_nobody_asked_about() {
        let notes = told(&ServerNotes::new(1), Some(1), &["mallory"], true, 2);
        assert!(notes.allow(&fetched(&["alice", "ci"], 1)) && notes.allow(&fetched(&[], 1)));
        assert!(!notes.allow(&fetched(&["alice", "mallory"], 1)));
        assert!(!notes.allow(&elsewhere(&["alice"])));
        let later = told(&notes, Some(2), &["alice", "mallory"], true, 3);
        assert!(!later.allow(&fetched(&["alice"], 1)) && later.allow(&fetched(&["bob"], 1)));
        assert_eq!((later.epoch, later.generation), (Some(2), 1));
    }

    #[test]
    fn a_server_that_does_not_say_all_or_says_less_than_before_loses_everything() {
        let notes = told(&ServerNotes::new(1), Some(7), &["mallory"], true, 2);
        let less: [(Option<u64>, &[&str], bool); 4] = [
            (Some(8), &["mallory"], false),
            (Some(6), &["mallory"], true),
            (Some(8), &["alice"], true),
            (None, &[], true),
        ];
        for (epoch, revoked, complete) in less {
            let after = told(&notes, epoch, revoked, complete, 3);
            let what = format!("{epoch:?} {revoked:?} {complete}");
            assert!(!after.allow(&fetched(&["bob"], 1)) && !after.allow(&fetched(&["mallory"], 1)), "{what}");
            assert!(after.allow(&fetched(&["bob"], 3)), "{what}");
        }
        assert!(told(&notes, Some(7), &["mallory"], true, 3).allow(&fetched(&["bob"], 1)));
        let without = told(&ServerNotes::new(1), None, &[], true, 2);
        assert!(
            without.allow(&fetched(&["bob"], 1)),
            "a server that has no epochs never takes anything back"
        );
    }

    #[test]
    fn scopes_are_asked_about_together_and_not_too_many() {
        let scopes = |names: std::ops::Range<usize>| -> BTreeSet<Scope> {
            names.map(|n| format!("pr-{n}").parse().unwrap()).collect()
        };
        let notes = told(&ServerNotes::new(1), Some(1), &[], true, 2);
        let main = BTreeSet::from([Scope::default()]);
        assert!(
            notes.cover(Some(1), &main)
                && !notes.cover(Some(2), &main)
                && !notes.cover(Some(1), &scopes(0..1))
        );
        assert_eq!(notes.with_scopes(&scopes(0..1)), &scopes(0..1) | &main);
        assert_eq!(notes.with_scopes(&scopes(0..MAX_SCOPES)), scopes(0..MAX_SCOPES));
    }

    #[test]
    fn an_entry_survives_its_text_and_one_without_an_origin_is_of_unknown_origin() {
        let outputs = vec![Output { role: Role::Object, digest: Digest::of("o"), size: 1 }];
        let result =
            ActionResult { outputs, cost: Cost::default(), builder: "b".to_owned(), signature: None };
        for origin in [Origin::Own, Origin::Unknown, Origin::Fetched(fetched(&["alice"], 3))] {
            let kept = Kept { result: result.clone(), origin };
            assert_eq!(Kept::parse(&kept.text().unwrap()), Some(kept));
        }
        let old = serde_json::to_vec(&result).unwrap();
        assert_eq!(Kept::parse(&old), Some(Kept { result: result.clone(), origin: Origin::Unknown }));
        assert_eq!(Kept::parse(&[&old[..], b"\nelsewhere\n"].concat()), None);
        let empty = ActionResult { outputs: Vec::new(), ..result };
        assert_eq!(Kept::parse(&Kept { result: empty, origin: Origin::Own }.text().unwrap()), None);
    }

    #[test]
    fn without_notes_nothing_that_was_fetched_is_used() {
        let dir = std::env::temp_dir().join(format!("pcmcache-origin-{}", std::process::id()));
        let store = Store::open(&dir).unwrap();
        let from = fetched(&["alice"], 1);
        assert!(!store.still_allows(&from));
        let note = |generation| {
            let notes = told(&ServerNotes::new(generation), None, &[], true, 9);
            store.note_server(from.server, &notes).unwrap();
        };
        note(1);
        assert!(store.still_allows(&from));
        fs_err::write(store.entry(Kind::Servers, &from.server.0.to_string()), "torn").unwrap();
        assert!(!store.still_allows(&from));
        note(2);
        assert!(!store.still_allows(&from), "what was known when it was fetched is lost");
        fs_err::remove_dir_all(&dir).unwrap();
    }
}
