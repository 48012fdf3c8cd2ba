//! The agent: a process that keeps connections to one server open, so that hundreds of short launchers need not make one
//! each.
//!
//! A launcher speaks HTTP/1.1 to the agent's socket, and the agent passes requests on and answers back as they come. It
//! adds nothing, takes nothing away and tries nothing again; tokens pass through and stay nowhere.
//!
//! ```text
//! PCMCACHE_DIR/v1/agents/      0700 and the user's own
//!   SERVES                     the socket; SERVES is a digest of all that a connection depends on
//!   SERVES.lock                flocked by the agent, and by who starts one
//! ```
//!
//! Invariant: an agent makes a launch faster or does nothing. A launcher knocks before it uses one, and whatever goes
//! wrong by way of the agent is done again directly; only what comes of that says something of the server. So nothing
//! rests on an agent, and one that is killed, stopped or old costs a handshake.
//!
//! An agent is started by a launcher that has just heard from the server directly, and that goes on without it. It
//! leaves the build behind: a session of its own, no descriptor that make, ninja or a shell passed on, and of the
//! environment only what connections depend on. It ends when nobody asks it for a while, when its socket is no longer
//! where it was, when its program was replaced, and after an hour, since what it read at its start grows old.
//!
//! Crash story: a killed agent leaves a socket that refuses, and a lock that the kernel freed: the next launcher goes
//! directly and starts another. One that was stopped has its socket and its lock file removed by who knocked in vain;
//! should it go on, it finds that out and ends.

mod door;
mod flow;
mod identity;
mod lanes;
mod life;
mod place;
mod serve;

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use pcmcache_shared::Digest;

use crate::os;
use crate::settings::{Settings, When};
use place::Place;

pub use door::Knock;
pub use place::Address;
pub use serve::run_as_agent;

/// The hidden first argument that makes this program an agent.
pub const AGENT: &str = "--pcmcache-agent";

/// The agent of one server, whether it runs or not.
#[derive(Debug, Clone)]
pub struct Agent {
    serves: Digest,
    place: Place,
    /// All that it is to know of the launcher's environment.
    environment: Vec<(&'static str, OsString)>,
}

impl Agent {
    /// The agent for the server at `url`, if these settings want one. `root` is where the store's files are.
    pub fn wanted(settings: &Settings, url: &str, root: &Path) -> Option<Self> {
        let wanted = match settings.agent {
            When::Off => false,
            When::On => true,
            When::Auto => url.starts_with("https://"),
        };
        // A name and a password in a URL would not be sent by way of the agent.
        (wanted && !url.contains('@')).then(|| Self::of(settings, url, root))
    }

    /// The agent for the server at `url`.
    fn of(settings: &Settings, url: &str, root: &Path) -> Self {
        let environment = identity::environment(settings, url);
        let serves = identity::serves(&environment);
        Self { serves, place: Place::new(root, serves), environment }
    }

    /// Where to reach it, if it can be reached.
    pub fn address(&self) -> Option<Address> {
        self.place.address().ok()
    }

    /// Whether it is there, and answers. One that was stopped is out of everybody's way from then on.
    pub fn knock(&self) -> Knock {
        let Some(address) = self.address() else { return Knock::Absent };
        let before = self.place.socket_id();
        let knock = door::knock(address.path(), self.serves);
        if knock == Knock::Stopped && before.is_some() && before == self.place.socket_id() {
            self.place.remove();
        }
        knock
    }

    /// Starts it, unless somebody else does, and does not wait for it.
    pub fn start(&self) {
        // Who has the lock runs, or is about to; without one there might be many.
        let Ok(Some(lock)) = self.place.lock() else { return };
        let mut command = Command::new(os::own_program());
        command.arg0("pcmcache").arg(AGENT).arg(self.serves.to_string()).current_dir("/").env_clear();
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let _ = command.stdin(lock).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    }
}
