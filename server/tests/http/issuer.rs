//! A CI system: it publishes keys, and vouches for whatever job a test makes up.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A key pair that an issuer signs with. The RSA one is the same in every run: making one takes long.
pub(crate) enum KeyPair {
    Rsa(Box<RsaKeyPair>),
    P256(Box<EcdsaKeyPair>),
}

impl KeyPair {
    pub(crate) fn rsa() -> Self {
        let text: String = include_str!("issuer_rsa.b64").split_whitespace().collect();
        Self::Rsa(Box::new(RsaKeyPair::from_pkcs8(&STANDARD.decode(text).unwrap()).unwrap()))
    }

    pub(crate) fn p256() -> Self {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pair.as_ref(), &random);
        Self::P256(Box::new(pair.unwrap()))
    }

    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::P256(_) => "ES256",
        }
    }

    /// The public half, as issuers publish it.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match self {
            Self::Rsa(pair) => {
                let public: PublicKeyComponents<Vec<u8>> = pair.public().into();
                json!({ "kty": "RSA", "n": encode(&public.n), "e": encode(&public.e) })
            }
            Self::P256(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) })
            }
        };
        jwk["kid"] = json!(kid);
        jwk["use"] = json!("sig");
        jwk["alg"] = json!(self.algorithm());
        jwk
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Self::P256(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
        }
    }
}

/// A token of this header and these claims, with whatever signature is made for it.
pub(crate) fn jwt(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signature = sign(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

pub(crate) fn signed(pair: &KeyPair, kid: &str, claims: &Value) -> String {
    let header = json!({ "alg": pair.algorithm(), "kid": kid, "typ": "JWT" });
    jwt(&header, claims, |message| pair.sign(message))
}

pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A CI system on this host.
pub(crate) struct Issuer {
    pub(crate) url: String,
    pub(crate) rsa: KeyPair,
    pub(crate) p256: KeyPair,
    /// What it publishes now.
    pub(crate) published: Arc<Mutex<Value>>,
    /// How often it was asked for its keys.
    pub(crate) asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The audience of tokens for the server under test.
pub(crate) const AUDIENCE: &str = "https://cache.example";
/// The repository that the rules are for.
pub(crate) const REPOSITORY: u64 = 12;

impl Issuer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (rsa, p256) = (KeyPair::rsa(), KeyPair::p256());
        let published = Arc::new(Mutex::new(json!({ "keys": [rsa.jwk("rsa"), p256.jwk("p256")] })));
        let asked = Arc::new(AtomicUsize::new(0));
        let discovery = json!({ "issuer": url, "jwks_uri": format!("{url}/keys") });
        let (keys, count) = (Arc::clone(&published), Arc::clone(&asked));
        let router: Router = Router::new()
            .route("/.well-known/openid-configuration", get(move || async move { Json(discovery) }))
            .route(
                "/keys",
                get(move || async move {
                    count.fetch_add(1, Ordering::Relaxed);
                    Json(keys.lock().unwrap().clone())
                }),
            );
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, rsa, p256, published, asked, task }
    }

    /// The file of rules of a team that uses this CI system: reviewed pushes write main, pull requests write their own.
    pub(crate) fn rules(&self) -> String {
        let url = &self.url;
        format!(
            r#"
            [[issuer]]
            name = "github"
            kind = "github"
            issuer = "{url}"
            audience = "{AUDIENCE}"

            [[issuer.rule]]
            repository_id = {REPOSITORY}
            events = ["push", "schedule"]
            refs = ["refs/heads/main"]
            protected = true
            writes = "main"

            [[issuer.rule]]
            repository_id = {REPOSITORY}
            events = ["pull_request", "pull_request_target"]
            reads = ["main"]
            writes = "pr-{{repository_id}}-{{number}}"

            [[issuer.rule]]
            repository_id = {REPOSITORY}
            events = ["push"]
            reads = ["main"]
            writes = "branch-{{repository_id}}-{{ref}}"
            "#
        )
    }

    /// The claims of a job, with what makes it this one.
    pub(crate) fn claims(&self, job: Value) -> Value {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let mut claims = json!({
            "iss": self.url, "aud": AUDIENCE, "iat": now_s(), "nbf": now_s() - 5, "exp": now_s() + 300,
            "jti": format!("job-{}", COUNT.fetch_add(1, Ordering::Relaxed)),
            "repository_id": REPOSITORY.to_string(), "repository": "team/project", "actor_id": "7",
        });
        claims.as_object_mut().unwrap().extend(job.as_object().unwrap().clone());
        claims
    }

    /// A push to the protected branch.
    pub(crate) fn push(&self) -> Value {
        self.claims(json!({ "event_name": "push", "ref": "refs/heads/main", "ref_protected": "true" }))
    }

    /// A pull request.
    pub(crate) fn pull_request(&self, number: u64) -> Value {
        let git_ref = format!("refs/pull/{number}/merge");
        self.claims(json!({ "event_name": "pull_request", "ref": git_ref, "ref_protected": "false" }))
    }

    /// A token of the key that is named like the other's.
    pub(crate) fn p256_named(&self, claims: &Value) -> String {
        signed(&self.p256, "p256", claims)
    }

    pub(crate) fn p256_sign(&self, message: &[u8]) -> Vec<u8> {
        self.p256.sign(message)
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        signed(&self.rsa, "rsa", claims)
    }
}
