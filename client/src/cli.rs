//! Launcher or command: what the first words of the command line say.
//!
//! `pcmcache clang++ ...` launches; so does a link to this program in PATH under a compiler's name. `pcmcache stats` and
//! the like are commands. `pcmcache -- stats` launches a compiler that is called `stats`.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{Parser, Subcommand};

use crate::command::{self, verify::REBUILD};
use crate::compiler::run;
use crate::launch::contact::{self, CATCH_UP};
use crate::launch::launch;
use crate::launch::sync::{self, SYNC};
use crate::local::trim::TRIMMER;
use crate::os;
use crate::remote::agent::{self, AGENT};
use crate::settings::Settings;

/// What `--help` says below the commands.
const AFTER_HELP: &str = "\
Examples:
  pcmcache clang++ -std=c++23 --precompile shape.cppm -o shape.pcm
  cmake -G Ninja -DCMAKE_CXX_COMPILER_LAUNCHER=pcmcache ...
  PCMCACHE_REMOTE=http://127.0.0.1:7733 ninja
  pcmcache stats --format json
  pcmcache doctor
  pcmcache explain clang++ -std=c++23 -c shape.cpp -o shape.o

A command that pcmcache does not understand to the last argument goes to the compiler unchanged;
'pcmcache stats' counts the reasons. A fault of the cache never fails a build: what went wrong is
counted, and written to PCMCACHE_LOG.

Environment (the same names, in lower case and without PCMCACHE_, stand in
$XDG_CONFIG_HOME/pcmcache/config.toml; the environment wins):
  PCMCACHE_DIR      cache directory, an absolute path                  [~/.cache/pcmcache]
  PCMCACHE_REMOTE   URL of a pcmcache-server, https://HOST:PORT        [none: local only]
  PCMCACHE_SCOPE    scope to read and write at the server              [main]
  PCMCACHE_TOKEN    sent to the server as a bearer token               [none]
  PCMCACHE_TOKEN_FILE  a file that holds it, for its owner's eyes      [none]
  PCMCACHE_CA_FILE  the authorities (PEM) that https servers are believed by  [the system's]
  PCMCACHE_CLIENT_CERT, PCMCACHE_CLIENT_KEY
                    what is shown to a server that asks for a certificate (PEM)  [none]
  PCMCACHE_SIGN_KEY file with the key that what is published is signed with:
                    'pcmcache key new FILE' makes one                  [none: not signed]
  PCMCACHE_TRUSTED_KEYS  public keys, as 'pcmcache key show FILE' prints them: only results signed
                    by one of them are taken from a server. KEY counts for our own scope, SCOPE:KEY
                    for that one, @FILE holds more; commas or spaces between  [none: all are taken]
  PCMCACHE_MODE     read-write                                         [read-write]
                    read-only   publish nothing
                    local       as if no server were set
                    off         only run the compiler
  PCMCACHE_WAIT     longest wait for someone else's build of the same thing, in seconds  [300]
  PCMCACHE_TIMEOUT  how long the server may take to begin an answer, in seconds          [1]
  PCMCACHE_UPLOAD   wait        a launch ends once the server has what it made     [wait]
                    background  a process that outlives it uploads; 'pcmcache sync --wait' is then
                                the last line of a CI job
  PCMCACHE_JOBS     compilers that run at once under the launchers of one cache directory; a build may
                    start more (ninja -j): who waits for another machine uses no core. 0 or off: no limit
                                                                       [the cores that it may use]
  PCMCACHE_AGENT    auto        launchers share connections to an https server: one of them leaves a
                                process behind that keeps them open  [auto]
                    on          with every server
                    off         never
  PCMCACHE_AGENT_IDLE  how long that process stays when nobody asks it, in seconds       [60]
  PCMCACHE_COMPRESS auto        blobs travel packed (zstd) while the link to the server is slow: below
                                400 Mb/s, by the last large one that came or went  [auto]
                    on          with every server
                    off         never
  PCMCACHE_BASE_DIRS  directories, with colons between them, below which checkouts in other
                    places share results                               [none]
  PCMCACHE_MAX_SIZE bound of the local store, like 500M, 10G, 5GiB; 0: none              [10GiB]
  PCMCACHE_PROFILE  launches note under this name which results they used: 'pcmcache profile push'
                    publishes them, 'pcmcache warm' fetches them elsewhere     [none]
  PCMCACHE_LOG      file to append a line a launch to                  [none]
  PCMCACHE_STATS_LOG  file to append each launch's counts to, for one build's numbers:
                    'pcmcache stats --log FILE' adds them up           [none]

Exit status: the compiler's own; 127 if there is no such compiler. Of a command: 0, 1 if it failed,
2 if it was not understood, 3 if the server refuses a login.";

/// A compiler launcher with a crash-safe cache of C++ modules.
#[derive(Debug, Parser)]
#[command(name = "pcmcache", bin_name = "pcmcache", version, about, after_help = AFTER_HELP)]
#[command(override_usage = "pcmcache [--] COMPILER ARGS...\n       pcmcache COMMAND")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what launches came to
    Stats(command::stats::Stats),
    /// Tell what a command's key is made of, and why it misses
    Explain(command::explain::Explain),
    /// Look whether everything is set up so that caching works
    Doctor(command::doctor::Doctor),
    /// Get a session of the server for a CI job
    Login(command::login::Login),
    /// Make a key that signs what is published, or show which one others are to trust
    #[command(subcommand)]
    Key(command::key::Key),
    /// Fetch what builds of these profiles used, before a build asks for it
    Warm(command::warm::Warm),
    /// Publish which results builds used, for 'warm' on other machines
    #[command(subcommand)]
    Profile(command::profile::Profile),
    /// Upload what was made while the server could not be had, or while nobody waited for it
    Sync(command::sync::Sync),
    /// Show the settings, and where each comes from
    Config,
    /// Remove from the local store what was not used for longest
    Trim(command::trim::Trim),
    /// Look whether everything in the local store is what it should be
    Verify(command::verify::Verify),
    /// Remove everything from the local store
    Clear,
    /// Write a script that completes this program's commands
    Completions(command::papers::Completions),
    /// Write manual pages
    Man(command::papers::Man),
}

