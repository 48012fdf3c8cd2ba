//! Publish: the result first, then those of its blobs that the server says it lacks, then the result again.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use pcmcache_shared::api::actions::{self, PublishRequest};
use pcmcache_shared::api::problem::Code;
use pcmcache_shared::api::{JSON, limits};
use pcmcache_shared::{ActionKey, Digest, failpoint};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use tokio::time::{Instant, sleep};

use super::answer::Refusal;
use super::server::Server;
use super::transfer::{Counters, upload};
use super::{Published, RemoteError};

const DURING: &str = "publish";

/// How often the result is sent. A blob can be swept between its upload and the next publish, but not twice.
const ROUNDS: usize = 3;

/// How many blobs are uploaded at a time.
const AT_ONCE: usize = 4;

/// Publishes the result under `key`.
pub(super) async fn publish(
    server: &Server,
    counters: &Counters,
    key: ActionKey,
    request: &PublishRequest,
    blob: &dyn Fn(Digest) -> Option<PathBuf>,
) -> Result<Published, RemoteError> {
    let body = body_of(request)?;
    let offered: BTreeSet<Digest> = request.result.outputs.iter().map(|output| output.digest).collect();
    let mut round = 1;
    loop {
        let (missing, refusal) = match outliving(server, async || send(server, key, &body).await).await? {
            Sent::Published(published) => return Ok(published),
            Sent::Missing(missing, refusal) => (missing, refusal),
        };
        if round == ROUNDS || !missing.is_subset(&offered) {
            return Err((*refusal).into());
        }
        upload_all(server, counters, missing, blob).await?;
        failpoint!("launch.uploaded");
        round += 1;
    }
}

fn body_of(request: &PublishRequest) -> Result<Bytes, RemoteError> {
    let body = serde_json::to_vec(request).map_err(|error| RemoteError::Local(io::Error::from(error)))?;
    if body.len() <= limits::MAX_PUBLISH_JSON {
        return Ok(body.into());
    }
    let code = Code::TooLarge;
    let detail = format!("{} bytes of JSON, not sent", body.len());
    Err(RemoteError::Refused { during: DURING, status: code.status(), code: Some(code), detail })
}

/// What one publish came to.
enum Sent {
    Published(Published),
    /// Blobs are missing: which, and the server's words.
    Missing(BTreeSet<Digest>, Box<Refusal>),
}

async fn send(server: &Server, key: ActionKey, body: &Bytes) -> Result<Sent, RemoteError> {
    let request = server
        .request(Method::PUT, &actions::path(&server.scope, key))
        .header(CONTENT_TYPE, JSON)
        .body(body.clone());
    let within = server.deadlines.transfer(body.len() as u64);
    let answer = server.send(DURING, request, within).await?;
    match answer.status() {
        201 => return Ok(Sent::Published(Published::Stored)),
        200 => return Ok(Sent::Published(Published::Same)),
        _ => {}
    }
    let refusal = answer.refusal().await?;
    if let Some(winner) = refusal.winner(&server.scope, key) {
        return Ok(Sent::Published(Published::Winner(Box::new(winner))));
    }
    match refusal.missing() {
        Some(missing) => Ok(Sent::Missing(missing, Box::new(refusal))),
        None => Err(refusal.into()),
    }
}

async fn upload_all(
    server: &Server,
    counters: &Counters,
    missing: BTreeSet<Digest>,
    blob: &dyn Fn(Digest) -> Option<PathBuf>,
) -> Result<(), RemoteError> {
    let found = missing.into_iter().map(|digest| match blob(digest) {
        Some(path) => Ok((digest, path)),
        None => Err(RemoteError::Local(io::Error::new(io::ErrorKind::NotFound, format!("no blob {digest}")))),
    });
    let found: Vec<_> = found.collect::<Result<_, _>>()?;
    let uploads = found
        .iter()
        .map(|(digest, path)| outliving(server, async move || upload(server, counters, *digest, path).await));
    stream::iter(uploads).buffer_unordered(AT_ONCE).try_collect::<()>().await
}

