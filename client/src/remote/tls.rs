//! TLS as a launcher speaks it: whom it believes, and what it shows of itself.
//!
//! Files are read when a server is to be asked, and only then: a local hit opens none of them.

use std::error::Error;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::{ClientConfig, ResolvesClientCert};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, RootCertStore, SignatureScheme};

use super::RemoteError;
use crate::settings::Papers;

/// The largest file that is read, in bytes. A system's bundle has a quarter of a megabyte.
const MAX_PEM: u64 = 4 * 1024 * 1024;

/// What may be spoken inside, best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// A configuration for servers that speak TLS; `asked` becomes true once one asks who we are.
pub(super) fn config(papers: &Papers, asked: Arc<AtomicBool>) -> Result<ClientConfig, RemoteError> {
    let builder = builder()?.with_root_certificates(roots(papers)?);
    let mut config = match (&papers.client_cert, &papers.client_key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let pair = |error| {
                let (cert, key) = (cert.display(), key.display());
                wrong(format!("client_cert {cert} and client_key {key} do not go together: {error}"))
            };
            let (certs, key) = (certificates("client_cert", cert)?, private_key("client_key", key)?);
            builder.with_client_auth_cert(certs, key).map_err(pair)?
        }
        (Some(_), None) => return Err(wrong("client_cert is set and client_key is not")),
        (None, Some(_)) => return Err(wrong("client_key is set and client_cert is not")),
    };
    let shows = Arc::clone(&config.client_auth_cert_resolver);
    config.client_auth_cert_resolver = Arc::new(Noting { shows, asked });
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

/// Shows what it has, and notes that it was asked. A server that refuses what it was shown closes the connection under
/// HTTP/2's feet, and then this is all that tells why.
#[derive(Debug)]
struct Noting {
    shows: Arc<dyn ResolvesClientCert>,
    asked: Arc<AtomicBool>,
}

impl ResolvesClientCert for Noting {
    fn resolve(&self, hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.shows.resolve(hints, schemes)
    }

    fn has_certs(&self) -> bool {
        self.shows.has_certs()
    }
}

/// By what servers are believed, for people.
pub(super) fn believed(papers: &Papers) -> String {
    match &papers.ca_file {
        Some(path) => format!("the certificates in {}", path.display()),
        None => "the system's certificates".to_owned(),
    }
}

fn roots(papers: &Papers) -> Result<RootCertStore, RemoteError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &papers.ca_file {
        for cert in certificates("ca_file", path)? {
            roots.add(cert).map_err(|error| wrong(format!("ca_file {}: {error}", path.display())))?;
        }
        return Ok(roots);
    }
    let system = rustls_native_certs::load_native_certs();
    // A system's bundle may hold what nobody can read; the others are as good as without it.
    let (good, _) = roots.add_parsable_certificates(system.certs);
    if good == 0 {
        let errors: Vec<String> = system.errors.iter().map(ToString::to_string).collect();
        let why = if errors.is_empty() { "none are installed".to_owned() } else { errors.join("; ") };
        return Err(wrong(format!("the system has no certificates to believe servers by: {why}")));
    }
    Ok(roots)
}

/// A configuration that believes nobody: for a server that speaks plain HTTP.
pub(super) fn none() -> Result<ClientConfig, RemoteError> {
    Ok(builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, RemoteError> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))
}

fn certificates(setting: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, RemoteError> {
    let bytes = read(setting, path)?;
    let certs = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    match certs {
        Ok(certs) if !certs.is_empty() => Ok(certs),
        Ok(_) => Err(wrong(format!("{setting} {}: holds no certificate in PEM form", path.display()))),
        Err(_) => Err(wrong(format!("{setting} {}: is not whole PEM", path.display()))),
    }
}

fn private_key(setting: &str, path: &Path) -> Result<PrivateKeyDer<'static>, RemoteError> {
    // The library's words may show the key's bytes.
    PrivateKeyDer::from_pem_slice(&read(setting, path)?).map_err(|error| {
        let what = match error {
            pem::Error::NoItemsFound => "holds no key in PEM form, or only an encrypted one",
            pem::Error::MissingSectionEnd { .. }
            | pem::Error::IllegalSectionStart { .. }
            | pem::Error::Base64Decode(_)
            | pem::Error::Io(_)
            | pem::Error::SectionTooLarge
            | _ => "is not whole PEM",
        };
        wrong(format!("{setting} {}: {what}", path.display()))
    })
}

fn read(setting: &str, path: &Path) -> Result<Vec<u8>, RemoteError> {
    let read = || {
        // Opening a pipe would wait for its other end.
        if !fs_err::metadata(path)?.is_file() {
            return Err(io::Error::other(format!("{} is no file", path.display())));
        }
        let mut bytes = Vec::new();
        fs_err::File::open(path)?.take(MAX_PEM + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_PEM {
            return Err(io::Error::other(format!("{} is larger than {MAX_PEM} bytes", path.display())));
        }
        Ok(bytes)
    };
    read().map_err(|error| wrong(format!("{setting}: {error}")))
}

fn wrong(what: impl Into<String>) -> RemoteError {
    RemoteError::Misconfigured(what.into())
}

/// What is said of a server that wants to know who we are, and is not told to its liking.
pub(super) const NOT_SHOWN: &str =
    "the server asks for a certificate, and client_cert is none that it believes";

/// Why one side does not believe the other, if that is what this error comes from.
pub(super) fn disbelief(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut link = Some(error);
    while let Some(error) = link {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return kind(found);
        }
        link = inner(error);
    }
    None
}

/// What this error wraps. The source of an I/O error is that of the error inside it, which it skips.
fn inner<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

fn kind(error: &rustls::Error) -> Option<&'static str> {
    use AlertDescription as Alert;
    if let rustls::Error::InvalidCertificate(_) = error {
        return Some("the server's certificate is not believed");
    }
    let rustls::Error::AlertReceived(alert) = error else { return None };
    let of_certificates = [
        Alert::NoCertificate,
        Alert::BadCertificate,
        Alert::UnsupportedCertificate,
        Alert::CertificateRevoked,
        Alert::CertificateExpired,
        Alert::CertificateUnknown,
        Alert::UnknownCA,
        Alert::AccessDenied,
        Alert::CertificateRequired,
    ];
    of_certificates.contains(alert).then_some(NOT_SHOWN)
}
