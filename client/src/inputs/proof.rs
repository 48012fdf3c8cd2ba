//! What a hit rested on, written down so that the next one can tell by looking at times that nothing has changed.
//!
//! From the bytes of a unit's headers, and from all that does not lie where the compiler would look first, its action
//! follows; to work that out anew takes most of the time of a hit. A proof says the same in identities: of every file
//! that was read, and of the directories in which what is absent is absent. The identity of a directory stands for
//! the names in it as that of a file stands for its bytes: only if it was not touched since before it was looked at.
//! Where a directory has changed, each of the names is looked for again.
//!
//! Invariant: a proof that holds gives the action that the include set it was taken from would give. One that is missing,
//! damaged or does not hold costs the time it would have saved.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use pcmcache_shared::recipe::{Learnt, escape, unescape};
use pcmcache_shared::{ActionKey, Digest, IncludeSet, UnitKey, disk};

use super::Inputs;
use crate::invocation::{Family, Invocation};
use crate::local::Store;
use crate::local::sealed::{self, Sealed};
use crate::os::{FileId, Moment};
use crate::search;

/// The largest proof, in bytes.
const MAX_PROOF: u64 = 4 * 1024 * 1024;

/// What must be as it was.
#[derive(Debug, Default, PartialEq, Eq)]
struct Proof {
    /// Files that were read.
    files: Vec<(PathBuf, FileId)>,
    /// Directories, and names that are not in them.
    without: BTreeMap<PathBuf, (FileId, BTreeSet<OsString>)>,
    /// What no directory can stand for is looked at each time: whether it is a file.
    asked: BTreeMap<PathBuf, bool>,
}

impl Inputs {
    /// The action that a hit on this unit came to, if all that it rested on is as it was.
    pub fn proven(&self, store: &Store, unit: UnitKey, invocation: &Invocation) -> Option<ActionKey> {
        let Sealed::Whole(body) = sealed::read(&self.proof_file(store, unit, invocation), MAX_PROOF) else {
            return None;
        };
        let text = String::from_utf8(body).ok()?;
        let (action, lines) = text.split_once('\n')?;
        holds(lines)?.then(|| action.parse().ok())?
    }

    /// Writes down what the action rests on. Whatever was looked at was looked at after `began`.
    pub fn prove(
        &self,
        store: &Store,
        (unit, action): (UnitKey, ActionKey),
        set: &IncludeSet,
        invocation: &Invocation,
        began: Moment,
    ) {
        if let Some(proof) = self.proof(set, invocation, began) {
            let body = format!("{action}\n{}", proof.text());
            // Not being able to costs the next hit its time.
            let _ = store.seal(&self.proof_file(store, unit, invocation), body.as_bytes());
        }
    }

    /// The unit alone does not say where it is compiled.
    fn proof_file(&self, store: &Store, unit: UnitKey, invocation: &Invocation) -> PathBuf {
        let path = |path: &Path| escape(path.as_os_str().as_bytes());
        let mut text = format!("proof 1\n{unit}\n{}\n{}\n", path(&self.cwd), path(&invocation.source));
        for base in self.bases.directories() {
            let _ = writeln!(text, "{}", escape(base.as_bytes()));
        }
        store.memo_file(&Digest::of(text))
    }

    fn proof(&self, set: &IncludeSet, invocation: &Invocation, began: Moment) -> Option<Proof> {
        // GCC's precompiled headers are looked for by what the sources say.
        if invocation.family != Family::Clang {
            return None;
        }
        let mut proof = Proof::default();
        for learnt in set.iter() {
            match learnt {
                Learnt::File(path) => {
                    let path = self.cwd.join(self.bases.path(path));
                    let (id, _) = self.seen.get(path.as_os_str())?;
                    proof.files.push((path, *id));
                }
                Learnt::Absent(path) => proof.add_absent(&self.cwd.join(self.bases.path(path)), began),
                Learnt::Present(path) => {
                    proof.asked.insert(self.cwd.join(self.bases.path(path)), true);
                }
                // Who lies in the way and did so before may stay or go.
                Learnt::Passed(_) => {}
                // They are looked for along the prebuilt paths each time.
                Learnt::Bmi(_) => return None,
            }
        }
        let files: Vec<PathBuf> =
            set.iter().filter_map(Learnt::file).map(|file| self.bases.path(file)).collect();
        let is_known = |path: &Path| set.contains(&Learnt::Passed(self.bases.spell_file(path)));
        for path in self.would_be_in_the_way(invocation, &files) {
            if !is_known(&path) {
                proof.add_absent(&path, began);
            }
        }
        proof.files.iter().all(|(_, id)| id.untouched_since(began)).then_some(proof)
    }
}

