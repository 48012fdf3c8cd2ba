//! A launcher that asks a server, and what comes back: heads, lines, JSON, blobs. Whatever comes, the launcher has an answer or
//! an error within its time, takes no more bytes than it asked for, and believes nothing that it can check.
//!
//! The first line of the first part says what is asked; each part (of the first, the rest) is what one connection answers.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use pcmcache::remote::pace::Pace;
use pcmcache::remote::{Acquired, Published, Remote, Settings as Remotely};
use pcmcache::settings::{Papers, When};
use pcmcache_shared::api::acquire::{AcquireMode, AcquireRequest, KnownSet};
use pcmcache_shared::api::actions::PublishRequest;
use pcmcache_shared::api::profiles::PushRequest;
use pcmcache_shared::api::{KeyedResult, limits};
use pcmcache_shared::{ActionKey, ActionResult, Claim, Cost, Digest, Output, ProfileName, Role, Scope};

use crate::{parts, scratch};

/// Who asks gives up after this.
const PATIENCE: Duration = Duration::from_millis(100);
const BLOB: &str = "the bytes of a blob";
const RECIPE: &str = "schema 1\n\n";

/// A server that says what it is told to: one answer a connection.
struct Fake {
    address: SocketAddr,
    answers: Arc<Mutex<Vec<Vec<u8>>>>,
    dir: PathBuf,
}

pub(crate) fn run(input: &[u8]) {
    static FAKE: OnceLock<Fake> = OnceLock::new();
    let fake = FAKE.get_or_init(start);
    let (what, rest) = parts::first_line(input);
    let mut answers: Vec<Vec<u8>> = parts::of(rest).into_iter().map(filled).collect();
    answers.reverse();
    *lock(&fake.answers) = answers;
    let started = Instant::now();
    let over = || started.elapsed() > PATIENCE;
    let Ok(remote) = Remote::new(fake.settings(what)) else { panic!("settings like any other") };
    match what.first() {
        Some(b'a') => acquire(&remote, &over),
        Some(b'f') => fetch(&remote, &over),
        Some(b'p') => profile(&remote, &over),
        Some(b'l') => look_up(&remote, &over),
        Some(b'u') => publish(&remote, fake, &over),
        _ => {
            drop((remote.date(), remote.who_am_i(), remote.revocations(&Scope::default(), &over)));
            if let Ok(session) = remote.exchange("a token") {
                assert!(!session.token.is_empty() && session.token.bytes().all(|b| b.is_ascii_graphic()));
            }
        }
    }
    assert!(started.elapsed() < Duration::from_secs(20), "who gave up does not wait on");
}

/// The names that an answer must have are too much to guess.
fn filled(answer: &[u8]) -> Vec<u8> {
    let Ok(text) = str::from_utf8(answer) else { return answer.to_vec() };
    let text = text.replace("{blob}", &Digest::of(BLOB).to_string());
    let text =
        text.replace("{action}", &action().to_string()).replace("{empty}", &Digest::of("").to_string());
    text.replace("{bytes}", BLOB).into_bytes()
}

fn action() -> ActionKey {
    ActionKey::of(RECIPE)
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start() -> Fake {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let answers: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let next = Arc::clone(&answers);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let Some(answer) = lock(&next).pop() else { continue };
            let _ = stream.set_read_timeout(Some(PATIENCE));
            // All of it: what is not heard would take the answer along.
            hear(&mut stream);
            let _ = stream.write_all(&answer);
        }
    });
    let dir = scratch::directory("answers");
    fs_err::write(dir.join("blob"), BLOB).expect("a file");
    Fake { address, answers, dir }
}

