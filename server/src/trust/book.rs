//! The book of tokens: who was given one, until when, for what; and who was revoked.
//!
//! A token is 256 random bits, so its SHA-256 is all that is kept and all that is compared: what makes passwords need a slow
//! hash, that they can be guessed, does not hold. Who reads the book can use none of what is in it.
//!
//! What is here is pure; [`super::file`] reads and writes it.

use pcmcache_shared::{Digest, Scope, Writer};
use serde::{Deserialize, Serialize};

use super::WriterSet;

/// The version of the book's form.
pub const VERSION: u32 = 1;
/// The most tokens it holds, revoked ones included.
pub const MAX_TOKENS: usize = 10_000;
/// The most scopes that one token reads.
pub const MAX_READS: usize = 32;
/// The longest name of a token.
const MAX_NAME: usize = 64;

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Book {
    /// Which form this is.
    version: u32,
    /// Changes with every revocation, and never goes back.
    epoch: u64,
    /// In the order they were made.
    tokens: Vec<Entry>,
    /// In the order they were made.
    revocations: Vec<Revocation>,
}

/// A token that was given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What tells it from all others, and what results are published under.
    pub id: Writer,
    /// What people call it.
    pub name: String,
    /// The SHA-256 of its text.
    pub sha256: Digest,
    /// What it is good for.
    pub rights: Rights,
    /// When it was made, in seconds since 1970.
    pub created_s: u64,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_s: Option<u64>,
}

/// What a token is good for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rights {
    /// The scopes it may read, in the order they are looked at.
    #[serde(default)]
    pub reads: Vec<Scope>,
    /// The scope it may write, and read before all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writes: Option<Scope>,
    /// Whether it may read every scope.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub admin: bool,
    /// Whether it may see the metrics and the dashboard.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub observes: bool,
}

/// Someone whose credential ended before its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// Who.
    pub writer: Writer,
    /// Where they could write, as far as that is known: it matters to nobody who does not see this scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// When, in seconds since 1970.
    pub at_s: u64,
    /// Whether what they published is taken back too.
    pub hides: bool,
}

/// Why the book cannot be read, or not be changed like this.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBook {
    /// It is not JSON of this form.
    #[error("it is not a book of tokens: {0}")]
    Form(String),
    /// A newer server wrote it.
    #[error("it has the version {0}, this server knows {VERSION} only: use a newer one")]
    Version(u32),
    /// A name that cannot be one.
    #[error("a token's name is 1 to 64 letters, digits, '.', '_' and '-', not '{0}'")]
    Name(String),
    /// Another token is called so.
    #[error("there is a token '{0}' already: revoke it first, or choose another name")]
    Taken(String),
    /// A token that could do nothing.
    #[error("a token must be good for something: --read, --write, --admin or --observe")]
    Useless,
    /// It would read too many scopes.
    #[error("a token reads at most {MAX_READS} scopes")]
    TooManyReads,
    /// There are too many.
    #[error("a server has at most {MAX_TOKENS} tokens")]
    TooMany,
    /// There is nobody to revoke.
    #[error("there is no token, session or subject '{0}'; `pcmcache-server token list` shows the tokens")]
    Nobody(String),
}

impl Default for Book {
    fn default() -> Self {
        Self { version: VERSION, epoch: 0, tokens: Vec::new(), revocations: Vec::new() }
    }
}

impl Book {
    /// Reads a book.
    pub fn parse(text: &[u8]) -> Result<Self, BadBook> {
        #[derive(Deserialize)]
        struct Any {
            version: u32,
        }
        let form = |error: serde_json::Error| BadBook::Form(error.to_string());
        let any: Any = serde_json::from_slice(text).map_err(form)?;
        if any.version != VERSION {
            return Err(BadBook::Version(any.version));
        }
        let book: Self = serde_json::from_slice(text).map_err(form)?;
        match book.tokens.len() <= MAX_TOKENS {
            true => Ok(book),
            false => Err(BadBook::TooMany),
        }
    }

