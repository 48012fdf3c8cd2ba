//! The server: is it there, does it let us build and publish, and what does its clock show?

use std::time::{Duration, SystemTime};

use pcmcache_shared::api::acquire::{AcquireMode, AcquireRequest};
use pcmcache_shared::api::problem::Code;
use pcmcache_shared::api::token::WhoAmI;
use pcmcache_shared::{Claim, ReleaseReason, Scope, UnitKey};

use super::Finding;
use crate::local::Store;
use crate::os;
use crate::remote::agent::{Agent, Knock};
use crate::remote::{self, Acquired, Remote, RemoteError};
use crate::settings::{Mode, Settings, When};

const WHAT: &str = "server";
const AGENT: &str = "agent";
/// A clock that is further off than this confuses who reads logs; nothing else depends on it.
const ODD: Duration = Duration::from_secs(60);

pub(super) fn examine(settings: &Settings) -> Vec<Finding> {
    let Some(url) = &settings.remote else {
        return vec![Finding::ok(WHAT, "none is set: results stay on this machine")];
    };
    let remote = match Remote::new(remote::Settings::of(settings, url.clone())) {
        Ok(remote) => remote,
        Err(error) => return vec![Finding::care(WHAT, error.to_string(), "set what it names right")],
    };
    let date = match remote.date() {
        Ok(date) => date,
        Err(error) => {
            let within = settings.timeout.as_secs_f64();
            return vec![Finding::care(
                WHAT,
                format!("{url} does not answer as it should within {within} s: {error}"),
                match error.name() {
                    "remote_untrusted" => {
                        "set PCMCACHE_CA_FILE to the authority that signed for the server, PCMCACHE_REMOTE to a \
                         name in its certificate, and PCMCACHE_CLIENT_CERT and _KEY if it asks for them; until \
                         then builds go on without it"
                    }
                    _ => {
                        "start pcmcache-server there, or set PCMCACHE_REMOTE right; until then builds go on \
                         without it"
                    }
                },
            )];
        }
    };
    let mut findings = vec![rights(settings, &remote, url)];
    findings.extend(skew(&date));
    findings.push(agent(settings, url));
    findings
}

/// Whether launchers share their connections.
fn agent(settings: &Settings, url: &str) -> Finding {
    let agent = Store::open(&settings.dir).ok().and_then(|store| Agent::wanted(settings, url, store.root()));
    let Some(agent) = agent else {
        let why = match settings.agent {
            When::Off => "it is set to off",
            When::Auto | When::On => "for this server it is not worth it",
        };
        return Finding::ok(AGENT, format!("none: {why}; each launcher connects for itself"));
    };
    match agent.knock() {
        Knock::Answered(words) => Finding::ok(AGENT, format!("it is up: {words}")),
        Knock::Absent => Finding::ok(AGENT, "none is up; the next launcher that asks the server starts it"),
        Knock::Refused | Knock::Silent => {
            Finding::ok(AGENT, "it is up, and busy; launchers connect for themselves meanwhile")
        }
        Knock::Stopped => {
            Finding::ok(AGENT, "one was there that somebody stopped; the next launcher starts another")
        }
    }
}

