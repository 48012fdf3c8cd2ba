//! What a compile reads: digests of it, and what a compile teaches about it.
//!
//! Invariant: a digest in a recipe is that of the bytes the compiler read. What is known before the compile is hashed
//! before it and looked at again after; what is learnt by it is hashed after it and must not have been touched since
//! it began. What cannot be proved makes the compile uncacheable, never wrong.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use memchr::memmem;
use pcmcache_shared::recipe::{Learnt, Unit};
use pcmcache_shared::{Digest, IncludeSet, Recipe};

use crate::depfile::{self, Rules};
use crate::invocation::Invocation;
use crate::local::memo::Memo;
use crate::os::{FileId, Moment};
use crate::search::{NotLiteral, SearchPath};

/// The largest depfile or include graph anyone reads, in bytes.
const MAX_LISTING: u64 = 16 * 1024 * 1024;

/// Why what a compile made is kept and used, but not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uncacheable {
    /// The reason, in the words of the statistics.
    pub reason: &'static str,
    /// What it was this time.
    pub detail: String,
}

impl Uncacheable {
    /// A reason with what it was this time.
    pub fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// The inputs of one compile, as far as they were looked at.
#[derive(Debug)]
pub struct Inputs {
    memo: Memo,
    cwd: PathBuf,
    search: SearchPath,
    seen: BTreeMap<PathBuf, (FileId, Digest)>,
}

impl Inputs {
    /// Nothing was looked at yet. Relative names are relative to `cwd`.
    pub fn new(memo: Memo, cwd: PathBuf) -> Self {
        Self { memo, cwd, search: SearchPath::default(), seen: BTreeMap::new() }
    }

    /// Headers are looked for here.
    pub fn look_in(&mut self, search: SearchPath) {
        self.search = search;
    }

    /// The memo of digests.
    pub fn memo(&mut self) -> &mut Memo {
        &mut self.memo
    }

    /// The digest of a file, looked at once.
    pub fn digest(&mut self, path: &Path) -> io::Result<Digest> {
        let path = self.cwd.join(path);
        if let Some((_, digest)) = self.seen.get(&path) {
            return Ok(*digest);
        }
        let (id, digest) = self.memo.digest(&path)?;
        self.seen.insert(path, (id, digest));
        Ok(digest)
    }

    /// Where the module's BMI is found along the prebuilt paths now.
    pub fn find_bmi(&self, invocation: &Invocation, module: &str) -> Option<PathBuf> {
        let name = format!("{}.pcm", module.replace(':', "-"));
        invocation
            .prebuilt_paths
            .iter()
            .map(|directory| directory.join(&name))
            .find(|path| self.cwd.join(path).exists())
    }

    /// The recipe of the unit over this set and the present files, if the compiler would find those files today.
    pub fn recipe(&mut self, unit: &Unit, set: &IncludeSet, invocation: &Invocation) -> Option<Recipe> {
        if !self.would_find(set, invocation) {
            return None;
        }
        Recipe::new(unit, set, |learnt| match learnt {
            Learnt::File(path) => self.digest(path).ok(),
            Learnt::Bmi(module) => {
                let path = self.find_bmi(invocation, module)?;
                self.digest(&path).ok()
            }
            Learnt::Absent(_) | Learnt::Passed(_) | Learnt::Present(_) => None,
        })
    }

    /// Whether nothing is there that would be taken instead of a file of the set, and every probe comes to the same.
    fn would_find(&self, set: &IncludeSet, invocation: &Invocation) -> bool {
        let as_probed = set.iter().all(|learnt| match learnt {
            Learnt::Absent(path) => !self.cwd.join(path).exists(),
            Learnt::Present(path) => self.cwd.join(path).exists(),
            Learnt::Bmi(_) | Learnt::File(_) | Learnt::Passed(_) => true,
        });
        as_probed && self.in_the_way(set, invocation).all(|path| set.contains(&Learnt::Passed(path)))
    }

    fn in_the_way(&self, set: &IncludeSet, invocation: &Invocation) -> impl Iterator<Item = PathBuf> {
        let files: Vec<&Path> = set.iter().filter_map(Learnt::file).collect();
        self.search.in_the_way(&invocation.source, &files).into_iter()
    }

    /// Whether everything that was looked at is still the same: asked after a wait, during which a user may have edited.
    pub fn still_as_seen(&self) -> bool {
        let same = |(path, (id, _)): (&PathBuf, &(FileId, Digest))| {
            fs_err::metadata(path).is_ok_and(|metadata| FileId::of(&metadata) == *id)
        };
        self.seen.iter().all(same)
    }

    /// Whether everything that was looked at is as the compiler, started at `start`, must have found it.
    pub fn unchanged_since(&mut self, start: Moment) -> Result<(), Uncacheable> {
        let changed = |path: &Path| Uncacheable::new("input-changed", path.display().to_string());
        for (path, (id, digest)) in &self.seen {
            let now =
                fs_err::metadata(path).map(|metadata| FileId::of(&metadata)).map_err(|_| changed(path))?;
            if now != *id {
                return Err(changed(path));
            }
            // Touched so close to the start that a change would not show in its times: the bytes must tell.
            if !now.untouched_since(start)
                && self.memo.digest(path).ok().map(|(_, again)| again) != Some(*digest)
            {
                return Err(changed(path));
            }
        }
        Ok(())
    }

