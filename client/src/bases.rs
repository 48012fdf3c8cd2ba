//! Base directories: checkouts in different places that share results.
//!
//! Below a base directory a path is spelled relative to it wherever it enters a key or is stored: `<base>/src/a.cpp`. What
//! is placed is spelled with this checkout's directory again. Invariant: [`Bases::spell`] and [`Bases::path`] undo each
//! other, and what could be mistaken for a spelled path never gets here (`<base` in a command or in a text to store).
//! A path on a command line that leads out of its base by `..` stays as it is. One that was learnt is spelled all the
//! same: whoever reads it again reads what lies there in their own checkout, and compares.

use std::path::{Component, Path, PathBuf};

use memchr::memmem;

/// What every spelled path begins with.
pub const MARK: &str = "<base";

/// The base directories of a command; none for a command that they do not apply to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bases {
    /// The one that the compiler runs in comes first, if there is one: so one setting may name all the checkouts of a
    /// host. The others are in the user's order.
    directories: Vec<String>,
    runs_in_first: bool,
}

impl Bases {
    /// Reads a list of directories with colons between them.
    pub fn parse(list: &str) -> Result<Self, &'static str> {
        let named = list.split(':').filter(|directory| !directory.is_empty());
        let directories = named.map(Self::check).collect::<Result<_, _>>()?;
        Ok(Self { directories, runs_in_first: false })
    }

    /// The same for a command that runs in this directory.
    pub fn at(&self, cwd: &Path) -> Self {
        let mut directories = self.directories.clone();
        let around = directories.iter().enumerate().filter(|(_, base)| cwd.starts_with(base));
        let own = around.max_by_key(|(_, base)| base.len()).map(|(index, _)| index);
        if let Some(own) = own {
            directories.get_mut(..=own).unwrap_or_default().rotate_right(1);
        }
        Self { directories, runs_in_first: own.is_some() }
    }

    fn check(directory: &str) -> Result<String, &'static str> {
        let odd = |c: char| c.is_control() || matches!(c, '"' | '\\' | '<' | '$' | '#' | ' ');
        let path = Path::new(directory);
        if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
            return Err("must be absolute paths without '..', with colons between them");
        }
        if directory.contains(odd) {
            return Err("must hold no spaces, quotes, backslashes, '<', '$' or '#'");
        }
        let plain: PathBuf = path.components().collect();
        match plain.to_str() {
            Some("/") | None => Err("must not be the root directory"),
            Some(plain) => Ok(plain.to_owned()),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.directories.is_empty()
    }

    /// The directories.
    pub fn directories(&self) -> &[String] {
        &self.directories
    }

    fn mark(&self, index: usize) -> String {
        match index + usize::from(!self.runs_in_first) {
            0 => format!("{MARK}>"),
            other => format!("{MARK}:{}>", other + 1),
        }
    }

    /// How a path of the command line is spelled in keys: relative to the base it is below, or as it is.
    pub fn spell(&self, path: &str) -> String {
        match self.below(path) {
            Some((index, rest)) if !leads_out(rest) => format!("{}{rest}", self.mark(index)),
            Some(_) | None => path.to_owned(),
        }
    }

    /// The same for a path that is no text, perhaps.
    pub fn spell_path(&self, path: &Path) -> PathBuf {
        path.to_str().map_or_else(|| path.to_owned(), |text| PathBuf::from(self.spell(text)))
    }

    /// How the name of a file that was read is spelled, wherever it leads.
    pub fn spell_name(&self, name: &str) -> String {
        let below = self.below(name);
        below.map_or_else(|| name.to_owned(), |(index, rest)| format!("{}{rest}", self.mark(index)))
    }

    /// The same for a path that is no text, perhaps.
    pub fn spell_file(&self, path: &Path) -> PathBuf {
        path.to_str().map_or_else(|| path.to_owned(), |text| PathBuf::from(self.spell_name(text)))
    }

    /// The base that the path begins with, the longest if there are several, and the rest of the path.
    fn below<'a>(&self, path: &'a str) -> Option<(usize, &'a str)> {
        let below = self.directories.iter().enumerate().filter_map(|(index, base)| {
            let rest = path.strip_prefix(base.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then_some((index, base.len(), rest))
        });
        below.max_by_key(|(_, len, _)| *len).map(|(index, _, rest)| (index, rest))
    }

    /// The path that was spelled so, in this checkout.
    pub fn path(&self, spelled: &Path) -> PathBuf {
        let Some(text) = spelled.to_str().filter(|text| text.starts_with(MARK)) else {
            return spelled.to_owned();
        };
        let found = self.directories.iter().enumerate().find_map(|(index, base)| {
            let rest = text.strip_prefix(&self.mark(index))?;
            Some(PathBuf::from(format!("{base}{rest}")))
        });
        found.unwrap_or_else(|| spelled.to_owned())
    }

    /// A text to store, with every path below a base spelled; `None` if it could not be undone.
    pub fn spell_text(&self, text: &[u8]) -> Option<Vec<u8>> {
        if self.is_empty() {
            return Some(text.to_owned());
        }
        if memmem::find(text, MARK.as_bytes()).is_some() {
            return None;
        }
        let mut by_length: Vec<(usize, &String)> = self.directories.iter().enumerate().collect();
        by_length.sort_by_key(|(_, base)| std::cmp::Reverse(base.len()));
        let ends = |byte: Option<&u8>| {
            byte.is_none_or(|c| !c.is_ascii_alphanumeric() && !matches!(c, b'_' | b'-' | b'.' | b'+'))
        };
        Some(by_length.into_iter().fold(text.to_owned(), |text, (index, base)| {
            replace(&text, base.as_bytes(), self.mark(index).as_bytes(), |rest| ends(rest.first()))
        }))
    }

    /// The text that was stored so, in this checkout.
    pub fn text(&self, spelled: Vec<u8>) -> Vec<u8> {
        self.directories.iter().enumerate().fold(spelled, |text, (index, base)| {
            replace(&text, self.mark(index).as_bytes(), base.as_bytes(), |_| true)
        })
    }

    /// Whether this text names a base directory on a line that may say what to read: a directive, or any line of a text
    /// that can import headers, which takes no `#` and may go over lines and through macros.
    pub fn may_be_read_by_name(&self, text: &[u8], can_import: bool) -> bool {
        let named =
            |line: &[u8]| self.directories.iter().any(|base| memmem::find(line, base.as_bytes()).is_some());
        let may_read = |line: &[u8]| {
            let line = line.trim_ascii_start();
            let word = line.strip_prefix(b"#").unwrap_or(b"").trim_ascii_start();
            (can_import || line.contains(&b'#'))
                && !word.starts_with(b"line")
                && !word.first().is_some_and(u8::is_ascii_digit)
        };
        let mut lines = text.split(|byte| *byte == b'\n');
        !self.is_empty() && named(text) && lines.any(|line| named(line) && may_read(line))
    }

    /// Whether a path, relative or not, leads to a place below a base.
    pub fn contain(&self, cwd: &Path, path: &Path) -> bool {
        let plain = plain(&cwd.join(path));
        self.directories.iter().any(|base| plain.starts_with(base))
    }
}

