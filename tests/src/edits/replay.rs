//! A sequence of edits, each followed by a build through the launcher and a clean one by the compiler alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Edit, Project};
use crate::soundness::{Side, Traits, Worlds};
use crate::tool::CLANG;
use crate::{Machine, Scratch};

/// Where projects are built: one cache, whatever happens to them.
#[derive(Debug)]
pub struct Bench {
    _scratch: Scratch,
    machine: Machine,
    worlds: Worlds,
}

/// What went wrong after the last of these edits.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The project at the beginning.
    pub project: Project,
    /// The edits; the last one shows it.
    pub edits: Vec<Edit>,
    /// What differed.
    pub difference: Vec<String>,
}

/// What a build said, command by command, and what it left.
#[derive(Debug, PartialEq, Eq)]
struct Build {
    said: Vec<(String, String, String, String)>,
    left: Option<Traits>,
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

impl Bench {
    /// With an empty cache.
    pub fn new() -> Self {
        let scratch = Scratch::new("edits");
        let machine = Machine::new(&scratch, "home");
        let worlds = Worlds::new(scratch.dir("worlds"));
        Self { _scratch: scratch, machine, worlds }
    }

    /// How many commands were answered by the cache, and how many compilers ran.
    pub fn hits_and_compiles(&self) -> (u64, u64) {
        let stats = self.machine.stats();
        (stats.local_hits, stats.compiles + stats.bypassed.values().sum::<u64>())
    }

    /// Puts the project's files in place and builds it in both worlds; what differs.
    pub fn build(&self, project: &Project, edit: Option<&Edit>) -> Vec<String> {
        let launched = self.build_in(Side::Launched, project, edit);
        let right = self.build_in(Side::Bare, project, edit);
        launched.difference(&right)
    }

    /// The same without the comparison: what a cache remembers, without what is right.
    fn warm(&self, project: &Project, edit: Option<&Edit>) {
        self.build_in(Side::Launched, project, edit);
        let _turn = self.worlds.enter(Side::Bare);
        lay_out(&self.worlds.root(), project, edit);
    }

    fn build_in(&self, side: Side, project: &Project, edit: Option<&Edit>) -> Build {
        let _turn = self.worlds.enter(side);
        let root = self.worlds.root();
        lay_out(&root, project, edit);
        let build = root.join(project.directory());
        let _ = fs_err::remove_dir_all(&build);
        let machine = self.machine.clone().building_in(build);
        let mut said = Vec::new();
        let mut left = None;
        for command in project.commands(&root.to_string_lossy()) {
            let finished = match side {
                Side::Launched => machine.compile(&command.words),
                Side::Bare if command.makes_bmi => machine.bare(
                    command.words.iter().map(String::as_str).chain(["-Xclang", "-fmodules-embed-all-files"]),
                ),
                Side::Bare => machine.bare(&command.words),
            };
            said.push((
                command.words.join(" "),
                finished.status.to_string(),
                finished.stdout.clone(),
                finished.stderr.clone(),
            ));
            left = Some(finished);
        }
        let left = left.map(|finished| Traits::of(&finished, &root));
        Build { said, left }
    }
}

impl Build {
    fn difference(&self, right: &Self) -> Vec<String> {
        let said = self.said.iter().zip(&right.said).filter(|(mine, right)| mine != right);
        let mut all: Vec<_> = said.map(|(mine, right)| format!("{mine:?}\n    right {right:?}")).collect();
        if let (Some(mine), Some(right)) = (&self.left, &right.left) {
            all.extend(mine.difference(right));
        }
        all
    }
}

impl Failure {
    /// The same failure with fewer edits, as few as can be found before the deadline. What does not fail from an empty
    /// cache stays as it is.
    pub fn shrink(self, deadline: Duration) -> Self {
        let end = Instant::now() + deadline;
        let mut least = self;
        let mut length = 1;
        while length < least.edits.len() && Instant::now() < end {
            let cut = least.edits.len() - length;
            let start = least.edits[..cut].iter().fold(vec![least.project.clone()], |mut past, edit| {
                past.push(edit.apply(&past));
                past
            });
            let project = start.last().cloned().unwrap_or_else(|| least.project.clone());
            if let Some(shorter) = fails(&project, &least.edits[cut..]) {
                least = shorter;
                break;
            }
            length *= 2;
        }
        let mut at = 0;
        while at + 1 < least.edits.len() && Instant::now() < end {
            let mut edits = least.edits.clone();
            edits.remove(at);
            match fails(&least.project, &edits) {
                Some(shorter) => least = shorter,
                None => at += 1,
            }
        }
        least
    }

