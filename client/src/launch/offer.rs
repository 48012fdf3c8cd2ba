//! What a server offers, looked at before anything of it is used: a server may be wrong, or lie.

use pcmcache_shared::recipe::Learnt;
use pcmcache_shared::{ActionResult, IncludeSet, Role};

use super::restore::destinations;
use super::session::Session;
use super::task::Task;
use super::turn::damaged;
use crate::remote::RemoteError;

/// The longest include set that is followed, in lines; `std` has 1,308.
pub(super) const MAX_LEARNT: usize = 50_000;
/// As much is read of the files that an offered set names, in bytes: they are this machine's own, and may be anything.
pub(super) const MAX_READ: u64 = 1 << 30;
/// The largest output that is read into memory: what the compiler said, and the depfile.
const MAX_TEXT: u64 = 64 << 20;
/// The largest result where the local store has no bound, in bytes.
const MAX_RESULT: u64 = 16 << 30;

impl Session {
    /// Whether it is worth finding out what the set comes to here.
    pub(super) fn is_reasonable(&self, task: &Task, set: &IncludeSet) -> bool {
        let here =
            |learnt: &Learnt| learnt.file().map(|file| task.facts.cwd.join(task.facts.bases.path(file)));
        let sizes = set.iter().filter_map(here).filter_map(|file| Some(fs_err::metadata(file).ok()?.len()));
        set.iter().count() <= MAX_LEARNT && sizes.fold(0, u64::saturating_add) <= MAX_READ
    }

    /// Refuses a result that this command cannot have.
    pub(super) fn refuse_impossible(&self, task: &Task, result: &ActionResult) -> Result<(), RemoteError> {
        self.refuse_outlandish(result)?;
        if let Some((role, _)) =
            destinations(&task.invocation).into_iter().find(|(role, _)| result.output(*role).is_none())
        {
            return Err(damaged(&format!("it has no {role}")));
        }
        Ok(())
    }

    /// Refuses a result that no command has.
    pub(super) fn refuse_outlandish(&self, result: &ActionResult) -> Result<(), RemoteError> {
        result.check().map_err(|error| damaged(&error))?;
        let is_text = |role| matches!(role, Role::Stdout | Role::Stderr | Role::Depfile);
        if let Some(large) =
            result.outputs.iter().find(|output| is_text(output.role) && output.size > MAX_TEXT)
        {
            return Err(damaged(&format!("its {} has {} bytes", large.role, large.size)));
        }
        let size = result.outputs.iter().fold(0, |sum: u64, output| sum.saturating_add(output.size));
        if size > self.settings.max_size.map_or(MAX_RESULT, |bound| bound.0) {
            return Err(damaged(&format!("it has {size} bytes, more than the local store may have")));
        }
        Ok(())
    }
}
