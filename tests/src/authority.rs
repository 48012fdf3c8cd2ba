//! A certificate authority of one test's own, and what it signs.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::Scratch;

/// Signs for whomever a test likes.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
}

/// The files of a certificate and of its key.
#[derive(Debug, Clone)]
pub struct Signed {
    /// The certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

impl Authority {
    /// An authority of this name, whose certificate and what it signs lie in `scratch`.
    pub fn new(scratch: &Scratch, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let file = scratch.file(&format!("{name}.pem"), certificate.pem());
        Self { issuer: Issuer::new(params, key), file }
    }

    /// Where its certificate is.
    pub fn file(&self) -> &PathBuf {
        &self.file
    }

    /// A certificate for this host name or address.
    pub fn sign(&self, name: &str) -> Signed {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let file = |kind: &str, pem: String| {
            let path = self.file.with_extension(format!("{name}.{kind}.pem"));
            fs_err::write(&path, pem).expect("a file of a certificate");
            fs_err::set_permissions(&path, Permissions::from_mode(0o600)).expect("its permissions");
            path.to_string_lossy().into_owned()
        };
        Signed { cert: file("cert", certificate.pem()), key: file("key", key.serialize_pem()) }
    }
}