/// A request, its body included.
fn hear(stream: &mut TcpStream) {
    let (mut asked, mut some, mut due) = (Vec::new(), [0; 4096], None);
    while due.is_none_or(|due| asked.len() < due) {
        match stream.read(&mut some) {
            Ok(count) if count > 0 => asked.extend_from_slice(&some[..count]),
            _ => return,
        }
        if let Some(end) = asked.windows(4).position(|window| window == b"\r\n\r\n").filter(|_| due.is_none())
        {
            let head = String::from_utf8_lossy(&asked[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            due = Some(end + 4 + length.unwrap_or(0_usize));
        }
    }
}

impl Fake {
    fn settings(&self, what: &[u8]) -> Remotely {
        let when = if what.contains(&b'z') { When::On } else { When::Off };
        let url = format!("http://{}", self.address);
        Remotely {
            papers: Papers::default(),
            token: Some("a-token".to_owned()),
            token_file: None,
            scope: Scope::default(),
            timeout: PATIENCE,
            pace: Pace::of(when, &self.dir, &url),
            holder: "fuzzer".to_owned(),
            url,
        }
    }
}

fn acquire(remote: &Remote, over: &dyn Fn() -> bool) {
    let request = AcquireRequest {
        claim: Claim::of("claim"),
        unit: None,
        known: vec![KnownSet { set: Digest::of(""), action: Some(action()) }],
        request_id: "request-1".to_owned(),
        holder: String::new(),
        subject: String::new(),
        mode: AcquireMode::Build,
        wait_ms: 50,
        hold: true,
    };
    let Ok(answer) = remote.acquire(&request, &mut || (), over) else { return };
    match answer.acquired {
        Acquired::Hit(hit) => {
            assert_eq!(hit.action, action(), "a hit on what was not asked for");
            checked(&hit);
        }
        Acquired::Sets(sets) => {
            for offered in sets {
                assert_eq!(Digest::of(&offered.text), offered.set);
                offered.results.iter().for_each(checked);
            }
        }
        Acquired::Granted(lease) => lease.discharge(),
        Acquired::Alone(_) | Acquired::WaitOver => {}
    }
}

fn checked(keyed: &KeyedResult) {
    assert!(keyed.result.check().is_ok() && keyed.writers.len() <= limits::MAX_WRITERS);
    assert!(keyed.blobs.iter().all(|(digest, inline)| Digest::of(&inline.0) == *digest));
}

fn fetch(remote: &Remote, over: &dyn Fn() -> bool) {
    for size in [BLOB.len() as u64, 1 << 40] {
        let mut into = Bounded { left: size.min(1 << 20), bytes: Vec::new() };
        if remote.fetch(Digest::of(BLOB), size, &mut into, over).is_ok() {
            assert_eq!(into.bytes, BLOB.as_bytes());
            assert_eq!(size, BLOB.len() as u64, "a blob of another size than was said");
        }
        assert!(into.bytes.len() as u64 <= size);
    }
    if let Ok(text) = remote.fetch_text(Digest::of(BLOB), 64, over) {
        assert_eq!(text, BLOB.as_bytes());
    }
}

/// Keeps a bounded part of what is written, and panics at a byte too many.
struct Bounded {
    left: u64,
    bytes: Vec<u8>,
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.expect("more bytes than were asked for");
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn profile(remote: &Remote, over: &dyn Fn() -> bool) {
    let name: ProfileName = "nightly".parse().expect("a name");
    if let Ok(Some(profile)) = remote.profile(&name, over) {
        assert!(profile.actions.len() <= limits::MAX_PROFILE);
        assert!(profile.inherits.len() <= limits::MAX_INHERITED);
    }
    let _ = remote.push_profile(&name, &PushRequest::default(), over);
}

fn look_up(remote: &Remote, over: &dyn Fn() -> bool) {
    for keyed in remote.look_up(&[action()], over).unwrap_or_default() {
        assert_eq!(keyed.action, action());
        checked(&keyed);
    }
}

fn publish(remote: &Remote, fake: &Fake, over: &dyn Fn() -> bool) {
    let output = Output { role: Role::Object, digest: Digest::of(BLOB), size: BLOB.len() as u64 };
    let result = ActionResult {
        outputs: vec![output],
        cost: Cost::default(),
        builder: "fuzzer".to_owned(),
        signature: None,
    };
    let request = PublishRequest {
        result,
        recipe: RECIPE.to_owned(),
        include_set: String::new(),
        claim: Claim::of("claim"),
        lease: None,
    };
    let files = BTreeMap::from([(Digest::of(BLOB), fake.dir.join("blob"))]);
    let blob = |digest: Digest| files.get(&digest).cloned();
    if let Ok(Published::Winner(winner)) = remote.publish(action(), &request, &blob, over) {
        assert_eq!(winner.action, action());
        checked(&winner);
    }
}
