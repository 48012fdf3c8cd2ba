//! What a compile reads: digests of it, and what a compile teaches about it.
//!
//! Invariant: a digest in a recipe is that of the bytes the compiler read. What is known before the compile is hashed
//! before it and looked at again after; what is learnt by it is hashed after it and must not have been touched since
//! it began. What cannot be proved makes the compile uncacheable, never wrong.

mod hazards;
mod learn;
mod proof;

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use pcmcache_shared::recipe::{Learnt, Unit};
use pcmcache_shared::{Digest, IncludeSet, Recipe, disk};

pub use self::learn::{Graph, without_bmis};
use crate::bases::Bases;
use crate::invocation::{Family, Invocation, Kind};
use crate::local::memo::Memo;
use crate::os::{FileId, Moment};
use crate::probes::{self, Included};
use crate::search::{self, SearchPath};

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

/// What there is now of something that a compile taught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Now {
    /// It was read, and these are its bytes now.
    Is(Digest),
    /// It was looked for, and is there.
    There,
    /// It is not there.
    Gone,
}

/// The inputs of one compile, as far as they were looked at.
#[derive(Debug)]
pub struct Inputs {
    memo: Memo,
    cwd: PathBuf,
    search: SearchPath,
    bases: Bases,
    /// By the bytes of their names: paths are compared part by part, which takes long where there are thousands.
    seen: HashMap<OsString, (FileId, Digest)>,
}

impl Inputs {
    /// Nothing was looked at yet. Relative names are relative to `cwd`.
    pub fn new(memo: Memo, cwd: PathBuf) -> Self {
        let (search, bases) = (SearchPath::default(), Bases::default());
        Self { memo, cwd, search, bases, seen: HashMap::new() }
    }

    /// Headers are looked for here, and these base directories apply.
    pub fn look_in(&mut self, search: SearchPath, bases: Bases) {
        self.search = search;
        self.bases = bases;
    }

    /// The memo of digests.
    pub fn memo(&mut self) -> &mut Memo {
        &mut self.memo
    }

    /// The digest of a file, looked at once.
    pub fn digest(&mut self, path: &Path) -> io::Result<Digest> {
        let path = self.cwd.join(path);
        if let Some((_, digest)) = self.seen.get(path.as_os_str()) {
            return Ok(*digest);
        }
        let (id, digest) = self.memo.digest(&path)?;
        self.seen.insert(path.into_os_string(), (id, digest));
        Ok(digest)
    }

    /// Where the module's BMI is found along the prebuilt paths now.
    pub fn find_bmi(&self, invocation: &Invocation, module: &str) -> Option<PathBuf> {
        places_for_bmi(invocation, module).find(|path| !search::is_missing(&self.cwd.join(path)))
    }

    /// Where the module's BMI is and is not: its place, not only its bytes, counts.
    fn places_of_bmi(&self, invocation: &Invocation, module: &str) -> Vec<Learnt> {
        let mut places = Vec::new();
        for path in places_for_bmi(invocation, module).map(|path| self.cwd.join(path)) {
            if !search::is_missing(&path) {
                places.push(Learnt::Present(path));
                break;
            }
            places.push(Learnt::Absent(path));
        }
        places
    }

    /// The recipe of the unit over this set and the present files, if the compiler would find those files today.
    pub fn recipe(&mut self, unit: &Unit, set: &IncludeSet, invocation: &Invocation) -> Option<Recipe> {
        if !self.would_find(set, invocation) {
            return None;
        }
        Recipe::new(unit, set, |learnt| match learnt {
            Learnt::File(path) => self.digest(&self.bases.path(path)).ok(),
            Learnt::Bmi(module) => {
                let path = self.find_bmi(invocation, module)?;
                self.digest(&path).ok()
            }
            Learnt::Absent(_) | Learnt::Passed(_) | Learnt::Present(_) => None,
        })
    }

    /// Whether nothing is there that would be taken instead of a file of the set, and every probe comes to the same.
    fn would_find(&self, set: &IncludeSet, invocation: &Invocation) -> bool {
        let place = |path: &Path| self.cwd.join(self.bases.path(path));
        let as_probed = set.iter().all(|learnt| match learnt {
            Learnt::Absent(path) => search::is_no_file(&place(path)),
            Learnt::Present(path) => search::is_file(&place(path)),
            Learnt::Bmi(_) | Learnt::File(_) | Learnt::Passed(_) => true,
        });
        as_probed && self.newcomers(set, invocation).is_empty()
    }

