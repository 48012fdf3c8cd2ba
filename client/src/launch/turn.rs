//! The server's part: look, learn include sets, get the right to build or wait for who has it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use pcmcache_shared::api::acquire::{AcquireMode, AcquireRequest, AloneReason, KnownSet};
use pcmcache_shared::api::{Inline, KeyedResult, OfferedSet, limits};
use pcmcache_shared::recipe::{Learnt, unescape};
use pcmcache_shared::staged::Durability;
use pcmcache_shared::{ActionKey, Digest, IncludeSet, Output, Recipe, ReleaseReason, Role, Scope, recipe};

use super::Stop;
use super::session::{Hit, Session};
use super::task::{Known, Task};
use crate::interrupt::Interrupt;
use crate::key;
use crate::local::Store;
use crate::local::embedded::Embedded;
use crate::local::history::{Command, Near};
use crate::local::origin::{Fetched, Kept, Origin, ServerId, ServerNotes};
use crate::os;
use crate::remote::{Acquired, Lease, Remote, RemoteError};
use crate::slots::Slot;

/// What to do after the server was asked, or could not be.
pub(super) enum Turn {
    /// The result is in the local store now.
    Found(Hit),
    /// Compile: nobody else of those who ask does.
    Lead(Lease, Slot),
    /// Compile without a lease, once there is a slot.
    Alone(Option<Slot>),
}

/// Each answer that teaches include sets leads to one more question, and so does each wait for somebody else; a server that
/// always has more is not believed.
pub(super) const MAX_QUESTIONS: u32 = 4;

/// Who waits for a slot looks so often whether another machine has made it meanwhile: less and less.
const FIRST_LOOK: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

