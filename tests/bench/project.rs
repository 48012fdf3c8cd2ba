//! Builds of the CMake project, which is clean before each: by Ninja with two jobs, from its start to its end.
//!
//! A build counts as warm only where the contender's own statistics say that nothing was compiled.

use std::path::Path;
use std::time::{Duration, Instant};

use pcmcache_tests::link::Link;
use pcmcache_tests::{Machine, Process, Scratch, Server, atlas, tool};
use serde_json::Value;

use crate::peers::Peer;
use crate::row::{Row, Times};
use crate::sample::Sample;

/// Longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(3600);
/// The name of the profile that `pcmcache warm` fetches.
const PROFILE: &str = "bench";
/// The slow link: how long it takes there and back, and what it passes in a second, in bytes.
const ROUND_TRIP: Duration = Duration::from_millis(20);
const LINK: u64 = 100_000_000 / 8;

pub(crate) struct Project<'a> {
    scratch: &'a Scratch,
}

/// Somebody who builds.
struct Builder {
    name: String,
    machine: Machine,
    /// Held: its server ends with it.
    _peer: Option<Peer>,
    kind: Kind,
    /// What Ninja is told of how many commands run at once.
    jobs: &'static str,
}

/// As many as there are cores.
const CORES: &str = "-j2";
/// More: who waits for a far server uses none.
const MORE: &str = "-j8";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bare,
    Ours,
    /// Ours, whose local store is empty before each build.
    OursFromServer,
    Sccache,
}

impl<'a> Project<'a> {
    pub(crate) fn new(scratch: &'a Scratch) -> Self {
        Self { scratch }
    }

    /// A build whose results are all in the local store.
    pub(crate) fn warm(&self, rounds: usize) -> Vec<Row> {
        let mut builders = vec![self.ours("ours", Kind::Ours, &[]), self.bare()];
        builders.extend(self.sccache(None));
        vec![row("warm build of the CMake project", &builders, rounds)]
    }

    /// A build whose results are all on a server.
    pub(crate) fn remote(&self, rounds: usize) -> Vec<Row> {
        let server = Server::start(self.scratch);
        let mut builders =
            vec![self.ours("ours", Kind::OursFromServer, &[("PCMCACHE_REMOTE", &*server.url())])];
        let peers = [Peer::redis(self.scratch), Peer::webdav(self.scratch)].into_iter().flatten();
        builders.extend(peers.filter_map(|peer| self.sccache(Some(peer))));
        vec![row("warm build from a server, the local store empty", &builders, rounds)]
    }

    /// The same where the server is far away. Not beside sccache, whose larger writes to Redis time out over such a link.
    pub(crate) fn link(&self, rounds: usize) -> Vec<Row> {
        let server = Server::start(self.scratch);
        let link = Link::start(server.address(), ROUND_TRIP, LINK);
        let url = format!("http://{}", link.address());
        let far = |name, jobs, compress| {
            let settings =
                [("PCMCACHE_REMOTE", &*url), ("PCMCACHE_AGENT", "on"), ("PCMCACHE_COMPRESS", compress)];
            let mut builder = self.ours(name, Kind::OursFromServer, &settings);
            (builder.name, builder.jobs) = (name_of(jobs, compress), jobs);
            builder
        };
        let builders = [far("more", MORE, "off"), far("packed", MORE, "on"), far("cores", CORES, "off")];
        let row = row("warm build from a server over 20 ms and 100 Mb/s, ninja -j8", &builders, rounds);
        let before = link.down();
        let [ours, ..] = &builders;
        ours.clean();
        ours.time();
        let bytes = link.down() - before;
        let alone = Times::exactly(bytes as f64 / LINK as f64 * 1e3);
        vec![row.against([(format!("its {:.1} MB alone", bytes as f64 / 1e6), alone)])]
    }

    /// Two machines that build from nothing at the same time, and what the processors do for that.
    pub(crate) fn pair(&self, time: &Path, rounds: usize) -> Vec<Row> {
        let (mut both, mut one, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            let scratch = Scratch::new("bench-pair");
            let builders = Project::new(&scratch);
            let server = Server::start(&scratch);
            let settings = [("PCMCACHE_REMOTE", &*server.url())];
            let pair = ["one", "two"].map(|name| builders.ours(name, Kind::Ours, &settings));
            let serving = Duration::from_secs_f64(server.metric("process_cpu_seconds_total"));
            both.push(processors(time, &pair) + serving);
            let compiles: Vec<u64> = pair.iter().map(|builder| builder.machine.stats().compiles).collect();
            let scans: Vec<u64> = pair.iter().map(|builder| builder.machine.stats().scans).collect();
            let actions = compiles.iter().chain(&scans).sum::<u64>();
            assert_eq!(actions, server.results(), "round {round}: {compiles:?} and {scans:?}");
            one.push(processors(time, &[builders.ours("alone", Kind::Ours, &[])]));
            bare.push(processors(time, &[builders.bare()]));
        }
        let times = |seconds| Times::of(&Sample::of(seconds));
        let others = [("one such machine", times(one)), ("bare, one machine", times(bare))];
        let others = others.map(|(who, times)| (who.to_owned(), times));
        let what = "two machines cold at once, each action run once: processor time of all";
        vec![Row::new(what, times(both)).against(others)]
    }

