//! `pcmcache login`: a session for a CI job, for what its CI system says of it.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use pcmcache_shared::api::limits;
use pcmcache_shared::api::token::Session;

use crate::remote::{self, Remote, RemoteError, ci};
use crate::settings::{Papers, Settings};

/// As long may a server or a CI system take to answer: the server may have to ask for keys itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// The exit status where the server says no, as opposed to not having been asked.
pub const REFUSED: u8 = 3;

/// What is asked for.
#[derive(Debug, Args)]
#[command(after_help = "\
The CI system's token is read from stdin, unless a flag says otherwise. The session's token goes to stdout, alone.

GitHub (the job needs 'permissions: id-token: write'):
  - run: pcmcache login --github --audience https://cache.example --env >> \"$GITHUB_ENV\"
GitLab (with 'id_tokens: CACHE_ID: {aud: https://cache.example}'):
  - export $(printenv CACHE_ID | pcmcache login --env)

A job of a fork is given no token by its CI system. It needs none for what the server lets everyone read.

Exit status: 0 and a session; 1 the CI system or the server could not be asked; 3 the server takes this job for nobody
it knows. A build goes on without a session: it is then not shared.")]
pub struct Login {
    /// The file that holds the CI system's token
    #[arg(long, value_name = "FILE", conflicts_with = "github")]
    oidc_token_file: Option<PathBuf>,
    /// Ask GitHub for its token: in a workflow's job
    #[arg(long, requires = "audience")]
    github: bool,
    /// The audience that the server's rules name
    #[arg(long, value_name = "AUDIENCE", requires = "github")]
    audience: Option<String>,
    /// Print lines for $GITHUB_ENV or `export`: PCMCACHE_TOKEN, and PCMCACHE_SCOPE and PCMCACHE_MODE to go with it
    #[arg(long)]
    env: bool,
}

/// The server was asked, and says no.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

impl Login {
    /// Gets the session and prints it.
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        let Some(url) = settings.remote.clone() else {
            bail!("set PCMCACHE_REMOTE to the server that the session is for");
        };
        let oidc = match (&self.audience, &self.oidc_token_file) {
            (Some(audience), _) => by_github(settings, audience)?,
            (None, Some(path)) => read(fs_err::File::open(path)?, &path.display().to_string())?,
            (None, None) if std::io::stdin().is_terminal() => {
                bail!(
                    "pipe the CI system's token in, or name its file with --oidc-token-file; see 'pcmcache login --help'"
                )
            }
            (None, None) => read(std::io::stdin(), "stdin")?,
        };
        let asking = remote::Settings {
            token: None,
            token_file: None,
            timeout: PATIENCE,
            ..remote::Settings::of(settings, url.clone())
        };
        let session = Remote::new(asking).and_then(|remote| remote.exchange(&oidc));
        let session = session.map_err(|error| explained(&error, &url))?;
        if is_github() {
            // Whatever is printed from here on, the log shows stars. A workflow's commands are heard on stderr as well.
            super::note(&format!("::add-mask::{}", session.token));
        }
        super::warn(&about(&session));
        super::say(&if self.env { variables(&session) } else { format!("{}\n", session.token) })
    }
}

/// A token of one line, with spaces around it perhaps.
fn read(from: impl Read, name: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    let most = u64::try_from(limits::MAX_TOKEN).unwrap_or(u64::MAX);
    from.take(most + 2).read_to_string(&mut text).with_context(|| format!("cannot read {name}"))?;
    let token = text.trim();
    match token.is_empty() || token.len() > limits::MAX_TOKEN || token.contains(char::is_whitespace) {
        true => bail!("{name} holds no token: one line of at most {} bytes", limits::MAX_TOKEN),
        false => Ok(token.to_owned()),
    }
}

fn is_github() -> bool {
    std::env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true")
}