impl Proof {
    /// The file is not there. What is missing of its path is missing in the last directory of it that is there.
    fn add_absent(&mut self, path: &Path, began: Moment) {
        match missing(path) {
            Some((directory, id, name)) if id.untouched_since(began) => {
                let (_, names) =
                    self.without.entry(directory.to_owned()).or_insert_with(|| (id, BTreeSet::new()));
                names.insert(name.to_owned());
            }
            Some(_) | None => drop(self.asked.insert(path.to_owned(), false)),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let name = |name: &OsStr| escape(name.as_bytes());
        for (path, id) in &self.files {
            let _ = writeln!(text, "is {id} {}", name(path.as_os_str()));
        }
        for (directory, (id, names)) in &self.without {
            let _ = writeln!(text, "in {id} {}", name(directory.as_os_str()));
            names.iter().for_each(|missing| {
                let _ = writeln!(text, "no {}", name(missing));
            });
        }
        for (path, is_file) in &self.asked {
            let _ = writeln!(text, "{} {}", if *is_file { "yes" } else { "not" }, name(path.as_os_str()));
        }
        text
    }
}

/// The first part of the path that is not there: the directory it is not in, and its name. `None` where that cannot be
/// told by a directory: all of it is there (a directory, a link that leads nowhere), or something else is in its place.
fn missing(path: &Path) -> Option<(&Path, FileId, &OsStr)> {
    let mut child = path;
    for directory in path.ancestors().skip(1) {
        match disk::metadata(directory) {
            Ok(metadata) if metadata.is_dir() => {
                let name = child.file_name()?;
                return is_missing(child).then(|| (directory, FileId::of(&metadata), name));
            }
            Ok(_) => return None,
            Err(_) => child = directory,
        }
    }
    None
}

fn is_missing(path: &Path) -> bool {
    disk::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Whether everything is as these lines say; `None` if they say nothing.
fn holds(lines: &str) -> Option<bool> {
    let id_of = |path: &Path| disk::metadata(path).ok().map(|metadata| FileId::of(&metadata));
    let path_of = |escaped: &str| Some(PathBuf::from(OsString::from_vec(unescape(escaped)?)));
    // The directory whose names are looked for again.
    let mut changed: Option<PathBuf> = None;
    for line in lines.lines() {
        let (kind, rest) = line.split_once(' ')?;
        let as_it_was = match kind {
            "is" => {
                let (id, path) = FileId::parse(rest)?;
                id_of(&path_of(path)?) == Some(id)
            }
            "in" => {
                let (id, path) = FileId::parse(rest)?;
                let path = path_of(path)?;
                changed = (id_of(&path) != Some(id)).then_some(path);
                true
            }
            "no" => match &changed {
                Some(directory) => is_missing(&directory.join(path_of(rest)?)),
                None => true,
            },
            "yes" => search::is_file(&path_of(rest)?),
            "not" => search::is_no_file(&path_of(rest)?),
            _ => return None,
        };
        if !as_it_was {
            return Some(false);
        }
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("pcmcache-proof-{name}-{}", std::process::id()));
        for directory in ["a", "b/c"] {
            fs_err::create_dir_all(root.join(directory)).unwrap();
        }
        fs_err::write(root.join("a/file"), "").unwrap();
        root
    }

    fn without(paths: &[PathBuf]) -> Proof {
        Moment::latest().let_pass();
        let mut proof = Proof::default();
        paths.iter().for_each(|path| proof.add_absent(path, Moment::now()));
        proof
    }

    #[test]
    fn absences_stand_in_the_directories_where_paths_end() {
        let root = scratch("where");
        let paths = ["a/x.h", "a/none/x.h", "a/none/../y.h", "b/c/../z.h", "a/file/x.h", "b/c"];
        let proof = without(&paths.map(|path| root.join(path)));
        let names = |directory: &str| {
            let (_, names) = &proof.without[&root.join(directory)];
            names.iter().map(|name| name.to_str().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!((names("a"), names("b/c/..")), (vec!["none", "x.h"], vec!["z.h"]));
        let asked: Vec<_> = proof.asked.keys().cloned().collect();
        assert_eq!(asked, [root.join("a/file/x.h"), root.join("b/c")], "no directory can stand for these");
        assert_eq!(holds(&proof.text()), Some(true));
        fs_err::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_name_that_appears_is_seen_and_another_one_does_no_harm() {
        for (appears, held) in [("a/other.h", true), ("a/x.h", false), ("a/none", false), ("b/y.h", false)] {
            let root = scratch("appears");
            let proof = without(&["a/x.h", "a/none/x.h", "b/y.h"].map(|path| root.join(path)));
            fs_err::create_dir(root.join(appears)).unwrap();
            assert_eq!(holds(&proof.text()), Some(held), "{appears}");
            fs_err::remove_dir_all(&root).unwrap();
        }
    }

    #[test]
    fn a_directory_that_was_replaced_or_is_a_link_elsewhere_now_is_looked_into() {
        let root = scratch("replaced");
        let proof = without(&[root.join("a/x.h")]);
        fs_err::rename(root.join("a"), root.join("old")).unwrap();
        fs_err::write(root.join("b/x.h"), "").unwrap();
        std::os::unix::fs::symlink(root.join("b"), root.join("a")).unwrap();
        assert_eq!(holds(&proof.text()), Some(false));
        fs_err::remove_file(root.join("b/x.h")).unwrap();
        assert_eq!(holds(&proof.text()), Some(true));
        fs_err::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_directory_that_was_touched_too_late_stands_for_nothing() {
        let root = scratch("late");
        let began = Moment::now();
        began.let_pass();
        fs_err::write(root.join("a/now"), "").unwrap();
        let mut proof = Proof::default();
        proof.add_absent(&root.join("a/x.h"), began);
        assert_eq!((proof.without.len(), proof.asked.len()), (0, 1));
        fs_err::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn what_is_no_proof_proves_nothing() {
        for lines in ["wat x\n", "is 1 2 3\n", "in\n"] {
            assert_eq!(holds(lines), None, "{lines}");
        }
    }
}