    /// The same after the results were fetched as a profile.
    pub(crate) fn warmed(&self, rounds: usize) -> Vec<Row> {
        let server = Server::start(self.scratch);
        let settings = [("PCMCACHE_REMOTE", &*server.url()), ("PCMCACHE_PROFILE", PROFILE)];
        let ours = self.ours("ours", Kind::OursFromServer, &settings);
        ours.fill();
        ours.say(&["profile", "push", PROFILE]);
        let mut builders = vec![self.bare()];
        builders.extend(self.sccache(None));
        builders.iter().for_each(Builder::fill);
        let (mut fetched, mut built) = (Vec::new(), Vec::new());
        let mut times = vec![Vec::new(); builders.len()];
        for _ in 0..rounds {
            ours.clean();
            let start = Instant::now();
            ours.say(&["warm", PROFILE]);
            fetched.push(start.elapsed());
            built.push(ours.time());
            ours.check();
            for (builder, times) in builders.iter().zip(&mut times) {
                builder.clean();
                times.push(builder.time());
                builder.check();
            }
        }
        let others = || builders.iter().map(|builder| builder.name.clone());
        let others = others().zip(times.into_iter().map(|times| Times::of(&Sample::of(times))));
        let fetched = Sample::of(fetched).text();
        let built = Times::of(&Sample::of(built));
        let row = Row::new("warm build after `pcmcache warm`", built).against(others);
        vec![row.noting(format!("`pcmcache warm` itself, which reads the server's answers: {fetched}"))]
    }

    /// The most memory of a launcher that hits, in kilobytes.
    pub(crate) fn memory(&self, time: &Path) -> Vec<Row> {
        let machine = Machine::new(self.scratch, "memory");
        let source = self.scratch.file("unit.cpp", "#include <string>\nstd::string s() { return \"s\"; }\n");
        let module = "/usr/lib/llvm-22/share/libc++/v1/std.cppm";
        let std = ["-std=c++23", "-stdlib=libc++", "-Wno-reserved-module-identifier", "--precompile", module];
        let unit = source.to_string_lossy().into_owned();
        let units = [
            ("a unit with <string>", vec!["-std=c++23", "-c", &unit, "-o", "unit.o"]),
            ("std.pcm", std.into_iter().chain(["-o", "std.pcm"]).collect()),
        ];
        let measure = |(what, arguments): (&str, Vec<&str>)| {
            std::thread::sleep(Duration::from_millis(20));
            machine.launch(&arguments).finish_within(LONG).ok();
            let before = machine.stats().local_hits;
            let mut command = machine.command(time);
            command.args(["-f", "%M"]).arg(machine.launcher()).arg(tool::CLANG).args(&arguments);
            let said = Process::start(command).finish().ok().stderr;
            assert_eq!(machine.stats().local_hits, before + 1, "no hit: {said}");
            let kilobytes =
                said.lines().last().and_then(|line| line.parse().ok()).expect("what GNU time says");
            Row::new(&format!("most memory of a launcher on a hit, {what}, kB"), Times::exactly(kilobytes))
                .against([("30 MB".to_owned(), Times::exactly(30_000.0))])
        };
        units.into_iter().map(measure).collect()
    }

    fn machine(&self, name: &str) -> Machine {
        // A log is no part of what is timed.
        Machine::new(self.scratch, name).without("PCMCACHE_LOG")
    }

    fn bare(&self) -> Builder {
        let machine = self.machine("bare");
        atlas::configure_bare(&machine, &atlas::source());
        Builder { name: "bare".to_owned(), machine, _peer: None, kind: Kind::Bare, jobs: CORES }
    }

    fn ours(&self, name: &str, kind: Kind, env: &[(&str, &str)]) -> Builder {
        let machine = env.iter().fold(self.machine(name), |machine, (name, value)| machine.with(name, value));
        atlas::configure_by_module(&machine, &atlas::source());
        Builder { name: "pcmcache".to_owned(), machine, _peer: None, kind, jobs: CORES }
    }

