//! Ed25519: the key that a builder signs its results with, and the keys that results must be signed by.
//!
//! By ring, which TLS needs anyway: one implementation of cryptography in the program, and none of our own. A key file is
//! PKCS#8 in PEM, so that OpenSSL makes and reads it, and scanners for secrets find it.
//!
//! Invariant: pins that cannot be read are pins that nothing matches. Nobody who asked for signatures gets what is unsigned
//! because of a typing error.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pcmcache_shared::signature::signed_text;
use pcmcache_shared::{ActionKey, ActionResult, PublicKey, Scope, Signature, disk};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;

use crate::os;

/// The largest key file or list of keys that is read, in bytes.
const MAX_FILE: u64 = 64 * 1024;
/// What PKCS#8 says before the 32 bytes of an Ed25519 key (RFC 8410): in all as much as fits on a line of PEM. ring would
/// write the second version of it, which OpenSSL does not read.
const PKCS8_BEFORE_SEED: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// A builder's own key.
pub struct SigningKey(Ed25519KeyPair);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum NoKey {
    /// The file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Others may read it.
    #[error(
        "{path} may be read by others than its owner; 'chmod 600 {path}', and make a new key if somebody may have read it"
    )]
    Open {
        /// Where it is.
        path: PathBuf,
    },
    /// It holds something else.
    #[error("{path} holds no Ed25519 private key in PEM form; 'pcmcache key new FILE' makes one")]
    NotOne {
        /// Where it is.
        path: PathBuf,
    },
    /// The system gives no random numbers.
    #[error("no random numbers to make a key of")]
    NoRandomness,
}

impl SigningKey {
    /// Makes a new key and writes it to `path`, where nothing may be.
    pub fn create(path: &Path) -> Result<Self, NoKey> {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| NoKey::NoRandomness)?;
        let pkcs8 = [&PKCS8_BEFORE_SEED[..], &seed].concat();
        let mut file = disk::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let text = STANDARD.encode(&pkcs8);
        writeln!(file, "-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----")?;
        file.sync_all()?;
        Self::from_pkcs8(&pkcs8, path)
    }

    /// Reads the key at `path`, which nobody but its owner may read.
    pub fn read(path: &Path) -> Result<Self, NoKey> {
        let file = fs_err::File::open(path)?;
        if os::is_open_to_others(&file.metadata()?) {
            return Err(NoKey::Open { path: path.to_owned() });
        }
        let mut bytes = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut bytes)?;
        let pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(&bytes);
        Self::from_pkcs8(pkcs8.map_err(|_| NoKey::NotOne { path: path.to_owned() })?.secret_pkcs8_der(), path)
    }

    fn from_pkcs8(pkcs8: &[u8], path: &Path) -> Result<Self, NoKey> {
        // OpenSSL leaves the public key out, so there is nothing to check the private one against.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8);
        pair.map(Self).map_err(|_| NoKey::NotOne { path: path.to_owned() })
    }

    /// What others pin.
    pub fn public(&self) -> PublicKey {
        let bytes = self.0.public_key().as_ref().try_into();
        PublicKey::from_bytes(bytes.unwrap_or_default())
    }

    /// Signs what an action made, for this scope alone.
    pub fn sign(&self, scope: &Scope, action: ActionKey, result: &ActionResult) -> Signature {
        let signature = self.0.sign(signed_text(scope, action, &result.outputs).as_bytes());
        Signature::from_bytes(signature.as_ref().try_into().unwrap_or([0; 64]))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public())
    }
}

/// The keys that results from a server must be signed by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustedKeys(Vec<Trusted>);

/// A key, and the scope whose results it vouches for; none: the client's own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trusted {
    scope: Option<Scope>,
    key: PublicKey,
}

