//! Tokens and keys: can they be read, by us and by nobody else, and do the pinned keys let anything through?

use std::path::Path;

use super::Finding;
use crate::os;
use crate::remote;
use crate::settings::{Settings, Source, config_path};
use crate::signing::SigningKey;

pub(super) fn examine(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(path) = &settings.token_file {
        findings.extend(secret("token file", path));
    }
    let config = config_path(&|name| std::env::var_os(name));
    let holds_token = settings.sources.get("token") == Some(&Source::File) && settings.token.is_some();
    if let Some(path) = config.filter(|_| holds_token) {
        findings.extend(secret("token in", &path));
    }
    findings.extend(in_the_clear(settings));
    findings.extend(settings.sign_key.as_deref().map(signing));
    findings.extend(pinned(settings));
    findings
}

/// A file with a token, if others may read it. That it is not there the server's room says, which needs it.
fn secret(what: &str, path: &Path) -> Option<Finding> {
    let is_open = fs_err::metadata(path).is_ok_and(|metadata| os::is_open_to_others(&metadata));
    let shown = path.display();
    is_open.then(|| {
        let remedy =
            format!("chmod 600 {shown}; if somebody may have read it, revoke the token and make another");
        Finding::care("token", format!("the {what} {shown} may be read by others"), remedy)
    })
}

/// A token that everybody on the way can read.
fn in_the_clear(settings: &Settings) -> Option<Finding> {
    let url = settings.remote.as_deref().filter(|url| url.starts_with("http://"))?;
    let has_token = settings.token.is_some() || settings.token_file.is_some();
    (has_token && !remote::is_this_host(url)).then(|| {
        let found = format!("the token goes to {url} for everyone on the way to read");
        Finding::care("token", found, "set PCMCACHE_REMOTE to an https:// URL of that server")
    })
}

fn signing(path: &Path) -> Finding {
    match SigningKey::read(path) {
        Ok(key) => {
            Finding::ok("signing key", format!("what is published is signed; others trust {}", key.public()))
        }
        Err(error) => Finding::care(
            "signing key",
            format!("nothing is published: {error}"),
            "set PCMCACHE_SIGN_KEY right, or unset it to publish unsigned",
        ),
    }
}

fn pinned(settings: &Settings) -> Option<Finding> {
    let keys = settings.trusted_keys.as_ref()?;
    let mut scopes: Vec<&str> = keys.scopes(&settings.scope).map(|scope| scope.as_str()).collect();
    scopes.sort_unstable();
    scopes.dedup();
    // That none could be read is among the faults of the settings.
    (!scopes.is_empty()).then(|| {
        let found = format!("only signed results are taken, in the scopes {}", scopes.join(", "));
        Finding::ok("trusted keys", found)
    })
}
