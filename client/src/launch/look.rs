//! What a launch of a command would find: the same steps as far as they only look. No compiler is run (its driver may be
//! asked, as a launch would ask it), nothing is counted, placed or stored.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use pcmcache_shared::api::KeyedResult;
use pcmcache_shared::recipe::{Learnt, Unit};
use pcmcache_shared::{ActionKey, Digest, IncludeSet, Output, Recipe, disk};

use super::session::Session;
use super::task::{Known, Task};
use super::{find, understand};
use crate::explain::{self, Cause, Parts};
use crate::inputs::{Now, Uncacheable};
use crate::invocation::{Bypass, Invocation};
use crate::local::Store;
use crate::local::history::{Command, Near};
use crate::remote::Acquired;
use crate::settings::Settings;

/// A command that was looked at.
#[derive(Debug)]
pub enum Look {
    /// There is no such compiler.
    NoCompiler,
    /// It is not cached.
    Bypassed(Bypass),
    /// It may be cached.
    Found(Box<Found>),
}

/// What there is for a command that may be cached.
#[derive(Debug)]
pub struct Found {
    /// The compiler.
    pub program: PathBuf,
    /// The command.
    pub invocation: Invocation,
    /// What of the key is known before anything is learnt by compiling.
    pub unit: Unit,
    /// The whole key over the newest include set that describes the present.
    pub recipe: Option<Recipe>,
    /// Why it is compiled, and not cached: a BMI that is not ours.
    pub foreign: Option<Uncacheable>,
    /// The result in the local store.
    pub local: Option<ActionKey>,
    /// What the server says.
    pub server: Server,
    /// What comes nearest, if nothing was found locally.
    pub nearest: Option<Nearest>,
}

/// What the server says.
#[derive(Debug)]
pub enum Server {
    /// None is set, or it is not asked.
    NotAsked,
    /// It cannot be asked.
    Fault(String),
    /// It has the result.
    Hit(ActionKey),
    /// It has not.
    Miss,
}

/// The nearest action that is known.
#[derive(Debug)]
pub struct Nearest {
    /// Its key.
    pub action: ActionKey,
    /// The command that made it.
    pub command: Option<Command>,
    /// What differs. Nothing: its result was removed.
    pub causes: Vec<Cause>,
}

/// Looks at a command as a launch would.
pub fn look(name: &OsStr, args: &[OsString], settings: Settings) -> Look {
    let Some(program) = find(name) else { return Look::NoCompiler };
    let mut session = Session::open(settings);
    match session.look(program, args) {
        Ok(found) => Look::Found(Box::new(found)),
        Err(bypass) => Look::Bypassed(bypass),
    }
}

impl Session {
    fn look(&mut self, program: PathBuf, args: &[OsString]) -> Result<Found, Bypass> {
        let (invocation, compiler) = understand(self, &program, args)?;
        let mut task = self.task(invocation, compiler)?;
        let foreign = self.refuse_foreign_bmis(&task, &IncludeSet::default()).err();
        let local = self.store.clone().and_then(|store| self.look_locally(&mut task, &store));
        let recipe = task.known.iter().find_map(|known| known.recipe.clone());
        let server = if foreign.is_none() { self.look_at_server(&mut task) } else { Server::NotAsked };
        let nearest = match (&local, self.store.clone()) {
            (None, Some(store)) => self.nearest(&task, &store),
            (Some(_), _) | (None, None) => None,
        };
        let Task { invocation, unit, .. } = task;
        Ok(Found { program, invocation, unit, recipe, foreign, local, server, nearest })
    }

    fn look_locally(&mut self, task: &mut Task, store: &Store) -> Option<ActionKey> {
        for set in store.include_sets(task.unit.key()) {
            let recipe = self.inputs.recipe(&task.unit, &set, &task.invocation);
            task.known.push(Known { set, recipe });
        }
        let is_here = |action: &ActionKey| {
            let is_here = |output: &Output| store.has_blob(output.digest, output.size);
            store.peek_result(*action).is_some_and(|kept| {
                self.distrust(store, *action, &kept).is_none() && kept.result.outputs.iter().all(is_here)
            })
        };
        let actions = task.known.iter().filter_map(|known| known.recipe.as_ref()).map(Recipe::action_key);
        actions.into_iter().find(is_here)
    }