/// GitHub is believed by the system's certificates, whatever our server is believed by.
fn by_github(settings: &Settings, audience: &str) -> anyhow::Result<String> {
    let variable = |name: &str| {
        std::env::var(name).ok().filter(|value| !value.is_empty()).with_context(|| {
            format!(
                "{name} is not set: GitHub sets it for jobs with 'permissions: id-token: write', but not for pull requests \
                 from forks"
            )
        })
    };
    let url = variable("ACTIONS_ID_TOKEN_REQUEST_URL")?;
    let token = Some(variable("ACTIONS_ID_TOKEN_REQUEST_TOKEN")?);
    let (papers, token_file, timeout) = (Papers::default(), None, PATIENCE);
    let asking =
        remote::Settings { papers, token, token_file, timeout, ..remote::Settings::of(settings, url) };
    ci::vouched_by_github(asking, audience).context("cannot ask GitHub for the job's token")
}

fn explained(error: &RemoteError, url: &str) -> anyhow::Error {
    let RemoteError::Refused { status, detail, .. } = error else { return anyhow::anyhow!("{url}: {error}") };
    let why = match status {
        401 => format!(
            "{url} does not accept the CI system's token: {detail}. It is good once and for some minutes, and its audience \
             must be the one that the server's rules name"
        ),
        403 => format!(
            "{url} has no rule for this job: {detail}. Whoever runs it adds one to the file of its --oidc"
        ),
        404 | 405 => {
            format!("{url} gives no sessions: it is an older server, or PCMCACHE_REMOTE is another one's URL")
        }
        _ => return anyhow::anyhow!("{url}: {error}"),
    };
    Refused(why).into()
}

/// What the session is good for.
fn about(session: &Session) -> String {
    let reads: Vec<&str> = session.reads.iter().map(|scope| scope.as_str()).collect();
    let reads = if reads.is_empty() { String::new() } else { format!(", reads {}", reads.join(", ")) };
    let writes = session
        .writes
        .as_ref()
        .map_or_else(|| "writes nothing".to_owned(), |scope| format!("writes {scope}"));
    format!("a session of {} minutes: {writes}{reads}", session.expires_in_s / 60)
}

/// The variables that a launcher goes by under this session.
fn variables(session: &Session) -> String {
    let mut text = format!("PCMCACHE_TOKEN={}\n", session.token);
    if let Some(scope) = session.writes.as_ref().or(session.reads.first()) {
        text.push_str(&format!("PCMCACHE_SCOPE={scope}\n"));
    }
    if session.writes.is_none() {
        text.push_str("PCMCACHE_MODE=read-only\n");
    }
    text
}

/// Whether the error is the server's no.
pub fn is_refusal(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_line() {
        let from = |text: &str| read(text.as_bytes(), "stdin").map_err(|error| error.to_string());
        assert_eq!(from(" the.jwt\n").as_deref(), Ok("the.jwt"));
        for bad in ["", "\n\n", "two words", "two\nlines\n", &"x".repeat(limits::MAX_TOKEN + 1)] {
            assert!(from(bad).unwrap_err().contains("holds no token"), "{bad:.20}");
        }
        assert!(read(&[0xff, 0xfe][..], "stdin").is_err());
    }

    #[test]
    fn the_variables_go_with_the_session() {
        let session = |reads: &[&str], writes: Option<&str>| Session {
            token: "t".to_owned(),
            expires_in_s: 300,
            reads: reads.iter().map(|scope| scope.parse().unwrap()).collect(),
            writes: writes.map(|scope| scope.parse().unwrap()),
        };
        assert_eq!(variables(&session(&["main"], Some("pr-17"))), "PCMCACHE_TOKEN=t\nPCMCACHE_SCOPE=pr-17\n");
        let reader = "PCMCACHE_TOKEN=t\nPCMCACHE_SCOPE=main\nPCMCACHE_MODE=read-only\n";
        assert_eq!(variables(&session(&["main"], None)), reader);
        assert_eq!(
            about(&session(&["main"], Some("pr-17"))),
            "a session of 5 minutes: writes pr-17, reads main"
        );
    }
}