/// What the server lets us do in the scope that is set.
fn rights(settings: &Settings, remote: &Remote, url: &str) -> Finding {
    let me = match remote.who_am_i() {
        Ok(me) => me,
        // A server from before there were tokens.
        Err(RemoteError::Refused { status: 404, .. }) => return may_build(settings, remote, url),
        Err(error @ RemoteError::Refused { code: Some(Code::WireVersion), .. }) => {
            return Finding::care(
                WHAT,
                format!("{url} answers, but not to this version: {error}"),
                "install the one it names",
            );
        }
        Err(error) => {
            return Finding::care(
                WHAT,
                format!("{url} answers, but not to this token: {error}"),
                "ask whoever runs it for a token (`pcmcache-server token create`), and set PCMCACHE_TOKEN or \
                 PCMCACHE_TOKEN_FILE; until then builds go on without the server",
            );
        }
    };
    let scope = &settings.scope;
    let (may_read, may_write) = (me.admin || me.reads.contains(scope), me.writes.as_ref() == Some(scope));
    match &me.writes {
        _ if may_write && settings.mode == Mode::ReadWrite => may_build(settings, remote, url),
        _ if may_write || may_read && settings.mode != Mode::ReadWrite => Finding::ok(
            WHAT,
            format!("{url} answers; {} in the scope {scope}, mode {}", can(&me), settings.mode.word()),
        ),
        Some(other) => Finding::care(
            WHAT,
            format!("{url} answers, but the scope is {scope}, and this token {}", can(&me)),
            format!("set PCMCACHE_SCOPE={other}: what it reads besides is looked through as well"),
        ),
        None if may_read => Finding::care(
            WHAT,
            format!("{url} answers, but this token {}, and the mode is read-write", can(&me)),
            "set PCMCACHE_MODE=read-only, so that nothing else is tried, or ask for a token that writes",
        ),
        None => Finding::care(
            WHAT,
            format!("{url} answers, but nothing in the scope {scope} is for who asks: {}", can(&me)),
            "set PCMCACHE_TOKEN (or PCMCACHE_TOKEN_FILE) and PCMCACHE_SCOPE right; until then builds go on without \
             the server",
        ),
    }
}

/// What a credential is good for.
fn can(me: &WhoAmI) -> String {
    let reads: Vec<&str> = me.reads.iter().map(Scope::as_str).collect();
    let reads = if me.admin { "everything".to_owned() } else { reads.join(", ") };
    let does = match (&me.writes, reads.is_empty()) {
        (Some(scope), true) => format!("writes the scope {scope}"),
        (Some(scope), false) => format!("writes the scope {scope} and reads {reads}"),
        (None, false) => format!("reads {reads}"),
        (None, true) => "reads nothing".to_owned(),
    };
    match me.expires_in_s {
        Some(seconds) => format!("{} {does} for {}", me.id, in_words(seconds)),
        None => format!("{} {does}", me.id),
    }
}

fn in_words(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} minutes", seconds / 60),
        7200..=172_799 => format!("{} hours", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Takes a lease that nobody else wants, and gives it back.
fn may_build(settings: &Settings, remote: &Remote, url: &str) -> Finding {
    let random: [u8; 32] = os::random();
    let request = AcquireRequest {
        claim: Claim::from(UnitKey::from_bytes(random)),
        unit: None,
        known: Vec::new(),
        request_id: format!("{:032x}", u128::from_ne_bytes(os::random())),
        holder: String::new(),
        subject: "doctor".to_owned(),
        mode: AcquireMode::Build,
        wait_ms: 0,
        hold: true,
    };
    match remote.acquire(&request, &mut || {}, &|| false).map(|answer| answer.acquired) {
        Ok(Acquired::Granted(lease)) => {
            lease.release(ReleaseReason::Abandoned);
            Finding::ok(WHAT, format!("{url} answers, and grants leases in the scope {}", settings.scope))
        }
        Ok(Acquired::Hit(_) | Acquired::Sets(_) | Acquired::Alone(_) | Acquired::WaitOver) => {
            Finding::care(WHAT, format!("{url} answers, but grants no lease"), "look at the server's log")
        }
        Err(error) => Finding::care(
            WHAT,
            format!("{url} answers, but refuses a lease: {error}"),
            "set PCMCACHE_TOKEN and PCMCACHE_SCOPE right, or PCMCACHE_MODE=read-only",
        ),
    }
}

fn skew(date: &str) -> Option<Finding> {
    let theirs = httpdate::parse_http_date(date).ok()?;
    let ours: SystemTime = os::wall_clock();
    let apart = ours.duration_since(theirs).unwrap_or_else(|behind| behind.duration());
    (apart > ODD).then(|| {
        Finding::care(
            "clock",
            format!("the server's clock is {} s away from this machine's", apart.as_secs()),
            "set both by NTP; nothing that is cached depends on it, but logs are hard to read",
        )
    })
}