impl TrustedKeys {
    /// Reads a list of `KEY`, `SCOPE:KEY` and `@FILE` with more of them, with commas or spaces between.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        for word in words(text) {
            match word.strip_prefix('@') {
                Some(path) => {
                    let listed = read_list(Path::new(path)).map_err(|error| error.to_string())?;
                    for word in words(&listed) {
                        keys.push(Trusted::parse(word).map_err(|fault| format!("{path}: {fault}"))?);
                    }
                }
                None => keys.push(Trusted::parse(word)?),
            }
        }
        if keys.is_empty() { Err("names no key".to_owned()) } else { Ok(Self(keys)) }
    }

    /// Whether one of them signed this for `scope`. `own` is the client's scope.
    pub fn vouch(&self, own: &Scope, scope: &Scope, action: ActionKey, result: &ActionResult) -> bool {
        let Some(signature) = &result.signature else { return false };
        let text = signed_text(scope, action, &result.outputs);
        let is_pinned = |trusted: &&Trusted| trusted.scope.as_ref().unwrap_or(own) == scope;
        self.0.iter().filter(is_pinned).any(|trusted| {
            let key = UnparsedPublicKey::new(&ED25519, trusted.key.as_bytes());
            key.verify(text.as_bytes(), signature.as_bytes()).is_ok()
        })
    }

    /// The keys as they are written, for people.
    pub fn spelled(&self) -> Vec<String> {
        let spell = |Trusted { scope, key }: &Trusted| match scope {
            Some(scope) => format!("{scope}:{key}"),
            None => key.to_string(),
        };
        self.0.iter().map(spell).collect()
    }

    /// The scopes whose results some key vouches for.
    pub fn scopes<'a>(&'a self, own: &'a Scope) -> impl Iterator<Item = &'a Scope> {
        self.0.iter().map(|trusted| trusted.scope.as_ref().unwrap_or(own))
    }
}

