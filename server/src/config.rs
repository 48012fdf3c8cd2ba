//! Flags and environment.

mod binding;
mod command;
mod units;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser};
use pcmcache_shared::Scope;
use reqwest::Url;
use tracing_subscriber::EnvFilter;

use crate::space::Bounds;
use crate::trust::{self, BookFile, WithoutBook};
use crate::upkeep::Plan;
use crate::{connection, limits, log, tls};

pub use self::binding::{OpenToAll, check_binding};
pub use self::command::Command;
pub use self::units::{BadSize, BadSpan, ByteSize, Quota, Span};

/// Where it listens when nothing else was said.
const DEFAULT_LISTEN: &str = "127.0.0.1:7733";

/// Serves a team's cache of C++ modules: build leases, complete uploads only, verified blobs.
///
/// Each flag can be given as an environment variable instead; the flag wins. The first line on stdout is `listening on
/// http://ADDR:PORT` (https:// under TLS), and it comes once requests are answered; logs go to stderr. SIGTERM and SIGINT stop it: it takes
/// no more work, ends who only waits, gives uploads nine seconds, and exits with 0 within ten.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "pcmcache-server",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  pcmcache-server                                     on 127.0.0.1:7733, data under ~/.local/share
  pcmcache-server --listen 127.0.0.1:0                on a free port; stdout says which
  pcmcache-server --data-dir /var/lib/pcmcache --max-size 200G --max-blob 512M
  pcmcache-server --tls-cert cert.pem --tls-key key.pem      HTTPS
  pcmcache-server token --help                        make tokens; from the first one on they are needed

Then, on the same host:
  export PCMCACHE_REMOTE=http://127.0.0.1:7733
  curl http://127.0.0.1:7733/openapi.json             the contract
  curl http://127.0.0.1:7733/metrics                  the counts