    /// A shell script that does the same: `PCMCACHE` names the launcher; what it shows at its end is the difference.
    pub fn script(&self) -> String {
        let mut script = "set -u; : \"${PCMCACHE:?the launcher}\"\nROOT=$(mktemp -d); cd \"$ROOT\"\n\
                          export PCMCACHE_DIR=$ROOT/cache LC_ALL=C\n"
            .to_owned();
        let mut past = vec![self.project.clone()];
        append_state(&mut script, None, &self.project);
        append_build(&mut script, &self.project, "\"$PCMCACHE\" ");
        for edit in &self.edits {
            let next = edit.apply(&past);
            let _ = writeln!(script, "# {edit:?}");
            append_state(&mut script, past.last(), &next);
            if let Some(file) = edit.touched(&next) {
                let _ = writeln!(script, "touch {file}");
            }
            append_build(&mut script, &next, "\"$PCMCACHE\" ");
            past.push(next);
        }
        let last = past.last().map_or("build0", |project| project.directory());
        let _ = writeln!(script, "mv {last} launched");
        past.last().iter().for_each(|project| append_build(&mut script, project, ""));
        let _ = writeln!(script, "diff -rq launched {last}");
        script
    }
}

/// Whether these edits fail from an empty cache, and then at which one.
fn fails(project: &Project, edits: &[Edit]) -> Option<Failure> {
    let bench = Bench::new();
    let mut past = vec![project.clone()];
    bench.warm(project, None);
    for (at, edit) in edits.iter().enumerate() {
        let next = edit.apply(&past);
        if at + 1 == edits.len() {
            let difference = bench.build(&next, Some(edit));
            let failure = Failure { project: project.clone(), edits: edits.to_vec(), difference };
            return (!failure.difference.is_empty()).then_some(failure);
        }
        bench.warm(&next, Some(edit));
        past.push(next);
    }
    None
}

/// Makes the files below `root` those of the project; what is the same already is not written.
fn lay_out(root: &Path, project: &Project, edit: Option<&Edit>) {
    let files = project.files();
    let sneaky = matches!(edit, Some(Edit::Sneak { .. }));
    for dir in super::project::DIRS.iter().chain(&["src"]) {
        fs_err::create_dir_all(root.join(dir)).expect("a directory");
        for entry in fs_err::read_dir(root.join(dir)).expect("a directory").flatten() {
            let name = format!("{dir}/{}", entry.file_name().display());
            if !files.contains_key(&name) {
                fs_err::remove_file(entry.path()).expect("a file that goes away");
            }
        }
    }
    for (name, text) in &files {
        put(&root.join(name), text, sneaky);
    }
    if let Some(file) = edit.and_then(|edit| edit.touched(project)) {
        let file = fs_err::OpenOptions::new().append(true).open(root.join(file)).expect("a file to touch");
        file.file().set_modified(std::time::SystemTime::now()).expect("its time");
    }
}

fn put(path: &Path, text: &str, sneaky: bool) {
    let old = fs_err::read_to_string(path).ok();
    if old.as_deref() == Some(text) {
        return;
    }
    let time = fs_err::metadata(path).and_then(|metadata| metadata.modified()).ok();
    fs_err::write(path, text).expect("a file");
    if let (true, Some(time)) = (sneaky, time) {
        let file = fs_err::OpenOptions::new().append(true).open(path).expect("a file");
        file.file().set_modified(time).expect("its time");
    }
}

fn append_state(script: &mut String, before: Option<&Project>, project: &Project) {
    let (old, new) = (before.map(Project::files).unwrap_or_default(), project.files());
    let _ = writeln!(script, "mkdir -p inc0 inc1 inc2 src");
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        let _ = writeln!(script, "rm {name}");
    }
    let changed: BTreeMap<_, _> = new.iter().filter(|(name, text)| old.get(*name) != Some(*text)).collect();
    for (name, text) in changed {
        let _ = write!(script, "cat > {name} <<'END'\n{text}END\n");
    }
}

fn append_build(script: &mut String, project: &Project, launcher: &str) {
    let dir = project.directory();
    let _ = writeln!(script, "rm -rf {dir}; mkdir {dir}; cd {dir}");
    for command in project.commands("$ROOT") {
        let embed =
            if launcher.is_empty() && command.makes_bmi { " -Xclang -fmodules-embed-all-files" } else { "" };
        let _ = writeln!(script, "{launcher}{CLANG} {}{embed}", command.words.join(" "));
    }
    let _ = writeln!(script, "cd ..");
}
