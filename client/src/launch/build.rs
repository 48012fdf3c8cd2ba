//! A miss: compile into stages, and put what was made in place.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use pcmcache_shared::{Output, ReleaseReason, Role, disk, failpoint, mutant};

use super::Stop;
use super::keep::strip_depfile;
use super::plan::Plan;
use super::session::Session;
use super::task::Task;
use crate::compiler::run::{Ran, run};
use crate::invocation::{Bypass, Family};
use crate::local::lock::Lock;
use crate::os::{self, Moment};
use crate::remote::Lease;
use crate::slots::Slot;
use crate::stage;

/// A compiler that ran, and what it left in its stages.
pub(super) struct Built {
    pub(super) ran: Ran,
    pub(super) plan: Plan,
    /// When the compiler was started.
    pub(super) start: Moment,
    /// The same by the clock that no tick holds back, and what tells how long ago that is, whatever happens to it.
    clock: SystemTime,
    watch: Instant,
}

/// By how much clocks may seem to differ, and what part of a time a clock is corrected by without a jump.
const SLACK: Duration = Duration::from_millis(50);
const CORRECTED: u32 = 1000;

impl Built {
    pub(super) fn succeeded(&self) -> bool {
        self.ran.status.success()
    }

    /// Whether the clock was set back since the compiler was started. Then what was written since may look as if it was
    /// written before.
    pub(super) fn clock_was_set_back(&self) -> bool {
        let passed = self.watch.elapsed();
        let slack = SLACK + passed / CORRECTED;
        os::wall_clock() < self.clock + passed.saturating_sub(slack) && !mutant!("clock-set-back-unseen")
    }
}

impl Session {
    /// Runs the compiler in this slot, or in one that it waits for.
    pub(super) fn build_in(&mut self, slot: Option<Slot>, task: &Task) -> Result<Built, Stop> {
        let slot = match slot {
            Some(slot) => Some(slot),
            None => self.wait_for_slot(self.settings.wait)?,
        };
        let built = self.build(task);
        // What is left to do takes no compiler.
        drop(slot);
        built
    }

    /// Runs the compiler into stages of its own.
    pub(super) fn build(&mut self, task: &Task) -> Result<Built, Stop> {
        let plan = Plan::new(&task.invocation)
            .map_err(|error| Bypass::new("output-directory", error.to_string()))?;
        let (program, args) = plan.command(task);
        failpoint!("launch.staged");
        // Whoever wrote an input before this launch wrote it in an earlier tick of the clock than the compile. Where
        // directories must tell what was there, our own stages were made earlier, too.
        let earlier = if task.invocation.family == Family::Gcc { Moment::latest() } else { self.began_by };
        earlier.let_pass();
        let (start, clock, watch) = (Moment::now(), os::wall_clock(), os::stopwatch());
        let ran = run(&program, &args, &self.interrupt);
        let ran = ran.map_err(|error| Bypass::new("cannot-run", error.to_string()))?;
        if self.interrupt.came() {
            return Err(self.interrupted());
        }
        if task.is_scan() {
            self.counts.scans += 1;
        } else if task.shareable {
            self.counts.compiles += 1;
        }
        Ok(Built { ran, plan, start, clock, watch })
    }

    /// A compile that failed leaves what the compiler leaves: its depfile, its diagnostics in a file, and no object. Who
    /// waits is told at once. A compiler that was killed, for want of memory as a rule, says nothing of the source: the
    /// next who waits builds, and not all of them at the same time, for want of more memory still.
    pub(super) fn fail(
        &mut self,
        task: &Task,
        built: &Built,
        lease: Option<Lease>,
        lock: Option<Lock>,
    ) -> Result<u8, Stop> {
        use std::os::unix::process::ExitStatusExt;
        let killed = built.ran.status.signal() == Some(os::KILL);
        if let Some(lease) = lease {
            lease.release(if killed { ReleaseReason::Abandoned } else { ReleaseReason::Failed });
        }
        if let Some(lock) = lock {
            lock.release(!killed);
        }
        for (role, staged, path) in &built.plan.files {
            let is_made = matches!(role, Role::Object | Role::Bmi);
            if task.is_scan() {
                // A scanner that fails leaves what was there.
            } else if !is_made && staged.exists() {
                if *role == Role::Depfile {
                    let _ = strip_depfile(task, built);
                }
                let _ = stage::place(staged, path);
            } else if (path == task.invocation.main_output() || *role == Role::Depfile)
                && task.invocation.family == Family::Clang
            {
                // GCC leaves what an earlier compile made.
                let _ = disk::remove_file(path);
            }
        }
        match built.ran.status.signal() {
            Some(signal) => Err(Stop::Interrupted(signal)),
            None => Ok(os::exit_code_of(built.ran.status)),
        }
    }

    /// Puts our own outputs in place.
    pub(super) fn place(&mut self, task: &Task, built: Built) -> Result<u8, Stop> {
        for (staged, path) in built.plan.unexpected() {
            stage::place(&staged, &path).map_err(unplaceable)?;
        }
        for (index, (role, staged, path)) in built.plan.files.iter().enumerate() {
            if staged.exists() && !self.same_bytes_in_place(task, *role, staged, path) {
                stage::place(staged, path).map_err(unplaceable)?;
            }
            if index == 0 {
                failpoint!("launch.placed-first");
            }
        }
        failpoint!("launch.placed");
        if self.interrupt.came() { Err(self.interrupted()) } else { Ok(0) }
    }

    fn same_bytes_in_place(&mut self, task: &Task, role: Role, staged: &Path, path: &Path) -> bool {
        let output = pcmcache_shared::digest::hash_reader;
        let bmi = task.invocation.bmi.as_ref().filter(|bmi| role == Role::Bmi && bmi.restat && path.exists());
        bmi.is_some()
            && disk::File::open(staged).and_then(output).is_ok_and(|(digest, size)| {
                self.is_there_already(task, role, path, &Output { role, digest, size })
            })
    }
}

fn unplaceable(error: io::Error) -> Bypass {
    Bypass::new("output-directory", error.to_string())
}
