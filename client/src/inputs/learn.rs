//! What a compile teaches of what it read: by its depfile, by its include graph, and by what its sources ask of the file system.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use pcmcache_shared::recipe::Learnt;
use pcmcache_shared::{Digest, IncludeSet, disk};

use super::{Inputs, Uncacheable, hazards};
use crate::bases;
use crate::depfile::{self, Rules};
use crate::invocation::{Family, Invocation, Kind, Language};
use crate::os::{FileId, Moment};
use crate::probes::{self, NotLiteral, Probe, Text};
use crate::search;

/// The largest depfile or include graph anyone reads, in bytes.
const MAX_LISTING: u64 = 16 * 1024 * 1024;

/// An include graph that Clang wrote.
#[derive(Debug)]
pub struct Graph<'a> {
    /// Where it is.
    pub file: &'a Path,
    /// The system's root, which names in it may have lost.
    pub root: String,
}

impl Inputs {
    /// Reads what the compiler wrote down about what it read: its depfile, and for `-MMD` its include graph. `headers`:
    /// what the header units that it was given were made of. `lists_bmis`: where BMIs were found is in the depfile.
    pub fn learn(
        &mut self,
        invocation: &Invocation,
        listing: Option<&Path>,
        graph: Option<Graph<'_>>,
        headers: Vec<PathBuf>,
        lists_bmis: bool,
        start: Moment,
    ) -> Result<IncludeSet, Uncacheable> {
        let Some(listing) = listing else { return Ok(IncludeSet::default()) };
        let mut listed: BTreeSet<PathBuf> =
            files_of(listing, invocation.family)?.into_iter().map(PathBuf::from).collect();
        if let Some(graph) = graph {
            listed.extend(self.files_of_graph(&graph)?);
        }
        listed.extend(headers);
        let source = invocation.source_file().map(|source| self.cwd.join(source));
        listed.retain(|path| Some(self.cwd.join(path)) != source);
        let (mut learnt, mut files) = (Vec::new(), Vec::new());
        for path in listed {
            if invocation.may_load_bmis() && is_bmi(&path.to_string_lossy()) {
                let found = self.learn_bmi(invocation, &path, start)?;
                if let Some(Learnt::Bmi(module)) = found.as_ref().filter(|_| lists_bmis) {
                    learnt.extend(self.places_of_bmi(invocation, module));
                }
                learnt.extend(found);
            } else {
                self.learn_file(&path, start)?;
                files.push(path);
            }
        }
        if let Some(header) = self.precompiled(invocation) {
            return Err(Uncacheable::new("precompiled-header", header.display().to_string()));
        }
        if invocation.family == Family::Gcc
            && !self.included(invocation).is_ok_and(|included| !included.computed)
        {
            // A precompiled header that it used would be in no depfile, and where to look for one is not known.
            return Err(Uncacheable::new("computed-include", invocation.source.display().to_string()));
        }
        for probed in self.probe(invocation, &files)? {
            if let Some(path) = probed.file().map(Path::to_owned) {
                self.learn_file(&path, start)?;
                files.push(path);
            } else {
                learnt.push(probed);
            }
        }
        learnt.extend(self.in_the_way(invocation, &files).into_iter().map(Learnt::Passed));
        learnt.extend(files.into_iter().map(Learnt::File));
        self.refuse_newcomers(&learnt, invocation.family, start)?;
        Ok(learnt.into_iter().map(|learnt| self.spelled(learnt)).collect())
    }

    /// The files of an include graph: of the names that each may have, those that are there.
    fn files_of_graph(&self, graph: &Graph<'_>) -> Result<Vec<PathBuf>, Uncacheable> {
        let not_understood = || unreadable(graph.file);
        let names = depfile::files_in_graph(&read(graph.file)?, &graph.root).ok_or_else(not_understood)?;
        let mut files = Vec::new();
        for names in names {
            let known = files.len();
            let names = names.into_iter().map(PathBuf::from);
            files.extend(names.filter(|name| self.cwd.join(name).is_file()));
            if files.len() == known {
                return Err(not_understood());
            }
        }
        Ok(files)
    }

