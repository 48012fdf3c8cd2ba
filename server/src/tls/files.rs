//! The files that make a server's identity, and how they are read: PEM, as every tool writes it.

use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

/// The largest file that is read, in bytes.
const MAX_PEM: u64 = 1024 * 1024;

/// What may be spoken inside, best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Where the certificate, its key, and perhaps the authority of clients are.
#[derive(Debug, Clone)]
pub struct Files {
    /// The certificate, and those between it and its root.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Whose certificates clients must show, if any.
    pub client_ca: Option<PathBuf>,
}

/// Files of which no server can be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One cannot be read.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    /// One is not what it must be.
    #[error("{}: {what}", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Each is well, and they are not each other's.
    #[error("{} and {} do not go together: {why}", cert.display(), key.display())]
    Pair {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// What rustls says to them.
        why: rustls::Error,
    },
}

/// What is looked at to know whether files changed. None where a file is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp(Vec<Option<FileStamp>>);

/// Device, inode, size, modification and change of one file, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp(u64, u64, u64, (i64, i64), (i64, i64));

impl Stamp {
    #[cfg(test)]
    pub(super) fn of_sizes(sizes: &[u64]) -> Self {
        Self(sizes.iter().map(|size| Some(FileStamp(0, 0, *size, (0, 0), (0, 0)))).collect())
    }
}

/// What the files held.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What connections are accepted with.
    pub config: Arc<ServerConfig>,
    /// When the first certificate of the chain ends, in seconds since 1970.
    pub expires_s: Option<u64>,
}

impl Files {
    /// What the files look like now, links followed.
    pub fn stamp(&self) -> Stamp {
        let one = |path: &PathBuf| {
            let at = fs_err::metadata(path).ok()?;
            let (modified, changed) = ((at.mtime(), at.mtime_nsec()), (at.ctime(), at.ctime_nsec()));
            Some(FileStamp(at.dev(), at.ino(), at.size(), modified, changed))
        };
        Stamp([&self.cert, &self.key].into_iter().chain(&self.client_ca).map(one).collect())
    }

    /// Reads them, and makes a server's configuration of what they hold.
    ///
    /// # Errors
    /// [`TlsError`], which names the file.
    pub fn load(&self) -> Result<Loaded, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certs = certificates(&self.cert)?;
        let key = self.key()?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&self.cert, error.to_string()))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => builder.with_client_cert_verifier(clients_of(path, provider)?),
        };
        let pair = |why| TlsError::Pair { cert: self.cert.clone(), key: self.key.clone(), why };
        let expires_s = certs.iter().filter_map(expiry_s).min();
        let mut config = builder.with_single_cert(certs, key).map_err(pair)?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Loaded { config: Arc::new(config), expires_s })
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let (bytes, mode) = read(&self.key)?;
        if mode & 0o077 != 0 {
            let (key, mode) = (self.key.display(), format!("{:o}", mode & 0o777));
            tracing::warn!(%key, mode, "others than its owner may use the key; chmod 600 keeps it");
        }
        PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| unusable(&self.key, in_words(&error)))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let (bytes, _) = read(path)?;
    let certs = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    let certs = certs.map_err(|error| unusable(path, in_words(&error)))?;
    if certs.is_empty() { Err(unusable(path, "holds no certificate in PEM form")) } else { Ok(certs) }
}

/// When the certificate ends, if that can be read: it is told to people, and decides nothing.
fn expiry_s(cert: &CertificateDer<'_>) -> Option<u64> {
    let (_, cert) = x509_parser::parse_x509_certificate(cert).ok()?;
    u64::try_from(cert.validity().not_after.timestamp()).ok()
}

fn clients_of(
    path: &Path,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for cert in certificates(path)? {
        roots.add(cert).map_err(|error| unusable(path, error.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| unusable(path, error.to_string()))
}

/// The bytes, and the permissions they are kept under.
fn read(path: &Path) -> Result<(Vec<u8>, u32), TlsError> {
    let file = fs_err::File::open(path)?;
    let mode = file.metadata()?.mode();
    let mut bytes = Vec::new();
    file.take(MAX_PEM + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_PEM {
        return Err(unusable(path, format!("is larger than {MAX_PEM} bytes")));
    }
    Ok((bytes, mode))
}

fn unusable(path: &Path, what: impl Into<String>) -> TlsError {
    TlsError::Unusable { path: path.to_owned(), what: what.into() }
}

/// Without the bytes that the library would show: they may be a key's.
fn in_words(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a PEM section has no end",
        pem::Error::IllegalSectionStart { .. } => "a PEM section has no proper beginning",
        pem::Error::Base64Decode(_) => "a PEM section is not base64",
        pem::Error::NoItemsFound => "holds no key in PEM form, or only an encrypted one",
        pem::Error::Io(_) | pem::Error::SectionTooLarge | _ => "is not PEM",
    }
}
