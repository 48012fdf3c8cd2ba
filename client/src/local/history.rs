//! Where results come from: the command behind each, and which actions are near to one another.
//!
//! None of this is needed for a hit. It is what `explain` tells a miss by, and what `verify --rebuild` runs again. An entry
//! that is gone or damaged costs an explanation.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use pcmcache_shared::recipe::{escape, unescape};
use pcmcache_shared::{ActionKey, Digest};

use super::sealed::Sealed;
use super::{Kind, Store};

/// The largest entry, in bytes.
const MAX_ENTRY: u64 = 4 * 1024 * 1024;
/// How many actions are remembered as near to a thing.
const MAX_NEAR: usize = 8;

/// A compile command, as it was given where it was given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Command {
    /// The compiler, as it was found.
    pub program: PathBuf,
    /// The directory it ran in.
    pub cwd: PathBuf,
    /// Its arguments, response files unread.
    pub args: Vec<OsString>,
    /// The variables that the compiler reads, as far as they were set.
    pub variables: Vec<(String, OsString)>,
    /// What the driver made of the arguments, as far as it enters the key.
    pub driver: Vec<String>,
}

/// What actions can have in common.
#[derive(Debug, Clone, Copy)]
pub enum Near<'a> {
    /// The source, as the recipe spells it.
    Source(&'a Path),
    /// The main output, with its directory.
    Output(&'a Path),
    /// The BMI that they made.
    Bmi(Digest),
}

impl Near<'_> {
    fn name(self) -> String {
        let (kind, what) = match self {
            Self::Source(path) => ("source", path.as_os_str().as_bytes().to_owned()),
            Self::Output(path) => ("output", path.as_os_str().as_bytes().to_owned()),
            Self::Bmi(digest) => ("bmi", digest.to_string().into_bytes()),
        };
        Digest::of([kind.as_bytes(), b"\n", &what].concat()).to_string()
    }
}

impl Command {
    fn text(&self) -> String {
        let mut lines = vec![("program", self.program.as_os_str()), ("cwd", self.cwd.as_os_str())];
        lines.extend(self.args.iter().map(|arg| ("arg", arg.as_os_str())));
        let variables: Vec<OsString> = self
            .variables
            .iter()
            .map(|(name, value)| crate::os::join_name(&[name.as_ref(), "=".as_ref(), value]))
            .collect();
        lines.extend(variables.iter().map(|variable| ("env", variable.as_os_str())));
        lines.extend(self.driver.iter().map(|word| ("driver", OsStr::new(word))));
        lines.iter().map(|(kind, value)| format!("{kind} {}\n", escape(value.as_bytes()))).collect()
    }

    fn parse(text: &str) -> Option<Self> {
        let mut command = Self::default();
        for line in text.lines() {
            let (kind, value) = line.split_once(' ')?;
            let bytes = unescape(value)?;
            match kind {
                "program" => command.program = OsString::from_vec(bytes).into(),
                "cwd" => command.cwd = OsString::from_vec(bytes).into(),
                "arg" => command.args.push(OsString::from_vec(bytes)),
                "env" => {
                    let at = bytes.iter().position(|byte| *byte == b'=')?;
                    let (name, value) = bytes.split_at_checked(at)?;
                    let name = String::from_utf8(name.to_owned()).ok()?;
                    command.variables.push((name, OsStr::from_bytes(value.get(1..)?).to_owned()));
                }
                "driver" => command.driver.push(String::from_utf8(bytes).ok()?),
                _ => return None,
            }
        }
        Some(command)
    }
}

impl Store {
    /// Remembers the command behind a result.
    pub fn put_command(&self, action: ActionKey, command: &Command) -> io::Result<()> {
        self.write_sealed(Kind::Commands, &action.to_string(), command.text().as_bytes())
    }

    /// The command behind a result, if it is known.
    pub fn command(&self, action: ActionKey) -> Option<Command> {
        let Sealed::Whole(body) = self.peek(Kind::Commands, &action.to_string(), MAX_ENTRY) else {
            return None;
        };
        Command::parse(std::str::from_utf8(&body).ok()?)
    }

    /// Remembers that the action has this in common with others.
    pub fn add_near(&self, near: Near<'_>, action: ActionKey) -> io::Result<()> {
        let mut actions = self.near(near);
        if actions.first() == Some(&action) {
            return Ok(());
        }
        actions.retain(|known| *known != action);
        actions.insert(0, action);
        actions.truncate(MAX_NEAR);
        let text: String = actions.iter().map(|action| format!("{action}\n")).collect();
        self.write_sealed(Kind::Near, &near.name(), text.as_bytes())
    }

    /// The newest actions that have this in common, the newest first.
    pub fn near(&self, near: Near<'_>) -> Vec<ActionKey> {
        let Sealed::Whole(body) = self.peek(Kind::Near, &near.name(), MAX_ENTRY) else { return Vec::new() };
        let text = String::from_utf8(body).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_survives_its_text() {
        let command = Command {
            program: "/usr/bin/clang++".into(),
            cwd: "/a b".into(),
            args: vec!["-DX=1\n2".into(), OsString::from_vec(b"\xff".to_vec()), "".into()],
            variables: vec![("CPATH".to_owned(), "/x=y:/z".into())],
            driver: vec!["-cc1".to_owned(), String::new()],
        };
        assert_eq!(Command::parse(&command.text()), Some(command));
        assert_eq!(Command::parse("wat x\n"), None);
    }

    #[test]
    fn the_newest_actions_are_near() {
        let dir = std::env::temp_dir().join(format!("pcmcache-near-{}", std::process::id()));
        let store = Store::open(&dir).unwrap();
        let near = Near::Source(Path::new("/src/a.cpp"));
        let action = |n: usize| ActionKey::of(n.to_string());
        assert_eq!(store.near(near), []);
        for n in [0, 1, 2, 1].into_iter().chain(10..16) {
            store.add_near(near, action(n)).unwrap();
        }
        assert_eq!(store.near(near), [15, 14, 13, 12, 11, 10, 1, 2].map(action));
        assert_eq!(store.near(Near::Output(Path::new("/src/a.cpp"))), []);
        fs_err::remove_dir_all(&dir).unwrap();
    }
}
