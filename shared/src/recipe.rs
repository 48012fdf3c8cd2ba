//! The recipe: canonical, readable text of everything that determines an action's outputs.
//!
//! ```text
//! schema 1
//! compiler 5f0c…
//! cc1 91aa…
//! arg -O2
//! env CPATH=/opt/include
//! source /src/shape.cppm 03be…
//! bmi std 77d1…
//!
//! file /src/scale.h 40f2…
//! bmi render 1b9e…
//! ```
//!
//! Above the empty line stands what is known before anything is learnt by compiling: its hash is the
//! [`UnitKey`]. Below it stands what a compile taught, named by an [`IncludeSet`]. The hash of all of it is the
//! [`ActionKey`]. A key is the hash of a text one can read, so telling why two keys differ is a diff of two texts.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::{ActionKey, Digest, UnitKey};

/// The version of the recipe's grammar and of what enters it. A change of meaning raises it, and no key of
/// the old meaning is ever equal to one of the new.
pub const SCHEMA: u32 = 1;

/// The largest recipe or include set anyone reads, in bytes. `std` has 1,308 inputs and 170 KB.
pub const MAX_TEXT: usize = 4 * 1024 * 1024;

/// Text on one line, whatever bytes it holds: a backslash, a control character and what is not UTF-8
/// become `\xHH`. Different bytes give different text.
pub fn escape(bytes: &[u8]) -> String {
    let mut line = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' | '\0'..='\x1f' | '\x7f' => {
                    let _ = write!(line, "\\x{:02x}", c as u32);
                }
                plain => line.push(plain),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(line, "\\x{byte:02x}");
        }
    }
    line
}

/// The bytes that [`escape`] made this text from, or `None` if it never did.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('\\');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let (hex, rest) = part.strip_prefix('x')?.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(hex, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    // `\x41` and `\x+a` would be other spellings of what has one.
    let is_plain = bytes.len() == text.len();
    let is_ours = if is_plain { !bytes.iter().any(u8::is_ascii_control) } else { escape(&bytes) == text };
    is_ours.then_some(bytes)
}

/// The longest [`subject`], in bytes.
pub const MAX_SUBJECT: usize = 200;

/// What people call the unit that this text starts with: its source, by the name the compiler is given; of a scan, with
/// that word before it. The end of a long name is what is kept of it. `None` for a unit without a source, as a header unit.
pub fn subject(text: &str) -> Option<String> {
    let unit = || text.lines().take_while(|line| !line.is_empty());
    let source =
        unit().find_map(|line| line.strip_prefix("source ")?.split_once(' ').map(|(_, path)| path))?;
    let kind = if unit().any(|line| line.starts_with("arg scans for ")) { "scan " } else { "" };
    let from = source.ceil_char_boundary((source.len() + kind.len()).saturating_sub(MAX_SUBJECT));
    Some(format!("{kind}{}", source.get(from..).unwrap_or_default()))
}

/// The lines of a recipe that are known before anything is learnt, in a fixed order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    text: String,
}

impl Unit {
    /// The lines of a unit so far: the schema and nothing else.
    #[expect(
        clippy::new_without_default,
        reason = "an empty unit is no sensible default, it is where one starts"
    )]
    pub fn new() -> Self {
        Self { text: format!("schema {SCHEMA}\n") }
    }

    /// The compiler: the digest of its binary and of the libraries it loads.
    pub fn compiler(&mut self, identity: Digest) {
        let _ = writeln!(self.text, "compiler {identity}");
    }

    /// What the driver makes of the arguments on this host.
    pub fn cc1(&mut self, lines: Digest) {
        let _ = writeln!(self.text, "cc1 {lines}");
    }

    /// The directory the compiler runs in, for outputs that hold it.
    pub fn cwd(&mut self, path: &Path) {
        let _ = writeln!(self.text, "cwd {}", escape(path.as_os_str().as_bytes()));
    }

    /// An argument that enters the key, as it was given and where it was given.
    pub fn arg(&mut self, arg: &[u8]) {
        let _ = writeln!(self.text, "arg {}", escape(arg));
    }

    /// An environment variable that the compiler reads.
    pub fn env(&mut self, name: &str, value: &[u8]) {
        let _ = writeln!(self.text, "env {name}={}", escape(value));
    }

    /// The name of the main output, for outputs that hold it.
    pub fn output(&mut self, path: &Path) {
        let _ = writeln!(self.text, "output {}", escape(path.as_os_str().as_bytes()));
    }

    /// A file that the arguments lead to, and that is neither source nor BMI: by name and bytes.
    pub fn input(&mut self, path: &Path, digest: Digest) {
        let _ = writeln!(self.text, "input {digest} {}", escape(path.as_os_str().as_bytes()));
    }

    /// The source, by the name the compiler is given and by its bytes.
    pub fn source(&mut self, path: &Path, digest: Digest) {
        let _ = writeln!(self.text, "source {digest} {}", escape(path.as_os_str().as_bytes()));
    }

    /// A BMI that the command line names: by module and bytes, never by path.
    pub fn bmi(&mut self, module: &str, digest: Digest) {
        let _ = writeln!(self.text, "bmi {digest} {}", escape(module.as_bytes()));
    }

    /// The text whose hash is the unit key.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The unit's key.
    pub fn key(&self) -> UnitKey {
        UnitKey::of(&self.text)
    }
}