    /// What lies where the compiler would look first, and did not when the set was learnt.
    pub fn newcomers(&self, set: &IncludeSet, invocation: &Invocation) -> Vec<PathBuf> {
        let files: Vec<PathBuf> =
            set.iter().filter_map(Learnt::file).map(|file| self.bases.path(file)).collect();
        let is_known = |path: &PathBuf| set.contains(&Learnt::Passed(self.bases.spell_file(path)));
        let in_the_way = self.in_the_way(invocation, &files).into_iter().filter(|path| !is_known(path));
        self.precompiled(invocation).into_iter().chain(in_the_way).collect()
    }

    /// What there is now of something that a compile taught.
    pub fn now(&mut self, learnt: &Learnt, invocation: &Invocation) -> Now {
        let path = match learnt {
            Learnt::Absent(path) | Learnt::Passed(path) | Learnt::Present(path) => {
                let exists = search::is_file(&self.cwd.join(self.bases.path(path)));
                return if exists { Now::There } else { Now::Gone };
            }
            Learnt::File(path) => Some(self.bases.path(path)),
            Learnt::Bmi(module) => self.find_bmi(invocation, module),
        };
        path.and_then(|path| self.digest(&path).ok()).map_or(Now::Gone, Now::Is)
    }

    fn in_the_way(&self, invocation: &Invocation, files: &[PathBuf]) -> BTreeSet<PathBuf> {
        let (read, from_cwd) = found_from(invocation, files);
        self.search.in_the_way(&read, from_cwd)
    }

    /// Every place in which a file would be in the way.
    fn would_be_in_the_way(&self, invocation: &Invocation, files: &[PathBuf]) -> BTreeSet<PathBuf> {
        let (read, from_cwd) = found_from(invocation, files);
        self.search.would_be_in_the_way(&read, from_cwd)
    }

    /// GCC takes `x.h.gch` for the `x.h` that a source begins with, and tells nobody.
    fn precompiled(&self, invocation: &Invocation) -> Option<PathBuf> {
        if invocation.family != Family::Gcc {
            return None;
        }
        // Who cannot read it cannot tell.
        let Ok(Included { names, .. }) = self.included(invocation) else {
            return Some(invocation.source.clone());
        };
        let forced = invocation.forced_includes.iter().map(|header| header.to_string_lossy().into_owned());
        let included: Vec<String> = forced.chain(names).collect();
        self.search.precompiled(&invocation.source, &included)
    }

    fn included(&self, invocation: &Invocation) -> io::Result<Included> {
        let text = disk::read(self.cwd.join(&invocation.source))?;
        Ok(probes::included(&probes::joined(text)))
    }

    /// Whether everything that was looked at is still the same: asked after a wait, during which a user may have edited.
    pub fn still_as_seen(&self) -> bool {
        let same = |(path, (id, _)): (&OsString, &(FileId, Digest))| {
            disk::metadata(path).is_ok_and(|metadata| FileId::of(&metadata) == *id)
        };
        self.seen.iter().all(same)
    }

    /// Whether everything that was looked at is as the compiler, started at `start`, must have found it.
    pub fn unchanged_since(&mut self, start: Moment) -> Result<(), Uncacheable> {
        let changed = |path: &Path| Uncacheable::new("input-changed", path.display().to_string());
        for (path, (id, digest)) in &self.seen {
            let path = Path::new(path);
            let now =
                disk::metadata(path).map(|metadata| FileId::of(&metadata)).map_err(|_| changed(path))?;
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

/// Where the module's BMI is looked for along the prebuilt paths, in order.
fn places_for_bmi(invocation: &Invocation, module: &str) -> impl Iterator<Item = PathBuf> {
    let name = format!("{}.pcm", module.replace(':', "-"));
    invocation.prebuilt_paths.iter().map(move |directory| directory.join(&name))
}

/// The files that were read, and whether some were looked for in the directory the compiler runs in first.
fn found_from(invocation: &Invocation, files: &[PathBuf]) -> (Vec<PathBuf>, bool) {
    let from_cwd = !invocation.forced_includes.is_empty() || invocation.kind == Kind::HeaderUnit;
    let read = invocation.source_file().map(Path::to_owned).into_iter().chain(files.iter().cloned());
    (read.collect(), from_cwd)
}
