//! What one launch has at hand.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use pcmcache_shared::{ActionKey, ActionResult, IncludeSet, Output, Recipe, disk};

use super::Stop;
use super::task::{Known, Task};
use crate::inputs::{Inputs, Uncacheable};
use crate::interrupt::Interrupt;
use crate::invocation::Kind;
use crate::local::Store;
use crate::local::lock::Turn as LocalTurn;
use crate::local::memo::Memo;
use crate::local::origin::ServerId;
use crate::local::stats::Counts;
use crate::local::trim::start_trimmer;
use crate::mask::PASSED;
use crate::os::{self, Moment};
use crate::remote::Remote;
use crate::settings::{Mode, Settings};
use crate::slots::Slots;

/// What one launch has at hand.
pub(super) struct Session {
    pub(super) settings: Settings,
    pub(super) store: Option<Store>,
    pub(super) inputs: Inputs,
    pub(super) counts: Counts,
    pub(super) interrupt: Interrupt,
    /// The arguments behind the compiler's name, as they were given.
    pub(super) args: Vec<OsString>,
    pub(super) remote: Option<Remote>,
    /// The server is away, as far as is known: what is made meanwhile is queued.
    pub(super) offline: bool,
    /// The slots of this host's compilers.
    pub(super) slots: Slots,
    /// Whether what is made may be published, as far as is known.
    pub(super) may_write: bool,
    /// The server that the result was fetched from which was found here.
    pub(super) used_of: Option<ServerId>,
    /// The result that was used or made.
    pub(super) used: Option<ActionKey>,
    /// When the launch began: whoever wrote an input since then wrote it at this time or later.
    pub(super) began: Moment,
    /// The same for who wrote before: at this time or earlier, and in an earlier tick than the compile.
    pub(super) began_by: Moment,
    notes: Vec<String>,
}

/// A result that was found.
pub(super) struct Hit {
    pub(super) action: ActionKey,
    pub(super) result: ActionResult,
}

impl Session {
    pub(super) fn open(settings: Settings) -> Self {
        let (began, began_by) = (Moment::now(), Moment::latest());
        let mut counts = Counts::default();
        let mut notes: Vec<String> = settings.faults.clone();
        let store = match Store::open(&settings.dir) {
            Ok(store) => Some(store),
            Err(error) => {
                counts.error("local_store");
                notes.push(error.to_string());
                None
            }
        };
        let cwd = os::working_directory().unwrap_or_else(|_| PathBuf::from("/"));
        let inputs = Inputs::new(Memo::new(store.clone()), cwd);
        let interrupt = Interrupt::listen();
        let may_write = settings.mode == Mode::ReadWrite;
        // Who runs under another launcher runs in the slot that that one has.
        let jobs = settings.jobs.filter(|_| std::env::var_os(PASSED).is_none());
        let slots = Slots::new(store.as_ref().map(Store::root), jobs, settings.wait);
        let (args, remote, offline, used_of, used) = (Vec::new(), None, false, None, None);
        Self {
            settings,
            store,
            inputs,
            counts,
            interrupt,
            args,
            remote,
            offline,
            slots,
            may_write,
            used_of,
            used,
            began,
            began_by,
            notes,
        }
    }

    /// Whether the result may be taken from others and given to them: there is a store, and every BMI that is named has
    /// its sources embedded. Else the outputs depend on files that are in no key.
    pub(super) fn is_shareable(&mut self, task: &mut Task) -> bool {
        match self.refuse_foreign_bmis(task, &IncludeSet::default()) {
            Ok(()) => task.shareable = self.store.is_some(),
            Err(foreign) => self.uncacheable(&foreign),
        }
        task.shareable
    }

    /// Refuses a compile that loads a BMI which is not known to have its sources embedded.
    pub(super) fn refuse_foreign_bmis(&mut self, task: &Task, set: &IncludeSet) -> Result<(), Uncacheable> {
        let Some(store) = self.store.clone() else { return Ok(()) };
        let mut bmis = self.inputs.bmis(&task.invocation, set);
        if task.invocation.kind == Kind::BmiToObject {
            bmis.push(task.invocation.source.clone());
        }
        let mut is_ours =
            |path: &PathBuf| self.inputs.digest(path).is_ok_and(|digest| store.embedded(digest).is_some());
        match bmis.into_iter().find(|path| !is_ours(path)) {
            Some(path) => Err(Uncacheable::new("foreign-bmi", path.display().to_string())),
            None => Ok(()),
        }
    }

    /// Counts and notes that what was made is used, but not kept for others.
    pub(super) fn uncacheable(&mut self, why: &Uncacheable) {
        self.counts.bypass(why.reason);
        self.note(format!("not cached: {}: {}", why.reason, why.detail));
    }

