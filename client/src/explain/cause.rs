//! A difference that makes a command miss, in words.

use std::fmt;

/// What differs from the nearest result that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "what was then, what is now: the fields' names say it all")]
pub enum Cause {
    /// The compiler itself.
    Compiler,
    /// What the driver adds: words that were and are not, words that are and were not.
    Driver { gone: Vec<String>, new: Vec<String> },
    /// The directory the compiler runs in, which an output holds.
    Directory { then: Option<String>, now: Option<String> },
    /// The name of the main output, which another output holds.
    Output { then: Option<String>, now: Option<String> },
    /// An argument that was not there.
    Added(String),
    /// An argument that was there.
    Removed(String),
    /// An argument in place of another of its kind.
    Instead { then: String, now: String },
    /// The same arguments, not in the same order.
    Reordered,
    /// The target in the depfile.
    Target { then: String, now: String },
    /// A variable that the compiler reads.
    Variable { name: String, then: Option<String>, now: Option<String> },
    /// The source's bytes.
    Source(String),
    /// The source's name.
    SourcePath { then: String, now: String },
    /// The bytes of a file that an argument names.
    Input(String),
    /// The bytes of a BMI; and why they differ, if that is known.
    Bmi { module: String, then: String, now: String, why: Option<Vec<Cause>> },
    /// A BMI that was loaded.
    BmiGone(String),
    /// A BMI that was not loaded.
    BmiNew(String),
    /// A header's bytes.
    Header(String),
    /// A header that was read.
    HeaderGone(String),
    /// A header that was not read.
    HeaderNew(String),
    /// A file that the compiler would find first.
    Newcomer(String),
    /// A file that was looked for in vain.
    ProbeTrue(String),
    /// A file that was looked for and found.
    ProbeFalse(String),
}

/// The most words of the driver that anyone reads.
const MAX_WORDS: usize = 4;

impl Cause {
    /// How far apart this makes two commands.
    pub fn weight(&self) -> u32 {
        match self {
            Self::Compiler => 20,
            Self::SourcePath { .. } => 10,
            Self::Driver { .. } => 5,
            Self::Directory { .. } | Self::Output { .. } | Self::Variable { .. } => 4,
            Self::Added(_) | Self::Removed(_) | Self::Instead { .. } | Self::Reordered => 3,
            Self::Target { .. } | Self::Bmi { .. } | Self::BmiGone(_) | Self::BmiNew(_) => 2,
            Self::Source(_) | Self::Newcomer(_) | Self::Input(_) | Self::Header(_) => 2,
            Self::HeaderGone(_) | Self::HeaderNew(_) | Self::ProbeTrue(_) | Self::ProbeFalse(_) => 2,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compiler => write!(f, "the compiler or a library it loads is another"),
            Self::Driver { gone, new } => {
                write!(f, "the driver finds other directories, or another GCC installation")?;
                say_words(f, "now", new)?;
                say_words(f, "before", gone)
            }
            Self::Directory { then, now } => match (then, now) {
                (Some(then), Some(now)) => {
                    write!(f, "the working directory is {now}, it was {then}: an output holds it")
                }
                (None, _) => write!(f, "the working directory matters now: an output holds it"),
                (Some(_), None) => write!(f, "the working directory mattered then: an output held it"),
            },
            Self::Output { then, now } => {
                let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "any".to_owned());
                write!(f, "the output is {}, it was {}: another output holds its name", name(now), name(then))
            }
            Self::Added(word) => write!(f, "{word} added"),
            Self::Removed(word) => write!(f, "{word} is gone"),
            Self::Instead { then, now } => write!(f, "{now} instead of {then}"),
            Self::Reordered => write!(f, "the same arguments in another order"),
            Self::Target { then, now } => {
                write!(f, "another target in the depfile: {now} instead of {then}")
            }
            Self::Variable { name, then, now } => {
                let value = |value: &Option<String>| {
                    value.as_ref().map_or_else(|| "not set".to_owned(), |value| format!("'{value}'"))
                };
                write!(f, "environment: {name} is {}, it was {}", value(now), value(then))
            }
            Self::Source(path) => write!(f, "{path} changed (the source)"),
            Self::SourcePath { then, now } => write!(f, "the source is {now}, it was {then}"),
            Self::Input(path) => write!(f, "{path} changed, which an argument leads to"),
            Self::Bmi { module, why, .. } => {
                write!(f, "the BMI of {} differs", named(module))?;
                why.iter().try_for_each(|causes| say_causes(f, causes))
            }
            Self::BmiGone(module) => {
                write!(f, "the BMI of {} is not loaded any more, or not found", named(module))
            }
            Self::BmiNew(module) => write!(f, "the BMI of {} is loaded as well", named(module)),
            Self::Header(path) => write!(f, "{path} changed"),
            Self::HeaderGone(path) => write!(f, "{path} is gone, or not read any more"),
            Self::HeaderNew(path) => write!(f, "{path} is read as well"),
            Self::Newcomer(path) => write!(f, "{path} is new, and would be found first"),
            Self::ProbeTrue(path) => write!(f, "{path} is there now, and the source looks for it"),
            Self::ProbeFalse(path) => write!(f, "{path} is gone, and the source looks for it"),
        }
    }
}

fn named(module: &str) -> &str {
    if module.is_empty() { "a header unit" } else { module }
}

fn say_words(f: &mut fmt::Formatter<'_>, when: &str, words: &[String]) -> fmt::Result {
    let shown: Vec<&str> = words.iter().take(MAX_WORDS).map(String::as_str).collect();
    if shown.is_empty() { Ok(()) } else { write!(f, "; {when}: {}", shown.join(" ")) }
}

/// Why a BMI differs. That it was made of another source path, or another way, is how it was rebuilt.
fn say_causes(f: &mut fmt::Formatter<'_>, causes: &[Cause]) -> fmt::Result {
    let mut separator = ": ";
    for cause in causes {
        if let Cause::SourcePath { then, now } = cause {
            write!(f, "{separator}rebuilt from another source path, {now} instead of {then}")?;
        } else if let Cause::Bmi { module, .. } = cause {
            write!(f, "{separator}the BMI of {} that it imports differs", named(module))?;
        } else {
            write!(f, "{separator}{cause}")?;
        }
        separator = "; ";
    }
    Ok(())
}