Exit status: 0 stopped by a signal, 1 cannot run (the message says why), 2 wrong flags."
)]
pub struct Config {
    /// Where to listen. Without tokens only loopback addresses are taken: who reaches the port may read everything
    /// and publish anything.
    #[arg(
        long,
        env = "PCMCACHE_SERVER_LISTEN",
        value_name = "ADDR:PORT",
        default_value = DEFAULT_LISTEN,
        value_parser = address,
    )]
    pub listen: SocketAddr,

    /// Listen beyond loopback although there are no tokens. Whoever reaches the port can then read every source that
    /// was compiled, and publish object files that others link.
    #[arg(long, env = "PCMCACHE_SERVER_INSECURE_NO_TOKENS")]
    pub insecure_no_tokens: bool,

    /// A proxy that speaks TLS stands before this port, and nobody reaches it but by that proxy. Who has no token is
    /// then told apart by the last address in X-Forwarded-For, which the proxy must set.
    #[arg(long, env = "PCMCACHE_SERVER_BEHIND_PROXY")]
    pub behind_proxy: bool,

    /// Where everything is kept; made if it is not there, and used by one server at a time
    /// [default: $XDG_DATA_HOME/pcmcache-server, else ~/.local/share/pcmcache-server].
    #[arg(long, env = "PCMCACHE_SERVER_DATA_DIR", value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,

    /// The book of tokens, which `pcmcache-server token` writes. Once there is one, who shows none of them may do nothing
    /// [default: DIR/tokens.json of --data-dir, where that is there].
    #[arg(long, env = "PCMCACHE_SERVER_TOKENS", value_name = "FILE", global = true)]
    pub tokens: Option<PathBuf>,

    /// Which CI jobs may do what, by the OIDC tokens that GitHub Actions and GitLab give them (TOML; deploy/oidc.example.toml
    /// explains it). A job exchanges its token for a session of at most six hours.
    #[arg(long, env = "PCMCACHE_SERVER_OIDC", value_name = "FILE")]
    pub oidc: Option<PathBuf>,

    /// A scope that anyone may read and watch, without a token too: for jobs that get none, as those of forks do. Give
    /// several by giving it again, or with commas.
    #[arg(long, env = "PCMCACHE_SERVER_PUBLIC_READ", value_name = "SCOPE", value_delimiter = ',')]
    pub public_read: Vec<Scope>,

    /// The largest blob taken, in bytes or with K, M, G or T (powers of 1024). A larger output is compiled by
    /// everyone for themselves.
    #[arg(long, env = "PCMCACHE_SERVER_MAX_BLOB", value_name = "SIZE", default_value = "4G")]
    pub max_blob: ByteSize,

    /// How much all blobs may take, those on their way included; the least recently used results go when more is needed
    /// [default: what the disk has, less --keep-free].
    #[arg(long, env = "PCMCACHE_SERVER_MAX_SIZE", value_name = "SIZE")]
    pub max_size: Option<ByteSize>,

    /// How much may be visible in a scope; may be given more than once (in the environment: separated by commas).
    #[arg(long, env = "PCMCACHE_SERVER_QUOTA", value_name = "SCOPE=SIZE", value_delimiter = ',')]
    pub quota: Vec<Quota>,

    /// Results that nobody used for so long go: days, hours, minutes or seconds, as in 30d; it is counted while the server
    /// runs [default: they stay until room is needed].
    #[arg(long, env = "PCMCACHE_SERVER_MAX_AGE", value_name = "TIME")]
    pub max_age: Option<Span>,

    /// How much is read again each second, all blobs over and over, to see whether the disk still has what it was
    /// given; 0 for not at all.
    #[arg(long, env = "PCMCACHE_SERVER_SCRUB_RATE", value_name = "SIZE", default_value = "8M")]
    pub scrub_rate: ByteSize,

    /// How much stays free on the disk, for the index and for whatever else lives there.
    #[arg(long, env = "PCMCACHE_SERVER_KEEP_FREE", value_name = "SIZE", default_value = "1G")]
    pub keep_free: ByteSize,

    /// How many connections may be open at once; one more is closed at once. A launcher that waits for a build keeps
    /// one open, and costs about 35 KiB.
    #[arg(long, env = "PCMCACHE_SERVER_MAX_CONNECTIONS", value_name = "N", default_value_t = 16_384)]
    pub max_connections: usize,

    /// How many of them may come from one address (of IPv6: from one /64 network); 0: no bound. Where --behind-proxy
    /// is said all come from the proxy, and there is no bound.
    #[arg(
        long,
        env = "PCMCACHE_SERVER_MAX_CONNECTIONS_PER_ADDRESS",
        value_name = "N",
        default_value_t = 4096
    )]
    pub max_connections_per_address: usize,

    /// How many requests a second one client may make, twice as many for a moment; more are answered 429, and then a
    /// launcher compiles for itself. A client is a token, or without one an address. 0: no bound.
    #[arg(long, env = "PCMCACHE_SERVER_RATE", value_name = "N", default_value_t = 10_000)]
    pub rate: u32,

    /// How many requests of one client may be under way at once, but for those that wait. 0: no bound.
    #[arg(long, env = "PCMCACHE_SERVER_CONCURRENCY", value_name = "N", default_value_t = 2048)]
    pub concurrency: usize,

    /// How many launchers of one client may wait for a build, or build, at once. 0: no bound.
    #[arg(long, env = "PCMCACHE_SERVER_WAITS", value_name = "N", default_value_t = 10_000)]
    pub waits: usize,

    /// Speak TLS with this certificate (PEM: it, then those between it and its root). Changed files are taken up
    /// within ten seconds, and at once on SIGHUP; a pair that cannot be used is logged, and the old one stays.
    #[arg(long, env = "PCMCACHE_SERVER_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's key (PEM, not encrypted); nobody else should be able to read it.
    #[arg(long, env = "PCMCACHE_SERVER_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Take only clients that show a certificate of this authority (PEM). That is beside tokens, not instead of
    /// them: a certificate lets a client connect, and says nothing about what it may read or write.
    #[arg(long, env = "PCMCACHE_SERVER_TLS_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,

    /// What to log: error, warn, info, debug or trace, also by room (`info,pcmcache_server::http=debug`).
    #[arg(long, env = "PCMCACHE_SERVER_LOG", value_name = "FILTER", default_value = "info", value_parser = filter)]
    pub log: String,

    /// How to write the log.
    #[arg(long, env = "PCMCACHE_SERVER_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: log::Format,

    /// Write the account of all writes (who, from where, what, in which scope, to what end) to this file, a JSON object
    /// a line, and not to the log. It is appended to, and opened anew when it was renamed away or on SIGHUP.
    #[arg(long, env = "PCMCACHE_SERVER_AUDIT_LOG", value_name = "FILE")]
    pub audit_log: Option<PathBuf>,

    /// Export a span for each request to a collector that speaks OTLP over HTTP (protobuf), as http://localhost:4318. The
    /// usual variables are heeded too: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER,
    /// OTEL_EXPORTER_OTLP_HEADERS, OTEL_BSP_*; OTEL_SDK_DISABLED=true ends it.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL", value_parser = endpoint)]
    pub otlp_endpoint: Option<Url>,

    /// What connections may cost beside their number: no flags, but a test sets them.
    #[arg(skip)]
    pub limits: connection::Limits,

    /// What to do other than to serve.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// There is no place to keep data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither XDG_DATA_HOME nor HOME is set: say where to keep data with --data-dir")]