    /// As it stands in a set that other checkouts share.
    fn spelled(&self, learnt: Learnt) -> Learnt {
        match learnt {
            Learnt::Absent(path) => Learnt::Absent(self.bases.spell_file(&path)),
            Learnt::File(path) => Learnt::File(self.bases.spell_file(&path)),
            Learnt::Passed(path) => Learnt::Passed(self.bases.spell_file(&path)),
            Learnt::Present(path) => Learnt::Present(self.bases.spell_file(&path)),
            Learnt::Bmi(module) => Learnt::Bmi(module),
        }
    }

    /// What was looked for and not read must have been there when the compiler looked, too. What is not there now must not
    /// have been: Clang's depfile lists what a probe found, for GCC the directory must tell.
    fn refuse_newcomers(&self, set: &[Learnt], family: Family, start: Moment) -> Result<(), Uncacheable> {
        let untouched = |path: &Path| {
            disk::metadata(self.cwd.join(path)).ok().map(|m| FileId::of(&m).untouched_since(start))
        };
        let changed = |learnt: &&Learnt| match learnt {
            Learnt::Passed(path) | Learnt::Present(path) => untouched(path) != Some(true),
            Learnt::Absent(path) if !search::is_no_file(&self.cwd.join(path)) => true,
            Learnt::Absent(path) if family == Family::Gcc => {
                path.ancestors().skip(1).find_map(untouched) != Some(true)
            }
            Learnt::Absent(_) | Learnt::Bmi(_) | Learnt::File(_) => false,
        };
        match set.iter().find(changed) {
            Some(learnt) => Err(Uncacheable::new("input-changed", format!("{learnt:?}"))),
            None => Ok(()),
        }
    }

    /// A BMI that was loaded: named on the command line (nothing to learn), or found along a prebuilt path.
    fn learn_bmi(
        &mut self,
        invocation: &Invocation,
        path: &Path,
        start: Moment,
    ) -> Result<Option<Learnt>, Uncacheable> {
        let unexplained = || Uncacheable::new("unexplained-bmi", path.display().to_string());
        let loaded = fs_err::canonicalize(self.cwd.join(path)).map_err(|_| unexplained())?;
        let is_loaded =
            |named: &Path| fs_err::canonicalize(self.cwd.join(named)).is_ok_and(|named| named == loaded);
        if invocation.bmis.iter().any(|bmi| is_loaded(&bmi.path)) {
            return Ok(None);
        }
        let name = path.file_stem().and_then(|stem| stem.to_str()).ok_or_else(unexplained)?;
        let module = name.replacen('-', ":", 1);
        let found =
            self.find_bmi(invocation, &module).filter(|found| is_loaded(found)).ok_or_else(unexplained)?;
        self.learn_file(&found, start)?;
        Ok(Some(Learnt::Bmi(module)))
    }

    /// A file that was read: hashed now if it was not before, and then it must not have been touched since `start`.
    fn learn_file(&mut self, path: &Path, start: Moment) -> Result<(), Uncacheable> {
        let changed = || Uncacheable::new("input-changed", path.display().to_string());
        let absolute = self.cwd.join(path);
        let known_before = self.seen.contains_key(absolute.as_os_str());
        self.digest(path).map_err(|_| changed())?;
        let (id, _) = self.seen.get(absolute.as_os_str()).ok_or_else(changed)?;
        if known_before || id.untouched_since(start) { Ok(()) } else { Err(changed()) }
    }

