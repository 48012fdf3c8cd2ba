//! The lines of a history, and who writes them down.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, Write as _};
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use pcmcache_shared::Digest;
use serde::{Deserialize, Serialize};

use super::contents::Content;

/// Microseconds since the history began.
pub type Us = u64;

/// A line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Line {
    /// The first one.
    Setting(Setting),
    /// Something that a client asked.
    Op(Box<Op>),
    /// Something that was done to the server or to a road.
    Fault(Fault),
}

/// What the operations are to be judged by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// What all chance followed from.
    pub seed: u64,
    /// How many times as fast as the real one the server's clock goes.
    pub rate: u64,
    /// Whether the store is so small that results go.
    pub may_evict: bool,
    /// Who asks, by the names that the operations use.
    pub principals: BTreeMap<String, Principal>,
}

/// A principal: one token, shown by one client or many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// The name under which what it published can be taken back.
    pub id: String,
    /// The scope it may write.
    pub writes: Option<String>,
    /// The scopes it may read beside that, in order.
    pub reads: Vec<String>,
}

impl Principal {
    /// The scopes seen by who asks under `scope`, in order; none where it may not be asked.
    pub fn view<'a>(&'a self, scope: &'a str) -> Vec<&'a str> {
        if self.writes.as_deref() == Some(scope) {
            return [scope].into_iter().chain(self.reads.iter().map(String::as_str)).collect();
        }
        self.reads.iter().map(String::as_str).filter(|read| *read == scope).collect()
    }
}

/// An operation: it took effect between `from` and `to`, if at all and unless its end is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Op {
    /// Before the first byte was sent.
    pub from: Us,
    /// Once the last byte had come.
    pub to: Us,
    /// Which client.
    pub client: u32,
    /// The road it took.
    pub road: usize,
    /// Whose token it showed.
    pub who: String,
    /// The scope it asked under.
    pub scope: String,
    /// What it asked.
    #[serde(flatten)]
    pub act: Act,
    /// What came of it.
    #[serde(flatten)]
    pub end: End,
    /// Whether all faults were over, and nobody else asked for anything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub settling: bool,
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum Act {
    /// The result of a key, by itself or by a look-up.
    Read {
        /// The key's name.
        key: String,
    },
    /// The result or the lease.
    Acquire {
        /// The key's name.
        key: String,
        /// The request's id.
        request: String,
        /// How long it would wait, in microseconds of the real clock.
        wait: Us,
        /// Whether the open stream is the hold.
        hold: bool,
    },
    /// The holder lives.
    Renew {
        /// The key's name.
        key: String,
        /// The grant.
        fence: u64,
    },
    /// The holder gives up.
    Release {
        /// The key's name.
        key: String,
        /// The grant.
        fence: u64,
        /// Why.
        reason: String,
    },
    /// The holder's stream is closed, or nobody will renew.
    LetGo {
        /// The key's name.
        key: String,
        /// The grant.
        fence: u64,
    },
    /// A blob goes up.
    Upload {
        /// Its declared name.
        digest: Digest,
        /// Its bytes.
        content: Content,
        /// How many of them are sent.
        sent: u64,
    },
    /// A result goes up.
    Publish {
        /// The key's name.
        key: String,
        /// The name of this very attempt, which the result carries as its builder.
        build: String,
        /// The outputs, in order.
        outputs: Vec<Content>,
        /// The grant it was made under, if there was one.
        fence: Option<u64>,
    },
    /// A blob is fetched.
    Fetch {
        /// Its name.
        digest: Digest,
        /// The first byte and the one after the last.
        range: Option<(u64, u64)>,
    },
}

