//! The server's part: look, learn include sets, get the right to build or wait for who has it.

use std::io::Write;
use std::path::Path;

use pcmcache_shared::api::acquire::{AcquireMode, AcquireRequest, KnownSet};
use pcmcache_shared::api::{KeyedResult, OfferedSet, limits};
use pcmcache_shared::recipe::Learnt;
use pcmcache_shared::staged::Durability;
use pcmcache_shared::{ActionKey, IncludeSet, Recipe, Role, Scope, recipe};

use super::Stop;
use super::session::{Hit, Known, Session, Task};
use crate::invocation::Kind;
use crate::local::Store;
use crate::local::embedded::Embedded;
use crate::local::history::{Command, Near};
use crate::local::origin::{Fetched, Kept, Origin, ServerId, ServerNotes};
use crate::os;
use crate::remote::{Acquired, Lease, RemoteError};

/// What to do after the server was asked, or could not be.
pub(super) enum Turn {
    /// The result is in the local store now.
    Found(Hit),
    /// Compile; with a lease where the server gave one.
    Build(Option<Lease>),
}

/// Each answer that teaches include sets leads to one more question; a server that always has more is not believed.
pub(super) const MAX_QUESTIONS: u32 = 4;

impl Session {
    /// Asks the server. A fault of it, of whatever kind, ends in compiling without a lease.
    pub(super) fn ask(&mut self, task: &mut Task) -> Result<Turn, Stop> {
        if !task.shareable || !self.connect() {
            return Ok(Turn::Build(None));
        }
        for _ in 0..MAX_QUESTIONS {
            match self.ask_once(task) {
                Ok(Next::Do(turn)) => return Ok(turn),
                Ok(Next::AskAgain) => {}
                Err(error) if error.is_read_only() && self.may_write => {
                    self.may_write = false;
                    self.remote_fault(&error);
                }
                Err(RemoteError::Interrupted) => return Err(self.interrupted()),
                Err(error) => {
                    self.remote_fault(&error);
                    return Ok(Turn::Build(None));
                }
            }
        }
        Ok(Turn::Build(None))
    }

    fn ask_once(&mut self, task: &mut Task) -> Result<Next, RemoteError> {
        let interrupt = self.interrupt.clone();
        let Some(remote) = &self.remote else { return Ok(Next::Do(Turn::Build(None))) };
        let answer = remote.acquire(&self.question(task), &|| interrupt.came())?;
        if answer.waited {
            self.counts.waits = 1;
        }
        let Some(notes) = self.catch_up(&scopes_of(&answer.acquired))? else { return Ok(Next::AskAgain) };
        match answer.acquired {
            Acquired::Hit(keyed) => self.take(task, *keyed, &notes).map(|hit| Next::Do(Turn::Found(hit))),
            Acquired::Sets(sets) => self.learn_sets(task, sets, &notes),
            Acquired::Granted(lease) => Ok(Next::Do(Turn::Build(Some(lease)))),
            Acquired::Alone(_) | Acquired::WaitOver => Ok(Next::Do(Turn::Build(None))),
        }
    }

    pub(super) fn question(&self, task: &Task) -> AcquireRequest {
        let known = |known: &Known| KnownSet {
            set: known.set.digest(),
            action: known.recipe.as_ref().map(Recipe::action_key),
        };
        AcquireRequest {
            claim: task.claim(),
            unit: Some(task.unit.key()),
            known: task.known.iter().take(limits::MAX_SETS).map(known).collect(),
            request_id: format!("{:032x}", u128::from_ne_bytes(os::random())),
            holder: String::new(),
            subject: recipe::subject(task.unit.text()).unwrap_or_default(),
            mode: if self.may_write { AcquireMode::Build } else { AcquireMode::Watch },
            wait_ms: u64::try_from(self.settings.wait.min(limits::MAX_WAIT).as_millis()).unwrap_or(u64::MAX),
            hold: true,
        }
    }

    /// Takes in sets that the server knows and we did not; a result that came along may be ours already. Who learnt nothing
    /// has nothing more to ask.
    fn learn_sets(
        &mut self,
        task: &mut Task,
        sets: Vec<OfferedSet>,
        notes: &ServerNotes,
    ) -> Result<Next, RemoteError> {
        let mut offered = Vec::new();
        let mut learnt = Vec::new();
        for sent in sets.into_iter().take(limits::MAX_SETS) {
            let Ok(set) = IncludeSet::parse(&sent.text) else { continue };
            if task.known.iter().any(|known| known.set == set) || !self.is_reasonable(task, &set) {
                continue;
            }
            let recipe = self.inputs.recipe(&task.unit, &set, &task.invocation);
            learnt.push(Known { set, recipe });
            offered.extend(sent.results);
        }
        if learnt.is_empty() {
            return Ok(Next::Do(Turn::Build(None)));
        }
        // The server's are the newer ones: all who ask it compete for the claim of its newest.
        learnt.append(&mut task.known);
        learnt.truncate(limits::MAX_SETS);
        task.known = learnt;
        let is_ours = |action: ActionKey| {
            task.known.iter().any(|k| k.recipe.as_ref().is_some_and(|recipe| recipe.action_key() == action))
        };
        match offered.into_iter().find(|keyed| is_ours(keyed.action)) {
            Some(keyed) => self.take(task, keyed, notes).map(|hit| Next::Do(Turn::Found(hit))),
            None => Ok(Next::AskAgain),
        }
    }

