//! A server with tokens, and those who use it.

use clap::Parser as _;
use http::{Method, Request};
use pcmcache_server::Config;
use pcmcache_server::clock::{SystemClock, SystemEntropy};
use pcmcache_server::config::Command;
use pcmcache_shared::api::actions::PublishRequest;
use pcmcache_shared::recipe::{Learnt, Unit};
use pcmcache_shared::{ActionKey, ActionResult, Cost, Digest, IncludeSet, Output, Recipe, Role, UnitKey};
use serde::Serialize;
use serde_json::{Value, json};

use super::wire::{Reply, Served};

/// A server with a book of tokens.
pub(crate) struct Team {
    pub(crate) served: Served,
    config: Config,
}

impl Team {
    /// With an administrator's token already in the book, so that there is one.
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(adjust: impl FnOnce(&mut Config)) -> Self {
        let mut used = None;
        let served = Served::with(|config| {
            adjust(config);
            run(config, &["create", "--name", "first", "--admin"]).unwrap();
            used = Some(config.clone());
        })
        .await;
        Self { served, config: used.unwrap() }
    }

    /// `pcmcache-server token ARGS` beside the running server: what it prints on stdout.
    pub(crate) fn token(&self, args: &[&str]) -> String {
        run(&self.config, args).unwrap()
    }

    /// A new token of this name.
    pub(crate) fn create(&self, name: &str, rights: &[&str]) -> String {
        self.token(&[&["create", "--name", name], rights].concat())
    }

    /// One request, with this token if there is one.
    pub(crate) async fn ask(&self, token: &str, method: &str, path: &str, body: impl Into<Vec<u8>>) -> Reply {
        let body: Vec<u8> = body.into();
        let kind = match path.contains("/blobs/") {
            true => "application/octet-stream",
            false => "application/json",
        };
        let mut request = Request::builder().method(method).uri(path).header("content-type", kind);
        if method == Method::PUT {
            request = request.header("content-length", body.len());
        }
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.served.send(request.body(body).unwrap()).await
    }

    pub(crate) async fn get(&self, token: &str, path: &str) -> Reply {
        self.ask(token, "GET", path, "").await
    }

    pub(crate) async fn send(&self, token: &str, method: &str, path: &str, body: &impl Serialize) -> Reply {
        self.ask(token, method, path, serde_json::to_vec(body).unwrap()).await
    }

    pub(crate) async fn put_blob(&self, token: &str, scope: &str, bytes: &[u8]) -> u16 {
        let path = format!("/v1/scopes/{scope}/blobs/{}", Digest::of(bytes));
        self.ask(token, "PUT", &path, bytes).await.status.as_u16()
    }

    /// Uploads the outputs and publishes.
    pub(crate) async fn share(&self, token: &str, scope: &str, module: &Module) -> Reply {
        for bytes in &module.outputs {
            self.put_blob(token, scope, bytes).await;
        }
        self.send(token, "PUT", &module.path(scope), &module.publication(None)).await
    }

    /// The last line that is not `busy` of an acquire that waits for nothing, or the last at all.
    pub(crate) async fn acquire(&self, token: &str, scope: &str, body: &Value) -> Value {
        let reply = self.send(token, "POST", &format!("/v1/scopes/{scope}/acquire"), body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        lines(&reply).pop().unwrap()
    }
}

/// The lines of an answer to acquire.
pub(crate) fn lines(reply: &Reply) -> Vec<Value> {
    let text = str::from_utf8(&reply.body).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `pcmcache-server token ARGS` for the server of `config`.
pub(crate) fn run(config: &Config, args: &[&str]) -> anyhow::Result<String> {
    let dir = config.data_dir.as_ref().unwrap().to_str().unwrap();
    let command = [&["pcmcache-server", "--data-dir", dir, "token"], args].concat();
    let Some(Command::Token(token)) = Config::try_parse_from(command).unwrap().command else {
        panic!("no token")
    };
    let (mut out, mut about) = (Vec::new(), Vec::new());
    token.run(&config.book().unwrap(), &SystemClock::new(), &SystemEntropy, &mut out, &mut about)?;
    Ok(String::from_utf8(out).unwrap().trim_end().to_owned())
}

/// A module that was built: its recipe and what came of it.
#[derive(Debug, Clone)]
pub(crate) struct Module {
    pub(crate) unit: Unit,
    pub(crate) recipe: Recipe,
    pub(crate) set: IncludeSet,
    pub(crate) outputs: Vec<Vec<u8>>,
}

impl Module {
    /// A module of this name, and what a builder says it makes.
    pub(crate) fn new(name: &str, makes: &str) -> Self {
        let mut unit = Unit::new();
        unit.source(name.as_ref(), Digest::of(name));
        let set: IncludeSet = [Learnt::File("/a.h".into())].into_iter().collect();
        let recipe = Recipe::new(&unit, &set, |_| Some(Digest::of("now"))).unwrap();
        let outputs = vec![makes.as_bytes().to_vec(), makes.repeat(30_000 / makes.len() + 1).into_bytes()];
        Self { unit, recipe, set, outputs }
    }

    /// The same unit, of which a builder learnt that it reads these headers.
    pub(crate) fn reading(&self, headers: &[&str]) -> Self {
        let set: IncludeSet = headers.iter().map(|name| Learnt::File((*name).into())).collect();
        let recipe = Recipe::new(&self.unit, &set, |_| Some(Digest::of("now"))).unwrap();
        Self { recipe, set, ..self.clone() }
    }

    pub(crate) fn key(&self) -> ActionKey {
        self.recipe.action_key()
    }

    pub(crate) fn unit(&self) -> UnitKey {
        self.unit.key()
    }

    pub(crate) fn path(&self, scope: &str) -> String {
        format!("/v1/scopes/{scope}/actions/{}", self.key())
    }

    pub(crate) fn blob(&self, scope: &str, output: usize) -> String {
        format!("/v1/scopes/{scope}/blobs/{}", Digest::of(&self.outputs[output]))
    }

    pub(crate) fn publication(&self, lease: Option<&Value>) -> PublishRequest {
        let outputs = [Role::Bmi, Role::Object].into_iter().zip(&self.outputs);
        let outputs = outputs
            .map(|(role, bytes)| Output { role, digest: Digest::of(bytes), size: bytes.len() as u64 })
            .collect();
        let hold = lease.map(|granted| json!({ "fence": granted["fence"], "secret": granted["secret"] }));
        PublishRequest {
            result: ActionResult {
                outputs,
                cost: Cost { wall_ms: 2000 },
                builder: "tests".to_owned(),
                signature: None,
            },
            recipe: self.recipe.text().to_owned(),
            include_set: self.set.text(),
            claim: self.key().into(),
            lease: hold.map(|hold| serde_json::from_value(hold).unwrap()),
        }
    }

    /// An acquire of someone who has built it before.
    pub(crate) fn knowing(&self, id: &str) -> Value {
        json!({
            "claim": self.unit(), "unit": self.unit(), "request_id": id, "holder": id,
            "known": [{ "set": self.set.digest(), "action": self.key() }],
        })
    }

    /// An acquire of someone who has not.
    pub(crate) fn cold(&self, id: &str) -> Value {
        json!({ "claim": self.unit(), "unit": self.unit(), "request_id": id, "holder": id })
    }
}

/// The same request, that waits or watches.
pub(crate) fn also(mut request: Value, more: Value) -> Value {
    let more = more.as_object().unwrap().clone();
    request.as_object_mut().unwrap().extend(more);
    request
}