/// A line of an include set: something a compile taught us about, without its digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Learnt {
    /// A file that must not be there: the compiler would have taken it instead.
    Absent(PathBuf),
    /// A BMI that was found along the prebuilt module paths, by its module's name.
    Bmi(String),
    /// A file that was read, by the name the compiler gave it.
    File(PathBuf),
    /// A file that lay where the compiler looked first, and that it did not take. It may be gone.
    Passed(PathBuf),
    /// A file that must be there, whatever is in it: the compiler was asked whether it is.
    Present(PathBuf),
}

impl Learnt {
    /// The file that was read, if this is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Absent(_) | Self::Bmi(_) | Self::Passed(_) | Self::Present(_) => None,
        }
    }

    /// The path or the module, as it stands on its line.
    pub fn name(&self) -> String {
        match self {
            Self::Absent(path) | Self::File(path) | Self::Passed(path) | Self::Present(path) => {
                escape(path.as_os_str().as_bytes())
            }
            Self::Bmi(module) => escape(module.as_bytes()),
        }
    }

    fn line(&self) -> String {
        match self {
            Self::Absent(path) => format!("absent {}", escape(path.as_os_str().as_bytes())),
            Self::Bmi(module) => format!("bmi {}", escape(module.as_bytes())),
            Self::File(path) => format!("file {}", escape(path.as_os_str().as_bytes())),
            Self::Passed(path) => format!("passed {}", escape(path.as_os_str().as_bytes())),
            Self::Present(path) => format!("present {}", escape(path.as_os_str().as_bytes())),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let (kind, rest) = line.split_once(' ')?;
        let bytes = unescape(rest).filter(|bytes| !bytes.is_empty())?;
        let path = |bytes| PathBuf::from(std::ffi::OsString::from_vec(bytes));
        match kind {
            "absent" => Some(Self::Absent(path(bytes))),
            "bmi" => String::from_utf8(bytes).ok().map(Self::Bmi),
            "file" => Some(Self::File(path(bytes))),
            "passed" => Some(Self::Passed(path(bytes))),
            "present" => Some(Self::Present(path(bytes))),
            _ => None,
        }
    }
}

/// What compiling a unit taught us about: sorted, without digests. The same unit over other contents of
/// the same files has the same set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IncludeSet {
    learnt: BTreeSet<Learnt>,
}

/// The text is no include set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSet {
    /// A line is none of `absent P`, `bmi M`, `file P`, `passed P`, `present P`.
    #[error("line {0} of the include set is none of 'absent P', 'bmi M', 'file P', 'passed P', 'present P'")]
    Line(usize),
    /// The lines are not in their order, or one is there twice.
    #[error("the include set is not in its canonical form")]
    NotCanonical,
    /// Larger than [`MAX_TEXT`].
    #[error("the include set is larger than {MAX_TEXT} bytes")]
    TooLarge,
}

impl IncludeSet {
    /// What was learnt, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Learnt> {
        self.learnt.iter()
    }

    /// Whether it holds this line.
    pub fn contains(&self, learnt: &Learnt) -> bool {
        self.learnt.contains(learnt)
    }

    /// The canonical text: a line each, sorted.
    pub fn text(&self) -> String {
        self.learnt.iter().fold(String::new(), |text, learnt| text + &learnt.line() + "\n")
    }

    /// The digest of the canonical text.
    pub fn digest(&self) -> Digest {
        Digest::of(self.text())
    }

    /// Reads a canonical text back.
    pub fn parse(text: &str) -> Result<Self, BadSet> {
        if text.len() > MAX_TEXT {
            return Err(BadSet::TooLarge);
        }
        let learnt = text
            .lines()
            .enumerate()
            .map(|(index, line)| Learnt::parse(line).ok_or(BadSet::Line(index + 1)))
            .collect::<Result<BTreeSet<_>, _>>()?;
        let set = Self { learnt };
        if set.text() == text { Ok(set) } else { Err(BadSet::NotCanonical) }
    }
}