/// The absolute path without `.` and `..`, as if there were no links.
pub fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => plain.push(part),
        }
    }
    plain
}

/// Whether there are ever more `..` than directories before them.
fn leads_out(rest: &str) -> bool {
    let mut depth = 0_i32;
    rest.split('/').any(|part| {
        depth += match part {
            "" | "." => 0,
            ".." => -1,
            _ => 1,
        };
        depth < 0
    })
}

fn replace(text: &[u8], from: &[u8], to: &[u8], is_whole: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut done = 0;
    for at in memmem::find_iter(text, from) {
        let rest = text.get(at + from.len()..).unwrap_or_default();
        if is_whole(rest) {
            out.extend_from_slice(text.get(done..at).unwrap_or_default());
            out.extend_from_slice(to);
            done = at + from.len();
        }
    }
    out.extend_from_slice(text.get(done..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_below_a_base_are_spelled_and_come_back_elsewhere() {
        let here = Bases::parse("/a/p:/a/p/build/:/gen").unwrap().at(Path::new("/a/p/src"));
        let there = Bases::parse("/b/q:/c:/gen2").unwrap().at(Path::new("/b/q"));
        for (path, spelled, other) in [
            ("/a/p/src/x.cpp", "<base>/src/x.cpp", "/b/q/src/x.cpp"),
            ("/a/p", "<base>", "/b/q"),
            ("/a/p/build/x.o", "<base:2>/x.o", "/c/x.o"),
            ("/gen/y.h", "<base:3>/y.h", "/gen2/y.h"),
            ("/a/pq/x", "/a/pq/x", "/a/pq/x"),
            ("/a/p/../q/x", "/a/p/../q/x", "/a/p/../q/x"),
            ("/a/p/src/../inc/x", "<base>/src/../inc/x", "/b/q/src/../inc/x"),
            ("src/x", "src/x", "src/x"),
        ] {
            assert_eq!(here.spell(path), spelled);
            assert_eq!(here.path(Path::new(spelled)), Path::new(path));
            assert_eq!(there.path(Path::new(spelled)), Path::new(other));
        }
    }

    #[test]
    fn one_setting_may_name_all_checkouts() {
        let all = Bases::parse("/a:/b:/c").unwrap();
        for root in ["/a", "/b", "/c"] {
            let here = all.at(&Path::new(root).join("build"));
            assert_eq!(here.spell(&format!("{root}/x")), "<base>/x");
            assert_eq!(here.path(Path::new("<base>/x")), Path::new(root).join("x"));
        }
        assert_eq!(all.at(Path::new("/b")).spell("/c/x"), "<base:3>/x");
        assert_eq!(all.at(Path::new("/tmp")).spell("/a/x"), "<base:2>/x", "nobody's own");
    }

    #[test]
    fn names_of_files_that_were_read_are_spelled_wherever_they_lead() {
        let here = Bases::parse("/a/p").unwrap().at(Path::new("/a/p/build"));
        assert_eq!(here.spell_name("/a/p/../q/x"), "<base>/../q/x");
        assert_eq!(here.path(Path::new("<base>/../q/x")), Path::new("/a/p/../q/x"));
    }

    #[test]
    fn texts_are_spelled_where_a_base_is_a_whole_name() {
        let here = Bases::parse("/a/p").unwrap().at(Path::new("/a/p/build"));
        let text = b"/a/p/x.cpp:1: in '/a/p', not /a/pq nor /a/p.x\n";
        let spelled = here.spell_text(text).unwrap();
        assert_eq!(spelled, b"<base>/x.cpp:1: in '<base>', not /a/pq nor /a/p.x\n");
        assert_eq!(here.text(spelled), text);
        assert_eq!(here.spell_text(b"<base>/x"), None, "it could not be undone");
        assert_eq!(Bases::default().spell_text(b"<base>").unwrap(), b"<base>");
    }

    #[test]
    fn lines_that_name_a_base_to_read_there_are_seen() {
        let here = Bases::parse("/a/p").unwrap().at(Path::new("/a/p/build"));
        assert!(here.may_be_read_by_name(b"int x;\n#include \"/a/p/x.h\"\n", false));
        assert!(here.may_be_read_by_name(b"#  define CONFIG \"/a/p/x.h\"\n", false));
        let text = b"#line 3 \"/a/p/x.y\"\n# 4 \"/a/p/z\"\nconst char* d =\n\"/a/p\";\n";
        assert!(!here.may_be_read_by_name(text, false));
        assert!(here.may_be_read_by_name(text, true), "it could be an import");
        assert!(!here.may_be_read_by_name(b"import \"/b/p/x.h\";\n", true));
    }

    #[test]
    fn what_leads_out_of_the_base_is_seen() {
        let here = Bases::parse("/a/p").unwrap().at(Path::new("/a/p/build"));
        assert!(here.contain(Path::new("/a/p/build"), Path::new("../src")));
        assert!(!here.contain(Path::new("/a/p/build"), Path::new("../../src")));
    }

    #[test]
    fn odd_directories_are_refused() {
        for list in ["relative", "/a/../b", "/", "/a b", "/a\"b", "/a:<base"] {
            assert!(Bases::parse(list).is_err(), "{list}");
        }
        assert!(Bases::parse("").unwrap().is_empty());
    }
}
