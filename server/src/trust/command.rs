//! `pcmcache-server token`: makes, lists and revokes tokens in the book. A running server sees the change by itself.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;
use pcmcache_shared::Scope;

use super::book::{Book, Entry, Rights};
use super::file::BookFile;
use super::secret::{self, Token};
use super::subject::Subject;
use crate::clock::{Clock, Entropy};

/// What to do with the tokens.
#[derive(Debug, Clone, Subcommand)]
pub enum TokenCommand {
    /// Make a token. Its text is printed once, alone on stdout, and kept nowhere.
    #[command(after_help = "\
Examples:
  pcmcache-server token create --name ci-main --write main
  pcmcache-server token create --name laptops --read main --expires 90d
  pcmcache-server token create --name nightly --write nightly --read main
  pcmcache-server token create --name prometheus --observe

A running server takes it at once. A scope is there as soon as a token names it. Without --write, what the
holder compiles is shared with nobody.")]
    Create {
        /// What people call it: 1 to 64 letters, digits, '.', '_' and '-'.
        #[arg(long, value_name = "NAME")]
        name: String,
        /// A scope it may read; give several in the order they are to be looked at. The one it writes is read first
        /// and need not be named.
        #[arg(long, value_name = "SCOPE")]
        read: Vec<Scope>,
        /// The scope it may write. Whatever is published there, all who read it will link: give it to machines that
        /// build reviewed code only, and other scopes to others.
        #[arg(long, value_name = "SCOPE")]
        write: Option<Scope>,
        /// It may read every scope, and see the metrics and the dashboard.
        #[arg(long)]
        admin: bool,
        /// It may see the metrics and the dashboard.
        #[arg(long)]
        observe: bool,
        /// When it ends, as 12h or 90d; without, only when it is revoked.
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        expires: Option<Duration>,
    },
    /// List the tokens and whoever else was revoked. Their texts are not known.
    List,
    /// Revoke a token, a CI job's session or a repository. What it published is taken back at once, on the server and by
    /// all clients that talk to it.
    #[command(after_help = "\
Examples:
  pcmcache-server token revoke laptops                     the token, and all it published
  pcmcache-server token revoke laptops --keep-results      it leaked, and was not used to publish
  pcmcache-server token revoke s-0123456789abcdef01234567  one CI job, by the session that the audit log names
  pcmcache-server token revoke --subject github:123456789  all jobs of a repository
  pcmcache-server token revoke before-tokens               what was published when there were no tokens")]
    Revoke {
        /// The token's name or id, or the id of a session.
        #[arg(value_name = "NAME|ID", required_unless_present = "subject")]
        whom: Option<String>,
        /// A repository: the issuer's name in the OIDC file, and the numeric id there.
        #[arg(long, value_name = "ISSUER:ID", conflicts_with = "whom")]
        subject: Option<Subject>,
        /// Leave what it published where it is.
        #[arg(long)]
        keep_results: bool,
    },
}

impl TokenCommand {
    /// Does it. What a program may want goes to `out`, the rest to `about`.
    pub fn run(
        &self,
        file: &BookFile,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
        out: &mut dyn Write,
        about: &mut dyn Write,
    ) -> anyhow::Result<()> {
        let now_s = clock.unix_s();
        match self {
            Self::Create { name, read, write, admin, observe, expires } => {
                let token = Token::generate(entropy).context("cannot make a token")?;
                let entry = Entry {
                    id: secret::name("t", entropy).context("cannot make a token")?,
                    name: name.clone(),
                    sha256: token.hash(),
                    rights: Rights {
                        reads: read.clone(),
                        writes: write.clone(),
                        admin: *admin,
                        observes: *observe,
                    },
                    created_s: now_s,
                    expires_s: expires.map(|life| now_s.saturating_add(life.as_secs())),
                };
                let line = describe(&entry, &Book::default(), now_s);
                file.change(|book| book.add(entry))?;
                writeln!(
                    about,
                    "{line}\nin {}; the token itself is shown this once:",
                    file.path().display()
                )?;
                writeln!(out, "{}", token.expose())?;
            }
            Self::List => list(&file.read()?.unwrap_or_default(), now_s, out)?,
            Self::Revoke { whom, subject, keep_results } => {
                let changed = file.change(|book| {
                    let (writer, scope) = match subject {
                        Some(subject) => (subject.writer(), None),
                        None => book.whom(whom.as_deref().unwrap_or_default())?,
                    };
                    Ok((book.revoke(writer.clone(), scope, !keep_results, now_s), writer))
                })?;
                let results =
                    if *keep_results { "its results are kept" } else { "its results are taken back" };
                match changed {
                    (true, writer) => writeln!(about, "{writer} is revoked; {results}")?,
                    (false, writer) => writeln!(about, "{writer} was revoked already")?,
                }
            }
        }
        Ok(())
    }
}

fn list(book: &Book, now_s: u64, out: &mut dyn Write) -> io::Result<()> {
    for entry in book.tokens() {
        writeln!(out, "{}", describe(entry, book, now_s))?;
    }
    let is_no_token = |writer| !book.tokens().iter().any(|entry| entry.id == writer);
    for revocation in book.revocations().iter().filter(|revocation| is_no_token(revocation.writer.clone())) {
        writeln!(out, "{}  {}", revocation.writer, revoked(revocation.hides))?;
    }
    Ok(())
}

/// A token in one line.
fn describe(entry: &Entry, book: &Book, now_s: u64) -> String {
    let Entry { id, name, rights, expires_s, .. } = entry;
    let mut parts = vec![format!("{id}  {name}")];
    parts.extend(rights.writes.iter().map(|scope| format!("writes {scope}")));
    if !rights.reads.is_empty() {
        parts.push(format!("reads {}", rights.reads.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ")));
    }
    if rights.admin {
        parts.push("admin".to_owned());
    } else if rights.observes {
        parts.push("observes".to_owned());
    }
    match (book.revocation(id), expires_s) {
        (Some(revocation), _) => parts.push(revoked(revocation.hides).to_owned()),
        (None, Some(end)) if *end <= now_s => parts.push("expired".to_owned()),
        (None, Some(end)) => parts.push(format!("ends in {}", span(end - now_s))),
        (None, None) => {}
    }
    parts.join("  ")
}

fn revoked(hides: bool) -> &'static str {
    if hides { "revoked, results taken back" } else { "revoked, results kept" }
}

/// A span of time in a unit that fits, rounded up: what was made for 90 days has 90 days a second later.
fn span(seconds: u64) -> String {
    match seconds {
        172_800.. => format!("{}d", seconds.div_ceil(86_400)),
        7200.. => format!("{}h", seconds.div_ceil(3600)),
        _ => format!("{}m", seconds.div_ceil(60)),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a number and m, h or d, as in 90d".to_owned();
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds = match unit {
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text.strip_suffix(unit).unwrap_or_default().parse().map_err(|_| wrong())?;
    match number.checked_mul(seconds).filter(|seconds| (1..=100 * 366 * 86_400).contains(seconds)) {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => Err("a token lives between a minute and a hundred years".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [("1m", 60), ("12h", 43_200), ("90d", 7_776_000)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "d", "90", "0d", "-1d", "1.5h", "1w", "90 d", "40000d", "99999999999999999999d", "1ä"]
        {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!((span(30), span(7200), span(200_000)), ("1m".into(), "2h".into(), "3d".into()));
    }
}
