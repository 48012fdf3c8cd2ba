//! What was made is kept, here and at the server, if it is certain what it was made of.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pcmcache_shared::api::KeyedResult;
use pcmcache_shared::api::actions::PublishRequest;
use pcmcache_shared::api::problem::Code;
use pcmcache_shared::{
    ActionResult, Claim, Cost, Digest, IncludeSet, Output, Recipe, ReleaseReason, Role, disk, failpoint,
};

use super::build::Built;
use super::session::{Hit, Session};
use super::task::{Known, Task};
use super::turn;
use crate::bases::MARK;
use crate::depfile::Rules;
use crate::inputs::{self, Graph, Uncacheable};
use crate::invocation::{Arg, Family, Kind};
use crate::local::origin::{Kept, Origin, ServerId};
use crate::local::queue::{Handed, Queued};
use crate::local::{Room, Store};
use crate::os;
use crate::remote::{Lease, Published, RemoteError};
use crate::settings::Upload;

/// What became of a result that was to be published.
enum Fate {
    /// There is nothing more to do.
    Settled,
    /// The server could not be had: it is to be uploaded another time.
    Later,
    /// This one was published first, and is here now.
    Lost(Hit),
}

impl Session {
    /// Keeps what was made, here and at the server. Gives the result that was published first, if it is another's
    /// and its bytes are here now: those go in place of ours.
    pub(super) fn keep(&mut self, task: &mut Task, built: &Built, lease: Option<Lease>) -> Option<Hit> {
        failpoint!("launch.compiled");
        let examined = self.examine(task, built);
        let stripped = strip_depfile(task, built);
        let store = self.store.clone()?;
        let examined = examined.and_then(|known| stripped.map(|()| known));
        let roomy = examined.and_then(|known| Ok((self.make_room(&store, built, &known)?, known)));
        let (_room, known) = match roomy {
            Ok(roomy) => roomy,
            Err(uncacheable) => {
                self.uncacheable(&uncacheable);
                self.note_embedded(task, &store, built);
                if let Some(lease) = lease {
                    lease.release(ReleaseReason::Uncacheable);
                }
                return None;
            }
        };
        let result = match self.put_outputs(task, built, &store) {
            Ok(result) => result,
            Err(error) => {
                self.fault("local_store", &error);
                return None;
            }
        };
        failpoint!("launch.blobs");
        task.known.insert(0, known);
        self.used = task.known.first().and_then(|known| known.recipe.as_ref()).map(Recipe::action_key);
        let lease = match lease {
            Some(lease) if self.settings.upload == Upload::Background => {
                match self.hand_over(task, &store, &result, lease) {
                    None => return None,
                    lease => lease,
                }
            }
            lease => lease,
        };
        let published = self.publish(task, &store, &result, lease);
        failpoint!("launch.published");
        let is_queued = matches!(published, Fate::Later);
        if let Fate::Lost(winner) = published {
            return Some(winner);
        }
        let is_kept = self.remember_own(task, &store, &result);
        failpoint!("launch.stored");
        if is_kept && is_queued {
            self.enqueue(task, &store, result, None);
        }
        None
    }

    /// Leaves the upload to a process that outlives this launch: the result is used here from now on, and the lease keeps
    /// others from building the same. Who has no lease, or lost it, publishes at once: if another was first, its bytes are
    /// taken before anything depends on ours. Gives the lease back if that is so, or if the result cannot be queued.
    fn hand_over(
        &mut self,
        task: &Task,
        store: &Store,
        result: &ActionResult,
        lease: Lease,
    ) -> Option<Lease> {
        let handed = lease.request().filter(|_| self.may_write && !lease.lost()).map(|(id, subject)| {
            let (request_id, subject) = (id.to_owned(), subject.to_owned());
            (lease.claim(), Handed { hold: lease.hold(), request_id, subject })
        });
        let Some(handed) = handed.filter(|_| self.remember_own(task, store, result)) else {
            return Some(lease);
        };
        failpoint!("launch.stored");
        if !self.enqueue(task, store, result.clone(), Some(handed)) {
            return Some(lease);
        }
        lease.hand_over();
        self.have_it_uploaded();
        None
    }