    /// sccache with a server of its own, if it is there and starts.
    fn sccache(&self, peer: Option<Peer>) -> Option<Builder> {
        let program = tool::if_installed("sccache")?;
        let name = peer.as_ref().map_or("sccache", |peer| peer.name);
        let home = name.replace(' ', "-");
        let machine = self.machine(&home).with_launcher(program);
        let machine = machine.with("SCCACHE_IDLE_TIMEOUT", "3600");
        let machine = machine.with("SCCACHE_SERVER_UDS", self.scratch.path().join(format!("{home}.socket")));
        let machine = match &peer {
            Some(peer) => machine.with(peer.variable, peer.url()),
            None => machine.with("SCCACHE_DIR", self.scratch.dir(&format!("{home}/sccache"))),
        };
        let builder =
            Builder { name: name.to_owned(), machine, _peer: peer, kind: Kind::Sccache, jobs: CORES };
        let started = builder.machine.start(builder.machine.launcher(), ["--start-server"]).finish();
        if !started.status.success() {
            eprintln!("going on without {}: {}", builder.name, started.transcript());
            return None;
        }
        atlas::configure(&builder.machine);
        Some(builder)
    }
}

impl Builder {
    /// Builds from nothing what later builds find. Some learn in the second build what the third looks up.
    fn fill(&self) {
        for _ in 0..2 {
            if self.kind != Kind::Bare {
                self.machine.start(tool::ninja(), ["-t", "clean"]).finish().ok();
                self.time();
            }
        }
    }

    /// Nothing is built, and nothing stands that must not.
    fn clean(&self) {
        self.machine.start(tool::ninja(), ["-t", "clean"]).finish().ok();
        match self.kind {
            Kind::OursFromServer => drop(fs_err::remove_dir_all(self.machine.cache())),
            Kind::Ours => drop(self.say(&["stats", "--zero"])),
            Kind::Sccache => drop(self.say(&["--zero-stats"])),
            Kind::Bare => {}
        }
    }

    fn time(&self) -> Duration {
        self.machine.start(tool::ninja(), [self.jobs]).finish_within(LONG).ok().took
    }

    /// Panics if anything was compiled.
    fn check(&self) {
        match self.kind {
            Kind::Bare => {}
            Kind::Ours | Kind::OursFromServer => {
                let stats = self.machine.stats();
                assert_eq!((stats.compiles, stats.scans), (0, 0), "not warm: {stats:?}");
            }
            Kind::Sccache => {
                let stats = self.sccache_stats();
                let misses = stats.pointer("/cache_misses/counts").and_then(Value::as_object);
                let misses: u64 = misses.into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum();
                assert_eq!(misses, 0, "{} is not warm: {stats}", self.name);
            }
        }
    }

    fn sccache_stats(&self) -> Value {
        let text = self.say(&["--show-stats", "--stats-format", "json"]);
        let said: Value = serde_json::from_str(&text).expect("sccache's statistics");
        said["stats"].clone()
    }

    /// What of the last build was no hit all the same.
    fn shortfall(&self) -> Option<String> {
        let passed_by = match self.kind {
            Kind::Sccache => self.sccache_stats()["requests_not_cacheable"].as_u64().unwrap_or_default(),
            Kind::Bare | Kind::Ours | Kind::OursFromServer => 0,
        };
        (passed_by > 0).then(|| format!("{} did not cache {passed_by} commands of a build", self.name))
    }

    /// Runs the launcher's program with these words.
    fn say(&self, words: &[&str]) -> String {
        self.machine.start(self.machine.launcher(), words).finish_within(LONG).ok().stdout
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        if self.kind == Kind::Sccache {
            self.machine.start(self.machine.launcher(), ["--stop-server"]).finish();
        }
    }
}

fn name_of(jobs: &str, compress: &str) -> String {
    let packed = if compress == "on" { ", packed" } else { "" };
    format!("itself, ninja {jobs}{packed}")
}

/// What the processors do for these builds, which run at the same time, by GNU time.
fn processors(time: &Path, builders: &[Builder]) -> Duration {
    let start = |builder: &Builder| {
        let mut command = builder.machine.command(time);
        command.args(["-f", "%U %S"]).arg(tool::ninja()).arg(builder.jobs);
        Process::start(command)
    };
    let builds: Vec<Process> = builders.iter().map(start).collect();
    let took = |build: Process| {
        let said = build.finish_within(LONG).ok().stderr;
        let seconds = said.lines().last().and_then(|line| {
            let (user, system) = line.split_once(' ')?;
            Some(user.parse::<f64>().ok()? + system.parse::<f64>().ok()?)
        });
        Duration::from_secs_f64(seconds.expect("what GNU time says"))
    };
    builds.into_iter().map(took).sum()
}

/// The builders in turns; the first is ours.
fn row(what: &str, builders: &[Builder], rounds: usize) -> Row {
    builders.iter().for_each(Builder::fill);
    let mut times = vec![Vec::new(); builders.len()];
    for round in 0..rounds {
        for turn in 0..builders.len() {
            let index = (round + turn) % builders.len();
            builders[index].clean();
            times[index].push(builders[index].time());
            builders[index].check();
        }
    }
    let mut times = times.into_iter().map(|times| Times::of(&Sample::of(times)));
    let ours = times.next().expect("ours");
    let row =
        Row::new(what, ours).against(builders.iter().skip(1).map(|builder| builder.name.clone()).zip(times));
    builders.iter().filter_map(Builder::shortfall).fold(row, Row::noting)
}