    /// The book's text.
    pub fn text(&self) -> Result<Vec<u8>, BadBook> {
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| BadBook::Form(error.to_string()))?;
        text.push(b'\n');
        Ok(text)
    }

    /// The tokens, in the order they were made.
    pub fn tokens(&self) -> &[Entry] {
        &self.tokens
    }

    /// The revocations, in the order they were made.
    pub fn revocations(&self) -> &[Revocation] {
        &self.revocations
    }

    /// Changes with every revocation.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// When the writer was revoked, if it was.
    pub fn revocation(&self, writer: &Writer) -> Option<&Revocation> {
        self.revocations.iter().find(|revocation| revocation.writer == *writer)
    }

    /// Those whose credentials are good no more.
    pub fn refused(&self) -> WriterSet {
        self.revocations.iter().map(|revocation| revocation.writer.clone()).collect()
    }

    /// Those of them whose results are taken back.
    pub fn hidden(&self) -> WriterSet {
        let hides = |revocation: &&Revocation| revocation.hides;
        self.revocations.iter().filter(hides).map(|revocation| revocation.writer.clone()).collect()
    }

    /// Adds a token.
    pub fn add(&mut self, entry: Entry) -> Result<(), BadBook> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let name = &entry.name;
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(plain) {
            return Err(BadBook::Name(name.clone()));
        }
        if self.living(name).is_some() {
            return Err(BadBook::Taken(name.clone()));
        }
        let Rights { reads, writes, admin, observes } = &entry.rights;
        if reads.is_empty() && writes.is_none() && !admin && !observes {
            return Err(BadBook::Useless);
        }
        if reads.len() > MAX_READS {
            return Err(BadBook::TooManyReads);
        }
        if self.tokens.len() >= MAX_TOKENS {
            return Err(BadBook::TooMany);
        }
        self.tokens.push(entry);
        Ok(())
    }

    /// The token of this name, or of this id, that is not revoked.
    fn living(&self, name_or_id: &str) -> Option<&Entry> {
        let called = |entry: &&Entry| entry.name == name_or_id || entry.id.as_str() == name_or_id;
        self.tokens.iter().filter(called).find(|entry| self.revocation(&entry.id).is_none())
    }

    /// Whom this names: a token by its name or id, a session, a subject, or whoever published before there were tokens.
    pub fn whom(&self, text: &str) -> Result<(Writer, Option<Scope>), BadBook> {
        let revoked = || self.tokens.iter().rfind(|entry| entry.id.as_str() == text || entry.name == text);
        if let Some(entry) = self.living(text).or_else(revoked) {
            return Ok((entry.id.clone(), entry.rights.writes.clone()));
        }
        let nobody = || BadBook::Nobody(text.to_owned());
        let writer: Writer = text.parse().map_err(|_| nobody())?;
        let is_known = writer == Writer::before_tokens() || is_of_a_job(&writer);
        if is_known { Ok((writer, None)) } else { Err(nobody()) }
    }

    /// Revokes; what was revoked with its results kept can lose them too. Says whether anything changed.
    pub fn revoke(&mut self, writer: Writer, scope: Option<Scope>, hides: bool, now_s: u64) -> bool {
        match self.revocations.iter_mut().find(|revocation| revocation.writer == writer) {
            Some(there) if there.hides || !hides => return false,
            Some(there) => there.hides = true,
            None => self.revocations.push(Revocation { writer, scope, at_s: now_s, hides }),
        }
        // Not a count: a book that was brought back from a backup must not say again what it said before.
        self.epoch = (self.epoch + 1).max(now_s);
        true
    }
}

