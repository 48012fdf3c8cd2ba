//! What the server itself asks of others by HTTP: the keys of issuers, and a collector of traces.
//!
//! Nothing goes to a place that the person in charge did not name: no redirect is followed, and no proxy is guessed but that
//! of the environment.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pcmcache_shared::causes::causes;
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use rustls::{ClientConfig, RootCertStore};

/// A client that believes the system's certificates, and that gives a request up after `patience`.
pub fn client(patience: Duration) -> Result<Client, String> {
    let mut roots = RootCertStore::empty();
    let (good, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if good == 0 {
        tracing::warn!("the system has no certificates: nobody can be asked for anything by https");
    }
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(Policy::none())
        .timeout(patience)
        .build()
        .map_err(|error| causes(&error))
}

/// Whether this very host is meant.
pub fn is_here(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|host| host.is_loopback())
}
