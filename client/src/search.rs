//! Absences: files that are not there, and that the compiler would have taken if they were.
//!
//! No output of the compiler reports a probe that failed. But where a header was found tells where it was looked for in
//! vain: with the search directories `a b c`, `c/x/y.h` was found because there is no `a/x/y.h` and no `b/x/y.h`, nor an
//! `x/y.h` beside any file that may have included it. So the absences need not be remembered, they follow from what
//! was read; what has to be remembered is the exception, a file that lay in the way and was passed over
//! (`#include_next`, `<x>` beside an `x`). `__has_include` probes for what may never be read: its operands are
//! looked for in the sources (see `probes`).
//!
//! Where the reason for a probe is not known, more is taken for an absence than is one: that costs a compile.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use pcmcache_shared::disk;
use pcmcache_shared::recipe::Learnt;

use crate::probes::{self, Beside, Probe};

/// The directories that headers are looked for in, in order, absolute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SearchPath {
    /// The directory that relative names are relative to.
    cwd: PathBuf,
    directories: Vec<PathBuf>,
    /// The directories of the compiler and the system: nobody puts a header beside theirs to shadow another.
    system: Vec<PathBuf>,
}

/// Where a flag of the compiler proper puts its directory in the order of the search.
const GROUPS: [(&str, u8); 10] = [
    ("-iquote", 0),
    ("-I", 1),
    ("-isystem", 2),
    ("-internal-isystem", 2),
    ("-internal-externc-isystem", 2),
    ("-c-isystem", 2),
    ("-cxx-isystem", 2),
    ("-isystem-after", 3),
    ("-idirafter", 3),
    (EMBED, 4),
];
const EMBED: &str = "--embed-dir=";
/// Where the compiler's own directories stand in that order.
const BUILT_IN: u8 = 2;

/// Flags whose directories depend on other flags.
const NOT_FOLLOWED: [&str; 6] =
    ["-iwithprefix", "-iwithprefixbefore", "-iwithsysroot", "-iframework", "-iframeworkwithsysroot", "-F"];

/// A word that names a directory in a way that is not followed: by those flags, or below the system's root (`=/include`,
/// GCC's `$SYSROOT/include`).
pub fn not_followed(words: &[String]) -> Option<&str> {
    let is_below_root = |path: &str| path.starts_with('=') || path.starts_with("$SYSROOT");
    let directories = named_as(words).filter(|(.., directory)| is_below_root(directory));
    let flags = words.iter().map(String::as_str).filter(|word| NOT_FOLLOWED.contains(word));
    directories.map(|(.., directory)| directory).chain(flags).next()
}

/// The directories that these words name: each with its flag and its group.
fn named(words: &[String], cwd: &Path) -> Vec<(&'static str, u8, PathBuf)> {
    named_as(words).map(|(flag, group, directory)| (flag, group, normal(&cwd.join(directory)))).collect()
}

fn named_as(words: &[String]) -> impl Iterator<Item = (&'static str, u8, &str)> {
    let pairs = words.iter().zip(words.iter().skip(1).map(Some).chain([None]));
    pairs.filter_map(|(word, next)| {
        GROUPS.iter().find_map(|(flag, group)| {
            let directory = match word.strip_prefix(flag)? {
                "" => next?.as_str(),
                // CPATH comes as one word.
                joined if *flag == EMBED || *flag == "-I" => joined,
                _ => return None,
            };
            Some((*flag, *group, directory))
        })
    })
}

/// Within a group the order is that of the command line.
fn in_order(mut grouped: Vec<(u8, PathBuf)>) -> Vec<PathBuf> {
    grouped.sort_by_key(|(group, _)| *group);
    grouped.into_iter().map(|(_, directory)| directory).collect()
}