/// Whether it is the name of a session, or of the repository behind one: these are in no book.
fn is_of_a_job(writer: &Writer) -> bool {
    let hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let name = writer.as_str();
    name.strip_prefix("s-").is_some_and(|rest| hex(rest, 24))
        || name.strip_prefix("subject-").is_some_and(|rest| hex(rest, 24))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, writes: Option<&str>) -> Entry {
        let rights = Rights {
            reads: vec!["main".parse().unwrap()],
            writes: writes.map(|scope| scope.parse().unwrap()),
            ..Rights::default()
        };
        let id = format!("t-{name}").parse().unwrap();
        Entry { id, name: name.to_owned(), sha256: Digest::of(name), rights, created_s: 5, expires_s: None }
    }

    fn revoked(book: &mut Book, text: &str, hides: bool) -> bool {
        let (writer, scope) = book.whom(text).unwrap();
        book.revoke(writer, scope, hides, 100)
    }

    #[test]
    fn a_book_survives_its_text() {
        let mut book = Book::default();
        book.add(entry("a", Some("main"))).unwrap();
        book.add(Entry { expires_s: Some(9), ..entry("b", None) }).unwrap();
        revoked(&mut book, "a", true);
        assert_eq!(Book::parse(&book.text().unwrap()).unwrap(), book);
    }

    #[test]
    fn what_is_no_book_is_refused() {
        let form = |text: &str| Book::parse(text.as_bytes()).unwrap_err();
        for bad in [
            "",
            "{",
            "[]",
            "{}",
            r#"{"version":1}"#,
            r#"{"version":1,"epoch":0,"tokens":[],"revocations":[],"x":1}"#,
        ] {
            assert!(matches!(form(bad), BadBook::Form(_)), "{bad}");
        }
        assert_eq!(form(r#"{"version":2,"new":true}"#), BadBook::Version(2));
    }

    #[test]
    fn a_token_needs_a_name_of_its_own_and_something_to_be_good_for() {
        let mut book = Book::default();
        book.add(entry("a", None)).unwrap();
        assert_eq!(book.add(entry("a", None)), Err(BadBook::Taken("a".into())));
        for bad in ["", "a b", "ä", "a\n", &"a".repeat(65)] {
            let named = Entry { name: bad.to_owned(), ..entry("x", None) };
            assert_eq!(book.add(named), Err(BadBook::Name(bad.to_owned())));
        }
        let useless = Entry { rights: Rights::default(), ..entry("b", None) };
        assert_eq!(book.add(useless), Err(BadBook::Useless));
        // A name is free again once its token is revoked.
        assert!(revoked(&mut book, "a", false));
        book.add(Entry { id: "t-a2".parse().unwrap(), ..entry("a", None) }).unwrap();
        assert_eq!(book.whom("a").unwrap().0.as_str(), "t-a2");
        assert_eq!(book.whom("t-a").unwrap().0.as_str(), "t-a");
    }

    #[test]
    fn a_revocation_hides_unless_told_otherwise_and_the_epoch_never_repeats() {
        let mut book = Book::default();
        book.add(entry("a", Some("main"))).unwrap();
        let a: Writer = "t-a".parse().unwrap();
        assert!(revoked(&mut book, "a", false));
        assert!(book.refused().has_any([&a]) && !book.hidden().has_any([&a]));
        assert_eq!(book.epoch(), 100);
        assert!(!revoked(&mut book, "a", false), "it is already");
        assert!(revoked(&mut book, "a", true), "its results go too");
        assert!(book.hidden().has_any([&a]));
        assert!(!revoked(&mut book, "t-a", true));
        assert_eq!(book.epoch(), 101);
        assert_eq!(book.revocation(&a).unwrap().scope, Some("main".parse().unwrap()));
    }

    #[test]
    fn sessions_subjects_and_the_time_before_tokens_can_be_revoked_unseen() {
        let book = Book::default();
        for good in ["s-0123456789abcdef01234567", "subject-0123456789abcdef01234567", "before-tokens"] {
            assert_eq!(book.whom(good).unwrap(), (good.parse().unwrap(), None));
        }
        for bad in ["", "s-", "s-0123456789ABCDEF01234567", "t-0123", "ci", "before tokens"] {
            assert_eq!(book.whom(bad), Err(BadBook::Nobody(bad.to_owned())));
        }
    }
}