pub struct NoDataDir;

impl Config {
    /// The flags' defaults, for a server whose data is kept in `data_dir`.
    pub fn for_dir(data_dir: impl Into<PathBuf>) -> Self {
        let mut config = Self::parse_from([env!("CARGO_PKG_NAME")]);
        config.data_dir = Some(data_dir.into());
        config
    }

    /// Where everything is kept.
    pub fn data_dir(&self) -> Result<PathBuf, NoDataDir> {
        if let Some(dir) = &self.data_dir {
            return Ok(dir.clone());
        }
        // A relative XDG_DATA_HOME is to be ignored, says its specification.
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        absolute("XDG_DATA_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
            .map(|data| data.join("pcmcache-server"))
            .ok_or(NoDataDir)
    }

    /// The command line and the environment, or the end of the program with what is wrong with them.
    pub fn from_command_line() -> Self {
        Self::parse().checked().unwrap_or_else(|error| error.exit())
    }

    /// The same flags, if they can stand together.
    ///
    /// # Errors
    /// What a wrong flag gives.
    pub fn checked(self) -> Result<Self, clap::Error> {
        if self.command.is_some() {
            return Ok(self);
        }
        match check_binding(self.listen, self.has_tokens(), self.insecure_no_tokens) {
            Ok(()) => Ok(self),
            Err(open) => {
                let text = format!("--listen {open}");
                Err(Self::command().error(ErrorKind::ValueValidation, text))
            }
        }
    }

    /// What the log should begin with.
    pub fn warning(&self) -> Option<&'static str> {
        binding::warning(self.listen, self.has_tokens(), self.behind_proxy || self.tls_cert.is_some())
    }

    /// Whether anyone must show a token.
    fn has_tokens(&self) -> bool {
        self.tokens.is_some() || self.oidc.is_some() || self.book().is_ok_and(|book| book.path().exists())
    }

    /// Where the book of tokens is, or would be.
    pub fn book(&self) -> Result<BookFile, NoDataDir> {
        match &self.tokens {
            Some(path) => Ok(BookFile::new(path.clone())),
            None => Ok(BookFile::new(self.data_dir()?.join("tokens.json"))),
        }
    }

    /// Whom to let in.
    pub fn trust(&self) -> Result<trust::Settings, NoDataDir> {
        let without_book = match (&self.tokens, &self.oidc) {
            (Some(_), _) => WithoutBook::Mistake,
            (None, Some(_)) => WithoutBook::Empty,
            (None, None) => WithoutBook::Open,
        };
        Ok(trust::Settings { book: self.book()?, without_book, public: self.public_read.clone() })
    }

