//! What goes wrong with a server, named by what the launcher does next.

use std::io;

use pcmcache_shared::api::problem::Code;
use pcmcache_shared::causes::causes;

use super::tls;

/// A question to the server that came to nothing. No kind of it fails a build.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// There is no server, or it makes everybody wait: trip the breaker and go on without.
    #[error("{during}: {why}")]
    Unreachable {
        /// What was being asked.
        during: &'static str,
        /// How it showed.
        why: Unreached,
    },
    /// The server is well and says no: go on without it this once.
    #[error("{during}: refused with {status} {}: {detail}", code.map_or("", Code::title))]
    Refused {
        /// What was being asked.
        during: &'static str,
        /// The HTTP status.
        status: u16,
        /// The problem's code, where the answer was a problem of ours.
        code: Option<Code>,
        /// The server's words.
        detail: String,
    },
    /// What the server sent is not what it must be: count it, compile.
    #[error("{during}: {what}")]
    Damaged {
        /// What was being asked.
        during: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// It is sound, and signed by nobody who is trusted: compile.
    #[error("{0}")]
    Unsigned(String),
    /// The blob is not there (any more): compile.
    #[error("the blob is gone")]
    Gone,
    /// A file of our own could not be read or written: nothing is wrong with the server.
    #[error(transparent)]
    Local(io::Error),
    /// The launcher was told to stop.
    #[error("interrupted")]
    Interrupted,
    /// Nothing can be asked with these settings: tell the user, and go on without.
    #[error("{0}")]
    Misconfigured(String),
}

/// How it showed that there is no server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreached {
    /// The connection failed, or was cut: it may be restarting.
    #[error("{0}")]
    Broken(String),
    /// It and this launcher do not believe each other's certificates.
    #[error("{0}")]
    Untrusted(String),
    /// It let a deadline pass.
    #[error("no answer in time")]
    Silent,
}

/// 503 in HTTP: what a server that goes down, or a proxy before one that is not up, says.
const UNAVAILABLE: u16 = 503;

impl RemoteError {
    pub(super) fn broken(during: &'static str, why: impl Into<String>) -> Self {
        Self::Unreachable { during, why: Unreached::Broken(why.into()) }
    }

    pub(super) fn cut(during: &'static str, error: reqwest::Error) -> Self {
        Self::broken(during, causes(&error.without_url()))
    }

    /// The same for a request that got no answer: it may be that one side does not believe the other. `unknown`: the
    /// server asked who we are and has never answered; `believed`: by what it should have been believed.
    pub(super) fn cut_by(during: &'static str, error: reqwest::Error, unknown: bool, believed: &str) -> Self {
        let error = error.without_url();
        match tls::disbelief(&error).or(unknown.then_some(tls::NOT_SHOWN)) {
            None => Self::broken(during, causes(&error)),
            Some(what) => {
                let why = format!("{what}: {} (believed: {believed})", causes(&error));
                Self::Unreachable { during, why: Unreached::Untrusted(why) }
            }
        }
    }

    pub(super) fn silent(during: &'static str) -> Self {
        Self::Unreachable { during, why: Unreached::Silent }
    }

    pub(super) fn damaged(during: &'static str, what: impl Into<String>) -> Self {
        Self::Damaged { during, what: what.into() }
    }

    /// Whether all launchers of this host had better leave the server alone for a while.
    pub fn trips_breaker(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// What `stats` counts it under.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unreachable { why: Unreached::Untrusted(_), .. } => "remote_untrusted",
            Self::Unreachable { .. } => "remote_unreachable",
            Self::Refused { status: 401, .. } => "remote_unauthorized",
            Self::Refused { code: Some(Code::ReadOnly), .. } => "remote_read_only",
            Self::Refused { status: 403, .. } => "remote_forbidden",
            Self::Refused { code: Some(Code::UnknownScope), .. } => "remote_unknown_scope",
            Self::Refused { code: Some(Code::WireVersion), .. } => "remote_version",
            Self::Refused { .. } => "remote_refused",
            Self::Damaged { .. } => "remote_damaged",
            Self::Unsigned(_) => "unsigned",
            Self::Gone => "remote_gone",
            Self::Local(_) => "remote_local",
            Self::Interrupted => "remote_interrupted",
            Self::Misconfigured(_) => "remote_misconfigured",
        }
    }

    /// Whether the server lets us read, and no more.
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::Refused { code: Some(Code::ReadOnly), .. })
    }

    /// Whether nothing else that is asked of the server with these settings will be answered either.
    pub fn shuts_us_out(&self) -> bool {
        let codes = [Code::Forbidden, Code::Unauthorized, Code::UnknownScope, Code::WireVersion];
        match self {
            Self::Refused { status: 401, .. } => true,
            Self::Refused { code, .. } => code.is_some_and(|code| codes.contains(&code)),
            Self::Unreachable { .. }
            | Self::Damaged { .. }
            | Self::Unsigned(_)
            | Self::Gone
            | Self::Local(_)
            | Self::Interrupted
            | Self::Misconfigured(_) => false,
        }
    }

    /// Whether the same may well succeed another time: the server is away, has too much to do, or is full.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => matches!(status, 408 | 429 | 500..),
            Self::Damaged { .. }
            | Self::Unsigned(_)
            | Self::Gone
            | Self::Local(_)
            | Self::Interrupted
            | Self::Misconfigured(_) => false,
        }
    }

    /// Whether the server's deadline passed in silence.
    pub(super) fn is_silence(&self) -> bool {
        matches!(self, Self::Unreachable { why: Unreached::Silent, .. })
    }

    /// Whether it looks like this while a server restarts.
    pub(super) fn may_be_restart(&self) -> bool {
        match self {
            Self::Unreachable { why, .. } => matches!(why, Unreached::Broken(_)),
            Self::Refused { status, .. } => *status == UNAVAILABLE,
            Self::Damaged { .. }
            | Self::Unsigned(_)
            | Self::Gone
            | Self::Local(_)
            | Self::Interrupted
            | Self::Misconfigured(_) => false,
        }
    }
}
