//! From a result in the local store to outputs in place.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use pcmcache_shared::staged::{Durability, StagedFile, Whole};
use pcmcache_shared::{Output, Role, failpoint};

use super::Stop;
use super::session::{Hit, Session};
use super::task::Task;
use crate::depfile::Rules;
use crate::invocation::{Bypass, Invocation};
use crate::local::{Lost, Store};
use crate::os::Moment;
use crate::stage::{self, Stages};

/// What the compiler wrote to its standard streams.
type Said = Vec<(Role, Vec<u8>)>;

/// Where the outputs of these roles go, in the order of placing: the BMI last, so that a launcher killed in between
/// leaves nothing that looks newer than it is.
pub(super) fn destinations(invocation: &Invocation) -> Vec<(Role, &Path)> {
    let depfile = invocation.depfile.as_ref().map(|depfile| (Role::Depfile, depfile.path.as_path()));
    let object = invocation.object.as_deref().map(|path| (Role::Object, path));
    let bmi = invocation.bmi.as_ref().map(|bmi| (Role::Bmi, bmi.path.as_path()));
    let extras = invocation.extras.iter().map(|extra| (extra.role, extra.path.as_path()));
    depfile.into_iter().chain(extras).chain(object).chain(bmi).collect()
}

impl Session {
    /// Places a result's outputs and replays its diagnostics. `false`: something of it is missing or damaged, so
    /// there is no such result any more, and nothing was placed.
    pub(super) fn restore(&mut self, task: &Task, hit: &Hit) -> Result<bool, Stop> {
        let Some(said) = self.put_in_place(task, hit)? else { return Ok(false) };
        said.iter().for_each(|(role, text)| replay(*role, text));
        if self.interrupt.came() { Err(self.interrupted()) } else { Ok(true) }
    }

    /// Places the outputs of the result that was published first, instead of our own. The compiler has spoken already.
    pub(super) fn adopt(&mut self, task: &Task, winner: &Hit) -> Result<bool, Stop> {
        let adopted = self.put_in_place(task, winner)?.is_some();
        *if adopted { &mut self.counts.adopted } else { &mut self.counts.diverged } += 1;
        Ok(adopted)
    }

    /// Places a result's outputs, and gives what the compiler said when it made them.
    fn put_in_place(&mut self, task: &Task, hit: &Hit) -> Result<Option<Said>, Stop> {
        let Some(store) = self.store.clone() else { return Ok(None) };
        let unwritable = |error: io::Error| Bypass::new("output-directory", error.to_string());
        if task.columns.is_some() && hit.result.output(Role::Stderr).is_some() {
            return Ok(None);
        }
        let mut stages = Stages::default();
        let mut staged: Vec<(Whole, PathBuf)> = Vec::new();
        for (role, path) in destinations(&task.invocation) {
            let Some(output) = hit.result.output(role) else { return Ok(None) };
            if self.is_there_already(task, role, path, output) {
                continue;
            }
            let stage = stages.file_for(path).map_err(unwritable)?;
            let is_spelled = role == Role::Depfile && !task.facts.bases.is_empty();
            let copied = if is_spelled {
                copy_depfile(task, &store, output, stage)
            } else {
                store.copy_blob(output, stage)
            };
            match copied.map_err(unwritable)? {
                Ok(whole) => staged.push((whole, path.to_owned())),
                Err(lost) => return Ok(self.lose(&store, hit, output, lost)),
            }
        }
        let mut said = Vec::new();
        for role in [Role::Stdout, Role::Stderr] {
            let Some(output) = hit.result.output(role) else { continue };
            match store.read_blob(output) {
                Ok(text) => said.push((role, task.facts.bases.text(text))),
                Err(lost) => return Ok(self.lose(&store, hit, output, lost)),
            }
        }
        self.used = Some(hit.action);
        failpoint!("hit.staged");
        for (index, (whole, path)) in staged.into_iter().enumerate() {
            whole.commit(&path).map_err(unwritable)?;
            if index == 0 {
                failpoint!("hit.placed-first");
            }
        }
        Ok(Some(said))
    }

    /// A result whose output is lost is none. What a trim took is no fault.
    fn lose(&mut self, store: &Store, hit: &Hit, output: &Output, lost: Lost) -> Option<Said> {
        if lost == Lost::Damaged {
            self.fault("local_damaged", &format!("{} {} of {}", output.role, output.digest, hit.action));
        }
        store.forget_result(hit.action);
        None
    }

    /// Whether the BMI's very bytes are in place, and may keep their time. The build tool may look whether they changed:
    /// then nothing that depends on them is built again. Or they were placed since this launch began, by another that
    /// shares the directory: they are as new as they can be, and whoever loads them now goes on undisturbed. Elsewhere the
    /// time is renewed, since build tools compare times. It is looked at anew: others may have placed theirs since.
    pub(super) fn is_there_already(&mut self, task: &Task, role: Role, path: &Path, output: &Output) -> bool {
        let Some(bmi) = task.invocation.bmi.as_ref().filter(|_| role == Role::Bmi) else { return false };
        let may_stay = |metadata: &std::fs::Metadata| {
            metadata.len() == output.size && (bmi.restat || Moment::modified(metadata) >= self.began)
        };
        stage::is_replaceable(path)
            && fs_err::metadata(path).is_ok_and(|metadata| may_stay(&metadata))
            && self
                .inputs
                .memo()
                .digest(&task.facts.cwd.join(path))
                .is_ok_and(|(_, now)| now == output.digest)
    }
}

/// A stored depfile spells what is below a base directory; make is to find it in this checkout.
fn copy_depfile(
    task: &Task,
    store: &Store,
    output: &Output,
    mut staged: StagedFile,
) -> io::Result<Result<Whole, Lost>> {
    let text = match store.read_blob(output) {
        Ok(text) => String::from_utf8(text).ok(),
        Err(lost) => return Ok(Err(lost)),
    };
    let Some(rules) = text.and_then(|text| Rules::parse(&text)) else { return Ok(Err(Lost::Damaged)) };
    let here = |name: &str| task.facts.bases.path(Path::new(name)).to_string_lossy().into_owned();
    staged.write_all(rules.spelled(here).text().as_bytes())?;
    staged.finish(Durability::None).map(Ok)
}

/// Says again what the compiler said.
fn replay(role: Role, text: &[u8]) {
    let _ = if role == Role::Stdout {
        io::stdout().write_all(text).and_then(|()| io::stdout().flush())
    } else {
        io::stderr().write_all(text)
    };
}
