//! A miss: compile into stages, keep what was made, publish it, put the canonical outputs in place.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pcmcache_shared::api::KeyedResult;
use pcmcache_shared::api::actions::PublishRequest;
use pcmcache_shared::api::problem::Code;
use pcmcache_shared::{
    ActionKey, ActionResult, Cost, Digest, IncludeSet, Output, ReleaseReason, Role, failpoint,
};

use super::Stop;
use super::restore::destinations;
use super::session::{Hit, Known, Session, Task};
use super::turn;
use crate::bases::MARK;
use crate::compiler::run::{Ran, run};
use crate::depfile::Rules;
use crate::inputs::{self, Uncacheable};
use crate::invocation::{Arg, Bypass, Family, Invocation, Kind, Language};
use crate::key;
use crate::local::lock::Lock;
use crate::local::{Room, Store};
use crate::os::{self, Moment};
use crate::remote::{Lease, Published, RemoteError};
use crate::settings::Mode;
use crate::stage::{self, Stages};

/// A compiler that ran, and what it left in its stages.
pub(super) struct Built {
    ran: Ran,
    plan: Plan,
    /// When the compiler was started.
    start: Moment,
}

/// Where a compile writes instead of its final outputs.
struct Plan {
    stages: Stages,
    /// The staged outputs, in the order of placing.
    files: Vec<(Role, PathBuf, PathBuf)>,
    /// What the compiler writes about what it reads: the user's depfile, or one of our own.
    listing: Option<PathBuf>,
    /// For `-MMD`: the include graph, which has the system headers that the depfile leaves out. GCC has none: there it is
    /// a depfile of all headers.
    graph: Option<PathBuf>,
}

impl Plan {
    fn new(invocation: &Invocation) -> io::Result<Self> {
        let mut stages = Stages::default();
        let mut files = Vec::new();
        for (role, path) in destinations(invocation) {
            files.push((role, stages.path_for(path)?, path.to_owned()));
        }
        let mut beside =
            |name: &str| stages.path_for(&stage::directory_of(invocation.main_output()).join(name));
        let depfile =
            files.iter().find(|(role, ..)| *role == Role::Depfile).map(|(_, staged, _)| staged.clone());
        let listing = match depfile {
            Some(staged) => Some(staged),
            None if invocation.language == Language::Bmi => None,
            None => Some(beside(".pcmcache.d")?),
        };
        let user_headers_only = invocation.depfile.as_ref().is_some_and(|depfile| !depfile.system_headers);
        let graph = if user_headers_only { Some(beside(".pcmcache.dot")?) } else { None };
        Ok(Self { stages, files, listing, graph })
    }

    fn staged(&self, role: Role) -> Option<&Path> {
        self.files.iter().find(|(of, ..)| *of == role).map(|(_, staged, _)| staged.as_path())
    }

    /// What is run, and with which arguments.
    fn command(&self, task: &Task) -> (PathBuf, Vec<OsString>) {
        let args = self.arguments(task);
        match &task.compiler.scanner {
            None => (task.compiler.program.clone(), args),
            Some(scanner) => (scanner.program.clone(), scanner.words.iter().cloned().chain(args).collect()),
        }
    }

    /// The compiler's arguments: the user's in their order, with the outputs in their stages.
    fn arguments(&self, task: &Task) -> Vec<OsString> {
        let invocation = &task.invocation;
        let mut args: Vec<OsString> = Vec::new();
        for arg in &invocation.args {
            args.extend(arg.words().into_iter().map(OsString::from));
            if *arg == Arg::Source {
                if invocation.says_language {
                    args.extend(["-x".into(), invocation.language.word().into()]);
                }
                args.push(invocation.source.clone().into());
            }
        }
        self.add_extras(&mut args);
        let made = self.staged(Role::Object).or(self.staged(Role::Bmi));
        let main = made.or(invocation.scanned.as_deref()).unwrap_or(Path::new(""));
        args.extend(["-o".into(), main.into()]);
        if let (Some(_), Some(bmi)) = (&invocation.object, self.staged(Role::Bmi)) {
            args.push(os::join_name(&["-fmodule-output=".as_ref(), bmi.as_os_str()]));
        }
        self.add_listing(invocation, &mut args);
        if invocation.embeds_sources() {
            args.extend(key::EMBED.map(OsString::from));
        }
        if let Some(columns) = task.columns {
            args.push(format!("-fmessage-length={columns}").into());
        }
        if task.colour {
            args.push(key::colour(invocation.family).into());
        }
        args
    }