impl SearchPath {
    /// The directories that the words of a cc1 line name.
    pub fn of_cc1(words: &[String], cwd: &Path) -> Self {
        let named = named(words, cwd);
        let is_system = |flag: &str| flag.starts_with("-internal");
        let system = named.iter().filter(|(flag, ..)| is_system(flag)).map(|(.., path)| path.clone());
        let (cwd, system) = (cwd.to_owned(), system.collect());
        let grouped = named.into_iter().map(|(_, group, path)| (group, path)).collect();
        Self { cwd, directories: in_order(grouped), system }
    }

    /// The directories that the words of GCC's compiler proper name, and those it says (`-v`) that it looks in by itself.
    pub fn of_gcc(words: &[String], said: &str, cwd: &Path) -> Self {
        let path = |name: &str| normal(&cwd.join(name));
        let ignored = |start| {
            let name = move |line: &str| line.strip_prefix(start)?.strip_suffix('"').map(path);
            said.lines().filter_map(name)
        };
        let listed = said
            .lines()
            .skip_while(|line| !line.starts_with("#include <"))
            .take_while(|line| !line.starts_with("End of search list"))
            .filter_map(|line| line.strip_prefix(' ').map(path));
        let mut grouped: Vec<(u8, PathBuf)> =
            named(words, cwd).into_iter().map(|(_, group, path)| (group, path)).collect();
        let users: HashSet<PathBuf> = grouped.iter().map(|(_, path)| path.clone()).collect();
        // What the user names by -I and GCC looks in by itself, it looks in where it would by itself.
        let twice: HashSet<PathBuf> = ignored("ignoring duplicate directory \"").collect();
        let built_in = ignored("ignoring nonexistent directory \"").chain(listed);
        let built_in: Vec<PathBuf> =
            built_in.filter(|path| !users.contains(path) || twice.contains(path)).collect();
        let system = built_in.iter().filter(|path| !users.contains(*path)).cloned().collect();
        grouped.extend(built_in.into_iter().map(|path| (BUILT_IN, path)));
        Self { cwd: cwd.to_owned(), directories: in_order(grouped), system }
    }

    /// The files that lie where the compiler looked before it found those of `read`, and are none of them. Right after
    /// a compile these are the ones it passed over; one that is new since then would be taken today. `from_cwd`: some
    /// were looked for in the directory the compiler runs in first.
    pub fn in_the_way(&self, read: &[PathBuf], from_cwd: bool) -> BTreeSet<PathBuf> {
        let read = self.normal(read);
        let mut listings = Listings::default();
        let mut found = BTreeSet::new();
        self.places_before(&read, from_cwd, |directory, operand| {
            // Nearly always it may not, and then no path is made.
            if listings.may_have(directory, operand) {
                let path = directory.join(operand);
                if !read.contains(&path) && !is_no_file(&path) {
                    found.insert(path);
                }
            }
        });
        found
    }

    /// The same places, whether anything is there or not.
    pub fn would_be_in_the_way(&self, read: &[PathBuf], from_cwd: bool) -> BTreeSet<PathBuf> {
        let read = self.normal(read);
        let mut places = BTreeSet::new();
        self.places_before(&read, from_cwd, |directory, operand| {
            places.insert(directory.join(operand));
        });
        places.into_iter().filter(|place| !read.contains(place)).collect()
    }

    fn normal(&self, read: &[PathBuf]) -> HashSet<PathBuf> {
        read.iter().map(|file| normal(&self.cwd.join(file))).collect()
    }

    /// Visits every place that was looked in before a file of `read` was found: a directory, and the name there.
    fn places_before(&self, read: &HashSet<PathBuf>, from_cwd: bool, mut visit: impl FnMut(&Path, &Path)) {
        let mut beside = self.beside(read.iter());
        if from_cwd {
            beside.insert(self.cwd.clone());
        }
        for file in read {
            for (index, directory) in self.directories.iter().enumerate() {
                let Ok(operand) = file.strip_prefix(directory) else { continue };
                let earlier = self.directories.get(..index).unwrap_or_default();
                earlier.iter().chain(&beside).for_each(|candidate| visit(candidate, operand));
            }
        }
    }

