//! A CI system that vouches for whatever job a test makes up, as GitHub does for its own.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::liar::{Liar, Peer, Request};

/// The audience of tokens for the server under test.
pub const AUDIENCE: &str = "https://cache.example";
/// What a job shows to be told who it is.
pub const REQUEST_TOKEN: &str = "only-for-this-job";

/// A CI system on this host, whose repository has the number 12.
pub struct Issuer {
    keys: Arc<EcdsaKeyPair>,
    listens: Liar,
}

impl Issuer {
    /// Starts one that runs until the test program ends.
    pub fn start() -> Self {
        let (how, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let pair = EcdsaKeyPair::generate_pkcs8(how, &random).expect("a key");
        let keys = Arc::new(EcdsaKeyPair::from_pkcs8(how, pair.as_ref(), &random).expect("a key"));
        let signs = Arc::clone(&keys);
        // What it answers names its own URL, which the request names.
        let listens = Liar::telling(move |request, peer| answer(request, peer, &signs));
        Self { keys, listens }
    }

    /// Its URL, by which its tokens name it.
    pub fn url(&self) -> String {
        self.listens.url()
    }

    /// Where a job asks who it is.
    pub fn request_url(&self) -> String {
        format!("{}/me?api-version=2.0", self.url())
    }

    /// The rules of a team: pushes to the protected branch write `main`, pull requests a scope of their own.
    pub fn rules(&self) -> String {
        let url = self.url();
        format!(
            "[[issuer]]\nname = \"github\"\nkind = \"github\"\nissuer = \"{url}\"\naudience = \"{AUDIENCE}\"\n\
             [[issuer.rule]]\nrepository_id = 12\nevents = [\"push\"]\nrefs = [\"refs/heads/main\"]\nprotected = true\n\
             writes = \"main\"\n\
             [[issuer.rule]]\nrepository_id = 12\nevents = [\"pull_request\"]\nreads = [\"main\"]\n\
             writes = \"pr-{{repository_id}}-{{number}}\"\n"
        )
    }

    /// The token of a push to the protected branch.
    pub fn push(&self) -> String {
        signed(
            &self.keys,
            &self.url(),
            json!({ "event_name": "push", "ref": "refs/heads/main", "ref_protected": "true" }),
        )
    }

    /// The token of a pull request.
    pub fn pull_request(&self, number: u64) -> String {
        let git_ref = format!("refs/pull/{number}/merge");
        let job = json!({ "event_name": "pull_request", "ref": git_ref, "ref_protected": "false" });
        signed(&self.keys, &self.url(), job)
    }

    /// The token of a push in another repository.
    pub fn stranger(&self) -> String {
        let job = json!({
            "event_name": "push", "ref": "refs/heads/main", "ref_protected": "true", "repository_id": "13",
        });
        signed(&self.keys, &self.url(), job)
    }
}

fn answer(request: &Request, peer: &mut Peer, keys: &EcdsaKeyPair) {
    let head = request.head.to_ascii_lowercase();
    let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    let url = format!("http://{host}");
    if request.is("GET", "/.well-known/openid-configuration") {
        peer.json(200, &json!({ "issuer": url, "jwks_uri": format!("{url}/keys") }));
    } else if request.is("GET", "/keys") {
        let (x, y) = keys.public_key().as_ref()[1..].split_at(32);
        let [x, y] = [x, y].map(|half| URL_SAFE_NO_PAD.encode(half));
        let key = json!({
            "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "one", "use": "sig", "alg": "ES256",
        });
        peer.json(200, &json!({ "keys": [key] }));
    } else if request.is("GET", "/me?api-version=2.0&audience=https%3A%2F%2Fcache.example")
        && head.contains(&format!("authorization: bearer {REQUEST_TOKEN}\r\n"))
    {
        let job = json!({ "event_name": "push", "ref": "refs/heads/main", "ref_protected": "true" });
        peer.json(200, &json!({ "value": signed(keys, &url, job) }));
    } else {
        peer.body(403, "");
    }
}

fn signed(keys: &EcdsaKeyPair, url: &str, job: Value) -> String {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let mut claims = json!({
        "iss": url, "aud": AUDIENCE, "iat": now_s, "nbf": now_s - 5, "exp": now_s + 300,
        "jti": format!("{:?}-{}", std::time::Instant::now(), std::process::id()),
        "repository_id": "12", "repository": "team/project", "actor_id": "7",
    });
    let claim = claims.as_object_mut().expect("an object");
    claim.extend(job.as_object().expect("an object").clone());
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text =
        format!("{}.{}", encode(&json!({ "alg": "ES256", "kid": "one", "typ": "JWT" })), encode(&claims));
    let signature = keys.sign(&SystemRandom::new(), text.as_bytes()).expect("a signature");
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}