/// Runs the program with these arguments, its own name first, and gives its exit code.
pub fn run(args: Vec<OsString>) -> u8 {
    let mut rest = args.into_iter();
    let name = rest.next().unwrap_or_default();
    let own_name = Path::new(&name).file_name().unwrap_or(OsStr::new("pcmcache")).to_owned();
    let rest: Vec<OsString> = rest.collect();
    if !own_name.to_string_lossy().starts_with("pcmcache") {
        return launch(&own_name, &rest, Settings::load());
    }
    match rest.split_first() {
        Some((first, args)) if first == run::WATCH => run::watch(args.iter().cloned()),
        Some((first, _)) if first == TRIMMER => command::trim::run_as_trimmer(&apart()),
        Some((first, _)) if first == CATCH_UP => contact::run_as_asker(apart()),
        Some((first, _)) if first == SYNC => sync::run_as_uploader(&apart()),
        Some((first, args)) if first == AGENT => agent::run_as_agent(args),
        Some((first, args)) if first == REBUILD => command::verify::run_as_rebuilder(args, Settings::load()),
        Some((first, args)) if first == "--" && !args.is_empty() => launch_words(args),
        Some((first, _)) if !is_command(first) => launch_words(&rest),
        Some(_) | None => run_command(&rest),
    }
}

/// The settings of a process that a launch started and nobody waits for, which leaves the build behind first.
fn apart() -> Settings {
    os::leave_everything();
    Settings::load()
}

fn launch_words(words: &[OsString]) -> u8 {
    match words.split_first() {
        Some((compiler, args)) => launch(compiler, args, Settings::load()),
        None => 2,
    }
}

/// Whether the word is one of our commands or flags, and no compiler.
fn is_command(word: &OsStr) -> bool {
    let word = word.to_string_lossy();
    let known = <Cli as clap::CommandFactory>::command();
    word.starts_with('-')
        || word == "help"
        || known.get_subcommands().any(|command| command.get_name() == word)
}

fn run_command(words: &[OsString]) -> u8 {
    let cli =
        match Cli::try_parse_from(std::iter::once(OsString::from("pcmcache")).chain(words.iter().cloned())) {
            Ok(cli) => cli,
            Err(error) => {
                let _ = error.print();
                return u8::try_from(error.exit_code()).unwrap_or(2);
            }
        };
    let settings = Settings::load();
    let done = match cli.command {
        Command::Stats(stats) => stats.run(&settings),
        Command::Explain(explain) => explain.run(settings),
        Command::Doctor(doctor) => doctor.run(&settings),
        Command::Login(login) => login.run(&settings),
        Command::Key(key) => key.run(),
        Command::Warm(warm) => warm.run(settings),
        Command::Profile(profile) => profile.run(&settings),
        Command::Sync(sync) => sync.run(settings),
        Command::Config => command::config::run(&settings),
        Command::Trim(trim) => trim.run(&settings),
        Command::Verify(verify) => verify.run(&settings),
        Command::Clear => command::clear::run(&settings),
        Command::Completions(completions) => completions.run(<Cli as clap::CommandFactory>::command()),
        Command::Man(man) => man.run(<Cli as clap::CommandFactory>::command()),
    };
    match done {
        Ok(()) => 0,
        Err(error) => {
            command::complain(&error);
            if command::login::is_refusal(&error) { command::login::REFUSED } else { 1 }
        }
    }
}
