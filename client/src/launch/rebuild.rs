//! Making a stored result again, to see whether the compiler makes the same of it today. Nothing is placed, stored or
//! counted: the compiler writes into stages, which go with this process.

use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;

use pcmcache_shared::{ActionKey, ActionResult, Recipe};

use super::session::Session;
use super::task::Task;
use super::{Stop, keep, understand};
use crate::invocation::Bypass;
use crate::local::Store;
use crate::local::history::Command;
use crate::local::origin::Kept;
use crate::settings::{Mode, Settings};

/// What came of making a result again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every output has the same bytes.
    Same,
    /// Something differs: what.
    Differs(String),
    /// It cannot be made again: why.
    NotToday(String),
}

impl Verdict {
    /// The text by which a process tells it to another.
    pub fn text(&self) -> String {
        match self {
            Self::Same => "same\n".to_owned(),
            Self::Differs(what) => format!("differs\n{what}"),
            Self::NotToday(why) => format!("not today\n{why}"),
        }
    }

    /// What [`Verdict::text`] gave.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('\n')? {
            ("same", _) => Some(Self::Same),
            ("differs", what) => Some(Self::Differs(what.to_owned())),
            ("not today", why) => Some(Self::NotToday(why.to_owned())),
            _ => None,
        }
    }
}

/// Makes the result of `action` again. This process must run where the command ran, with its variables. `scratch` is an
/// empty directory for the new outputs.
pub fn rebuild(action: ActionKey, scratch: &Path, settings: Settings) -> Verdict {
    let store = match Store::open(&settings.dir) {
        Ok(store) => store,
        Err(error) => return Verdict::NotToday(error.to_string()),
    };
    let (Some(Kept { result, .. }), Some(command)) = (store.peek_result(action), store.command(action))
    else {
        return Verdict::NotToday("its command is not known".to_owned());
    };
    let settings = Settings { mode: Mode::Local, remote: None, ..settings };
    let mut session = Session::open(settings);
    let made = task_of(&mut session, &command, action, &store)
        .and_then(|task| make(&mut session, &task, scratch).map(|made| (task, made)));
    match made {
        Ok((task, made)) if made.same_outputs(&result) => {
            drop(task);
            Verdict::Same
        }
        Ok((_, made)) => Verdict::Differs(differences(&store, &result, scratch, &made)),
        Err(Stop::Bypass(bypass)) => Verdict::NotToday(format!("{}: {}", bypass.reason, bypass.detail)),
        Err(Stop::Interrupted(_)) => Verdict::NotToday("interrupted".to_owned()),
    }
}

/// The command's task, if its inputs are what they were: then its recipe comes out the same.
fn task_of(session: &mut Session, command: &Command, action: ActionKey, store: &Store) -> Result<Task, Stop> {
    let (invocation, compiler) = understand(session, &command.program, &command.args)?;
    let task = session.task(invocation, compiler)?;
    for set in store.include_sets(task.unit.key()) {
        let recipe = session.inputs.recipe(&task.unit, &set, &task.invocation);
        if recipe.as_ref().map(Recipe::action_key) == Some(action) {
            return Ok(task);
        }
    }
    Err(Bypass::new("changed", "its inputs are not what they were").into())
}

fn make(session: &mut Session, task: &Task, scratch: &Path) -> Result<ActionResult, Stop> {
    let unusable = |error: &dyn std::fmt::Display| Bypass::new("scratch", error.to_string());
    let beside = Store::open(scratch).map_err(|error| unusable(&error))?;
    let built = session.build(task)?;
    if !built.succeeded() {
        return Err(Bypass::new("failed", "the compiler refuses it today").into());
    }
    keep::strip_depfile(task, &built).map_err(|why| Bypass::new(why.reason, why.detail))?;
    Ok(session.put_outputs(task, &built, &beside).map_err(|error| unusable(&error))?)
}

/// What differs, a line an output.
fn differences(store: &Store, before: &ActionResult, scratch: &Path, now: &ActionResult) -> String {
    let mut text = String::new();
    let roles = before.outputs.iter().chain(&now.outputs).map(|output| output.role);
    for role in roles.collect::<std::collections::BTreeSet<_>>() {
        let line = match (before.output(role), now.output(role)) {
            (Some(old), Some(new)) if old.digest == new.digest => continue,
            (Some(old), Some(new)) => {
                let beside = Store::open(scratch).map(|beside| beside.blob_path(new.digest));
                let first =
                    beside.ok().and_then(|path| first_difference(&store.blob_path(old.digest), &path));
                let place = first.map_or_else(String::new, |at| format!(", first at byte {at}"));
                format!("{role}: {} bytes then, {} bytes now{place}", old.size, new.size)
            }
            (Some(_), None) => format!("{role}: made then, not now"),
            (None, _) => format!("{role}: made now, not then"),
        };
        let _ = writeln!(text, "{line}");
    }
    text
}

fn first_difference(a: &Path, b: &Path) -> Option<u64> {
    let bytes = |path: &Path| Some(std::io::BufReader::new(fs_err::File::open(path).ok()?).bytes());
    let (a, b) = (bytes(a)?, bytes(b)?);
    let same = a.zip(b).take_while(|pair| matches!(pair, (Ok(a), Ok(b)) if a == b)).count();
    u64::try_from(same).ok()
}