impl Session {
    /// Asks the server. A fault of it, of whatever kind, ends in compiling without a lease.
    ///
    /// Nobody waits while holding a lease or a slot. Who has a slot asks for the lease, and gives the slot back as soon as
    /// someone else is seen building. Who has none only looks what there is, until a slot is free: machines whose slots are
    /// taken leave the lease to those that could use it. What is granted after a wait needs a slot anew, and is given
    /// back to the next who waits if none is free at that moment.
    pub(super) fn ask(&mut self, task: &mut Task) -> Result<Turn, Stop> {
        if !task.shareable || !self.connect() {
            return Ok(Turn::Alone(None));
        }
        let (mut slot, mut is_built, mut pause) = (None, false, FIRST_LOOK);
        for _ in 0..MAX_QUESTIONS {
            let asked = loop {
                if self.may_write && !is_built && slot.is_none() {
                    slot = self.slots.try_take();
                }
                let glances = self.may_write && !is_built && slot.is_none();
                match self.ask_once(task, glances, &mut slot) {
                    Ok(Next::WaitForIt) => is_built = true,
                    // Again and again, until the wait for a slot is over.
                    Ok(Next::TakeSlot) => {
                        slot = self.wait_for_slot(pause)?;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                    asked => break asked,
                }
            };
            is_built = false;
            match asked {
                Ok(Next::Do(turn)) => return Ok(turn),
                Ok(Next::AskAgain | Next::WaitForIt | Next::TakeSlot) => {}
                Err(error) if error.is_read_only() && self.may_write => {
                    self.may_write = false;
                    self.remote_fault(&error);
                }
                Err(RemoteError::Interrupted) => return Err(self.interrupted()),
                Err(error) => {
                    self.remote_fault(&error);
                    break;
                }
            }
        }
        Ok(Turn::Alone(slot))
    }

    /// Asks for the lease, or as one who only `glances`.
    fn ask_once(
        &mut self,
        task: &mut Task,
        glances: bool,
        slot: &mut Option<Slot>,
    ) -> Result<Next, RemoteError> {
        let interrupt = self.interrupt.clone();
        let Some(remote) = &self.remote else { return Ok(Next::Do(Turn::Alone(slot.take()))) };
        let question = if glances { self.glance(task) } else { self.question(task) };
        let answer = remote.acquire(&question, &mut || drop(slot.take()), &|| interrupt.came())?;
        if answer.waited {
            self.counts.waits = 1;
        }
        let Some(notes) = self.catch_up(&scopes_of(&answer.acquired))? else { return Ok(Next::AskAgain) };
        match answer.acquired {
            Acquired::Hit(keyed) => {
                drop(slot.take());
                self.take(task, *keyed, &notes).map(|hit| Next::Do(Turn::Found(hit)))
            }
            Acquired::Sets(sets) => self.learn_sets(task, sets, &notes, slot),
            Acquired::Granted(lease) => match slot.take().or_else(|| self.slots.try_take()) {
                Some(slot) => Ok(Next::Do(Turn::Lead(lease, slot))),
                None => {
                    lease.release(ReleaseReason::Abandoned);
                    Ok(Next::AskAgain)
                }
            },
            Acquired::Alone(AloneReason::Nobody) if glances => Ok(Next::TakeSlot),
            Acquired::WaitOver if glances => Ok(Next::WaitForIt),
            Acquired::Alone(_) | Acquired::WaitOver => Ok(Next::Do(Turn::Alone(slot.take()))),
        }
    }

    /// Waits for a slot, at most this long; where that was long enough for one launch, it goes on as if it had one.
    pub(super) fn wait_for_slot(&mut self, at_most: Duration) -> Result<Option<Slot>, Stop> {
        let interrupt = &self.interrupt;
        let slot = self.slots.wait(at_most, &|| interrupt.came());
        if interrupt.came() { Err(self.interrupted()) } else { Ok(slot) }
    }

    /// The question of one who would not build now: that grants no lease.
    pub(super) fn glance(&self, task: &Task) -> AcquireRequest {
        AcquireRequest { mode: AcquireMode::Watch, wait_ms: 0, hold: false, ..self.question(task) }
    }

    pub(super) fn question(&self, task: &Task) -> AcquireRequest {
        let known = |known: &Known| KnownSet {
            set: known.set.digest(),
            action: known.recipe.as_ref().map(Recipe::action_key),
        };
        // A watcher compiles whatever the answer is: unlike who waits for nothing at all, it does not only glance.
        let shortest = Duration::from_millis(u64::from(!self.may_write));
        let wait = self.settings.wait.min(limits::MAX_WAIT).max(shortest);
        AcquireRequest {
            claim: task.claim(),
            unit: Some(task.unit.key()),
            known: task.known.iter().take(limits::MAX_SETS).map(known).collect(),
            request_id: format!("{:032x}", u128::from_ne_bytes(os::random())),
            holder: String::new(),
            subject: recipe::subject(task.unit.text()).unwrap_or_default(),
            mode: if self.may_write { AcquireMode::Build } else { AcquireMode::Watch },
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
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
        slot: &mut Option<Slot>,
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
            return Ok(Next::Do(Turn::Alone(slot.take())));
        }
        // The server's are the newer ones: all who ask it compete for the claim of its newest.
        learnt.append(&mut task.known);
        learnt.truncate(limits::MAX_SETS);
        task.known = learnt;
        let is_ours = |action: ActionKey| {
            task.known.iter().any(|k| k.recipe.as_ref().is_some_and(|recipe| recipe.action_key() == action))
        };
        match offered.into_iter().find(|keyed| is_ours(keyed.action)) {
            Some(keyed) => {
                drop(slot.take());
                self.take(task, keyed, notes).map(|hit| Next::Do(Turn::Found(hit)))
            }
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
            bring(&store, self.remote.as_ref(), &self.interrupt, output, &blobs)?;
        }
        let kept = Kept { result, origin: Origin::Fetched(from) };
        self.remember(&store, task, &known.set, recipe, &kept).map_err(RemoteError::Local)?;
        Ok(Hit { action, result: kept.result })
    }

    /// Writes down locally what is now known of the task. The result comes behind what it names. The include set comes last:
    /// who knows it waits in another line than who does not, and has to find there that all is made.
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
            store.mark_embedded(bmi.digest, &embedded(task.unit.text(), set))?;
        }
        self.note_history(store, task, recipe.action_key(), &kept.result)?;
        store.put_result(recipe.action_key(), kept)?;
        store.add_include_set(task.unit.key(), set)?;
        let (unit, action) = (task.unit.key(), recipe.action_key());
        self.inputs.prove(store, (unit, action), set, &task.invocation, self.began);
        Ok(())
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

/// Brings an output into the local store, if it is not there: out of what came along, else from the server; verified.
pub(super) fn bring(
    store: &Store,
    remote: Option<&Remote>,
    interrupt: &Interrupt,
    output: &Output,
    blobs: &BTreeMap<Digest, Inline>,
) -> Result<(), RemoteError> {
    if store.has_blob(output.digest, output.size) {
        return Ok(());
    }
    let mut staged = store.stage_blob(output.digest).map_err(RemoteError::Local)?;
    match (blobs.get(&output.digest), remote) {
        (Some(inline), _) => staged.write_all(&inline.0).map_err(RemoteError::Local)?,
        (None, Some(remote)) => {
            remote.fetch(output.digest, output.size, &mut staged, &|| interrupt.came())?;
        }
        (None, None) => return Err(RemoteError::Gone),
    }
    let whole = staged.finish(Durability::None).map_err(RemoteError::Local)?;
    if whole.digest() != output.digest || whole.size() != output.size {
        return Err(damaged(&format!("{} does not match its name", output.role)));
    }
    store.keep_blob(whole).map_err(RemoteError::Local)
}

/// What is known of a BMI that the unit of this text makes over this set.
pub(super) fn embedded(unit: &str, set: &IncludeSet) -> Embedded {
    let text = |escaped: &str| String::from_utf8(unescape(escaped)?).ok();
    let named = unit.lines().filter_map(|line| text(line.strip_prefix("bmi ")?.split_once(' ')?.1));
    let found = set.iter().filter_map(|learnt| match learnt {
        Learnt::Bmi(module) => Some(module.clone()),
        Learnt::Absent(_) | Learnt::File(_) | Learnt::Passed(_) | Learnt::Present(_) => None,
    });
    let mut imports: Vec<String> = named.chain(found).collect();
    imports.sort();
    imports.dedup();
    let source = key::header_of_unit(unit).and_then(text);
    let of_that_name = |file: &&Path| source.as_ref().is_some_and(|source| file.ends_with(source));
    let headers = set.iter().filter_map(Learnt::file).filter(of_that_name);
    Embedded { imports, headers: headers.map(Path::to_owned).collect() }
}

/// What comes of one question.
enum Next {
    Do(Turn),
    AskAgain,
    /// Somebody builds it; so wait for that.
    WaitForIt,
    /// Nobody builds it; so wait for a slot, and look again.
    TakeSlot,
}

pub(super) fn damaged(what: &dyn std::fmt::Display) -> RemoteError {
    RemoteError::Damaged { during: "result", what: what.to_string() }
}

#[cfg(test)]
mod tests {
    use pcmcache_shared::recipe::Unit;

    use super::*;

    #[test]
    fn what_is_known_of_a_bmi_stands_in_its_recipe() {
        let set: IncludeSet = [
            Learnt::Bmi("found".to_owned()),
            Learnt::Absent("/b/inc/a b.h".into()),
            Learnt::File("/a/inc/a b.h".into()),
            Learnt::File("/a/inc/xa b.h".into()),
        ]
        .into_iter()
        .collect();
        let mut unit = Unit::new();
        for arg in ["-O2", "-xc++-user-header", "inc/a b.h", "-Xclang"] {
            unit.arg(arg.as_bytes());
        }
        for module in ["std", "m:part", ""] {
            unit.bmi(module, Digest::of(module));
        }
        let known = embedded(unit.text(), &set);
        assert_eq!(known.imports, ["", "found", "m:part", "std"]);
        assert_eq!(known.headers, [Path::new("/a/inc/a b.h")]);
        let plain = unit.text().replace("-xc++-user-header", "-xc++-module");
        assert_eq!(embedded(&plain, &set), Embedded { headers: Vec::new(), ..known });
    }
}