    /// What names its files after the main output finds them in its stage. Where the name gets into outputs, it is the
    /// final one.
    fn add_extras(&self, args: &mut Vec<OsString>) {
        for (role, staged, path) in &self.files {
            let mut cc1 = |words: &[&OsStr]| {
                args.extend(words.iter().flat_map(|word| [OsStr::new("-Xclang"), word]).map(OsStr::to_owned));
            };
            match role {
                Role::SplitDwarf => cc1(&[
                    "-split-dwarf-file".as_ref(),
                    path.as_os_str(),
                    "-split-dwarf-output".as_ref(),
                    staged.as_os_str(),
                ]),
                Role::CoverageNotes => {
                    let data = absolute(path).with_extension("gcda");
                    cc1(&[&os::join_name(&["-coverage-notes-file=".as_ref(), staged.as_os_str()])]);
                    cc1(&[&os::join_name(&["-coverage-data-file=".as_ref(), data.as_os_str()])]);
                }
                Role::SerializedDiagnostics => {
                    args.extend(["--serialize-diagnostics".into(), staged.clone().into()]);
                }
                Role::Stdout
                | Role::Stderr
                | Role::Depfile
                | Role::Object
                | Role::Bmi
                | Role::OptimizationRecord
                | Role::StackUsage => {}
            }
        }
    }

    fn add_listing(&self, invocation: &Invocation, args: &mut Vec<OsString>) {
        let Some(listing) = &self.listing else { return };
        let depfile = invocation.depfile.as_ref();
        let user_headers_only = depfile.is_some_and(|depfile| !depfile.system_headers);
        args.extend([if user_headers_only { "-MMD" } else { "-MD" }.into(), "-MF".into(), listing.into()]);
        match depfile.and_then(|depfile| depfile.target.as_ref()) {
            Some((flag, target)) => args.extend([(*flag).into(), target.into()]),
            // The target the compiler would have taken, had we not sent its output elsewhere.
            None => args.extend(["-MQ".into(), invocation.main_output().into()]),
        }
        if depfile.is_some_and(|depfile| depfile.phony) {
            args.push("-MP".into());
        }
        let mut cc1 = |words: &[&std::ffi::OsStr]| {
            for word in words {
                args.extend(["-Xclang".into(), (*word).to_owned()]);
            }
        };
        if let (Some(graph), Family::Clang) = (&self.graph, invocation.family) {
            cc1(&["-dependency-dot".as_ref(), graph.as_os_str()]);
        }
        if invocation.may_load_bmis() {
            cc1(&["-module-file-deps".as_ref()]);
        }
    }

    /// Files in the stages that nobody asked for: what the compiler writes and we did not know of.
    fn unexpected(&self) -> Vec<(PathBuf, PathBuf)> {
        let is_known = |path: &PathBuf| {
            self.files.iter().any(|(_, staged, _)| staged == path)
                || self.listing.as_ref() == Some(path)
                || self.graph.as_ref() == Some(path)
        };
        self.stages.contents().into_iter().filter(|(staged, _)| !is_known(staged)).collect()
    }
}

impl Built {
    pub(super) fn succeeded(&self) -> bool {
        self.ran.status.success()
    }
}

impl Session {
    /// Runs the compiler into stages of its own.
    pub(super) fn build(&mut self, task: &Task) -> Result<Built, Stop> {
        let plan = Plan::new(&task.invocation)
            .map_err(|error| Bypass::new("output-directory", error.to_string()))?;
        let (program, args) = plan.command(task);
        failpoint!("launch.staged");
        // Whoever wrote an input before this launch wrote it in an earlier tick of the clock than the compile.
        self.began.let_pass();
        let start = Moment::now();
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
        Ok(Built { ran, plan, start })
    }