    /// The files of TLS, if it is to be spoken.
    pub fn tls_files(&self) -> Option<tls::Files> {
        let (cert, key) = self.tls_cert.clone().zip(self.tls_key.clone())?;
        Some(tls::Files { cert, key, client_ca: self.tls_client_ca.clone() })
    }

    /// How much the store may take.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            max_size: self.max_size.map(|size| size.0),
            quotas: self.quota.iter().map(|quota| (quota.scope.clone(), quota.size.0)).collect(),
            keep_free: self.keep_free.0,
        }
    }

    /// How the store is kept.
    pub fn plan(&self) -> Plan {
        let scrub_rate = Some(self.scrub_rate.0).filter(|rate| *rate > 0);
        Plan { max_age: self.max_age.map(|span| span.0), scrub_rate }
    }

    /// What connections may cost.
    pub fn connection_limits(&self) -> connection::Limits {
        let per_address = if self.behind_proxy { 0 } else { self.max_connections_per_address };
        connection::Limits {
            connections: self.max_connections,
            connections_per_address: per_address,
            ..self.limits.clone()
        }
    }

    /// What one client may ask for.
    pub fn client_bounds(&self) -> limits::Bounds {
        limits::Bounds { rate: self.rate, concurrency: self.concurrency, waits: self.waits }
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.strip_prefix("localhost:").map_or(text.to_owned(), |port| format!("127.0.0.1:{port}"));
    text.parse().map_err(|_| format!("expected ADDR:PORT, as in {DEFAULT_LISTEN} or [::1]:7733"))
}

fn endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    match url.scheme() {
        "https" | "http" if url.host().is_some() => Ok(url),
        _ => Err("expected a URL of http or https, as in http://localhost:4318".to_owned()),
    }
}

fn filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_flags_are_well_formed_and_each_has_its_variable() {
        let command = Config::command();
        command.clone().debug_assert();
        for flag in
            command.get_arguments().filter(|flag| !["help", "version"].contains(&flag.get_id().as_str()))
        {
            let variable = match flag.get_id().as_str() {
                // Everyone who exports spans knows it by this name.
                "otlp_endpoint" => "OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(),
                ours => format!("PCMCACHE_SERVER_{}", ours.to_uppercase()),
            };
            assert_eq!(flag.get_env().unwrap(), variable.as_str());
            assert!(flag.get_help().is_some(), "{variable}");
        }
    }

    #[test]
    fn only_loopback_is_taken_unless_it_is_said_otherwise() {
        for good in ["127.0.0.1:0", "[::1]:7733", "localhost:7733"] {
            let config = Config::try_parse_from(["pcmcache-server", "--listen", good]).unwrap();
            assert!(config.checked().unwrap().warning().is_none(), "{good}");
        }
        for bad in ["127.0.0.1", "7733", "host:80", ""] {
            assert!(address(bad).is_err(), "{bad}");
        }
        let open = ["pcmcache-server", "--listen", "0.0.0.0:1", "--insecure-no-tokens"];
        let error = Config::try_parse_from(&open[..3]).unwrap().checked().unwrap_err();
        assert!(error.to_string().contains("--listen 0.0.0.0:1 can be reached"), "{error}");
        assert_eq!(error.exit_code(), 2);
        assert!(Config::try_parse_from(open).unwrap().checked().unwrap().warning().is_some());
    }

    #[test]
    fn quotas_add_up_from_all_flags() {
        let quota = |scope: &str, size| Quota { scope: scope.parse().unwrap(), size: ByteSize(size) };
        let config = Config::parse_from(["pcmcache-server", "--quota", "a=1K,b=2K", "--quota", "c=3K"]);
        assert_eq!(config.quota, [quota("a", 1 << 10), quota("b", 2 << 10), quota("c", 3 << 10)]);
        assert_eq!(config.bounds().largest(&"b".parse().unwrap()), 2 << 10);
    }
}
