//! A case as a text: what a person would type to find out whether a cache can be trusted.
//!
//! ```text
//! == A new header in an earlier directory is found first
//! file a.cpp
//!     #include "scale.h"
//!     int f() { return SCALE; }
//! file inc/scale.h
//!     #define SCALE 1
//! keep clang++ -Iearly -Iinc -c a.cpp
//! do echo '#define SCALE 2' > early/scale.h
//! run
//! ```
//!
//! `run`, `keep` and `hit` compile; without words they repeat the command before. What they promise beyond being right:
//! `keep`, that the same again is a hit; `hit`, that it is a hit at once. `once` is `run` that is not repeated.
//! `$W` is the project's root.

use std::fmt;

/// What a compile promises beyond being right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Nothing.
    Right,
    /// Nothing, and it cannot be repeated.
    Once,
    /// The same again is a hit.
    Kept,
    /// It is a hit.
    Hit,
}

/// When during a compile somebody edits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// After the launcher has looked at what it knows of, before the compiler starts.
    Before,
    /// After the compiler has ended, before the launcher stores anything.
    After,
}

/// One line of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// This file has this text now.
    File(String, String),
    /// A shell changes something.
    Do(String),
    /// A shell changes something during the next compile.
    During(Moment, String),
    /// What a shell prints is compared.
    Show(String),
    /// Commands run in this directory from now on.
    Cd(String),
    /// Commands see this variable from now on, or no longer.
    Env(String, Option<String>),
    /// Commands run under this mask for the modes of files from now on.
    Umask(String),
    /// Commands run on a terminal from now on, or no longer.
    Terminal(bool),
    /// Of files whose names end so only the existence is compared.
    Loosely(String),
    /// The clock shows another second.
    Tick,
    /// A compile.
    Compile(Promise, String),
}

/// A case.
#[derive(Debug, Clone)]
pub struct Case {
    /// What is changed, and what follows, as a sentence.
    pub name: String,
    /// Its lines.
    pub steps: Vec<Step>,
    /// Whether it is about something that only pcmcache has.
    pub ours: bool,
}

impl Case {
    /// The cases of a text; panics at what it does not understand.
    pub fn parse_all(text: &str) -> Vec<Self> {
        let mut cases: Vec<Self> = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix("== ") {
                cases.push(Self { name: name.to_owned(), steps: Vec::new(), ours: false });
                continue;
            }
            cases.last_mut().expect("a case begins with `== NAME`").read(line);
        }
        cases
    }

    fn read(&mut self, line: &str) {
        if let Some(text) = line.strip_prefix("    ") {
            let Some(Step::File(_, all)) = self.steps.last_mut() else {
                panic!("a text without a file: {line}")
            };
            all.push_str(text);
            all.push('\n');
            return;
        }
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.to_owned();
        let step = match verb {
            "file" => Step::File(rest, String::new()),
            "do" => Step::Do(rest),
            "before-the-compile" => Step::During(Moment::Before, rest),
            "after-the-compile" => Step::During(Moment::After, rest),
            "show" => Step::Show(rest),
            "cd" => Step::Cd(rest),
            "env" => variable(&rest),
            "umask" => Step::Umask(rest),
            "terminal" => Step::Terminal(rest == "yes"),
            "loosely" => Step::Loosely(rest),
            "tick" => Step::Tick,
            "run" => Step::Compile(Promise::Right, self.command(rest)),
            "once" => Step::Compile(Promise::Once, self.command(rest)),
            "keep" => Step::Compile(Promise::Kept, self.command(rest)),
            "hit" => Step::Compile(Promise::Hit, self.command(rest)),
            "ours" => {
                self.ours = true;
                return;
            }
            _ => panic!("{}: not a line of a case: {line}", self.name),
        };
        self.ours |= matches!(step, Step::During(..));
        self.steps.push(step);
    }

    /// The command, or the one before if there are no words.
    fn command(&self, words: String) -> String {
        let before = self.steps.iter().rev().find_map(|step| match step {
            Step::Compile(_, words) => Some(words.clone()),
            _ => None,
        });
        if words.is_empty() {
            before.unwrap_or_else(|| panic!("{}: nothing to repeat", self.name))
        } else {
            words
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn variable(text: &str) -> Step {
    match text.split_once('=') {
        Some((name, value)) => Step::Env(name.to_owned(), Some(value.to_owned())),
        None => Step::Env(text.to_owned(), None),
    }
}

/// The words of a command line, split and unquoted as a shell does it.
pub fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(letters.next()),
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}
