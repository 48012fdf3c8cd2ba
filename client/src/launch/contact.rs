//! Whether there is a server to ask, and whether what it says may be used: who took back what, and who it takes us for.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use pcmcache_shared::api::revocations::Revocations;
use pcmcache_shared::{Claim, Scope, failpoint};

use super::session::Session;
use super::turn::damaged;
use crate::local::lock::Turn;
use crate::local::origin::{MAX_SCOPES, ServerId, ServerNotes};
use crate::os;
use crate::remote::agent::Agent;
use crate::remote::breaker::{Breaker, State};
use crate::remote::{self, Remote, RemoteError};
use crate::settings::{Mode, Settings};

/// The hidden first argument that makes this program ask what the server took back.
pub const CATCH_UP: &str = "--pcmcache-catch-up";

/// Who finds everything here asks no server. So that they hear of what was taken back all the same, one of them has it asked
/// about so often.
const ASK_EVERY: Duration = Duration::from_secs(600);

/// Who asks what was taken back needs a moment for it; whoever waits for longer asks for themselves.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The process that asks.
pub fn run_as_asker(settings: Settings) -> u8 {
    let mut session = Session::open(settings);
    if session.connect()
        && let Some(remote) = &session.remote
    {
        // What comes of it says the epoch; that is what matters here.
        let _ = remote.revocations(&session.settings.scope, &|| false);
        let _ = session.catch_up(&[]);
    }
    0
}

impl Session {
    /// Whether there is a server to ask. Where the breaker is open nobody asks and nobody pays; where it may close
    /// again, this launch finds out while it compiles.
    pub(super) fn connect(&mut self) -> bool {
        let Some(url) = self.settings.remote.clone().filter(|_| self.settings.mode != Mode::Local) else {
            return false;
        };
        let settings = remote::Settings::of(&self.settings, url);
        match self.breaker().map(|breaker| breaker.state()) {
            Some(State::Open) => {
                self.offline = true;
                return false;
            }
            Some(State::HalfOpen(ticket)) => {
                self.offline = true;
                remote::probe_beside(settings, ticket);
                return false;
            }
            Some(State::Closed) | None => {}
        }
        let store = self.store.as_ref();
        let agent = store.and_then(|store| Agent::wanted(&self.settings, &settings.url, store.root()));
        match Remote::by(agent, settings) {
            Ok(remote) => self.remote = Some(remote),
            Err(error) => self.remote_fault(&error),
        }
        self.remote.is_some()
    }

    /// What this host knows of the server's absence.
    pub(super) fn breaker(&self) -> Option<Breaker> {
        let (store, url) = (self.store.as_ref()?, self.settings.remote.as_ref()?);
        Some(Breaker::new(store.root(), url, Arc::new(os::wall_clock)))
    }

    /// Counts a fault of the server. One that makes everybody wait is left alone for a while; one that does not let us in is
    /// not asked again by this launch.
    pub(super) fn remote_fault(&mut self, error: &RemoteError) {
        self.fault(error.name(), error);
        if error.shuts_us_out() {
            self.disconnect();
        }
        if error.trips_breaker() {
            // Neither this launch nor any other waits for it once more.
            self.offline = true;
            self.disconnect();
            if let Some(breaker) = self.breaker() {
                breaker.trip();
            }
        }
    }

    /// Has no server from here on.
    pub(super) fn disconnect(&mut self) {
        if let Some(remote) = self.remote.take() {
            let (uploaded, downloaded) = remote.bytes();
            self.counts.uploaded_bytes += uploaded;
            self.counts.downloaded_bytes += downloaded;
        }
    }

    /// Finds out what the server took back in the scopes of what it answered, before that is used. `None`: it took something
    /// back since, so it must be asked again; else what is known of it at the epoch that its answer went by.
    pub(super) fn catch_up(&self, found_in: &[&Scope]) -> Result<Option<ServerNotes>, RemoteError> {
        let (Some(store), Some(remote), Some(url)) =
            (self.store.as_ref(), self.remote.as_ref(), self.settings.remote.as_ref())
        else {
            return Err(RemoteError::Gone);
        };
        let (server, epoch) = (ServerId::of(url), remote.epoch());
        let mut scopes: BTreeSet<Scope> = found_in.iter().map(|scope| (*scope).clone()).collect();
        scopes.insert(self.settings.scope.clone());
        if scopes.len() > MAX_SCOPES {
            return Err(damaged(&"it is of too many scopes"));
        }
        let known = || store.server_notes(server).filter(|notes| notes.cover(epoch, &scopes));
        if let Some(notes) = known() {
            // It was asked just now; nobody needs to for a while.
            store.is_to_be_asked(server, ASK_EVERY);
            return Ok(Some(notes));
        }
        // One asks for all who start at the same time.
        let claim = Claim::of(format!("revocations at {url}"));
        let _lock = match store.lock(claim, LONGEST_WAIT, &|| self.interrupt.came()) {
            Turn::Ours(lock) => Some(lock),
            Turn::Alone => None,
            Turn::Interrupted => return Err(RemoteError::Interrupted),
        };
        if let Some(notes) = known() {
            return Ok(Some(notes));
        }
        let fresh = u64::from_ne_bytes(os::random());
        let before = store.server_notes(server).unwrap_or_else(|| ServerNotes::new(fresh));
        let Some(said) = self.ask_revocations(remote, epoch, &scopes, before.with_scopes(&scopes))? else {
            return Ok(None);
        };
        let notes = before.after(epoch, said, fresh);
        failpoint!("launch.taken-back");
        store.note_server(server, &notes).map_err(RemoteError::Local)?;
        Ok(Some(notes))
    }

    /// Where what was fetched long ago is used, has its server asked by a process that outlives this one: nobody waits for it.
    pub(super) fn have_it_asked(&self) {
        let used = self.store.as_ref().zip(self.used_of).zip(self.settings.remote.as_ref());
        let Some(((store, server), url)) = used.filter(|_| self.settings.mode != Mode::Local) else { return };
        if server == ServerId::of(url) && store.is_to_be_asked(server, ASK_EVERY) {
            os::start_apart(CATCH_UP, Stdio::null());
        }
    }

    /// What the server took back in each of these scopes. What is not `wanted`, and may not be read any more, is left out.
    /// `None`: meanwhile it took more back.
    fn ask_revocations(
        &self,
        remote: &Remote,
        epoch: Option<u64>,
        wanted: &BTreeSet<Scope>,
        scopes: BTreeSet<Scope>,
    ) -> Result<Option<Vec<(Scope, Revocations)>>, RemoteError> {
        let mut all = Vec::new();
        for scope in scopes {
            let said = match epoch {
                // A server that knows no epochs, and one that never took anything back.
                None | Some(0) => Ok(Revocations { complete: true, ..Revocations::default() }),
                Some(_) => remote.revocations(&scope, &|| self.interrupt.came()),
            };
            match said {
                Ok(said) if said.epoch == epoch.unwrap_or(0) => all.push((scope, said)),
                Ok(_) => return Ok(None),
                Err(RemoteError::Refused { .. }) if !wanted.contains(&scope) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(all))
    }
}