    /// A compile that failed leaves what the compiler leaves: its depfile, and no object. Who waits is told at once.
    pub(super) fn fail(
        &mut self,
        task: &Task,
        built: &Built,
        lease: Option<Lease>,
        lock: Option<Lock>,
    ) -> Result<u8, Stop> {
        if let Some(lease) = lease {
            lease.release(ReleaseReason::Failed);
        }
        if let Some(lock) = lock {
            lock.release(true);
        }
        for (role, staged, path) in &built.plan.files {
            let is_main = path == task.invocation.main_output();
            if task.is_scan() {
                // A scanner that fails leaves what was there.
            } else if *role == Role::Depfile && staged.exists() {
                let _ = strip_depfile(task, built);
                let _ = stage::place(staged, path);
            } else if (is_main || *role == Role::Depfile) && task.invocation.family == Family::Clang {
                // GCC leaves what an earlier compile made.
                let _ = fs_err::remove_file(path);
            }
        }
        use std::os::unix::process::ExitStatusExt;
        match built.ran.status.signal() {
            Some(signal) => Err(Stop::Interrupted(signal)),
            None => Ok(os::exit_code_of(built.ran.status)),
        }
    }

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
        let winner = self.publish(task, &store, &result, lease);
        failpoint!("launch.published");
        if winner.is_none()
            && let Some(Known { set, recipe: Some(recipe) }) = task.known.first()
            && let Err(error) = self.remember(&store, task, set, recipe, &result)
        {
            self.fault("local_store", &error);
        }
        failpoint!("launch.stored");
        winner
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
            && fs_err::File::open(staged).and_then(output).is_ok_and(|(digest, size)| {
                self.is_there_already(task, role, path, &Output { role, digest, size })
            })
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
        let lists_bmis = task.facts.lists_bmis;
        let set = self.inputs.learn(&task.invocation, listing, graph, headers, lists_bmis, built.start)?;
        self.refuse_foreign_bmis(task, &set)?;
        self.inputs.unchanged_since(built.start)?;
        let recipe = self.inputs.recipe(&task.unit, &set, &task.invocation);
        let gone = || Uncacheable::new("input-changed", "an input is gone");
        Ok(Known { recipe: Some(recipe.ok_or_else(gone)?), set })
    }

    /// The headers that the header units on the command line were made of.
    fn imported_headers(&mut self, task: &Task) -> Vec<PathBuf> {
        let Some(store) = self.store.clone() else { return Vec::new() };
        let unnamed = task.invocation.bmis.iter().filter(|bmi| bmi.module.is_empty());
        let entries = unnamed.filter_map(|bmi| store.embedded(self.inputs.digest(&bmi.path).ok()?));
        entries.flat_map(|bmi| bmi.headers).map(|header| task.bases.path(&header)).collect()
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
            let is_spelled = *role == Role::Depfile && !task.bases.is_empty();
            let (digest, size) =
                if is_spelled { put_depfile(task, staged, store)? } else { store.put_file(staged)? };
            outputs.push(Output { role: *role, digest, size });
        }
        for (role, said) in [(Role::Stdout, &built.ran.stdout), (Role::Stderr, &built.ran.stderr)] {
            let said = said.as_ref().and_then(|said| task.bases.spell_text(said));
            let said = said.ok_or_else(|| io::Error::other(format!("{role} cannot be kept")))?;
            if !said.is_empty() {
                outputs.push(Output { role, digest: store.put_blob(&said)?, size: said.len() as u64 });
            }
        }
        let cost = Cost { wall_ms: u64::try_from(built.ran.wall.as_millis()).unwrap_or(u64::MAX) };
        let builder = os::host_name().chars().take(64).collect();
        Ok(ActionResult { outputs, cost, builder })
    }

    /// Publishes the result that `task.known` has first. Gives the winner where another was published before.
    fn publish(
        &mut self,
        task: &Task,
        store: &Store,
        result: &ActionResult,
        lease: Option<Lease>,
    ) -> Option<Hit> {
        let remote = self.remote.as_ref().filter(|_| self.settings.mode == Mode::ReadWrite)?;
        let Some(Known { set, recipe: Some(recipe) }) = task.known.first() else { return None };
        let request = PublishRequest {
            result: result.clone(),
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
                None
            }
            Ok(Published::Winner(winner)) => {
                if let Some(lease) = lease {
                    lease.discharge();
                }
                self.take_winner(task, action, winner)
            }
            Err(error) => {
                if let Some(lease) = lease {
                    lease.release(release_reason(&error));
                }
                self.remote_fault(&error);
                None
            }
        }
    }

    /// Fetches the winner's bytes, so that what depends on this module is the same everywhere.
    fn take_winner(&mut self, task: &Task, action: ActionKey, winner: ActionResult) -> Option<Hit> {
        let keyed = KeyedResult { action, result: winner, blobs: BTreeMap::new() };
        match self.take(task, keyed) {
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
        let mut known = turn::embedded(task, &IncludeSet::default());
        known.imports.push(String::new());
        let noted = fs_err::File::open(bmi)
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
    fs_err::write(listing, stripped).map_err(|error| Uncacheable::new("depfile", error.to_string()))
}

/// A depfile as other checkouts can use it: what is below a base directory is spelled.
fn put_depfile(task: &Task, staged: &Path, store: &Store) -> io::Result<(Digest, u64)> {
    let not_understood = || io::Error::other(format!("{} is not understood", staged.display()));
    let text = fs_err::read_to_string(staged)?;
    if text.contains(MARK) {
        return Err(not_understood());
    }
    let rules = Rules::parse(&text).ok_or_else(not_understood)?;
    let text = rules.spelled(|name| task.bases.spell_name(name)).text();
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

fn absolute(path: &Path) -> PathBuf {
    os::working_directory().map_or_else(|_| path.to_owned(), |cwd| cwd.join(path))
}

fn unplaceable(error: io::Error) -> Bypass {
    Bypass::new("output-directory", error.to_string())
}

/// What those who wait are told when a publish fails.
fn release_reason(error: &RemoteError) -> ReleaseReason {
    match error {
        RemoteError::Refused { code: Some(Code::TooLarge), .. } => ReleaseReason::TooLarge,
        RemoteError::Refused { code: Some(Code::StoreFull), .. } => ReleaseReason::StoreFull,
        RemoteError::Refused { .. }
        | RemoteError::Unreachable { .. }
        | RemoteError::Damaged { .. }
        | RemoteError::Gone
        | RemoteError::Local(_)
        | RemoteError::Interrupted
        | RemoteError::Misconfigured(_) => ReleaseReason::Abandoned,
    }
}
