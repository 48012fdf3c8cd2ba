//! A recipe taken apart, to be compared part by part.

use std::collections::{BTreeMap, BTreeSet};

/// The parts of a recipe, as its text spells them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// Identities of the compiler and of what it runs.
    pub compilers: Vec<String>,
    /// The digest of what the driver makes of the arguments.
    pub driver: String,
    /// The directory, where it matters.
    pub cwd: Option<String>,
    /// The arguments.
    pub args: Vec<String>,
    /// The main output, where its name matters.
    pub output: Option<String>,
    /// Variables and their values.
    pub variables: BTreeMap<String, String>,
    /// The source's path and digest.
    pub source: Option<(String, String)>,
    /// Other files that arguments name: path and digest.
    pub inputs: BTreeMap<String, String>,
    /// BMIs: module and digest.
    pub bmis: BTreeMap<String, String>,
    /// Headers: path and digest.
    pub files: BTreeMap<String, String>,
    /// Files that were looked for and are not there.
    pub absent: BTreeSet<String>,
    /// Files that were looked for and are there.
    pub present: BTreeSet<String>,
    /// Files that lie where the compiler looks first. No recipe has these: with them, there is none.
    pub newcomers: BTreeSet<String>,
}

impl Parts {
    /// Takes a recipe's text apart; what is not known is passed over.
    pub fn parse(text: &str) -> Self {
        let mut parts = Self::default();
        for line in text.lines() {
            let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
            parts.take(kind, rest);
        }
        parts
    }

    fn take(&mut self, kind: &str, rest: &str) {
        let text = || rest.to_owned();
        let named = rest.split_once(' ').map(|(digest, name)| (name.to_owned(), digest.to_owned()));
        match kind {
            "compiler" => self.compilers.push(text()),
            "cc1" => self.driver = text(),
            "cwd" => self.cwd = Some(text()),
            "arg" => self.args.push(text()),
            "output" => self.output = Some(text()),
            "env" => self
                .variables
                .extend(rest.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))),
            "source" => self.source = named,
            "input" => self.inputs.extend(named),
            "bmi" => self.bmis.extend(named),
            "file" => self.files.extend(named),
            "absent" => drop(self.absent.insert(text())),
            "present" => drop(self.present.insert(text())),
            _ => {}
        }
    }
}

/// The entries that are not the same in both.
pub(super) fn changed<'a>(
    then: &'a BTreeMap<String, String>,
    now: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = (&'a String, Option<&'a String>, Option<&'a String>)> {
    let names: BTreeSet<&String> = then.keys().chain(now.keys()).collect();
    names.into_iter().map(|name| (name, then.get(name), now.get(name))).filter(|(_, then, now)| then != now)
}

/// The words of each that the other does not have (as often), in their order.
pub(super) fn without_common(then: &[String], now: &[String]) -> (Vec<String>, Vec<String>) {
    let only_in = |of: &[String], other: &[String]| {
        let mut spare: BTreeMap<&str, usize> = BTreeMap::new();
        other.iter().for_each(|word| *spare.entry(word).or_default() += 1);
        let mut is_left = |word: &str| match spare.get_mut(word) {
            Some(count) if *count > 0 => {
                *count -= 1;
                false
            }
            Some(_) | None => true,
        };
        of.iter().filter(|word| is_left(word.as_str())).cloned().collect::<Vec<_>>()
    };
    (only_in(then, now), only_in(now, then))
}

/// Splits the depfile's target off the arguments.
pub(super) fn take_target(args: &[String]) -> (Vec<String>, Option<String>) {
    let Some(at) = args.iter().rposition(|arg| arg == "-MT" || arg == "-MQ") else {
        return (args.to_vec(), None);
    };
    let mut rest = args.to_vec();
    let taken: Vec<String> = rest.drain(at..(at + 2).min(args.len())).collect();
    (rest, taken.into_iter().nth(1))
}

/// What two spellings of one setting have in common: `-O` of `-O2`, `-std` of `-std=c++23`, `-DNAME` of `-DNAME=1`.
pub(super) fn stem(word: &str) -> &str {
    for family in ["-O", "-g"] {
        if word.strip_prefix(family).is_some_and(|rest| rest.len() <= 1 || rest.starts_with("dwarf")) {
            return family;
        }
    }
    word.split_once('=').map_or(word, |(name, _)| name)
}
