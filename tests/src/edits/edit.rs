//! What a developer does to a project between two builds. Every edit can be made to every project: numbers are taken
//! modulo what there is, so that a sequence makes sense with any of its edits left out.

use super::project::{DIRS, Flaw, HEADERS, INCLUDED, Kind, Project};
use crate::Chance;

const FLAGS: [&str; 6] = ["-O2", "-g", "-Wall", "-fno-exceptions", "-DNDEBUG", "-fPIC"];

/// One edit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "a variant's words say what its numbers are")]
pub enum Edit {
    /// A unit's code has another number in it.
    Value { unit: usize, value: u32 },
    /// A unit has so many comments.
    Comments { unit: usize, count: u32 },
    /// A unit's source has another name.
    Rename { unit: usize, name: u32 },
    /// A unit imports another, or no longer does.
    Import { unit: usize, other: usize },
    /// A unit includes a header, or no longer does.
    Include { unit: usize, header: usize, quoted: bool },
    /// A unit looks for a header.
    Probe { unit: usize, header: usize },
    /// A unit warns, does not compile, or is well again.
    Flaw { unit: usize, error: bool },
    /// A unit's own command line has a definition, or no longer has.
    Define { unit: usize, value: u32 },
    /// A unit's object is made from its BMI, or no longer is.
    Steps { unit: usize },
    /// A header, wherever it is found first, has another number in it.
    Header { dir: usize, header: usize, value: u32 },
    /// A header turns up in a directory, where it may shadow another.
    HeaderAppears { dir: usize, header: usize, value: u32 },
    /// A header goes away.
    HeaderGoes { dir: usize, header: usize },
    /// A header changes, but neither its size nor its time.
    Sneak { dir: usize, header: usize, value: u32 },
    /// A file is touched: only its time changes.
    Touch { file: usize },
    /// All units are compiled with a flag, or no longer are.
    Flag { flag: usize },
    /// The directories of headers are searched in the other order.
    TurnRound,
    /// Imports are found by another way.
    Prebuilt,
    /// It is built in the other directory.
    Build,
    /// All is as it was so many edits ago.
    Revert { ago: usize },
}

impl Edit {
    /// A random one.
    pub fn random(chance: &mut Chance) -> Self {
        let mut number = |end: u64| chance.below(end) as usize;
        let (kind, unit, other) = (number(40), number(64), number(64));
        let (dir, header) = (number(DIRS.len() as u64), number(HEADERS as u64));
        let (value, small, coin) = (number(10) as u32, number(3) as u32, number(2) == 0);
        match kind {
            0..2 => Self::Value { unit, value },
            2 => Self::Comments { unit, count: small },
            3 => Self::Rename { unit, name: small },
            4..7 => Self::Import { unit, other },
            7..10 => Self::Include { unit, header: header % INCLUDED, quoted: coin },
            10..12 => Self::Probe { unit, header },
            12..14 => Self::Flaw { unit, error: coin },
            14 => Self::Define { unit, value },
            15 => Self::Steps { unit },
            16..18 => Self::Header { dir, header, value },
            18..26 => Self::HeaderAppears { dir, header, value },
            26..30 => Self::HeaderGoes { dir, header },
            30 => Self::Sneak { dir, header, value },
            31 => Self::Touch { file: unit },
            32..34 => Self::Flag { flag: other },
            34 => Self::TurnRound,
            35 => Self::Prebuilt,
            36 => Self::Build,
            _ => Self::Revert { ago: 1 + number(6) },
        }
    }

    /// The project after it. `past` are the projects before, the newest last.
    pub fn apply(&self, past: &[Project]) -> Project {
        let mut project = past.last().expect("a project to edit").clone();
        let count = project.units.len();
        match *self {
            Self::Value { unit, value } => project.units[unit % count].value = value,
            Self::Comments { unit, count: comments } => project.units[unit % count].comments = comments,
            Self::Rename { unit, name } => project.units[unit % count].name = name,
            Self::Import { unit, other } => toggle_import(&mut project, unit % count, other),
            Self::Include { unit, header, quoted } => {
                let includes = &mut project.units[unit % count].includes;
                if includes.remove(&header).is_none() {
                    includes.insert(header, quoted);
                }
            }
            Self::Probe { unit, header } => project.units[unit % count].probe = Some(header),
            Self::Flaw { unit, error } => {
                let flaw = &mut project.units[unit % count].flaw;
                let other = if error { Flaw::Error } else { Flaw::Warning };
                *flaw = if flaw.is_none() { Some(other) } else { None };
            }
            Self::Define { unit, value } => {
                let define = &mut project.units[unit % count].define;
                *define = if define.is_none() { Some(value) } else { None };
            }
            Self::Steps { unit } => project.units[unit % count].in_two_steps ^= true,
            Self::Header { dir, header, value } | Self::Sneak { dir, header, value } => {
                project.headers.entry((dir, header)).and_modify(|old| *old = value);
            }
            Self::HeaderAppears { dir, header, value } => drop(project.headers.insert((dir, header), value)),
            Self::HeaderGoes { dir, header } => drop(project.headers.remove(&(dir, header))),
            Self::Touch { .. } => {}
            Self::Flag { flag } => {
                let flag = FLAGS[flag % FLAGS.len()];
                if !project.flags.remove(flag) {
                    project.flags.insert(flag);
                }
            }
            Self::TurnRound => project.turned_round ^= true,
            Self::Prebuilt => project.prebuilt ^= true,
            Self::Build => project.build = 1 - project.build,
            Self::Revert { ago } => project = past[past.len().saturating_sub(ago + 1)].clone(),
        }
        project
    }

    /// The file whose time alone changes, if the project has so many.
    pub fn touched(&self, project: &Project) -> Option<String> {
        let Self::Touch { file } = *self else { return None };
        let files = project.files();
        files.keys().nth(file % files.len()).cloned()
    }
}

/// Only what stands before a unit, and is an interface, can be imported; a module does not import itself.
fn toggle_import(project: &mut Project, unit: usize, other: usize) {
    let other = other % project.units.len();
    let own = match project.units[unit].kind {
        Kind::Partition(owner) | Kind::Implementation(owner) => owner,
        Kind::Interface | Kind::Plain => unit,
    };
    if other >= unit || other == own || project.units[other].kind != Kind::Interface {
        return;
    }
    let imports = &mut project.units[unit].imports;
    if !imports.remove(&other) {
        imports.insert(other);
    }
}
