//! The knock: a launcher finds out, within a bound, whether an agent is there, ours, awake, and the right one.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use pcmcache_shared::Digest;

use crate::os;

/// The one path that is the agent's own.
pub(super) const DOOR: &str = "/pcmcache-agent";

/// An agent that takes longer to say that it is there is passed by. It does nothing for that but wake up.
const PATIENCE: Duration = Duration::from_millis(500);

/// The most that it may say, in bytes.
const MOST: usize = 4096;

/// What came of a knock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Knock {
    /// It is there; what it says of itself, for people.
    Answered(String),
    /// There is none.
    Absent,
    /// There is one, and it does not take us in now.
    Refused,
    /// There is one, and it does not answer: the machine is busy.
    Silent,
    /// There is one, and it will not answer: somebody stopped it.
    Stopped,
}

/// Knocks at the socket of an agent that should serve this.
pub(super) fn knock(socket: &Path, serves: Digest) -> Knock {
    let by = os::stopwatch();
    let left = || PATIENCE.checked_sub(by.elapsed()).filter(|left| !left.is_zero());
    let mut stream = match os::connect(socket) {
        Ok(stream) => stream,
        // As many have knocked as may wait: it takes nobody in.
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Knock::Stopped,
        Err(_) => return Knock::Absent,
    };
    let process = match os::peer(&stream) {
        Ok((user, process)) if user == os::user() => process,
        Ok(_) | Err(_) => return Knock::Refused,
    };
    let silent = || if os::is_stopped(process) { Knock::Stopped } else { Knock::Silent };
    let asked = format!("GET {DOOR} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n");
    if stream.set_write_timeout(left()).is_err() || stream.write_all(asked.as_bytes()).is_err() {
        return Knock::Refused;
    }
    let mut said = Vec::new();
    let mut some = [0; 512];
    while said.len() < MOST {
        let Some(left) = left() else { return silent() };
        if stream.set_read_timeout(Some(left)).is_err() {
            return Knock::Refused;
        }
        match stream.read(&mut some) {
            Ok(0) => break,
            Ok(count) => said.extend_from_slice(some.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return silent(),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return Knock::Refused,
        }
    }
    understood(&said, serves).unwrap_or(Knock::Refused)
}

/// The agent's words below its head: what it serves, and a line for people.
fn understood(said: &[u8], serves: Digest) -> Option<Knock> {
    let said = std::str::from_utf8(said).ok()?;
    let (head, body) = said.split_once("\r\n\r\n")?;
    let words = body.strip_prefix(&serves.to_string())?.trim().to_owned();
    head.starts_with("HTTP/1.1 200 ").then_some(Knock::Answered(words))
}

/// What an agent answers to a knock.
pub(super) fn words(serves: Digest, passed_on: u64) -> String {
    format!("{serves} pid {}, {passed_on} requests passed on\n", std::process::id())
}
