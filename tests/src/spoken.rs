//! What the programs say of themselves: their commands and flags, read out of `--help`, and what a server counts.

use std::path::Path;
use std::process::Command;

use crate::{Process, Scratch, Server, tool};

/// A program, or one of its commands.
#[derive(Debug, Clone)]
pub struct Spoken {
    /// The words that call it, the program's name first.
    pub words: Vec<String>,
    /// All that its `--help` says.
    pub help: String,
}

/// A flag, as `--help` has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flag {
    /// `--listen`.
    pub name: String,
    /// `ADDR:PORT`; empty for a switch.
    pub value: String,
    /// The variable that does the same.
    pub variable: Option<String>,
    /// What holds without it.
    pub default: Option<String>,
    /// What it does.
    pub meaning: String,
}

/// The program and all its commands, those of commands too; `name` is what its users call it.
pub fn program(path: &Path, name: &str) -> Vec<Spoken> {
    let mut all = Vec::new();
    let mut open = vec![Vec::new()];
    while let Some(words) = open.pop() {
        let mut command = Command::new(path);
        command.env_clear().env("HOME", "/nonexistent").args(&words).arg("--help");
        let help = Process::start(command).finish().ok().stdout;
        let spoken = Spoken { words: [vec![name.to_owned()], words.clone()].concat(), help };
        open.extend(spoken.commands().into_iter().rev().map(|next| [words.clone(), vec![next]].concat()));
        all.push(spoken);
        assert!(all.len() < 100, "commands without end: {words:?}");
    }
    all
}

impl Spoken {
    /// Its own commands.
    fn commands(&self) -> Vec<String> {
        let names = self.section("Commands:").filter_map(|line| {
            // Two blanks before a name; more before what goes on from the line above.
            let name = line.strip_prefix("  ")?;
            name.starts_with(|c: char| c.is_ascii_lowercase()).then(|| name.split(' ').next())?
        });
        names.filter(|name| *name != "help").map(str::to_owned).collect()
    }

    /// Its flags, without those that every program has.
    pub fn flags(&self) -> Vec<Flag> {
        let mut flags: Vec<Flag> = Vec::new();
        for line in self.section("Options:") {
            let text = line.trim();
            if let Some(flag) = begun(line) {
                flags.push(flag);
            } else if let Some(flag) = flags.last_mut() {
                flag.add(text);
            }
        }
        flags.iter_mut().for_each(Flag::finish);
        flags.retain(|flag| !["--help", "--version"].contains(&flag.name.as_str()));
        flags
    }

    /// The lines from this heading to the next.
    fn section(&self, heading: &str) -> impl Iterator<Item = &str> {
        let lines = self.help.lines().skip_while(move |line| *line != heading).skip(1);
        lines.take_while(|line| line.is_empty() || line.starts_with(' '))
    }
}

impl Flag {
    /// Takes what stands in brackets at the end out of the meaning: it is joined there from several lines.
    fn finish(&mut self) {
        if let Some((before, rest)) = self.meaning.split_once("[env: ")
            && let Some((variable, after)) = rest.split_once("=]")
        {
            self.variable = Some(variable.to_owned());
            self.meaning = format!("{}{after}", before.trim_end());
        }
        if let Some((before, rest)) = self.meaning.rsplit_once("[default: ")
            && let Some(default) = rest.trim_end().strip_suffix(']')
        {
            self.default = Some(default.to_owned());
            self.meaning = before.trim_end().to_owned();
        }
        self.end_sentence();
    }

    /// Help leaves out the last full stop of a paragraph.
    fn end_sentence(&mut self) {
        if self.meaning.ends_with(|c: char| c.is_alphanumeric() || c == ')') {
            self.meaning.push('.');
        }
    }

    fn add(&mut self, text: &str) {
        if text.is_empty() {
            self.end_sentence();
        } else {
            self.meaning += if self.meaning.is_empty() { "" } else { " " };
            self.meaning += text;
        }
    }
}

/// `  -o, --flag <VALUE>  What it does`, where the last may stand on the next line.
fn begun(line: &str) -> Option<Flag> {
    let text = line.trim_start();
    let depth = line.len() - text.len();
    let long = match text.strip_prefix('-') {
        Some(short) if !short.starts_with('-') => text.split_once(", ")?.1,
        Some(_) => text,
        None => return None,
    };
    if !(2..=6).contains(&depth) || !long.starts_with("--") {
        return None;
    }
    let (head, meaning) = long.split_once("  ").unwrap_or((long, ""));
    let (name, value) = head.split_once(' ').unwrap_or((head, ""));
    let value = value.trim_start_matches('<').trim_end_matches("...").trim_end_matches('>');
    let mut flag = Flag { name: name.to_owned(), value: value.to_owned(), ..Flag::default() };
    flag.add(meaning.trim());
    Some(flag)
}

/// Something that a server counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count {
    /// `pcmcache_hits_total`.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// What it counts.
    pub help: String,
}

/// All that a server counts to which every bound was given, and a certificate: some counts tell of these.
pub fn counts(scratch: &Scratch) -> Vec<Count> {
    let tls = scratch.dir("tls");
    tool::certificate(&tls, "server");
    let [cert, key] = ["server.crt", "server.key"].map(|name| tls.join(name).display().to_string());
    let bounds = ["--max-size", "1G", "--quota", "main=1G", "--max-age", "30d"];
    let server =
        Server::start_as(scratch, bounds.into_iter().chain(["--tls-cert", &cert, "--tls-key", &key]));
    let ask = |path: &str| {
        let mut curl = Command::new(tool::installed("PCMCACHE_TEST_CURL", "curl"));
        curl.args(["--silent", "--show-error", "--fail", "--cacert", &cert]);
        curl.arg(format!("https://localhost:{}{path}", server.address().port()));
        Process::start(curl).finish().ok().stdout
    };
    // Of requests it counts those that were answered: the first of these two.
    ask("/healthz");
    let page = ask("/metrics");
    let of = |name: &str, what: &str| {
        let start = format!("# {what} {name} ");
        page.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_default().to_owned()
    };
    let names = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let mut all: Vec<_> = names
        .map(|name| Count { name: name.to_owned(), kind: of(name, "TYPE"), help: of(name, "HELP") })
        .collect();
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_in_both_of_the_forms_that_help_has() {
        let help = "\
About.

Usage: p [OPTIONS]

Commands:
  token  Make
         tokens
  help   Print

Options:
      --listen <ADDR:PORT>
          Where to listen. It says
          which.

          [env: P_LISTEN=]
          [default: 1:2]

  -z, --zero  Start again [default: what is
              there] [env: P_ZERO=]
  -h, --help  Print help

Examples:
  p --not-a-flag
";
        let spoken = Spoken { words: vec!["p".to_owned()], help: help.to_owned() };
        assert_eq!(spoken.commands(), ["token"]);
        let listen = Flag {
            name: "--listen".to_owned(),
            value: "ADDR:PORT".to_owned(),
            variable: Some("P_LISTEN".to_owned()),
            default: Some("1:2".to_owned()),
            meaning: "Where to listen. It says which.".to_owned(),
        };
        let zero = Flag {
            name: "--zero".to_owned(),
            variable: Some("P_ZERO".to_owned()),
            default: Some("what is there".to_owned()),
            meaning: "Start again.".to_owned(),
            ..Flag::default()
        };
        assert_eq!(spoken.flags(), [listen, zero]);
    }
}
