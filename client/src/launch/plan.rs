//! Where a compile writes instead of its final outputs, and the command that makes it do so.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use pcmcache_shared::{Role, mutant};

use super::restore::destinations;
use super::task::Task;
use crate::invocation::{Arg, Family, Invocation, Language};
use crate::key;
use crate::os;
use crate::stage::{self, Stages};

/// Where a compile writes instead of its final outputs.
pub(super) struct Plan {
    stages: Stages,
    /// The staged outputs, in the order of placing.
    pub(super) files: Vec<(Role, PathBuf, PathBuf)>,
    /// What the compiler writes about what it reads: the user's depfile, or one of our own.
    pub(super) listing: Option<PathBuf>,
    /// For `-MMD`: the include graph, which has the system headers that the depfile leaves out. GCC has none: there it is
    /// a depfile of all headers.
    pub(super) graph: Option<PathBuf>,
}

impl Plan {
    pub(super) fn new(invocation: &Invocation) -> io::Result<Self> {
        let mut stages = Stages::default();
        let mut files = Vec::new();
        for (role, path) in destinations(invocation) {
            let staged = stages.path_for(path)?;
            let staged = if mutant!("no-rename-on-a-miss") { path.to_owned() } else { staged };
            files.push((role, staged, path.to_owned()));
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

    pub(super) fn staged(&self, role: Role) -> Option<&Path> {
        self.files.iter().find(|(of, ..)| *of == role).map(|(_, staged, _)| staged.as_path())
    }

    /// What is run, and with which arguments.
    pub(super) fn command(&self, task: &Task) -> (PathBuf, Vec<OsString>) {
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
        self.add_extras(&task.facts.cwd, &mut args);
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
        if task.facts.colour {
            args.push(key::colour(invocation.family).into());
        }
        args
    }

    /// What names its files after the main output finds them in its stage. Where the name gets into outputs, it is the
    /// final one.
    fn add_extras(&self, cwd: &Path, args: &mut Vec<OsString>) {
        for (role, staged, path) in &self.files {
            match role {
                Role::SplitDwarf => add_compiler_words(
                    args,
                    &[
                        "-split-dwarf-file".as_ref(),
                        path.as_os_str(),
                        "-split-dwarf-output".as_ref(),
                        staged.as_os_str(),
                    ],
                ),
                Role::CoverageNotes => {
                    let data = cwd.join(path).with_extension("gcda");
                    let notes = os::join_name(&["-coverage-notes-file=".as_ref(), staged.as_os_str()]);
                    let data = os::join_name(&["-coverage-data-file=".as_ref(), data.as_os_str()]);
                    add_compiler_words(args, &[&notes, &data]);
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
        if let (Some(graph), Family::Clang) = (&self.graph, invocation.family) {
            add_compiler_words(args, &["-dependency-dot".as_ref(), graph.as_os_str()]);
        }
        if invocation.may_load_bmis() {
            add_compiler_words(args, &["-module-file-deps".as_ref()]);
        }
    }

    /// Files in the stages that nobody asked for: what the compiler writes and we did not know of.
    pub(super) fn unexpected(&self) -> Vec<(PathBuf, PathBuf)> {
        let is_known = |path: &PathBuf| {
            self.files.iter().any(|(_, staged, _)| staged == path)
                || self.listing.as_ref() == Some(path)
                || self.graph.as_ref() == Some(path)
        };
        self.stages.contents().into_iter().filter(|(staged, _)| !is_known(staged)).collect()
    }
}

/// Adds words for the compiler proper.
fn add_compiler_words(args: &mut Vec<OsString>, words: &[&OsStr]) {
    args.extend(words.iter().flat_map(|word| [OsStr::new("-Xclang"), word]).map(OsStr::to_owned));
}
