//! A certificate authority of one test's own, and what it signs.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

/// Signs for whomever a test likes.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its key, as PEM.
pub(crate) struct Signed {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for these names or addresses.
    pub(crate) fn sign(&self, names: &[&str]) -> Signed {
        self.sign_until(names, 2999)
    }

    /// One that ends with the beginning of this year.
    pub(crate) fn sign_until(&self, names: &[&str], year: i32) -> Signed {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Signed { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// A client that trusts it and nobody else, and speaks these protocols.
    pub(crate) fn client(&self, protocols: &[&str]) -> ClientConfig {
        self.client_with(protocols, rustls::ALL_VERSIONS, None)
    }

    pub(crate) fn client_with(
        &self,
        protocols: &[&str],
        versions: &[&'static SupportedProtocolVersion],
        shows: Option<&Signed>,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shows {
            None => builder.with_no_client_auth(),
            Some(signed) => builder.with_client_auth_cert(vec![signed.der()], signed.key_der()).unwrap(),
        };
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

impl Signed {
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()
    }

    fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }

    /// Writes both into the directory, the key for its owner only: the certificate's file and the key's.
    pub(crate) fn write_to(&self, directory: &Path) -> (PathBuf, PathBuf) {
        let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
        fs_err::write(&cert, &self.cert).unwrap();
        fs_err::write(&key, &self.key).unwrap();
        fs_err::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        (cert, key)
    }
}
