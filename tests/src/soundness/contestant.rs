//! Whoever is on trial: a launcher before the compiler, a cache directory of its own, a count of its hits.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::tool::{self, CLANG};
use crate::{Machine, Process, Scratch};

/// Whoever is on trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contestant {
    /// Us.
    Pcmcache,
    /// ccache, if it is installed.
    Ccache,
    /// sccache, if it is installed: its server lives as long as its [`Seat`].
    Sccache,
}

/// What sccache takes at most to write what it compiled into its cache.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);

impl Contestant {
    /// By its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pcmcache => "pcmcache",
            Self::Ccache => "ccache",
            Self::Sccache => "sccache",
        }
    }

    /// Where its program is, if it is installed.
    pub fn program(self) -> Option<PathBuf> {
        match self {
            Self::Pcmcache => Some(tool::launcher()),
            Self::Ccache | Self::Sccache => tool::if_installed(self.name()),
        }
    }
}

/// A contestant that has met the compilers before: to hash them anew for every case would cost more than the cases do.
#[derive(Debug)]
pub struct Training {
    contestant: Contestant,
    machine: Machine,
    _scratch: Scratch,
}

impl Training {
    /// Shows the compilers to it.
    pub fn of(contestant: Contestant) -> Self {
        let scratch = Scratch::new("training");
        let machine = Machine::new(&scratch, "home");
        if contestant == Contestant::Pcmcache {
            for (compiler, source) in
                [(CLANG, "a.cpp"), (&CLANG.replace("++", ""), "a.c"), ("g++", "a.cpp"), ("gcc", "a.c")]
            {
                let source = scratch.file(source, "").into_os_string();
                machine.start(machine.launcher(), [compiler.into(), "-c".into(), source]).finish();
            }
        }
        Self { contestant, machine, _scratch: scratch }
    }

    /// Whose it is.
    pub const fn contestant(&self) -> Contestant {
        self.contestant
    }

    /// Gives what was learnt to somebody who knows nothing yet.
    fn pass_on(&self, to: &Machine) {
        if self.machine.cache().exists() {
            let words = ["-a".into(), self.machine.cache().into_os_string(), to.cache().into_os_string()];
            to.start("cp", words).finish().ok();
        }
    }
}

/// A contestant on a machine.
#[derive(Debug)]
pub struct Seat {
    contestant: Contestant,
    program: PathBuf,
    machine: Machine,
}

impl Seat {
    /// Seats it, with a cache in `home` that has seen no more than the compilers.
    pub fn new(training: &Training, machine: Machine, home: &Path) -> Self {
        let contestant = training.contestant;
        training.pass_on(&machine);
        let program = contestant.program().expect("only who is installed is on trial");
        let machine = match contestant {
            Contestant::Pcmcache => machine,
            Contestant::Ccache => machine.with("CCACHE_DIR", home.join("ccache")),
            Contestant::Sccache => machine
                .with("SCCACHE_DIR", home.join("sccache"))
                .with("SCCACHE_SERVER_UDS", home.join("sccache.socket"))
                .with("SCCACHE_IDLE_TIMEOUT", "120"),
        };
        Self { contestant, program, machine }
    }

    /// Who sits here.
    pub const fn contestant(&self) -> Contestant {
        self.contestant
    }

    /// The machine, with what the contestant needs in its environment.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The compiler's command line behind the launcher.
    pub fn behind(&self, words: &[String]) -> Vec<OsString> {
        std::iter::once(self.program.clone().into_os_string())
            .chain(words.iter().map(OsString::from))
            .collect()
    }

    /// How many hits it has counted so far.
    pub fn hits(&self) -> u64 {
        match self.contestant {
            Contestant::Pcmcache => self.machine.stats().local_hits,
            Contestant::Ccache => {
                let counted = ["direct_cache_hit", "preprocessed_cache_hit"];
                let shown = self.ask(&["--print-stats"]);
                let rows = shown.lines().filter_map(|line| line.split_once('\t'));
                rows.filter(|(name, _)| counted.contains(name))
                    .filter_map(|(_, n)| n.parse::<u64>().ok())
                    .sum()
            }
            Contestant::Sccache => sum(&self.sccache_stats()["cache_hits"]["counts"]),
        }
    }

    /// Waits until it has stored what it compiled: sccache does so behind the compile's back.
    pub fn settle(&self) {
        let start = Instant::now();
        while self.contestant == Contestant::Sccache && start.elapsed() < SETTLES_WITHIN {
            let stats = self.sccache_stats();
            let stored = stats["cache_writes"].as_u64().unwrap_or(0)
                + stats["cache_write_errors"].as_u64().unwrap_or(0);
            if stored >= sum(&stats["cache_misses"]["counts"]) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn sccache_stats(&self) -> Value {
        let shown = self.ask(&["--show-stats", "--stats-format", "json"]);
        serde_json::from_str::<Value>(&shown).map(|mut all| all["stats"].take()).unwrap_or_default()
    }

    fn ask(&self, words: &[&str]) -> String {
        self.machine.start(&self.program, words).finish().stdout
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.contestant == Contestant::Sccache {
            let mut stop: Command = self.machine.command(&self.program);
            stop.arg("--stop-server");
            Process::start(stop).finish();
        }
    }
}

fn sum(counts: &Value) -> u64 {
    counts.as_object().into_iter().flat_map(|counts| counts.values()).filter_map(Value::as_u64).sum()
}