    /// Writes down locally what was made. `false`: it could not be.
    fn remember_own(&mut self, task: &Task, store: &Store, result: &ActionResult) -> bool {
        let Some(Known { set, recipe: Some(recipe) }) = task.known.first() else { return false };
        let kept = Kept { result: result.clone(), origin: Origin::Own };
        let remembered = self.remember(store, task, set, recipe, &kept);
        remembered.map_err(|error| self.fault("local_store", &error)).is_ok()
    }

    /// Queues the result that `task.known` has first, with the lease on a claim that it was made under. All that it names
    /// lies in the store. `false`: it could not be queued.
    fn enqueue(
        &mut self,
        task: &Task,
        store: &Store,
        result: ActionResult,
        handed: Option<(Claim, Handed)>,
    ) -> bool {
        let action = task.known.first().and_then(|known| known.recipe.as_ref()).map(Recipe::action_key);
        let (Some(url), Some(action)) = (&self.settings.remote, action) else { return false };
        let (server, scope) = (ServerId::of(url), self.settings.scope.clone());
        let (claim, lease) = match handed {
            Some((claim, handed)) => (claim, Some(handed)),
            None => (task.claim(), None),
        };
        let enqueued = store.enqueue(&Queued { server, scope, action, claim, lease, result });
        failpoint!("launch.queued");
        enqueued.map_err(|error| self.fault("queue", &error)).is_ok()
    }

    /// What was learnt, and that nothing of it changed meanwhile.
    fn examine(&mut self, task: &Task, built: &Built) -> Result<Known, Uncacheable> {
        if let Some((staged, _)) = built.plan.unexpected().first() {
            return Err(Uncacheable::new("unexpected-output", staged.display().to_string()));
        }
        if let Some((role, ..)) = built.plan.files.iter().find(|(_, staged, _)| !staged.is_file()) {
            return Err(Uncacheable::new("missing-output", role.to_string()));
        }
        let (mut listing, mut graph) = (built.plan.listing.as_deref(), built.plan.graph.as_deref());
        if let (Family::Gcc, Some(all)) = (task.invocation.family, graph) {
            list_all(task, all)?;
            (listing, graph) = (Some(all), None);
        }
        let said_nothing = built.ran.stderr.as_ref().is_some_and(Vec::is_empty);
        if task.columns.is_some() && !said_nothing {
            return Err(Uncacheable::new("terminal-diagnostics", "they are wrapped to its width"));
        }
        let headers = self.imported_headers(task);
        let graph = graph.map(|file| Graph { file, root: root(task) });
        let lists_bmis = task.facts.lists_bmis;
        let set = self.inputs.learn(&task.invocation, listing, graph, headers, lists_bmis, built.start)?;
        self.refuse_foreign_bmis(task, &set)?;
        self.inputs.unchanged_since(built.start)?;
        if built.clock_was_set_back() {
            let why = "the clock was set back while the compiler ran: times do not tell";
            return Err(Uncacheable::new("input-changed", why));
        }
        let recipe = self.inputs.recipe(&task.unit, &set, &task.invocation);
        let gone = || Uncacheable::new("input-changed", "an input is gone");
        Ok(Known { recipe: Some(recipe.ok_or_else(gone)?), set })
    }

    /// The headers that the header units on the command line were made of.
    fn imported_headers(&mut self, task: &Task) -> Vec<PathBuf> {
        let Some(store) = self.store.clone() else { return Vec::new() };
        let unnamed = task.invocation.bmis.iter().filter(|bmi| bmi.module.is_empty());
        let entries = unnamed.filter_map(|bmi| store.embedded(self.inputs.digest(&bmi.path).ok()?));
        entries.flat_map(|bmi| bmi.headers).map(|header| task.facts.bases.path(&header)).collect()
    }