impl Extend<Learnt> for IncludeSet {
    fn extend<I: IntoIterator<Item = Learnt>>(&mut self, learnt: I) {
        self.learnt.extend(learnt);
    }
}

impl FromIterator<Learnt> for IncludeSet {
    fn from_iter<I: IntoIterator<Item = Learnt>>(learnt: I) -> Self {
        Self { learnt: learnt.into_iter().collect() }
    }
}

/// A whole recipe: a unit's lines, and what was learnt with the digests it has now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    text: String,
    unit_end: usize,
}

/// The text is no recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRecipe {
    /// It does not start with the schema this program knows.
    #[error("the recipe does not start with 'schema {SCHEMA}'")]
    Schema,
    /// No empty line between what was known and what was learnt.
    #[error("the recipe has no empty line between what was known and what was learnt")]
    NoParts,
    /// Larger than [`MAX_TEXT`].
    #[error("the recipe is larger than {MAX_TEXT} bytes")]
    TooLarge,
}

impl Recipe {
    /// The recipe of `unit` over `set`, where `digest_of` gives the present digest of a file or a BMI. It gives
    /// `None` for what is not there now, and then there is no recipe: this set does not describe the present.
    pub fn new(
        unit: &Unit,
        set: &IncludeSet,
        mut digest_of: impl FnMut(&Learnt) -> Option<Digest>,
    ) -> Option<Self> {
        let mut text = unit.text.clone();
        let unit_end = text.len();
        text.push('\n');
        for learnt in set.iter() {
            let line = learnt.line();
            match learnt {
                Learnt::Absent(_) | Learnt::Passed(_) | Learnt::Present(_) => {
                    writeln!(text, "{line}").ok()?
                }
                Learnt::Bmi(_) | Learnt::File(_) => {
                    let (kind, name) = line.split_once(' ')?;
                    writeln!(text, "{kind} {} {name}", digest_of(learnt)?).ok()?;
                }
            }
        }
        Some(Self { text, unit_end })
    }