    /// The directories of the user's files among these, which are absolute.
    fn beside<'a>(&self, files: impl Iterator<Item = &'a PathBuf>) -> BTreeSet<PathBuf> {
        let is_user = |file: &&PathBuf| !self.system.iter().any(|directory| file.starts_with(directory));
        files.filter(is_user).filter_map(|file| file.parent().map(Path::to_owned)).collect()
    }

    /// A precompiled header that GCC would take instead of one of these, which are included by the source itself.
    pub fn precompiled(&self, source: &Path, included: &[String]) -> Option<PathBuf> {
        let beside = self.cwd.join(source).parent().map(Path::to_owned).unwrap_or_default();
        let places: Vec<&PathBuf> = [&beside, &self.cwd].into_iter().chain(&self.directories).collect();
        let mut listings = Listings::default();
        included.iter().map(|name| Path::new(name).with_added_extension("gch")).find_map(|gch| {
            let place = places
                .iter()
                .find(|place| listings.may_have(place, &gch) && !is_missing(&place.join(&gch)))?;
            Some(place.join(gch))
        })
    }

    /// What a probe of one of the files `read` came to: which of the places that it may look in have such a file. More places are taken than one
    /// kind of probe looks in (`<x>` passes over `-iquote`, `__has_embed` over all but its own), so that the first file
    /// found need not be the one that made it true.
    pub fn look_up<'a>(
        &self,
        probe: &Probe,
        file: &'a Path,
        read: impl Iterator<Item = &'a Path>,
    ) -> Vec<Learnt> {
        let asking = || self.cwd.join(file).parent().map(Path::to_owned);
        let beside: BTreeSet<PathBuf> = match probe.beside {
            Beside::None => BTreeSet::new(),
            Beside::Asking => asking().into_iter().collect(),
            Beside::Any => {
                let read: Vec<PathBuf> = read.map(|file| normal(&self.cwd.join(file))).collect();
                self.beside(read.iter()).into_iter().chain(asking()).collect()
            }
        };
        let place = |directory: &PathBuf| directory.join(&probe.name);
        // One in a directory of the system is found in any case, and then it does not matter what lies before it.
        let in_system = self.system.iter().map(place).find(|place| is_file(place));
        if let (probes::Kind::Include, Some(there)) = (probe.kind, in_system) {
            return vec![Learnt::Present(there)];
        }
        let came_to = |place: PathBuf| match (is_file(&place), probe.kind) {
            (false, _) => Learnt::Absent(place),
            // Whether what is to be embedded is empty counts as well.
            (true, probes::Kind::Embed) => Learnt::File(place),
            (true, probes::Kind::Include | probes::Kind::IncludeNext) => Learnt::Present(place),
        };
        beside.iter().chain(&self.directories).map(place).map(came_to).collect()
    }

    /// The directories that are none, and whether something else is there.
    pub fn no_directories(&self) -> impl Iterator<Item = (&Path, bool)> {
        let looked =
            self.directories.iter().map(|directory| (directory.as_path(), disk::metadata(directory)));
        let none = looked.filter(|(_, there)| !there.as_ref().is_ok_and(std::fs::Metadata::is_dir));
        none.map(|(directory, there)| (directory, there.is_ok()))
    }

    /// Whether the file is one of the compiler's or the system's.
    pub fn is_system(&self, file: &Path) -> bool {
        let file = normal(&self.cwd.join(file));
        self.system.iter().any(|directory| file.starts_with(directory))
    }

    /// The directories, as they are kept in a memo: system ones are marked.
    pub fn lines(&self) -> impl Iterator<Item = (bool, &Path)> {
        self.directories.iter().map(|directory| (self.system.contains(directory), directory.as_path()))
    }

    /// What [`SearchPath::lines`] gave.
    pub fn from_lines(lines: impl Iterator<Item = (bool, PathBuf)>, cwd: &Path) -> Self {
        let (mut directories, mut system) = (Vec::new(), Vec::new());
        for (is_system, directory) in lines {
            if is_system {
                system.push(directory.clone());
            }
            directories.push(directory);
        }
        Self { cwd: cwd.to_owned(), directories, system }
    }
}