    /// Reads what the compiler wrote down about what it read: its depfile, and for `-MMD` its include graph.
    pub fn learn(
        &mut self,
        invocation: &Invocation,
        listing: Option<&Path>,
        graph: Option<&Path>,
        start: Moment,
    ) -> Result<IncludeSet, Uncacheable> {
        let Some(listing) = listing else { return Ok(IncludeSet::default()) };
        let mut files = rules(listing)?.files;
        if let Some(graph) = graph {
            let listed = depfile::files_in_graph(&read(graph)?).ok_or_else(|| unreadable(graph))?;
            files.extend(listed.into_iter().filter(|file| self.cwd.join(file).is_file()));
        }
        let mut learnt = Vec::new();
        for file in files {
            let path = PathBuf::from(&file);
            if self.cwd.join(&path) == self.cwd.join(&invocation.source) {
                continue;
            }
            if invocation.may_load_bmis() && is_bmi(&file) {
                learnt.extend(self.learn_bmi(invocation, &path)?);
            } else {
                learnt.extend(self.learn_file(&path, start)?);
                learnt.push(Learnt::File(path));
            }
        }
        learnt.extend(self.read_text(&invocation.source)?);
        let mut set: IncludeSet = learnt.into_iter().collect();
        let passed: Vec<_> = self.in_the_way(&set, invocation).map(Learnt::Passed).collect();
        set.extend(passed);
        self.refuse_newcomers(&set, start)?;
        Ok(set)
    }

    /// What was looked for and not read must have been there when the compiler looked, too.
    fn refuse_newcomers(&self, set: &IncludeSet, start: Moment) -> Result<(), Uncacheable> {
        let was_there = |path: &Path| {
            fs_err::metadata(self.cwd.join(path)).is_ok_and(|m| FileId::of(&m).untouched_since(start))
        };
        let is_new = |learnt: &&Learnt| match learnt {
            Learnt::Passed(path) | Learnt::Present(path) => !was_there(path),
            Learnt::Absent(_) | Learnt::Bmi(_) | Learnt::File(_) => false,
        };
        match set.iter().find(is_new) {
            Some(learnt) => Err(Uncacheable::new("input-changed", format!("{learnt:?}"))),
            None => Ok(()),
        }
    }

    /// A BMI that was loaded: named on the command line (nothing to learn), or found along a prebuilt path.
    fn learn_bmi(&mut self, invocation: &Invocation, path: &Path) -> Result<Option<Learnt>, Uncacheable> {
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
        self.digest(&found).map_err(|_| unexplained())?;
        Ok(Some(Learnt::Bmi(module)))
    }

    /// A file that was read: hashed now if it was not before, and then it must not have been touched since `start`.
    /// Gives what its probes came to.
    fn learn_file(&mut self, path: &Path, start: Moment) -> Result<Vec<Learnt>, Uncacheable> {
        let changed = || Uncacheable::new("input-changed", path.display().to_string());
        let absolute = self.cwd.join(path);
        let known_before = self.seen.contains_key(&absolute);
        self.digest(path).map_err(|_| changed())?;
        let (id, _) = self.seen.get(&absolute).ok_or_else(changed)?;
        if !known_before && !id.untouched_since(start) {
            return Err(changed());
        }
        self.read_text(path)
    }

    /// Looks through a source for what its digest does not cover.
    fn read_text(&self, path: &Path) -> Result<Vec<Learnt>, Uncacheable> {
        let detail = || path.display().to_string();
        let text =
            fs_err::read(self.cwd.join(path)).map_err(|_| Uncacheable::new("input-changed", detail()))?;
        if let Some((_, reason)) =
            NOT_IN_KEY.iter().find(|(word, _)| memmem::find(&text, word.as_bytes()).is_some())
        {
            return Err(Uncacheable::new(reason, detail()));
        }
        match self.search.probes(path, &text) {
            Ok(learnt) => Ok(learnt),
            // The system's headers wrap the probe in macros, and probe for the system's headers.
            Err(NotLiteral) if self.search.is_system(path) => Ok(Vec::new()),
            Err(NotLiteral) => Err(Uncacheable::new("computed-probe", detail())),
        }
    }

    /// The BMIs that this compile loads or may load.
    pub fn bmis(&self, invocation: &Invocation, set: &IncludeSet) -> Vec<PathBuf> {
        let named = invocation.bmis.iter().map(|bmi| bmi.path.clone());
        let found = set.iter().filter_map(|learnt| match learnt {
            Learnt::Bmi(module) => self.find_bmi(invocation, module),
            Learnt::Absent(_) | Learnt::File(_) | Learnt::Passed(_) | Learnt::Present(_) => None,
        });
        named.chain(found).collect()
    }
}

/// The depfile's text without the BMIs that the compiler was made to list.
pub fn without_bmis(listing: &Path) -> Result<String, Uncacheable> {
    Ok(rules(listing)?.without(is_bmi).text())
}

fn is_bmi(file: &str) -> bool {
    file.ends_with(".pcm")
}

fn rules(listing: &Path) -> Result<Rules, Uncacheable> {
    Rules::parse(&read(listing)?).ok_or_else(|| unreadable(listing))
}

fn unreadable(path: &Path) -> Uncacheable {
    Uncacheable::new("depfile-not-understood", path.display().to_string())
}

fn read(path: &Path) -> Result<String, Uncacheable> {
    let small = fs_err::metadata(path).is_ok_and(|metadata| metadata.len() <= MAX_LISTING);
    small.then(|| fs_err::read_to_string(path).ok()).flatten().ok_or_else(|| unreadable(path))
}

/// What a text must not hold: the clock is not in the key, nor is what the assembler reads.
const NOT_IN_KEY: [(&str, &str); 4] = [
    ("__DATE__", "time-macro"),
    ("__TIME__", "time-macro"),
    ("__TIMESTAMP__", "time-macro"),
    (".incbin", "incbin"),
];