    /// Reads a recipe's text, as far as its keys need.
    pub fn parse(text: String) -> Result<Self, BadRecipe> {
        if text.len() > MAX_TEXT {
            return Err(BadRecipe::TooLarge);
        }
        if !text.starts_with(&format!("schema {SCHEMA}\n")) {
            return Err(BadRecipe::Schema);
        }
        let unit_end = text.find("\n\n").ok_or(BadRecipe::NoParts)? + 1;
        Ok(Self { text, unit_end })
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The part that was known before anything was learnt.
    pub fn unit_text(&self) -> &str {
        self.text.get(..self.unit_end).unwrap_or_default()
    }

    /// The hash of that part.
    pub fn unit_key(&self) -> UnitKey {
        UnitKey::of(self.unit_text())
    }

    /// The include set that it is over: what was learnt, without digests.
    ///
    /// # Errors
    /// [`BadSet`] if what stands below the empty line is none.
    pub fn include_set(&self) -> Result<IncludeSet, BadSet> {
        let learnt = self.text.get(self.unit_end + 1..).unwrap_or_default();
        let plain: String = learnt.lines().map(|line| without_digest(line) + "\n").collect();
        IncludeSet::parse(&plain)
    }

    /// The hash of all of it.
    pub fn action_key(&self) -> ActionKey {
        ActionKey::of(&self.text)
    }
}

fn without_digest(line: &str) -> String {
    match line.split_once(' ') {
        Some((kind @ ("file" | "bmi"), rest)) => {
            format!("{kind} {}", rest.split_once(' ').map_or(rest, |(_, name)| name))
        }
        Some(_) | None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> IncludeSet {
        [
            Learnt::File("/src/b.h".into()),
            Learnt::Absent("/src/a.h".into()),
            Learnt::Passed("/src/p.h".into()),
            Learnt::Present("/src/q.h".into()),
            Learnt::Bmi("m:part".to_owned()),
            Learnt::File(PathBuf::from(std::ffi::OsString::from_vec(b"/src/\xff\n\\.h".to_vec()))),
        ]
        .into_iter()
        .collect()
    }

    #[test]
    fn a_subject_is_the_source_and_the_end_of_a_long_name() {
        let source = |name: &str| format!("schema 1\narg -O2\nsource {} {name}\n", Digest::of("s"));
        assert_eq!(subject(&source("src/a b.cppm")).as_deref(), Some("src/a b.cppm"));
        let scan = source("a.cppm").replace("-O2", "scans for a.o");
        assert_eq!(subject(&scan).as_deref(), Some("scan a.cppm"));
        assert_eq!(subject("schema 1\n\nsource of nothing\n"), None);
        let long = subject(&source(&format!("{}/end.cppm", "ä".repeat(200)))).unwrap();
        assert!(long.len() <= MAX_SUBJECT && long.ends_with("ä/end.cppm"), "{long}");
    }

    #[test]
    fn escaping_is_reversible_and_stays_on_its_line() {
        for bytes in [&b"plain"[..], b"", b"a\nb", b"\\", b"\\x0a", b"\xff\xfe", "ä/ö".as_bytes(), b"\x7f\0"]
        {
            let line = escape(bytes);
            assert!(!line.contains('\n'));
            assert_eq!(unescape(&line).as_deref(), Some(bytes), "{line}");
        }
        for never_made in [
            "\\",
            "\\x",
            "\\x1",
            "\\y00",
            "\\xzz",
            "\\x+a",
            "\\x0A",
            "\\x41",
            "\\xc3\\xa4",
            "a\tb",
            "\x7f",
            "\t\\x0a",
        ] {
            assert_eq!(unescape(never_made), None, "{never_made}");
        }
    }

    #[test]
    fn an_include_set_survives_its_text() {
        let text = set().text();
        assert_eq!(
            text,
            "absent /src/a.h\nbmi m:part\nfile /src/b.h\nfile /src/\\xff\\x0a\\x5c.h\npassed /src/p.h\npresent /src/q.h\n"
        );
        assert_eq!(IncludeSet::parse(&text), Ok(set()));
        assert_eq!(IncludeSet::parse(""), Ok(IncludeSet::default()));
    }

    #[test]
    fn what_is_not_canonical_is_refused() {
        assert_eq!(IncludeSet::parse("file b\nfile a\n"), Err(BadSet::NotCanonical));
        assert_eq!(IncludeSet::parse("file a\nfile a\n"), Err(BadSet::NotCanonical));
        assert_eq!(IncludeSet::parse("file a"), Err(BadSet::NotCanonical));
        assert_eq!(IncludeSet::parse("file a\nsocket b\n"), Err(BadSet::Line(2)));
        assert_eq!(IncludeSet::parse("file \n"), Err(BadSet::Line(1)));
        assert_eq!(IncludeSet::parse(&"x".repeat(MAX_TEXT + 1)), Err(BadSet::TooLarge));
    }

    #[test]
    fn a_recipe_survives_its_text_and_keeps_its_keys() {
        let mut unit = Unit::new();
        unit.compiler(Digest::of("clang"));
        unit.arg(b"-DX=\n\nfile");
        unit.source(Path::new("/src/a.cppm"), Digest::of("a"));
        let recipe = Recipe::new(&unit, &set(), |learnt| Some(Digest::of(learnt.line()))).unwrap();
        assert_eq!((recipe.unit_text(), recipe.include_set()), (unit.text(), Ok(set())));
        assert_eq!(recipe.unit_key(), unit.key());
        let again = Recipe::parse(recipe.text().to_owned()).unwrap();
        assert_eq!(again, recipe);
        assert_eq!(again.action_key().recipe(), Digest::of(recipe.text()));
    }

    #[test]
    fn every_learnt_digest_makes_another_action_of_the_same_unit() {
        let unit = Unit::new();
        let base = Recipe::new(&unit, &set(), |_| Some(Digest::of("now"))).unwrap();
        for changed in set().iter().filter(|learnt| matches!(learnt, Learnt::Bmi(_) | Learnt::File(_))) {
            let other =
                Recipe::new(&unit, &set(), |l| Some(Digest::of(if l == changed { "then" } else { "now" })))
                    .unwrap();
            assert_ne!(other.action_key(), base.action_key());
            assert_eq!(other.unit_key(), base.unit_key());
        }
        assert_eq!(Recipe::new(&unit, &set(), |_| None), None);
    }

    #[test]
    fn what_is_no_recipe_is_refused() {
        assert_eq!(Recipe::parse("schema 2\n\n".to_owned()), Err(BadRecipe::Schema));
        assert_eq!(Recipe::parse("schema 1\narg -O2\n".to_owned()), Err(BadRecipe::NoParts));
        assert_eq!(Recipe::parse("x".repeat(MAX_TEXT + 1)), Err(BadRecipe::TooLarge));
    }
}