    /// Asks as one who only watches: that grants no lease.
    fn look_at_server(&mut self, task: &mut Task) -> Server {
        if !self.connect() {
            let is_set = self.settings.remote.is_some();
            let fault = "it was not reached lately; for some seconds nobody tries again";
            return if is_set { Server::Fault(fault.to_owned()) } else { Server::NotAsked };
        }
        for _ in 0..super::turn::MAX_QUESTIONS {
            let Some(remote) = &self.remote else { return Server::NotAsked };
            let sets = match remote
                .acquire(&self.glance(task), &mut || {}, &|| false)
                .map(|answer| answer.acquired)
            {
                Ok(Acquired::Hit(keyed)) => return self.judge(&keyed),
                Ok(Acquired::Sets(sets)) => sets,
                Ok(Acquired::Granted(_) | Acquired::Alone(_) | Acquired::WaitOver) => return Server::Miss,
                Err(error) => return Server::Fault(error.to_string()),
            };
            for sent in sets {
                let Ok(set) = IncludeSet::parse(&sent.text) else { continue };
                let recipe = self.inputs.recipe(&task.unit, &set, &task.invocation);
                let action = recipe.as_ref().map(Recipe::action_key);
                if let Some(keyed) = sent.results.iter().find(|keyed| Some(keyed.action) == action) {
                    return self.judge(keyed);
                }
                if task.known.iter().all(|known| known.set != set) {
                    task.known.push(Known { set, recipe });
                }
            }
        }
        Server::Miss
    }

    /// What a launch would make of it.
    fn judge(&self, keyed: &KeyedResult) -> Server {
        match self.refuse_unsigned(&keyed.scope, keyed.action, &keyed.result) {
            Ok(()) => Server::Hit(keyed.action),
            Err(error) => Server::Fault(error.to_string()),
        }
    }

    /// The action that differs least, among those of the same source and of the same output.
    fn nearest(&mut self, task: &Task, store: &Store) -> Option<Nearest> {
        let source = task.facts.bases.spell_path(&task.invocation.source);
        let output = task.facts.cwd.join(task.invocation.main_output());
        let mut actions = store.near(Near::Source(&source));
        for action in store.near(Near::Output(&output)) {
            if !actions.contains(&action) {
                actions.push(action);
            }
        }
        let compared = actions.into_iter().filter_map(|action| self.compare(task, store, action));
        // The first of those that are equally near is the newest.
        let mut nearest = compared.min_by_key(|nearest| explain::distance(&nearest.causes))?;
        nearest.causes.iter_mut().for_each(|cause| follow(store, cause));
        Some(nearest)
    }

    fn compare(&mut self, task: &Task, store: &Store, action: ActionKey) -> Option<Nearest> {
        let then = recipe_of(store, action)?;
        let now = self.present(task, &then);
        let command = store.command(action);
        let driver = command.as_ref().map(|command| (&command.driver[..], &task.driver[..]));
        let causes = explain::differences(&Parts::parse(&then), &now, driver);
        Some(Nearest { action, command, causes })
    }

    /// The parts of the command's key over what another compile learnt.
    fn present(&mut self, task: &Task, then: &str) -> Parts {
        let mut parts = Parts::parse(task.unit.text());
        let set = set_of(then);
        for learnt in set.iter() {
            let name = learnt.name();
            match (learnt, self.inputs.now(learnt, &task.invocation)) {
                (Learnt::File(_), Now::Is(digest)) => drop(parts.files.insert(name, digest.to_string())),
                (Learnt::Bmi(_), Now::Is(digest)) => drop(parts.bmis.insert(name, digest.to_string())),
                (Learnt::Absent(_), Now::Gone) => drop(parts.absent.insert(name)),
                (Learnt::Present(_), Now::There) => drop(parts.present.insert(name)),
                (Learnt::File(_) | Learnt::Bmi(_) | Learnt::Absent(_) | Learnt::Present(_), _) => {}
                (Learnt::Passed(_), _) => {}
            }
        }
        let newcomers = self.inputs.newcomers(&set, &task.invocation);
        parts.newcomers.extend(newcomers.iter().map(|path| path.display().to_string()));
        parts
    }
}

pub(super) fn recipe_of(store: &Store, action: ActionKey) -> Option<String> {
    let bytes = disk::read(store.blob_path(action.recipe())).ok()?;
    (Digest::of(&bytes) == action.recipe()).then(|| String::from_utf8(bytes).ok())?
}

/// The include set that a recipe is over.
fn set_of(recipe: &str) -> IncludeSet {
    Recipe::parse(recipe.to_owned()).ok().and_then(|recipe| recipe.include_set().ok()).unwrap_or_default()
}

/// Finds out why a BMI differs, from the recipes of both. One level: what they in turn were made of is named, not followed.
fn follow(store: &Store, cause: &mut Cause) {
    let Cause::Bmi { then, now, why, .. } = cause else { return };
    let made = |digest: &str| {
        let actions = store.near(Near::Bmi(digest.parse().ok()?));
        actions.into_iter().find_map(|action| Some((recipe_of(store, action)?, store.command(action))))
    };
    if let (Some((then, old)), Some((now, new))) = (made(then), made(now)) {
        let driver = old.as_ref().zip(new.as_ref()).map(|(old, new)| (&old.driver[..], &new.driver[..]));
        *why = Some(explain::differences(&Parts::parse(&then), &Parts::parse(&now), driver));
    }
}