impl Act {
    /// The key it is about.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Read { key }
            | Self::Acquire { key, .. }
            | Self::Renew { key, .. }
            | Self::Release { key, .. }
            | Self::LetGo { key, .. }
            | Self::Publish { key, .. } => Some(key),
            Self::Upload { .. } | Self::Fetch { .. } => None,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum End {
    /// There is a result.
    Found {
        /// It.
        result: Sight,
    },
    /// Another result was there first.
    Winner {
        /// It.
        result: Sight,
    },
    /// There is none.
    Absent,
    /// The lease.
    Granted {
        /// The grant.
        fence: u64,
        /// How long it lives, in milliseconds of the server's clock.
        ttl_ms: u64,
    },
    /// Someone else builds it, and the wait is over.
    Busy,
    /// Build without a lease.
    Alone {
        /// Why.
        reason: String,
    },
    /// The lease lives on.
    Renewed {
        /// For so long, in milliseconds of the server's clock.
        ttl_ms: u64,
    },
    /// It was done.
    Done {
        /// 200, 201 or 204.
        status: u16,
    },
    /// Bytes.
    Bytes {
        /// The digest of those that came.
        got: Digest,
        /// How many.
        length: u64,
    },
    /// The server said no, so nothing happened.
    Refused {
        /// The status.
        status: u16,
        /// The problem's code.
        code: String,
        /// Blobs that it misses.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        missing: Vec<Digest>,
    },
    /// Nothing was sent.
    NotSent,
    /// The connection broke.
    Cut,
    /// The client lost patience, which it has little of.
    GaveUp,
    /// Nothing came for so long that something hangs.
    TimedOut,
    /// The answer is none that may be given.
    Nonsense {
        /// What it was.
        what: String,
    },
}

impl End {
    /// Whether it may take effect later.
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::Cut | Self::GaveUp | Self::TimedOut | Self::Nonsense { .. } => true,
            Self::Refused { status, .. } => *status >= 500 && *status != 507,
            _ => false,
        }
    }
}

/// A result as a client saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sight {
    /// The scope it is said to be of.
    pub scope: String,
    /// The attempt that it is said to be of.
    pub build: String,
    /// Its outputs, in order.
    pub outputs: Vec<Digest>,
    /// Who published it.
    pub writers: Vec<String>,
    /// The blobs that came along: by what name, and what the bytes really are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inline: Vec<(Digest, Digest)>,
}

/// Something that was done to the server or to a road, from before it began until all was well again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Before it was done.
    pub from: Us,
    /// Once all was well again.
    pub to: Us,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What a fault is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum What {
    /// SIGKILL, and another start.
    Kill,
    /// The server runs on, and is killed by itself as soon as it comes to this step; then it starts again.
    Step {
        /// The failpoint.
        step: String,
    },
    /// SIGSTOP, and SIGCONT.
    Stop,
    /// All connections over this road break.
    Cut {
        /// Which.
        road: usize,
    },
    /// Nothing passes this road.
    Stall {
        /// Which.
        road: usize,
    },
}

/// Writes down what happens.
#[derive(Debug)]
pub struct Recorder {
    start: Instant,
    lines: Mutex<Vec<Line>>,
}

impl Recorder {
    /// A history begins.
    pub fn begin(setting: Setting) -> Self {
        Self { start: Instant::now(), lines: Mutex::new(vec![Line::Setting(setting)]) }
    }

    /// Now.
    pub fn now(&self) -> Us {
        self.start.elapsed().as_micros() as Us
    }

    /// Adds a line.
    pub fn note(&self, line: Line) {
        self.lines.lock().expect("the lines").push(line);
    }

    /// All lines.
    pub fn end(self) -> Vec<Line> {
        self.lines.into_inner().expect("the lines")
    }
}

/// Writes a history to a file, a JSON object a line.
pub fn write(lines: &[Line], path: &Path) -> io::Result<()> {
    let mut file = io::BufWriter::new(fs_err::File::create(path)?);
    for line in lines {
        serde_json::to_writer(&mut file, line)?;
        file.write_all(b"\n")?;
    }
    file.flush()
}

/// Reads one.
pub fn read(path: &Path) -> io::Result<Vec<Line>> {
    let lines = io::BufReader::new(fs_err::File::open(path)?).lines();
    lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}