    /// Looks through what was read for what its digests do not cover, and for what it asks of the file system.
    fn probe(&self, invocation: &Invocation, files: &[PathBuf]) -> Result<Vec<Learnt>, Uncacheable> {
        let detail = |path: &Path| path.display().to_string();
        let source = invocation.source_file().filter(|_| invocation.language != Language::Bmi);
        let mut texts = Vec::new();
        for path in source.into_iter().chain(files.iter().map(PathBuf::as_path)) {
            let text = disk::read(self.cwd.join(path))
                .map_err(|_| Uncacheable::new("input-changed", detail(path)))?;
            let text = probes::joined(text);
            let is_system = self.search.is_system(path);
            if let Some(reason) = hazards::find(&text, is_system) {
                return Err(Uncacheable::new(reason, detail(path)));
            }
            if self.bases.may_be_read_by_name(&text, invocation.may_load_bmis()) {
                return Err(Uncacheable::new("base-in-source", detail(path)));
            }
            texts.push((path, text, is_system));
        }
        if let Some(twin) = self.once_by_two_names(&texts) {
            return Err(Uncacheable::new("pragma-once", detail(twin)));
        }
        let words = invocation.keyed_words(str::to_owned);
        let macros = macros(&words);
        let read: Vec<Text<'_>> =
            texts.iter().map(|(_, bytes, is_system)| Text { bytes, is_system: *is_system }).collect();
        let path_of = |text: usize| texts.get(text).map_or(Path::new(""), |(path, ..)| *path);
        let found = probes::find(&read, &macros)
            .map_err(|NotLiteral { text }| Uncacheable::new("computed-probe", detail(path_of(text))))?;
        // A macro that asks comes out of a header unit, and is answered where it is used.
        let exported = |(text, _): &&(usize, Probe)| read.get(*text).is_some_and(|text| !text.is_system);
        if let Some((text, _)) = found.iter().find(exported).filter(|_| invocation.kind == Kind::HeaderUnit) {
            return Err(Uncacheable::new("computed-probe", detail(path_of(*text))));
        }
        let files = || texts.iter().map(|(path, ..)| *path);
        let look_up = |(text, probe): &(usize, Probe)| self.search.look_up(probe, path_of(*text), files());
        Ok(found.iter().flat_map(look_up).collect())
    }

    /// A file of the user's that is to be read once and has the bytes of another: whether it is the same file, by a link,
    /// decides how often it is read, and that is in no digest.
    fn once_by_two_names<'a>(&self, texts: &[(&'a Path, Vec<u8>, bool)]) -> Option<&'a Path> {
        let mut names: HashMap<Digest, PathBuf> = HashMap::new();
        let users = || texts.iter().filter(|(.., is_system)| !is_system);
        let any = users().any(|(_, text, _)| probes::imports_files(text));
        let once = users().filter(|(_, text, _)| any || hazards::is_read_once(text));
        once.map(|(path, ..)| *path).find(|path| {
            let absolute = self.cwd.join(path);
            let Some((_, digest)) = self.seen.get(absolute.as_os_str()) else { return false };
            let plain = bases::plain(&absolute);
            names.insert(*digest, plain.clone()).is_some_and(|other| other != plain)
        })
    }
}

/// The depfile's text without the BMIs that the compiler was made to list.
pub fn without_bmis(listing: &Path) -> Result<String, Uncacheable> {
    Ok(rules(listing)?.without(is_bmi).text())
}

fn is_bmi(file: &str) -> bool {
    file.ends_with(".pcm")
}

/// The files that a depfile lists.
fn files_of(listing: &Path, family: Family) -> Result<Vec<String>, Uncacheable> {
    match family {
        Family::Clang => Ok(rules(listing)?.files),
        Family::Gcc => depfile::files_in_rules(&read(listing)?).ok_or_else(|| unreadable(listing)),
    }
}

fn rules(listing: &Path) -> Result<Rules, Uncacheable> {
    Rules::parse(&read(listing)?).ok_or_else(|| unreadable(listing))
}

fn unreadable(path: &Path) -> Uncacheable {
    Uncacheable::new("depfile-not-understood", path.display().to_string())
}

fn read(path: &Path) -> Result<String, Uncacheable> {
    let small = disk::metadata(path).is_ok_and(|metadata| metadata.len() <= MAX_LISTING);
    small.then(|| disk::read_to_string(path).ok()).flatten().ok_or_else(|| unreadable(path))
}

/// The macros that these words define.
fn macros(words: &[String]) -> Vec<&str> {
    let joined = words.iter().flat_map(|word| word.split(',')).filter_map(|word| word.strip_prefix("-D"));
    let separate = words.iter().zip(words.iter().skip(1)).filter(|(flag, _)| *flag == "-D");
    let definitions = joined.chain(separate.map(|(_, definition)| definition.as_str()));
    definitions.filter_map(|definition| definition.split(['=', '(']).next()).collect()
}