    /// Brings a result and all it names into the local store. `notes`: what its server was known by when it was offered.
    pub(super) fn take(
        &mut self,
        task: &Task,
        keyed: KeyedResult,
        notes: &ServerNotes,
    ) -> Result<Hit, RemoteError> {
        let (Some(store), Some(url)) = (self.store.clone(), &self.settings.remote) else {
            return Err(RemoteError::Gone);
        };
        let KeyedResult { action, result, scope, writers, blobs } = keyed;
        self.refuse_impossible(task, &result)?;
        self.refuse_unsigned(&scope, action, &result)?;
        let from = Fetched { server: ServerId::of(url), scope, writers, generation: notes.generation };
        if !notes.allow(&from) {
            return Err(damaged(&"its server has taken it back"));
        }
        let recipes = task.known.iter().filter_map(|known| Some((known, known.recipe.as_ref()?)));
        let known = recipes.into_iter().find(|(_, recipe)| recipe.action_key() == action);
        let (known, recipe) = known.ok_or_else(|| damaged(&"it is of another action"))?;
        for output in &result.outputs {
            if store.has_blob(output.digest, output.size) {
                continue;
            }
            let mut staged = store.stage_blob(output.digest).map_err(RemoteError::Local)?;
            match (blobs.get(&output.digest), &self.remote) {
                (Some(inline), _) => staged.write_all(&inline.0).map_err(RemoteError::Local)?,
                (None, Some(remote)) => {
                    let interrupt = self.interrupt.clone();
                    remote.fetch(output.digest, output.size, &mut staged, &|| interrupt.came())?;
                }
                (None, None) => return Err(RemoteError::Gone),
            }
            let whole = staged.finish(Durability::None).map_err(RemoteError::Local)?;
            if whole.digest() != output.digest || whole.size() != output.size {
                return Err(damaged(&format!("{} does not match its name", output.role)));
            }
            store.keep_blob(whole).map_err(RemoteError::Local)?;
        }
        let kept = Kept { result, origin: Origin::Fetched(from) };
        self.remember(&store, task, &known.set, recipe, &kept).map_err(RemoteError::Local)?;
        Ok(Hit { action, result: kept.result })
    }

    /// Writes down locally what is now known of the task. The result comes last: what it names is there.
    pub(super) fn remember(
        &self,
        store: &Store,
        task: &Task,
        set: &IncludeSet,
        recipe: &Recipe,
        kept: &Kept,
    ) -> std::io::Result<()> {
        store.put_blob(recipe.text().as_bytes())?;
        if let Some(bmi) = kept.result.output(Role::Bmi) {
            store.mark_embedded(bmi.digest, &embedded(task, set))?;
        }
        store.add_include_set(task.unit.key(), set)?;
        self.note_history(store, task, recipe.action_key(), &kept.result)?;
        store.put_result(recipe.action_key(), kept)
    }

    /// Notes what explains a miss later, and what it takes to compile again.
    fn note_history(
        &self,
        store: &Store,
        task: &Task,
        action: ActionKey,
        result: &pcmcache_shared::ActionResult,
    ) -> std::io::Result<()> {
        let variables = task.facts.variables.iter();
        let command = Command {
            program: task.compiler.program.clone(),
            cwd: task.facts.cwd.clone(),
            args: self.args.clone(),
            variables: variables.map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            driver: task.driver.clone(),
        };
        store.put_command(action, &command)?;
        store.add_near(Near::Source(&task.facts.bases.spell_path(&task.invocation.source)), action)?;
        store.add_near(Near::Output(&task.facts.cwd.join(task.invocation.main_output())), action)?;
        result.output(Role::Bmi).map_or(Ok(()), |bmi| store.add_near(Near::Bmi(bmi.digest), action))
    }
}

/// Where the results were found that came along.
fn scopes_of(acquired: &Acquired) -> Vec<&Scope> {
    match acquired {
        Acquired::Hit(keyed) => vec![&keyed.scope],
        Acquired::Sets(sets) => {
            sets.iter().flat_map(|offered| &offered.results).map(|keyed| &keyed.scope).collect()
        }
        Acquired::Alone(_) | Acquired::Granted(_) | Acquired::WaitOver => Vec::new(),
    }
}

/// What is known of a BMI that is made over this set.
pub(super) fn embedded(task: &Task, set: &IncludeSet) -> Embedded {
    let named = task.invocation.bmis.iter().map(|bmi| bmi.module.clone());
    let found = set.iter().filter_map(|learnt| match learnt {
        Learnt::Bmi(module) => Some(module.clone()),
        Learnt::Absent(_) | Learnt::File(_) | Learnt::Passed(_) | Learnt::Present(_) => None,
    });
    let mut imports: Vec<String> = named.chain(found).collect();
    imports.sort();
    imports.dedup();
    let is_header = task.invocation.kind == Kind::HeaderUnit;
    let of_that_name = |file: &&Path| file.ends_with(&task.invocation.source);
    let headers = set.iter().filter(|_| is_header).filter_map(Learnt::file).filter(of_that_name);
    Embedded { imports, headers: headers.map(Path::to_owned).collect() }
}

enum Next {
    Do(Turn),
    AskAgain,
}

pub(super) fn damaged(what: &dyn std::fmt::Display) -> RemoteError {
    RemoteError::Damaged { during: "result", what: what.to_string() }
}