impl Trusted {
    fn parse(word: &str) -> Result<Self, String> {
        let (scope, key) = match word.split_once(':') {
            Some((scope, key)) => (Some(scope), key),
            None => (None, word),
        };
        let scope = scope.map(str::parse).transpose().map_err(|error| format!("'{word}': {error}"))?;
        let key = key.parse().map_err(|error| format!("'{word}' is no public key: {error}"))?;
        Ok(Self { scope, key })
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    let uncommented = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    uncommented.flat_map(|line| line.split([' ', '\t', ',', '\r'])).filter(|word| !word.is_empty())
}

fn read_list(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs_err::File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use pcmcache_shared::{Cost, Digest, Output, Role};

    use super::*;

    /// `openssl genpkey -algorithm ed25519`, and what it says the public key is.
    const BY_OPENSSL: (&str, &str) = (
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIKb0x/93wh73Cu6iYwNtDzsNYLTLVNsxEw5eDaxJwB8m\n-----END PRIVATE KEY-----\n",
        "Mj4mXyIcTJ+xwkwXmlvYjIdhvR5YZSNaDDt/p/e0Ct0=",
    );

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("pcmcache-signing-{name}-{}", std::process::id()));
        let _ = fs_err::remove_dir_all(&dir);
        fs_err::create_dir_all(&dir).unwrap();
        dir
    }

    fn scope(name: &str) -> Scope {
        name.parse().unwrap()
    }

    fn result(object: &str) -> ActionResult {
        let output = |role, bytes: &str| Output { role, digest: Digest::of(bytes), size: bytes.len() as u64 };
        let outputs = vec![output(Role::Object, object), output(Role::Depfile, "depfile")];
        ActionResult { outputs, cost: Cost::default(), builder: String::new(), signature: None }
    }

    #[test]
    fn a_signature_is_for_one_scope_one_action_and_these_outputs() {
        let dir = dir("sign");
        let [key, other] = ["key", "other"].map(|name| SigningKey::create(&dir.join(name)).unwrap());
        let (main, pr, action) = (scope("main"), scope("pr-17"), ActionKey::of("action"));
        let signed = |key: &SigningKey, scope: &Scope, action| {
            let plain = result("object");
            ActionResult { signature: Some(key.sign(scope, action, &plain)), ..plain }
        };
        let pins = TrustedKeys::parse(&key.public().to_string()).unwrap();
        let good = signed(&key, &main, action);
        assert!(pins.vouch(&main, &main, action, &good));
        let reordered = good.outputs.iter().rev().copied().collect();
        assert!(pins.vouch(&main, &main, action, &ActionResult { outputs: reordered, ..good.clone() }));

        let refused = [
            ("no signature", main.clone(), action, result("object")),
            ("another key's", main.clone(), action, signed(&other, &main, action)),
            ("for another scope", main.clone(), action, signed(&key, &pr, action)),
            ("of another scope", pr.clone(), action, signed(&key, &pr, action)),
            ("for another action", main.clone(), action, signed(&key, &main, ActionKey::of("other"))),
            (
                "over other outputs",
                main.clone(),
                action,
                ActionResult { outputs: result("o").outputs, ..good.clone() },
            ),
            (
                "over more outputs",
                main.clone(),
                action,
                ActionResult { outputs: result("object").outputs[1..].to_vec(), ..good },
            ),
        ];
        for (what, found_in, action, result) in refused {
            assert!(!pins.vouch(&main, &found_in, action, &result), "{what}");
        }
        fs_err::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_key_counts_for_its_scope_and_a_plain_one_for_our_own() {
        let dir = dir("scopes");
        let key = SigningKey::create(&dir.join("key")).unwrap();
        let (main, pr, action) = (scope("main"), scope("pr-17"), ActionKey::of("action"));
        let found = |own: &Scope, scope: &Scope, pins: &str| {
            let plain = result("object");
            let signed = ActionResult { signature: Some(key.sign(scope, action, &plain)), ..plain };
            TrustedKeys::parse(pins).unwrap().vouch(own, scope, action, &signed)
        };
        let (plain, for_main) = (key.public().to_string(), format!("main:{}", key.public()));
        assert!(found(&main, &main, &plain) && found(&pr, &pr, &plain));
        assert!(!found(&pr, &main, &plain) && !found(&main, &pr, &plain));
        assert!(found(&pr, &main, &for_main) && !found(&pr, &pr, &for_main));
        assert!(found(&pr, &main, &format!("{plain}, {for_main}")));
        fs_err::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_key_survives_its_file_and_so_does_one_of_openssl() {
        let dir = dir("files");
        let made = SigningKey::create(&dir.join("key")).unwrap();
        assert_eq!(SigningKey::read(&dir.join("key")).unwrap().public(), made.public());
        let like_openssl = fs_err::read_to_string(dir.join("key")).unwrap();
        assert_eq!((like_openssl.len(), &like_openssl[..49]), (BY_OPENSSL.0.len(), &BY_OPENSSL.0[..49]));
        assert!(matches!(SigningKey::create(&dir.join("key")), Err(NoKey::Io(_))), "never over another one");
        let put = |name: &str, text: &str| {
            let mut options = disk::OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(dir.join(name)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            dir.join(name)
        };
        let (pem, public) = BY_OPENSSL;
        assert_eq!(SigningKey::read(&put("openssl", pem)).unwrap().public().to_string(), public);
        for (name, text) in [("empty", ""), ("nonsense", "nonsense"), ("cut", &pem[..60]), ("public", public)]
        {
            assert!(matches!(SigningKey::read(&put(name, text)), Err(NoKey::NotOne { .. })), "{name}");
        }
        let shared = std::os::unix::fs::PermissionsExt::from_mode(0o640);
        fs_err::set_permissions(dir.join("openssl"), shared).unwrap();
        assert!(matches!(SigningKey::read(&dir.join("openssl")), Err(NoKey::Open { .. })));
        assert!(!format!("{made:?}").contains("PRIVATE"));
        fs_err::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn lists_come_with_commas_spaces_comments_and_in_files() {
        let dir = dir("lists");
        let (_, key) = BY_OPENSSL;
        let file = dir.join("keys");
        fs_err::write(&file, format!("# the protected branch\nmain:{key}   # since May\n\npr-17:{key}\n"))
            .unwrap();
        let listed = TrustedKeys::parse(&format!("{key},@{}", file.display())).unwrap();
        assert_eq!(listed.spelled(), [key.to_owned(), format!("main:{key}"), format!("pr-17:{key}")]);
        for bad in
            ["", " , ", "AAAA", "Main:AAAA", &format!("MAIN:{key}"), &format!("{key}x"), "@/nowhere/at/all"]
        {
            assert!(TrustedKeys::parse(bad).is_err(), "{bad}");
        }
        fs_err::remove_dir_all(&dir).unwrap();
    }
}
