//! What says who asks: the book of tokens, the rules for CI jobs, the keys of sessions, and what comes in `Authorization` or is
//! exchanged. Nobody gets a right that they were not given.
//!
//! The first line says which of these the rest is.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, header};
use pcmcache_server::clock::{Clock as _, CountedEntropy, ManualClock};
use pcmcache_server::trust::book::{Book, Entry, Rights};
use pcmcache_server::trust::{BookFile, Jobs, MemorySpent, Settings, Token, Trust, WithoutBook};
use pcmcache_shared::{Digest, Scope};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{parts, scratch};

const AUDIENCE: &str = "https://cache.example";
const ISSUER: &str = "https://issuer.example";

/// A server's trust, with one token and one issuer.
struct Stage {
    dir: PathBuf,
    runtime: Runtime,
    clock: Arc<ManualClock>,
    trust: Arc<Trust>,
    token: Token,
    issuer: EcdsaKeyPair,
}

pub(crate) fn run(input: &[u8]) {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    let stage = STAGE.get_or_init(Stage::set);
    let (what, rest) = parts::first_line(input);
    match what {
        b"book" => stage.book(rest),
        b"rules" => drop(stage.jobs("rules.toml", rest, "keys.json")),
        b"keys" => {
            fs_err::write(stage.dir.join("other-keys.json"), rest).expect("a file");
            let _ = stage.jobs("good.toml", &rules(), "other-keys.json");
        }
        b"jwt" => drop(stage.exchange(&String::from_utf8_lossy(rest))),
        b"claims" => stage.claims(rest),
        _ => stage.bearer(rest),
    }
}

/// Reviewed pushes write main, pull requests write their own.
fn rules() -> Vec<u8> {
    format!(
        "[[issuer]]\nname = 'github'\nkind = 'github'\nissuer = '{ISSUER}'\naudience = '{AUDIENCE}'\n\
         jwks_url = '{}'\n\
         [[issuer.rule]]\nrepository_id = 12\nevents = ['push']\nrefs = ['refs/heads/main']\nprotected = true\n\
         writes = 'main'\n\
         [[issuer.rule]]\nrepository_id = 12\nevents = ['pull_request']\nreads = ['main']\n\
         writes = 'pr-{{repository_id}}-{{number}}'\n",
        keys_url()
    )
    .into_bytes()
}

fn pair() -> &'static (Vec<u8>, SystemRandom) {
    static PAIR: OnceLock<(Vec<u8>, SystemRandom)> = OnceLock::new();
    PAIR.get_or_init(|| {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        (pair.as_ref().to_vec(), random)
    })
}

fn key() -> EcdsaKeyPair {
    let (pair, random) = pair();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pair, random).expect("a key")
}

/// Where the issuer's key is.
fn keys_url() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
        let key = key();
        let (x, y) = key.public_key().as_ref()[1..].split_at(32);
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let jwk = json!({ "kty": "EC", "crv": "P-256", "kid": "1", "x": encode(x), "y": encode(y) });
        let body = json!({ "keys": [jwk] }).to_string();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let _ = stream.read(&mut [0; 4096]);
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
                );
            }
        });
        url
    })
}