    /// Room in the local store. Where there is a server, what goes there must lie here first.
    fn make_room(&self, store: &Store, built: &Built, known: &Known) -> Result<Room, Uncacheable> {
        let staged = built.plan.files.iter().map(|(_, staged, _)| staged);
        let sizes = staged.filter_map(|staged| Some(fs_err::metadata(staged).ok()?.len()));
        let said = [&built.ran.stdout, &built.ran.stderr].into_iter().flatten().map(|said| said.len() as u64);
        let recipe = known.recipe.iter().map(|recipe| recipe.text().len() as u64);
        let room = store.room_for(sizes.chain(said).chain(recipe), self.settings.max_size);
        room.or_else(|| self.remote.is_some().then(Room::unbounded))
            .ok_or_else(|| Uncacheable::new("store-full", "a trim makes room for the next"))
    }

    /// Copies the outputs into the local store.
    pub(super) fn put_outputs(&self, task: &Task, built: &Built, store: &Store) -> io::Result<ActionResult> {
        let mut outputs = Vec::new();
        for (role, staged, _) in &built.plan.files {
            let is_spelled = *role == Role::Depfile && !task.facts.bases.is_empty();
            let (digest, size) =
                if is_spelled { put_depfile(task, staged, store)? } else { store.put_file(staged)? };
            outputs.push(Output { role: *role, digest, size });
        }
        for (role, said) in [(Role::Stdout, &built.ran.stdout), (Role::Stderr, &built.ran.stderr)] {
            let said = said.as_ref().and_then(|said| task.facts.bases.spell_text(said));
            let said = said.ok_or_else(|| io::Error::other(format!("{role} cannot be kept")))?;
            if !said.is_empty() {
                outputs.push(Output { role, digest: store.put_blob(&said)?, size: said.len() as u64 });
            }
        }
        let cost = Cost { wall_ms: u64::try_from(built.ran.wall.as_millis()).unwrap_or(u64::MAX) };
        let builder = os::host_name().chars().take(64).collect();
        Ok(ActionResult { outputs, cost, builder, signature: None })
    }

    /// Publishes the result that `task.known` has first.
    fn publish(&mut self, task: &Task, store: &Store, result: &ActionResult, lease: Option<Lease>) -> Fate {
        let Some(Known { set, recipe: Some(recipe) }) = task.known.first() else { return Fate::Settled };
        if !self.may_write {
            return Fate::Settled;
        }
        if self.offline && self.remote.is_none() {
            return Fate::Later;
        }
        let Some(signed) = self.signed(recipe.action_key(), result) else { return Fate::Settled };
        let Some(remote) = &self.remote else { return Fate::Settled };
        let request = PublishRequest {
            result: signed,
            recipe: recipe.text().to_owned(),
            include_set: set.text(),
            claim: lease.as_ref().map_or_else(|| task.claim(), Lease::claim),
            lease: lease.as_ref().map(Lease::hold),
        };
        let action = recipe.action_key();
        let interrupt = self.interrupt.clone();
        let blob = |digest: Digest| Some(store.blob_path(digest));
        let published = remote.publish(action, &request, &blob, &|| interrupt.came());
        match published {
            Ok(Published::Stored | Published::Same) => {
                if let Some(lease) = lease {
                    lease.discharge();
                }
                Fate::Settled
            }
            Ok(Published::Winner(winner)) => {
                if let Some(lease) = lease {
                    lease.discharge();
                }
                self.take_winner(task, *winner).map_or(Fate::Settled, Fate::Lost)
            }
            Err(error) => {
                if let Some(lease) = lease {
                    lease.release(release_reason(&error));
                }
                self.remote_fault(&error);
                if error.may_pass() { Fate::Later } else { Fate::Settled }
            }
        }
    }

    /// Fetches the winner's bytes, so that what depends on this module is the same everywhere.
    fn take_winner(&mut self, task: &Task, winner: KeyedResult) -> Option<Hit> {
        let notes = self.catch_up(&[&winner.scope]).and_then(|notes| notes.ok_or(RemoteError::Gone));
        match notes.and_then(|notes| self.take(task, winner, &notes)) {
            Ok(hit) => Some(hit),
            Err(error) => {
                self.counts.diverged += 1;
                self.remote_fault(&error);
                None
            }
        }
    }