    /// Looks the task up in the local store: by what an earlier hit rested on, else by each include set.
    pub(super) fn find(&mut self, task: &mut Task) -> Option<Hit> {
        let store = self.store.clone()?;
        task.known.clear();
        let unit = task.unit.key();
        if let Some(action) = self.inputs.proven(&store, unit, &task.invocation)
            && let Some(hit) = self.stored(&store, action)
        {
            return Some(hit);
        }
        for set in store.include_sets(unit) {
            let recipe = self.inputs.recipe(&task.unit, &set, &task.invocation);
            let action = recipe.as_ref().map(Recipe::action_key);
            let hit = action.and_then(|action| self.stored(&store, action));
            if let Some(Hit { action, .. }) = &hit {
                self.inputs.prove(&store, (unit, *action), &set, &task.invocation, self.began);
            }
            task.known.push(Known { set, recipe });
            if hit.is_some() {
                return hit;
            }
        }
        None
    }

    /// The action's result, if it is here and may be used.
    fn stored(&mut self, store: &Store, action: ActionKey) -> Option<Hit> {
        let kept = store.result(action)?;
        let is_here = |output: &Output| store.has_blob(output.digest, output.size);
        match self.distrust(store, action, &kept) {
            None if kept.result.outputs.iter().all(is_here) => {
                self.used_of = kept.origin.server();
                return Some(Hit { action, result: kept.result });
            }
            None => {}
            Some(why) => self.fault(why.name(), &action),
        }
        store.forget_result(action);
        None
    }

    /// Waits until no other launcher of this host works on the task.
    pub(super) fn wait_locally(&mut self, task: &Task) -> LocalTurn {
        let Some(store) = self.store.as_ref().filter(|_| task.shareable) else { return LocalTurn::Alone };
        let turn = store.lock(task.claim(), self.settings.wait, &|| self.interrupt.came());
        if matches!(&turn, LocalTurn::Ours(lock) if lock.waited()) {
            self.counts.waits = 1;
        }
        turn
    }

    pub(super) fn local_hit(&mut self, task: &Task) -> u8 {
        self.counts.local_hits += 1;
        self.counts.scan_hits += u64::from(task.is_scan());
        0
    }

    pub(super) fn remote_hit(&mut self, task: &Task) -> u8 {
        self.counts.remote_hits += 1;
        self.counts.scan_hits += u64::from(task.is_scan());
        0
    }

    /// The end that a signal asks for.
    pub(super) fn interrupted(&self) -> Stop {
        Stop::Interrupted(self.interrupt.signal().unwrap_or(signal_hook::consts::SIGTERM))
    }

    /// Something for the log.
    pub(super) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Counts a fault of the cache, and notes it for the log.
    pub(super) fn fault(&mut self, kind: &str, error: &dyn std::fmt::Display) {
        self.counts.error(kind);
        self.note(format!("{kind}: {error}"));
    }

    /// Writes down what the launch came to: the memo, the counters, the log.
    pub(super) fn close(&mut self, program: &Path, args: &[OsString], ended: &Result<u8, Stop>) {
        let reaches_server = self.remote.is_some();
        self.disconnect();
        if let Err(Stop::Bypass(bypass)) = ended {
            self.counts.bypass(bypass.reason);
        }
        self.inputs.memo().save();
        self.note_use();
        if let Some(store) = &self.store {
            let _ = store.count(&self.counts);
            if let Some(lock) = store.is_full(self.settings.max_size) {
                start_trimmer(lock);
            }
        }
        if reaches_server && self.may_write {
            self.have_it_synced();
        }
        self.have_it_asked();
        if let Some(log) = &self.settings.stats_log {
            let _ = self.counts.append_to(log);
        }
        let _ = self.log(program, args, ended);
    }

    /// Notes for the profile, if there is one, which result this launch used or made.
    fn note_use(&mut self) {
        let noted = match (&self.store, &self.settings.profile, self.used) {
            (Some(store), Some(profile), Some(action)) => store.note_use(profile, action),
            (None, _, _) | (_, None, _) | (_, _, None) => Ok(()),
        };
        if let Err(error) = noted {
            self.fault("profile", &error);
        }
    }

    fn log(&self, program: &Path, args: &[OsString], ended: &Result<u8, Stop>) -> std::io::Result<()> {
        let Some(path) = &self.settings.log else { return Ok(()) };
        let counts = &self.counts;
        let what = match ended {
            Err(Stop::Bypass(bypass)) => format!("bypass {}: {}", bypass.reason, bypass.detail),
            Err(Stop::Interrupted(signal)) => format!("interrupted by signal {signal}"),
            Ok(_) if counts.local_hits > 0 => "local hit".to_owned(),
            Ok(_) if counts.remote_hits > 0 => "remote hit".to_owned(),
            Ok(code) if counts.scans > 0 => format!("scanned, exit {code}"),
            Ok(code) => format!("compiled, exit {code}"),
        };
        let mut text = format!("pcmcache[{}] {what}: {}", std::process::id(), program.display());
        for arg in args {
            text.push(' ');
            text.push_str(&arg.to_string_lossy());
        }
        text.push('\n');
        for note in &self.notes {
            text.push_str(&format!("pcmcache[{}]   {note}\n", std::process::id()));
        }
        // One write, so that launchers that log side by side do not mix their lines.
        disk::OpenOptions::new().append(true).create(true).open(path)?.write_all(text.as_bytes())
    }
}
