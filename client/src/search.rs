//! Absences: files that are not there, and that the compiler would have taken if they were.
//!
//! No output of the compiler reports a probe that failed. But where a header was found tells where it was looked for in
//! vain: with the search directories `a b c`, `c/x/y.h` was found because there is no `a/x/y.h` and no `b/x/y.h`, nor an
//! `x/y.h` beside any file that may have included it. So the absences need not be remembered, they follow from what
//! was read; what has to be remembered is the exception, a file that lay in the way and was passed over
//! (`#include_next`, `<x>` beside an `x`). `__has_include` probes for what may never be read: its operands are
//! looked for in the sources.
//!
//! Where the reason for a probe is not known, more is taken for an absence than is one: that costs a compile.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use pcmcache_shared::recipe::Learnt;

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
const GROUPS: [(&str, u8); 7] = [
    ("-iquote", 0),
    ("-I", 1),
    ("-isystem", 2),
    ("-internal-isystem", 2),
    ("-internal-externc-isystem", 2),
    ("-idirafter", 3),
    ("-embed-dir", 3),
];

/// Something is probed for that cannot be followed: an operand that is not literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotLiteral;

impl SearchPath {
    /// The directories that the words of a cc1 line name.
    pub fn of_cc1(words: &[String], cwd: &Path) -> Self {
        let mut grouped = Vec::new();
        let mut system = Vec::new();
        for (flag, directory) in words.iter().zip(words.iter().skip(1)) {
            let Some((_, group)) = GROUPS.iter().find(|(name, _)| name == flag) else { continue };
            let directory = normal(&cwd.join(directory));
            if flag.starts_with("-internal") {
                system.push(directory.clone());
            }
            grouped.push((*group, directory));
        }
        // Stable: within a group the order is that of the command line.
        grouped.sort_by_key(|(group, _)| *group);
        let directories = grouped.into_iter().map(|(_, directory)| directory).collect();
        Self { cwd: cwd.to_owned(), directories, system }
    }

    /// The files that lie where the compiler looked before it found those of `read`, and are none of them. Right after
    /// a compile these are the ones it passed over; one that is new since then would be taken today.
    pub fn in_the_way(&self, source: &Path, read: &[&Path]) -> BTreeSet<PathBuf> {
        let read: HashSet<PathBuf> =
            read.iter().chain([&source]).map(|file| normal(&self.cwd.join(file))).collect();
        let is_user = |file: &&PathBuf| !self.system.iter().any(|directory| file.starts_with(directory));
        let beside: BTreeSet<PathBuf> =
            read.iter().filter(is_user).filter_map(|file| file.parent().map(Path::to_owned)).collect();
        let mut listings = Listings::default();
        let mut found = BTreeSet::new();
        for file in &read {
            for (index, directory) in self.directories.iter().enumerate() {
                let Ok(operand) = file.strip_prefix(directory) else { continue };
                let earlier = self.directories.get(..index).unwrap_or_default();
                for candidate in earlier.iter().chain(&beside) {
                    let path = candidate.join(operand);
                    if !read.contains(&path) && listings.may_have(candidate, operand) && path.is_file() {
                        found.insert(path);
                    }
                }
            }
        }
        found
    }

    /// What the probes in this text came to: a file that is there, or all the places where it is not.
    pub fn probes(&self, file: &Path, text: &[u8]) -> Result<Vec<Learnt>, NotLiteral> {
        let mut learnt = Vec::new();
        for operand in operands(text)? {
            let beside = operand.quoted.then(|| self.cwd.join(file).parent().map(Path::to_owned)).flatten();
            let mut places =
                beside.iter().chain(&self.directories).map(|directory| directory.join(operand.name));
            match places.clone().find(|place| place.exists()) {
                Some(there) => learnt.push(Learnt::Present(there)),
                None => learnt.extend(places.by_ref().map(Learnt::Absent)),
            }
        }
        Ok(learnt)
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

/// The path without `.` components. `..` stays: what it means depends on links.
fn normal(path: &Path) -> PathBuf {
    path.components().filter(|component| *component != Component::CurDir).collect()
}

/// The names in directories, read once each: most candidates are ruled out without a look at the disk.
#[derive(Default)]
struct Listings(HashMap<PathBuf, HashSet<OsString>>);

impl Listings {
    fn may_have(&mut self, directory: &Path, operand: &Path) -> bool {
        let Some(Component::Normal(first)) = operand.components().next() else { return true };
        if !self.0.contains_key(directory) {
            let entries = fs_err::read_dir(directory).into_iter().flatten().flatten();
            self.0.insert(directory.to_owned(), entries.map(|entry| entry.file_name()).collect());
        }
        self.0.get(directory).is_some_and(|names| names.contains(first))
    }
}

/// The operand of a probe.
#[derive(Debug, PartialEq, Eq)]
struct Operand<'a> {
    name: &'a str,
    quoted: bool,
}

fn operands(text: &[u8]) -> Result<Vec<Operand<'_>>, NotLiteral> {
    let mut found = Vec::new();
    for at in memchr::memmem::find_iter(text, b"__has_include") {
        let rest = text.get(at..).unwrap_or_default();
        let rest = rest.strip_prefix(b"__has_include").unwrap_or(rest);
        let rest = rest.strip_prefix(b"_next").unwrap_or(rest);
        if rest.first().is_some_and(|c| c.is_ascii_alphanumeric() || *c == b'_') {
            continue;
        }
        let rest = rest.trim_ascii_start();
        // `#ifdef __has_include` and `defined(__has_include)` probe for nothing.
        let Some(rest) = rest.strip_prefix(b"(") else { continue };
        let rest = rest.trim_ascii_start();
        let (quoted, end) = match rest.first() {
            Some(b'"') => (true, b'"'),
            Some(b'<') => (false, b'>'),
            Some(_) | None => return Err(NotLiteral),
        };
        let name = rest.get(1..).unwrap_or_default();
        let end = name.iter().position(|c| *c == end || *c == b'\n').ok_or(NotLiteral)?;
        let name = name.get(..end).and_then(|name| std::str::from_utf8(name).ok()).ok_or(NotLiteral)?;
        found.push(Operand { name, quoted });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
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
            let read: Vec<&Path> = read.iter().map(Path::new).collect();
            let found = self.search().in_the_way(Path::new("src/a.cpp"), &read);
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
    fn operands_are_read_and_what_is_no_probe_is_passed_over() {
        let text = b"#ifdef __has_include\n#if __has_include(<a/b.h>) || __has_include_next( \"c.h\" )\n#if defined(__has_include)\n__has_include__ __has_includes(x)";
        let found = operands(text).unwrap();
        assert_eq!(found, [Operand { name: "a/b.h", quoted: false }, Operand { name: "c.h", quoted: true }]);
        assert_eq!(operands(b"__has_include(NAME)"), Err(NotLiteral));
        assert_eq!(operands(b"__has_include(\"open"), Err(NotLiteral));
    }

    #[test]
    fn a_probe_teaches_where_a_file_is_or_everywhere_it_is_not() {
        let dir = Scratch::new("probe", &["src/a.cpp", "two/there.h"]);
        let probes = |text: &str| dir.search().probes(Path::new("src/a.cpp"), text.as_bytes()).unwrap();
        assert_eq!(probes("__has_include(<there.h>)"), [Learnt::Present(dir.0.join("two/there.h"))]);
        let absent = probes("__has_include(\"no.h\")");
        let places = ["src", "quote", "one", "two", "system"];
        assert_eq!(absent, places.map(|place| Learnt::Absent(dir.0.join(place).join("no.h"))));
    }
}