/// Tries again for a while when the server seems to restart. Every request here may be sent twice: a blob and a
/// result are what they are.
async fn outliving<T>(
    server: &Server,
    attempt: impl AsyncFn() -> Result<T, RemoteError>,
) -> Result<T, RemoteError> {
    let mut until = None;
    loop {
        let error = match server.reach(&attempt).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let until = *until.get_or_insert_with(|| Instant::now() + server.deadlines.restart);
        if !error.may_be_restart() || Instant::now() >= until {
            return Err(error);
        }
        sleep(server.deadlines.retry_every).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use pcmcache_shared::api::problem::Problem;
    use pcmcache_shared::{ActionResult, Claim, Cost, Output, Role};

    use super::super::fake::{Fake, Peer, Request, never};
    use super::*;

    const PUT_ACTION: &str = "PUT /v1/scopes/main/actions/";
    const PUT_BLOB: &str = "PUT /v1/scopes/main/blobs/";

    /// Some blobs in files, and the result that names them.
    struct Built {
        dir: PathBuf,
        request: PublishRequest,
    }

    impl Built {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("pcmcache-publish-{name}-{}", std::process::id()));
            fs_err::create_dir_all(&dir).unwrap();
            let built = [
                (Role::Bmi, vec![b'b'; 700_000]),
                (Role::Object, b"object".to_vec()),
                (Role::Stderr, vec![]),
            ];
            let outputs = built.map(|(role, bytes)| {
                let digest = Digest::of(&bytes);
                fs_err::write(dir.join(digest.to_string()), &bytes).unwrap();
                Output { role, digest, size: bytes.len() as u64 }
            });
            let request = PublishRequest {
                result: ActionResult {
                    outputs: outputs.to_vec(),
                    cost: Cost::default(),
                    builder: String::new(),
                    signature: None,
                },
                recipe: "schema 1\n\n".to_owned(),
                include_set: String::new(),
                claim: Claim::of("claim"),
                lease: None,
            };
            Self { dir, request }
        }

        fn digests(&self) -> Vec<Digest> {
            self.request.result.outputs.iter().map(|output| output.digest).collect()
        }

        fn publish(&self, fake: &Fake) -> (Result<Published, RemoteError>, u64) {
            let remote = fake.remote();
            let blob = |digest: Digest| Some(self.dir.join(digest.to_string())).filter(|path| path.exists());
            (remote.publish(ActionKey::of("key"), &self.request, &blob, &never), remote.bytes().0)
        }
    }

    impl Drop for Built {
        fn drop(&mut self) {
            let _ = fs_err::remove_dir_all(&self.dir);
        }
    }

    fn missing(peer: &mut Peer, digests: &[Digest]) {
        let mut problem = Problem::new(Code::MissingBlobs, "");
        problem.missing = digests.to_vec();
        peer.problem(&problem);
    }

    #[test]
    fn each_answer_has_its_meaning() {
        let built = Built::new("answers");
        assert_eq!(built.publish(&Fake::start(|_, p| p.body(201, "{}"))).0.unwrap(), Published::Stored);
        assert_eq!(built.publish(&Fake::start(|_, p| p.body(200, "{}"))).0.unwrap(), Published::Same);
        let mut problem = Problem::new(Code::Winner, "");
        problem.winner = Some(built.request.result.clone());
        let fake = Fake::start(move |_, peer| peer.problem(&problem));
        let Published::Winner(winner) = built.publish(&fake).0.unwrap() else { panic!("no winner") };
        assert_eq!((winner.result, winner.action), (built.request.result.clone(), ActionKey::of("key")));
        let fake = Fake::start(|_, peer| peer.problem(&Problem::new(Code::LeaseHeld, "")));
        let error = built.publish(&fake).0.unwrap_err();
        assert!(matches!(error, RemoteError::Refused { status: 409, code: Some(Code::LeaseHeld), .. }));
        let fake = Fake::start(|_, peer| peer.problem(&Problem::new(Code::Winner, "and does not say which")));
        let error = built.publish(&fake).0.unwrap_err();
        assert!(matches!(error, RemoteError::Refused { code: Some(Code::Winner), .. }));
        let fake = Fake::start(|_, peer| peer.body(500, "oops"));
        assert!(matches!(built.publish(&fake).0, Err(RemoteError::Refused { status: 500, code: None, .. })));
    }

    #[test]
    fn what_is_missing_is_asked_for_again_where_the_answer_was_cut() {
        let built = Built::new("cut");
        let (tries, digests) = (AtomicUsize::new(0), built.digests());
        let fake = Fake::start(move |request, peer| {
            match (request.line.starts_with(PUT_BLOB), tries.fetch_add(1, Ordering::SeqCst)) {
                (true, _) => peer.body(201, ""),
                (false, 0) => {
                    peer.head(422, "content-length: 1000\r\n");
                    peer.raw("{\"type\":");
                }
                (false, 1) => missing(peer, &digests),
                (false, _) => peer.body(201, "{}"),
            }
        });
        let (published, uploaded) = built.publish(&fake);
        assert_eq!((published.unwrap(), uploaded), (Published::Stored, 700_006));
    }

    #[test]
    fn what_is_missing_is_uploaded_with_its_length_and_then_published() {
        let built = Built::new("uploads");
        let (tries, digests) = (AtomicUsize::new(0), built.digests());
        let fake = Fake::start(move |request, peer| {
            if request.line.starts_with(PUT_BLOB) {
                peer.body(201, "");
            } else if tries.fetch_add(1, Ordering::SeqCst) == 0 {
                missing(peer, &digests);
            } else {
                peer.body(201, "{}");
            }
        });
        let (published, uploaded) = built.publish(&fake);
        assert_eq!(published.unwrap(), Published::Stored);
        assert_eq!(uploaded, 700_006);
        let uploads = fake.seen(PUT_BLOB);
        assert_eq!(uploads.len(), 3);
        for Request { line, head, body } in uploads {
            assert_eq!(line, format!("{PUT_BLOB}{}", Digest::of(&body)));
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
            assert!(!head.contains("transfer-encoding"), "{head}");
        }
        let publishes = fake.seen(PUT_ACTION);
        assert_eq!(publishes.len(), 2);
        assert_eq!(publishes[1].json::<PublishRequest>(), built.request);
    }

    #[test]
    fn a_server_that_misses_the_same_for_ever_is_asked_three_times() {
        let built = Built::new("for-ever");
        let digest = built.digests()[1];
        let fake = Fake::start(move |request, peer| {
            if request.line.starts_with(PUT_BLOB) { peer.body(200, "") } else { missing(peer, &[digest]) }
        });
        let error = built.publish(&fake).0.unwrap_err();
        assert!(matches!(error, RemoteError::Refused { code: Some(Code::MissingBlobs), .. }));
        assert_eq!((fake.seen(PUT_ACTION).len(), fake.seen(PUT_BLOB).len()), (3, 2));
    }

    #[test]
    fn no_server_gets_a_file_that_the_result_does_not_name() {
        let built = Built::new("foreign");
        let private = Digest::of("private");
        fs_err::write(built.dir.join(private.to_string()), "private").unwrap();
        let fake = Fake::start(move |_, peer| missing(peer, &[private]));
        assert!(matches!(built.publish(&fake).0, Err(RemoteError::Refused { .. })));
        assert!(fake.seen(PUT_BLOB).is_empty());
    }

    #[test]
    fn a_blob_of_ours_that_is_gone_is_our_own_fault() {
        let built = Built::new("gone");
        let digest = built.digests()[0];
        fs_err::remove_file(built.dir.join(digest.to_string())).unwrap();
        let fake = Fake::start(move |_, peer| missing(peer, &[digest]));
        assert!(matches!(built.publish(&fake).0, Err(RemoteError::Local(_))));
    }

    #[test]
    fn an_upload_that_is_refused_is_a_refusal() {
        let built = Built::new("refused");
        let digests = built.digests();
        let fake = Fake::start(move |request, peer| {
            if request.line.starts_with(PUT_BLOB) {
                peer.problem(&Problem::new(Code::StoreFull, ""));
            } else {
                missing(peer, &digests);
            }
        });
        let error = built.publish(&fake).0.unwrap_err();
        assert!(matches!(error, RemoteError::Refused { code: Some(Code::StoreFull), .. }), "{error}");
    }

    #[test]
    fn a_publish_outlives_a_restart() {
        let built = Built::new("restart");
        let tries = AtomicUsize::new(0);
        // Closing without an answer is what a client sees of a server that is killed.
        let fake = Fake::start(move |_, peer| match tries.fetch_add(1, Ordering::SeqCst) {
            0 => {}
            1 => peer.problem(&Problem::new(Code::Unavailable, "")),
            _ => peer.body(201, "{}"),
        });
        assert_eq!(built.publish(&fake).0.unwrap(), Published::Stored);
        let gone = Fake::start(|_, _| {});
        let error = built.publish(&gone).0.unwrap_err();
        assert!(error.trips_breaker(), "{error}");
    }

    #[test]
    fn a_no_that_was_cut_is_asked_for_again() {
        let built = Built::new("cut");
        let (result, missing) = (built.request.result.clone(), built.digests());
        let mut winner = Problem::new(Code::Winner, "");
        winner.winner = Some(result);
        let mut lacks = Problem::new(Code::MissingBlobs, "");
        lacks.missing = missing;
        let tries = AtomicUsize::new(0);
        let fake = Fake::start(move |request, peer| {
            let cut = |peer: &mut Peer, problem: &Problem| {
                let words = serde_json::to_vec(problem).unwrap();
                peer.head(problem.status, &format!("content-length: {}\r\n", words.len()));
                peer.raw(&words[..words.len() - 10]);
            };
            match tries.fetch_add(usize::from(request.line.starts_with(PUT_ACTION)), Ordering::SeqCst) {
                _ if request.line.starts_with(PUT_BLOB) => peer.body(201, ""),
                0 => cut(peer, &lacks),
                1 => peer.problem(&lacks),
                2 => cut(peer, &winner),
                _ => peer.problem(&winner),
            }
        });
        let published = built.publish(&fake).0.unwrap();
        assert!(matches!(published, Published::Winner(_)), "{published:?}");
        assert_eq!((fake.seen(PUT_ACTION).len(), fake.seen(PUT_BLOB).len()), (4, 3));
    }

    #[test]
    fn what_no_server_takes_is_not_sent() {
        let mut built = Built::new("large");
        built.request.recipe = "x".repeat(limits::MAX_PUBLISH_JSON);
        let fake = Fake::start(|_, peer| peer.body(201, "{}"));
        let error = built.publish(&fake).0.unwrap_err();
        assert!(matches!(error, RemoteError::Refused { code: Some(Code::TooLarge), .. }));
        assert!(fake.seen("").is_empty());
    }
}