/// Whether the compiler takes it for a file that can be included: anything but a directory.
pub fn is_file(path: &Path) -> bool {
    disk::metadata(path).is_ok_and(|metadata| !metadata.is_dir())
}

/// Whether there surely is no such file: nothing is there, or a directory. What cannot be looked at may be one.
pub fn is_no_file(path: &Path) -> bool {
    disk::metadata(path).map_or_else(|error| says_missing(&error), |metadata| metadata.is_dir())
}

/// Whether there surely is nothing of that name.
pub fn is_missing(path: &Path) -> bool {
    disk::metadata(path).is_err_and(|error| says_missing(&error))
}

fn says_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The path without `.` components. `..` stays: what it means depends on links.
fn normal(path: &Path) -> PathBuf {
    path.components().filter(|component| *component != Component::CurDir).collect()
}

/// The names in directories, read once each: most candidates are ruled out without a look at the disk.
#[derive(Default)]
struct Listings(HashMap<PathBuf, Option<HashSet<OsString>>>);

impl Listings {
    fn may_have(&mut self, directory: &Path, operand: &Path) -> bool {
        let Some(Component::Normal(first)) = operand.components().next() else { return true };
        if !self.0.contains_key(directory) {
            self.0.insert(directory.to_owned(), names_in(directory));
        }
        self.0.get(directory).and_then(Option::as_ref).is_none_or(|names| names.contains(first))
    }
}

