//! `pcmcache explain`: what a command is, what its key is made of, and why it misses.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

use clap::Args;

use crate::explain::Advice;
use crate::invocation::{Bypass, Invocation, Kind};
use crate::launch::look::{Found, Look, Nearest, Server, look};
use crate::settings::{Mode, Settings};

/// What is asked for.
#[derive(Debug, Args)]
pub struct Explain {
    /// Show every line of the key, system headers as well
    #[arg(long)]
    full: bool,
    /// The compiler and its arguments, as the build runs them
    #[arg(value_name = "COMPILER ARGS", required = true, num_args = 1.., trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

impl Explain {
    /// Looks as a launch would, and says what was found.
    pub fn run(&self, settings: Settings) -> anyhow::Result<()> {
        let Some((compiler, args)) = self.command.split_first() else { anyhow::bail!("no command") };
        if settings.mode == Mode::Off {
            return super::say("not cached: PCMCACHE_MODE is off\n");
        }
        super::say(&match look(compiler, args, settings) {
            Look::NoCompiler => anyhow::bail!("{}: no such compiler", Path::new(compiler).display()),
            Look::Bypassed(bypass) => bypassed(&bypass),
            Look::Found(found) => self.text(&found),
        })
    }

    fn text(&self, found: &Found) -> String {
        let mut text = format!("command   {}\n", describe(&found.invocation));
        let _ = writeln!(text, "compiler  {}", found.program.display());
        let _ = writeln!(text, "unit key  {}", found.unit.key());
        self.add_lines(&mut text, found.unit.text());
        if let Some(recipe) = &found.recipe {
            let _ = writeln!(text, "action    {}", recipe.action_key());
            self.add_lines(&mut text, recipe.text().split_once("\n\n").map_or("", |(_, learnt)| learnt));
        }
        if let Some(foreign) = &found.foreign {
            let bypass = Bypass::new(foreign.reason, foreign.detail.clone());
            return text + &bypassed(&bypass);
        }
        let _ = writeln!(text, "local     {}", found.local.map_or("miss", |_| "hit"));
        let _ = writeln!(text, "server    {}", server(&found.server));
        if found.local.is_none() {
            add_causes(&mut text, found.nearest.as_ref());
        }
        text
    }

    /// Shows a key's lines. Of the headers only the user's, unless all are asked for.
    fn add_lines(&self, text: &mut String, lines: &str) {
        let is_shown = |line: &&str| self.full || !(line.contains(" /usr/") || line.starts_with("absent "));
        let (shown, rest): (Vec<&str>, Vec<&str>) = lines.lines().partition(is_shown);
        for line in shown {
            let _ = writeln!(text, "  {line}");
        }
        if !rest.is_empty() {
            let _ = writeln!(
                text,
                "  and {} lines on system headers and absent files (--full shows them)",
                rest.len()
            );
        }
    }
}

fn bypassed(bypass: &Bypass) -> String {
    let advice = Advice::on(bypass.reason);
    format!(
        "not cached: {}: {}\n  {}\n  remedy: {}\n",
        bypass.reason, bypass.detail, advice.meaning, advice.remedy
    )
}

fn describe(invocation: &Invocation) -> String {
    let kind = match invocation.kind {
        Kind::Object if invocation.bmi.is_some() => "compiles an interface unit to an object and a BMI",
        Kind::Object => "compiles to an object",
        Kind::Precompile => "compiles an interface unit to a BMI",
        Kind::HeaderUnit => "compiles a header to a BMI",
        Kind::Scan => "scans for modules",
        Kind::BmiToObject => "compiles a BMI to an object",
    };
    let mut text = format!("{kind}: {} ->", invocation.source.display());
    let bmi = invocation.bmi.as_ref().map(|bmi| &bmi.path);
    let depfile = invocation.depfile.as_ref().map(|depfile| &depfile.path);
    let extras = invocation.extras.iter().map(|extra| &extra.path);
    for path in invocation.object.iter().chain(bmi).chain(depfile).chain(extras) {
        let _ = write!(text, " {}", path.display());
    }
    text
}

fn server(server: &Server) -> String {
    match server {
        Server::NotAsked => "not asked".to_owned(),
        Server::Fault(fault) => format!("cannot be asked: {fault}"),
        Server::Hit(_) => "hit".to_owned(),
        Server::Miss => "miss".to_owned(),
    }
}

fn add_causes(text: &mut String, nearest: Option<&Nearest>) {
    let Some(nearest) = nearest else {
        text.push_str(
            "why       nothing like it is known here: this source and this output were not compiled before, or that \
             failed, or was not cached (PCMCACHE_LOG tells)\n",
        );
        return;
    };
    if nearest.causes.is_empty() {
        text.push_str(
            "why       the result was here, and was removed since: by a trim, or as it was damaged\n",
        );
    }
    for (index, cause) in nearest.causes.iter().enumerate() {
        let _ = writeln!(text, "{:<9} {cause}", if index == 0 { "why" } else { "" });
    }
    let _ = write!(text, "nearest   {}", nearest.action);
    if let Some(command) = &nearest.command {
        let _ = write!(text, ", made in {}", command.cwd.display());
    }
    text.push('\n');
}