    /// Our own BMIs have their sources embedded, whether they are cached or not. Macros come out of a header unit, and
    /// what they ask for when they are expanded is known only if all of it is.
    fn note_embedded(&mut self, task: &Task, store: &Store, built: &Built) {
        let Some(bmi) = built.plan.staged(Role::Bmi) else { return };
        if task.invocation.kind == Kind::HeaderUnit {
            return;
        }
        // Which modules it loads along the prebuilt paths is not known.
        let mut known = turn::embedded(task.unit.text(), &IncludeSet::default());
        known.imports.push(String::new());
        let noted = disk::File::open(bmi)
            .and_then(pcmcache_shared::digest::hash_reader)
            .and_then(|(digest, _)| store.mark_embedded(digest, &known));
        if let Err(error) = noted {
            self.fault("local_store", &error);
        }
    }
}

/// Takes the BMIs that we made the compiler list out of the user's depfile again.
pub(super) fn strip_depfile(task: &Task, built: &Built) -> Result<(), Uncacheable> {
    let (Some(_), Some(listing)) = (&task.invocation.depfile, &built.plan.listing) else { return Ok(()) };
    if !task.invocation.may_load_bmis() || task.facts.lists_bmis {
        return Ok(());
    }
    let stripped = inputs::without_bmis(listing)?;
    disk::write(listing, stripped).map_err(|error| Uncacheable::new("depfile", error.to_string()))
}

/// A depfile as other checkouts can use it: what is below a base directory is spelled.
fn put_depfile(task: &Task, staged: &Path, store: &Store) -> io::Result<(Digest, u64)> {
    let not_understood = || io::Error::other(format!("{} is not understood", staged.display()));
    let text = disk::read_to_string(staged)?;
    if text.contains(MARK) {
        return Err(not_understood());
    }
    let rules = Rules::parse(&text).ok_or_else(not_understood)?;
    let text = rules.spelled(|name| task.facts.bases.spell_name(name)).text();
    Ok((store.put_blob(text.as_bytes())?, text.len() as u64))
}

/// GCC lists the user's headers or all of them, not both, so it is asked again, to preprocess only. What changes in
/// between is seen by who looks whether anything changed since the compile began.
fn list_all(task: &Task, to: &Path) -> Result<(), Uncacheable> {
    let words = task.invocation.args.iter().filter(|arg| !matches!(arg, Arg::Action(_) | Arg::Source));
    let mut command = Command::new(&task.compiler.program);
    command.args(words.flat_map(Arg::words)).args(["-M", "-MF"]).arg(to);
    if task.invocation.says_language {
        command.args(["-x", task.invocation.language.word()]);
    }
    command.arg(&task.invocation.source);
    let ran = command.stdin(Stdio::null()).output();
    match ran {
        Ok(output) if output.status.success() => Ok(()),
        Ok(_) | Err(_) => Err(Uncacheable::new("depfile-not-understood", to.display().to_string())),
    }
}

/// The system's root, as the compiler proper is told it.
fn root(task: &Task) -> String {
    let mut pairs = task.driver.iter().zip(task.driver.iter().skip(1));
    let told = pairs.rfind(|(flag, _)| *flag == "-isysroot");
    let told = told.map(|(_, root)| task.facts.bases.path(Path::new(root)).to_string_lossy().into_owned());
    told.unwrap_or_else(|| "/".to_owned())
}

/// What those who wait are told when a publish fails.
pub(super) fn release_reason(error: &RemoteError) -> ReleaseReason {
    match error {
        RemoteError::Refused { code: Some(Code::TooLarge), .. } => ReleaseReason::TooLarge,
        RemoteError::Refused { code: Some(Code::StoreFull), .. } => ReleaseReason::StoreFull,
        RemoteError::Refused { .. }
        | RemoteError::Unreachable { .. }
        | RemoteError::Damaged { .. }
        | RemoteError::Unsigned(_)
        | RemoteError::Gone
        | RemoteError::Local(_)
        | RemoteError::Interrupted
        | RemoteError::Misconfigured(_) => ReleaseReason::Abandoned,
    }
}