impl Stage {
    fn set() -> Self {
        let (dir, clock) = (scratch::directory("tokens"), Arc::new(ManualClock::default()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let token = Token::generate(&CountedEntropy::default()).expect("randomness");
        let book = BookFile::new(dir.join("tokens.json"));
        let rights = Rights { writes: Some(Scope::default()), ..Rights::default() };
        let entry = Entry {
            id: "token-1".parse().expect("a writer"),
            name: "ci".to_owned(),
            sha256: token.hash(),
            rights,
            created_s: clock.unix_s(),
            expires_s: None,
        };
        book.change(|book| book.add(entry)).expect("a book");
        let mut stage =
            Self { trust: Trust::open(Arc::clone(&clock) as _), dir, runtime, clock, token, issuer: key() };
        let jobs = stage.jobs("good.toml", &rules(), "keys.json").expect("good rules");
        stage.trust = stage.trust_by(book, Some(jobs)).expect("a good book");
        stage
    }

    fn jobs(&self, file: &str, rules: &[u8], keys: &str) -> Option<Jobs> {
        let (file, keys) = (self.dir.join(file), self.dir.join(keys));
        fs_err::write(&file, rules).expect("a file");
        let (spent, entropy) = (Arc::new(MemorySpent::default()), Arc::new(CountedEntropy::default()));
        Jobs::open(&file, keys, &[], spent, Arc::clone(&self.clock) as _, entropy).ok()
    }

    fn trust_by(&self, book: BookFile, jobs: Option<Jobs>) -> Option<Arc<Trust>> {
        let settings = Settings { book, without_book: WithoutBook::Empty, public: Vec::new() };
        let trust = Trust::with(settings, jobs, Arc::clone(&self.clock) as _).ok()?;
        trust.refresh(drop);
        Some(trust)
    }

    /// A book is written as it was read, and lets in those whom it names.
    fn book(&self, text: &[u8]) {
        if let Ok(book) = Book::parse(text) {
            let again = book.text().expect("what was read can be written");
            assert_eq!(Book::parse(&again).as_ref(), Ok(&book));
            let mut revoked = book.clone();
            for entry in book.tokens() {
                if let Ok((writer, scope)) = book.whom(entry.id.as_str()) {
                    revoked.revoke(writer, scope, true, 1);
                }
            }
            assert!(revoked.epoch() >= book.epoch() && revoked.tokens() == book.tokens());
        }
        let path = self.dir.join("other-tokens.json");
        fs_err::write(&path, text).expect("a file");
        if let Some(trust) = self.trust_by(BookFile::new(path), None) {
            let asker = trust.identify(&bearer(self.token.expose().as_bytes()).expect("a header"));
            let named = String::from_utf8_lossy(text).contains(&self.token.hash().to_string());
            assert!(named || !asker.principal.is_known(), "a token that no book names");
        }
    }

    /// Each line is an `Authorization`.
    fn bearer(&self, lines: &[u8]) {
        let text = String::from_utf8_lossy(lines).replace("{token}", self.token.expose());
        let mut headers = HeaderMap::new();
        // What is no header's value never gets as far.
        let values = text.lines().filter_map(|line| HeaderValue::from_str(line).ok());
        headers.extend(values.map(|value| (header::AUTHORIZATION, value)));
        let asker = self.trust.identify(&headers);
        if asker.principal.is_known() {
            let mut sent = headers.get_all(header::AUTHORIZATION).iter();
            let (one, other) = (sent.next().and_then(|value| value.to_str().ok()), sent.next());
            let token = one.and_then(|one| one.split_once(' ')).map(|(_, token)| token.trim());
            assert!(token == Some(self.token.expose()) && other.is_none(), "let in by {headers:?}");
        }
    }

    fn exchange(&self, jwt: &str) -> Option<pcmcache_shared::api::token::Session> {
        self.runtime.block_on(self.trust.exchange(jwt)).ok()
    }

    /// What the issuer vouches for, whatever that is.
    fn claims(&self, claims: &[u8]) {
        let now = self.clock.unix_s();
        let claims = String::from_utf8_lossy(claims).replace("{now}", &now.to_string());
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"1"}"#);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(&claims));
        let signature = self.issuer.sign(&pair().1, signed.as_bytes()).expect("a signature");
        let jwt = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        let Some(session) = self.exchange(&jwt) else { return };
        let said: Value = serde_json::from_str(&claims).expect("only JSON is exchanged");
        let is = |name: &str, value: &str| said[name].as_str() == Some(value);
        assert!(is("iss", ISSUER) && (is("aud", AUDIENCE) || said["aud"] == json!([AUDIENCE])));
        let writes = session.writes.expect("each rule has its jobs write").to_string();
        let is_of_main = is("event_name", "push")
            && is("ref", "refs/heads/main")
            && (is("ref_protected", "true") || said["ref_protected"] == json!(true));
        match writes.as_str() {
            "main" => assert!(is_of_main, "unreviewed code writes main"),
            other => assert!(other.starts_with("pr-12-") && is("event_name", "pull_request")),
        }
        let whose = |token: &[u8]| self.trust.identify(&bearer(token).expect("a header")).principal;
        assert!(whose(session.token.as_bytes()).is_known());
        let mut other = session.token.into_bytes();
        let at = usize::from(Digest::of(&claims).as_bytes()[0]) % other.len();
        other[at] = if other[at] == b'A' { b'B' } else { b'A' };
        assert!(!whose(&other).is_known(), "a session that was edited at {at}");
        assert!(self.exchange(&jwt).is_none(), "exchanged twice");
    }
}

fn bearer(token: &[u8]) -> Option<HeaderMap> {
    let value = HeaderValue::from_bytes(&[b"Bearer ", token].concat()).ok()?;
    Some(HeaderMap::from_iter([(header::AUTHORIZATION, value)]))
}