/// `None`: nobody can tell. Who may not list a directory may go through it all the same.
fn names_in(directory: &Path) -> Option<HashSet<OsString>> {
    let is_denied = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    match disk::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>().ok(),
        Err(error) if says_missing(&error) => Some(HashSet::new()),
        // The compiler leaves one out that it may not even look at.
        Err(_) => disk::metadata(directory).is_err_and(is_denied).then(HashSet::new),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, files: &[&str]) -> Self {
            let root = std::env::temp_dir().join(format!("pcmcache-search-{name}-{}", std::process::id()));
            for file in files {
                let path = root.join(file);
                fs_err::create_dir_all(path.parent().unwrap()).unwrap();
                fs_err::write(path, "").unwrap();
            }
            Self(root)
        }

        fn search(&self) -> SearchPath {
            let words = ["-I", "one", "-internal-isystem", "system", "-I", "two", "-iquote", "quote"];
            SearchPath::of_cc1(&words.map(str::to_owned), &self.0)
        }

        fn in_the_way(&self, read: &[&str]) -> Vec<String> {
            let read: Vec<PathBuf> = ["src/a.cpp"].iter().chain(read).map(PathBuf::from).collect();
            let found = self.search().in_the_way(&read, false);
            found.iter().map(|path| path.strip_prefix(&self.0).unwrap().display().to_string()).collect()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs_err::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_search_goes_by_kind_of_flag_then_by_order() {
        let dir = Scratch::new("order", &[]);
        let names: Vec<_> =
            dir.search().directories.iter().map(|d| d.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["quote", "one", "two", "system"]);
    }

    #[test]
    fn gcc_looks_in_its_own_directories_where_it_says_so() {
        let words = ["-I", "/usr/include", "-I", "one", "-I", "none", "-idirafter", "after"];
        let said = concat!(
            "ignoring nonexistent directory \"/usr/local/include\"\n",
            "ignoring duplicate directory \"/usr/include\"\n",
            "  as it is a non-system directory that duplicates a system directory\n",
            "ignoring nonexistent directory \"none\"\n",
            "#include \"...\" search starts here:\n quote\n",
            "#include <...> search starts here:\n one\n /usr/include/c++/12\n /usr/include\n after\n",
            "End of search list.\n",
        );
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let search = SearchPath::of_gcc(&words.map(str::to_owned), said, Path::new("/w"));
        let user = ["/usr/include", "/w/one", "/w/none"];
        let own = ["/usr/local/include", "/usr/include/c++/12", "/usr/include"];
        assert_eq!(search.directories, paths(&[&user[..], &own, &["/w/after"]].concat()));
        assert_eq!(search.system, paths(&own[..2]));
    }

    #[test]
    fn a_new_header_in_an_earlier_directory_or_beside_the_includer_is_in_the_way() {
        let dir = Scratch::new("shadow", &["src/a.cpp", "two/x/y.h", "system/vector"]);
        let read = ["two/x/y.h", "./system/vector"];
        assert_eq!(dir.in_the_way(&read), [""; 0]);
        for shadow in ["one/x/y.h", "quote/x/y.h", "src/x/y.h", "two/vector", "src/vector"] {
            let path = dir.0.join(shadow);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(&path, "").unwrap();
            assert_eq!(dir.in_the_way(&read), [shadow], "{shadow}");
            fs_err::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_header_in_a_later_directory_or_one_that_was_read_is_not() {
        let dir = Scratch::new("later", &["src/a.cpp", "one/y.h", "two/y.h", "system/y.h"]);
        assert_eq!(dir.in_the_way(&["one/y.h"]), [""; 0]);
        assert_eq!(dir.in_the_way(&["one/y.h", "two/y.h"]), [""; 0], "it was reached by #include_next");
    }

    #[test]
    fn a_probe_teaches_where_files_are_and_are_not() {
        let dir = Scratch::new("probe", &["src/a.cpp", "quote/there.h", "system/vector"]);
        let look_up = |name: &str, beside, kind| {
            let probe = Probe { name: name.to_owned(), beside, kind };
            let read = ["src/a.cpp", "lib/b.h", "system/vector"].map(Path::new);
            dir.search().look_up(&probe, Path::new("src/a.cpp"), read.into_iter())
        };
        let absent = |place: &str, name: &str| Learnt::Absent(dir.0.join(place).join(name));
        let no = look_up("no.h", Beside::Asking, probes::Kind::Include);
        assert_eq!(no, ["src", "quote", "one", "two", "system"].map(|place| absent(place, "no.h")));
        let no = look_up("no.h", Beside::Any, probes::Kind::Include);
        let places = ["lib", "src", "quote", "one", "two", "system"];
        assert_eq!(no, places.map(|place| absent(place, "no.h")), "a macro may be used in any file");
        let rest = ["one", "two", "system"].map(|place| absent(place, "there.h"));
        let there = dir.0.join("quote/there.h");
        let found = look_up("there.h", Beside::None, probes::Kind::Include);
        assert_eq!(found, [&[Learnt::Present(there.clone())], &rest[..]].concat());
        let embedded = look_up("there.h", Beside::None, probes::Kind::Embed);
        assert_eq!(embedded, [&[Learnt::File(there)], &rest[..]].concat());
        let of_the_system = look_up("vector", Beside::Asking, probes::Kind::Include);
        assert_eq!(of_the_system, [Learnt::Present(dir.0.join("system/vector"))]);
    }

    #[test]
    fn what_cannot_be_looked_at_may_be_there() {
        let scratch = Scratch::new("unsure", &["dir/file"]);
        let at = |name: &str| scratch.0.join(name);
        symlink("nowhere", at("dangling")).unwrap();
        symlink("loop", at("loop")).unwrap();
        for (name, is_no_file, missing) in [
            ("dir", true, false),
            ("dir/file", false, false),
            ("none", true, true),
            ("dir/file/none", true, true),
            ("dangling", true, true),
            ("loop", false, false),
        ] {
            assert_eq!(
                (super::is_no_file(&at(name)), is_missing(&at(name))),
                (is_no_file, missing),
                "{name}"
            );
        }
        assert!(names_in(&at("dir")).is_some_and(|names| names.len() == 1));
        assert!(names_in(&at("none")).is_some_and(|names| names.is_empty()));
        assert_eq!(names_in(&at("loop")), None);
    }
}
