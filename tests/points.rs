//! Every failpoint, in turn: the process is killed there, the step fails there, takes long, or writes something else. A build
//! passes all the same and places the compiler's own bytes, and whoever comes next goes on as if nothing had been.
//!
//! `points.txt` is the table: which points there are, and what passes them. A step that is new, or gone, shows: the steps of a disk are
//! points by being taken (`pcmcache_shared::disk`), and nothing else may change a file, which a test here sees to as well.
//!
//!     PCMCACHE_TEST_WRITE=1 cargo test --test points the_table       writes the table anew
//!     PCMCACHE_TEST_POINT=local/ cargo test --test points            only points with this in their name

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pcmcache_tests::scratch::names_in;
use pcmcache_tests::unit::Outputs;
use pcmcache_tests::{Finished, Machine, Process, Scratch, Server, Unit, Weight, deployed, tool, turn};
use rustix::process::{Signal, kill_process};

const TABLE: &str = "tests/points.txt";
/// As many at a time.
const AT_ONCE: usize = 3;
/// A lease is renewed only by who takes long over it.
const SOMETIMES: [&str; 4] =
    ["remote.renew", "remote.renew.done", "http.post-leases", "http.post-leases.done"];
/// Behind a plan: while somebody else on the machine wants the same thing.
const CROWDED: &str = " in a crowd";
/// Longer than any launch takes here, whatever fails.
const LIMIT: Duration = Duration::from_secs(60);

/// What a process does that passes points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scene {
    /// A launch that compiles, without a server.
    Miss,
    /// One that does not have to.
    Hit,
    /// A launch that compiles, and publishes.
    Publish,
    /// One that fetches what another machine published.
    Fetch,
    /// A launch whose server cannot be had.
    Away,
    /// The upload of what such a launch queued.
    Sync,
    /// A launch that leaves its upload to another process, and that one.
    Background,
    /// A launch that asks by way of an agent, and that one.
    Agent,
    /// A launch that notes what it used, and the publishing of that.
    Profile,
    /// A start from such a profile.
    Warm,
    /// Removal of what a store has.
    Clear,
    /// A trim of a store.
    Trim,
    /// A server that makes a store and comes up.
    Start,
    /// A server that takes a publish, and serves a fetch.
    Serve,
    /// A token is made.
    Token,
    /// A store is backed up.
    Backup,
    /// A backup becomes a store.
    Restore,
    /// An index is made again.
    Rebuild,
}

const SCENES: [(&str, Scene); 18] = [
    ("miss", Scene::Miss),
    ("hit", Scene::Hit),
    ("publish", Scene::Publish),
    ("fetch", Scene::Fetch),
    ("away", Scene::Away),
    ("sync", Scene::Sync),
    ("background", Scene::Background),
    ("agent", Scene::Agent),
    ("profile", Scene::Profile),
    ("warm", Scene::Warm),
    ("clear", Scene::Clear),
    ("trim", Scene::Trim),
    ("start", Scene::Start),
    ("serve", Scene::Serve),
    ("token", Scene::Token),
    ("backup", Scene::Backup),
    ("restore", Scene::Restore),
    ("rebuild", Scene::Rebuild),
];

fn scene(name: &str) -> Scene {
    let found = SCENES.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("{TABLE} has a scene {name}, which is none")).1
}

/// What all scenes share.
struct Stage {
    server: Server,
    known: Machine,
    ground: Ground,
    /// What the server has for all who fetch.
    published: (Unit, Outputs),
    next: AtomicUsize,
    scratch: Scratch,
    _store: Scratch,
}

/// A store with one module, and its backup.
struct Ground {
    store: Scratch,
    backup: PathBuf,
    unit: Unit,
    right: Outputs,
}

impl Ground {
    fn lay(scratch: &Scratch, known: &Machine) -> Self {
        let (store, backup) = (Scratch::of(&scratch.dir("ground")), scratch.path().join("ground-backup"));
        let unit = Unit::write(scratch, "ground", 7, Weight::Light);
        let right = unit.right_outputs(scratch);
        let server = Server::start(&store);
        Machine::new(scratch, "founder").knowing(known).remote(&server.url()).compile(unit.arguments()).ok();
        drop(server);
        let mut command = Command::new(tool::server());
        command.env_clear().arg("backup").arg(&backup).arg("--data-dir").arg(store.path().join("server"));
        Process::start(command).finish().ok();
        Self { store, backup, unit, right }
    }
}

fn copy_all(from: &Path, to: &Path) {
    fs_err::create_dir_all(to).expect("a directory");
    for entry in fs_err::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        match entry.file_type().expect("its type") {
            kind if kind.is_dir() => copy_all(&entry.path(), &to.join(entry.file_name())),
            kind if kind.is_file() => {
                let _ = fs_err::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
            }
            _ => {}
        }
    }
}

/// One run of a scene.
struct Play<'a> {
    stage: &'a Stage,
    scene: Scene,
    number: usize,
    dir: Scratch,
    /// What nobody else compiles.
    unit: Unit,
    /// What the launcher places.
    right: Outputs,
    plan: String,
    /// Whether somebody else on the machine wants the same thing meanwhile.
    crowded: bool,
    points: Option<&'a Path>,
}

impl Stage {
    fn set() -> Self {
        let (scratch, store) = (Scratch::new("points"), Scratch::new("points-server"));
        let (server, known) = (Server::start(&store), Machine::experienced(&scratch));
        let ground = Ground::lay(&scratch, &known);
        let unit = Unit::write(&scratch, "published", 7, Weight::Light);
        let publisher = Machine::new(&scratch, "publisher").knowing(&known).remote(&server.url());
        publisher.compile(unit.arguments()).ok();
        let published = (unit.clone(), unit.outputs(publisher.build()));
        Self { server, known, ground, published, next: AtomicUsize::new(0), scratch, _store: store }
    }

    fn play<'a>(&'a self, scene: Scene, plan: &str, points: Option<&'a Path>) -> Play<'a> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let dir = Scratch::of(&self.scratch.dir(&format!("run{number}")));
        let (unit, right) = if scene == Scene::Fetch {
            self.published.clone()
        } else {
            let unit = Unit::write(&dir, "unit", number as u32, Weight::Light);
            (unit.clone(), unit.right_outputs(&dir))
        };
        let (plan, crowded) = plan.strip_suffix(CROWDED).map_or((plan, false), |plan| (plan, true));
        Play { stage: self, scene, number, dir, unit, right, plan: plan.to_owned(), crowded, points }
    }
}

impl Play<'_> {
    fn arguments(&self) -> Vec<String> {
        self.unit.arguments()
    }

    fn machine(&self, role: &str) -> Machine {
        Machine::new(&self.dir, role).knowing(&self.stage.known)
    }

    /// The same machine, in whose processes the plan holds.
    fn planned(&self, machine: &Machine) -> Machine {
        let machine = machine.clone().with("PCMCACHE_FAILPOINT", &self.plan);
        match self.points {
            Some(points) => machine.with("PCMCACHE_TEST_POINTS", points),
            None => machine,
        }
    }

    fn run(&self) {
        let scene = self.scene;
        match scene {
            Scene::Start => self.start(),
            Scene::Serve => self.serve(),
            Scene::Token | Scene::Backup | Scene::Restore | Scene::Rebuild => self.upkeep(scene),
            _ => self.launch(scene),
        }
        fs_err::remove_dir_all(self.dir.path()).expect("the run's directory");
    }

    fn launch(&self, scene: Scene) {
        let is_local = matches!(scene, Scene::Miss | Scene::Hit | Scene::Trim | Scene::Clear);
        let server = self.stage.server.url();
        let machine = |role: &str| {
            let machine = self.machine(role);
            let machine = if is_local { machine } else { machine.remote(&server) };
            match scene {
                Scene::Background => machine.with("PCMCACHE_UPLOAD", "background"),
                Scene::Agent => machine.with("PCMCACHE_AGENT", "on"),
                Scene::Profile | Scene::Warm => {
                    machine.with("PCMCACHE_PROFILE", format!("of-{}", self.number))
                }
                _ => machine,
            }
        };
        let profile = format!("of-{}", self.number);
        let (here, there) = (machine("here"), machine("there"));
        let elsewhere = here.clone().building_in(self.dir.dir("before"));
        let warm = ["warm", &profile];
        let words = match scene {
            Scene::Sync => Some(["sync"].as_slice()),
            Scene::Trim => Some(["trim", "--max-size", "0"].as_slice()),
            Scene::Clear => Some(["clear"].as_slice()),
            Scene::Profile => Some(["profile", "push"].as_slice()),
            Scene::Warm => Some(warm.as_slice()),
            _ => None,
        };
        let run =
            |machine: &Machine, words: &[&str]| machine.start(machine.launcher(), words).finish_within(LIMIT);
        match scene {
            Scene::Hit | Scene::Trim | Scene::Clear => drop(elsewhere.compile(self.arguments()).ok()),
            Scene::Warm => {
                there.compile(self.arguments()).ok();
                run(&there, &["profile", "push"]).ok();
            }
            // The notes are made where the plan holds, too.
            Scene::Profile => {
                let done = self.planned(&elsewhere).launch(self.arguments()).finish_within(LIMIT);
                self.judge(&done, true);
            }
            Scene::Sync => {
                let away = elsewhere.with("PCMCACHE_FAILPOINT", "remote.acquire=fail");
                away.compile(self.arguments()).ok();
                let _ = fs_err::remove_dir_all(here.cache().join("v1/breaker"));
            }
            _ => {}
        }
        let planned = self.planned(&here);
        let planned = if scene == Scene::Away { planned.remote("http://127.0.0.1:9") } else { planned };
        let done = match words {
            Some(words) => planned.start(planned.launcher(), words),
            None => planned.launch(self.arguments()),
        };
        let beside = self.crowded.then(|| {
            let beside = here.clone().building_in(self.dir.dir("beside"));
            let launched = beside.launch(self.arguments());
            (beside, launched)
        });
        let done = done.finish_within(LIMIT);
        self.judge(&done, words.is_none());
        if let Some((beside, launched)) = beside {
            let waited = launched.finish_within(LIMIT).ok();
            assert_eq!(waited.stderr, "", "beside: {}", self.told(&done));
            assert_eq!(self.unit.outputs(beside.build()), self.right, "beside: {}", self.told(&done));
        }
        if words.is_none() && !self.kills() {
            self.has_its_outputs(&here, &done);
        }
        if scene == Scene::Background {
            run(&here, &["sync", "--wait"]).ok();
        }
        for agent in here.agents() {
            let _ = kill_process(agent, Signal::TERM);
        }
        // The same machine goes on, with what is left, and leaves nothing else.
        here.compile(self.arguments()).ok();
        assert_eq!(self.unit.outputs(here.build()), self.right, "then: {}", self.told(&done));
        let names: Vec<_> = self.right.keys().cloned().collect();
        assert_eq!(names_in(here.build()), names, "{}", self.told(&done));
        // One fault after the other is told by what this machine has.
        if !is_local && !self.plan.starts_with('*') {
            let third = machine("third");
            third.compile(self.arguments()).ok();
            assert_eq!(self.unit.outputs(third.build()), self.right, "third: {}", self.told(&done));
        }
    }

    /// A launch that goes without the cache places what the compiler makes of the command as it stands.
    fn has_its_outputs(&self, machine: &Machine, done: &Finished) {
        let outputs = self.unit.outputs(machine.build());
        let is_right = outputs == self.right || outputs == self.unit.bare_outputs(&self.dir);
        assert!(is_right, "other bytes: {}", self.told(done));
    }

    fn kills(&self) -> bool {
        self.plan.ends_with("=kill")
    }

    fn told(&self, done: &Finished) -> String {
        format!("{}: {}", self.plan, done.transcript())
    }

    /// A fault of the cache fails no build; a command may say that it could not.
    fn judge(&self, done: &Finished, is_build: bool) {
        if self.kills() && done.signal() == Some(9) {
            return;
        }
        assert!(done.signal().is_none(), "{}", self.told(done));
        assert!(!done.stderr.contains("panicked"), "{}", self.told(done));
        if is_build {
            assert!(done.status.success(), "{}", self.told(done));
            assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", ""), "{}", self.told(done));
        }
    }

    /// The variables of a server in which the plan holds while `armed` lies there.
    fn environment(&self, armed: &Path) -> Vec<(String, String)> {
        let mut environment = vec![("PCMCACHE_TEST_ARMED".to_owned(), armed.to_string_lossy().into_owned())];
        environment.extend(
            self.points
                .map(|points| ("PCMCACHE_TEST_POINTS".to_owned(), points.to_string_lossy().into_owned())),
        );
        environment
    }

    fn start(&self) {
        let dir = self.dir.dir("store");
        let mut command = Command::new(tool::server());
        command.env_clear().env("PCMCACHE_FAILPOINT", &self.plan).args([
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
        ]);
        command.arg(dir.join("server")).envs(self.points.map(|points| ("PCMCACHE_TEST_POINTS", points)));
        let mut first = Process::start(command);
        pcmcache_tests::until("a server that is up, or has ended", || {
            first.ended() || first.stdout().contains("listening")
        });
        first.signal(Signal::TERM);
        let first = first.finish_within(LIMIT);
        assert!(!first.stderr.contains("panicked"), "{}", self.told(&first));
        // The next one goes on with what is left.
        let store = Scratch::of(&dir);
        let server = Server::start(&store);
        self.publishes_and_fetches(&server, &self.told(&first));
    }

    /// A command on a store that has one module; what it leaves where it was killed, or failed, is no obstacle.
    fn upkeep(&self, scene: Scene) {
        let ground = &self.stage.ground;
        let (dir, backup) = (self.dir.dir("store"), self.dir.path().join("backup"));
        if scene != Scene::Restore {
            copy_all(&ground.store.path().join("server"), &dir.join("server"));
        }
        let command = |words: &[&str]| {
            let mut command = Command::new(tool::server());
            command.env_clear().args(words).arg("--data-dir").arg(dir.join("server"));
            command
        };
        let (there, from) =
            (backup.to_string_lossy().into_owned(), ground.backup.to_string_lossy().into_owned());
        let words: &[&str] = match scene {
            Scene::Backup => &["backup", &there],
            Scene::Restore => &["restore", &from],
            Scene::Rebuild => &["rebuild-index"],
            _ => &["token", "create", "--name", "first", "--read", "main"],
        };
        let mut planned = command(words);
        planned.env("PCMCACHE_FAILPOINT", &self.plan);
        planned.envs(self.points.map(|points| ("PCMCACHE_TEST_POINTS", points)));
        let done = Process::start(planned).finish_within(LIMIT);
        self.judge(&done, false);
        match scene {
            Scene::Token => {
                Process::start(command(&["token", "create", "--name", "second", "--read", "main"]))
                    .finish()
                    .ok();
                fs_err::remove_file(dir.join("server/tokens.json")).expect("the book of tokens");
            }
            // A restore that was done is not done again.
            Scene::Restore if done.status.success() => {}
            _ => drop(Process::start(command(words)).finish().ok()),
        }
        if scene == Scene::Backup {
            fs_err::remove_dir_all(dir.join("server")).expect("the store");
            Process::start(command(&["restore", &there])).finish().ok();
        }
        let server = Server::start(&Scratch::of(&dir));
        let machine = self.machine("next").remote(&server.url());
        machine.compile(ground.unit.arguments()).ok();
        assert_eq!(ground.unit.outputs(machine.build()), ground.right, "{}", self.told(&done));
        assert_eq!(machine.stats().remote_hits, 1, "what was there is gone: {}", self.told(&done));
    }

    fn serve(&self) {
        let dir = self.dir.dir("store");
        let (store, armed) = (Scratch::of(&dir), dir.join("armed"));
        let mut server = Server::start_planned(&store, self.environment(&armed), &self.plan);
        fs_err::write(&armed, "").expect("a file");
        let (here, there) = (self.machine("here"), self.machine("there"));
        for machine in [&here, &there] {
            let launched = machine.clone().remote(&server.url()).launch(self.arguments());
            let done = self.while_it_dies(&mut server, launched);
            assert!(done.status.success() && done.stderr.is_empty(), "{}{}", self.told(&done), server.log());
            self.has_its_outputs(machine, &done);
        }
        fs_err::remove_file(&armed).expect("the same file");
        if server.ended() {
            server.restart();
        }
        assert!(!server.log().contains("panicked"), "{}: {}", self.plan, server.log());
        self.publishes_and_fetches(&server, &self.plan);
    }

    /// The end of a launch; a server that is killed meanwhile is started again, as whatever oversees it would.
    fn while_it_dies(&self, server: &mut Server, mut launched: Process) -> Finished {
        pcmcache_tests::until("the launch's end", || {
            if server.ended() {
                server.restart();
            }
            launched.ended()
        });
        launched.finish_within(LIMIT)
    }

    fn publishes_and_fetches(&self, server: &Server, told: &str) {
        for role in ["one", "two"] {
            let machine = self.machine(role).remote(&server.url());
            machine.compile(self.arguments()).ok();
            assert_eq!(self.unit.outputs(machine.build()), self.right, "{role}: {told}");
            assert!(role == "one" || machine.stats().remote_hits == 1, "nothing was published: {told}");
        }
    }
}

/// The points that each scene passes; each is told by the first scene that passes it.
fn passed(stage: &Stage) -> BTreeMap<String, Scene> {
    let mut all = BTreeMap::new();
    for (name, scene) in SCENES {
        let began = std::time::Instant::now();
        let file = stage.scratch.path().join(format!("{name}.points"));
        stage.play(scene, "", Some(&file)).run();
        println!("{name}: {:?}", began.elapsed());
        let points = fs_err::read_to_string(&file).unwrap_or_default();
        for point in points.lines() {
            all.entry(point.to_owned()).or_insert(scene);
        }
    }
    all
}

fn table() -> BTreeMap<String, Scene> {
    let rows = deployed::text(TABLE);
    let rows = rows.lines().filter_map(|line| line.split_once(' '));
    rows.map(|(name, point)| (point.to_owned(), scene(name))).collect()
}

#[test]
fn the_table_has_every_point_that_is_passed() {
    let _turn = turn::beside_others();
    let stage = Stage::set();
    let now = passed(&stage);
    if std::env::var_os("PCMCACHE_TEST_WRITE").is_some() {
        let name = |scene| SCENES.iter().find(|(_, known)| *known == scene).map_or("", |(name, _)| name);
        let mut now = now.clone();
        for point in SOMETIMES {
            let scene = if point.starts_with("http.") { Scene::Serve } else { Scene::Background };
            now.insert(point.to_owned(), scene);
        }
        let mut rows: Vec<_> = now.iter().map(|(point, scene)| (*scene, point)).collect();
        rows.sort();
        let rows: String = rows.iter().map(|(scene, point)| format!("{} {point}\n", name(*scene))).collect();
        fs_err::write(deployed::file(TABLE), rows).expect("the table");
    }
    let there: BTreeSet<_> = table().into_keys().collect();
    let now: BTreeSet<_> = now.into_keys().collect();
    let new: Vec<_> = now.difference(&there).collect();
    let gone = there.difference(&now).filter(|point| !SOMETIMES.contains(&point.as_str()));
    let gone: Vec<_> = gone.collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "{TABLE} does not have {new:?}, and has {gone:?}, which nobody passes: \
         PCMCACHE_TEST_WRITE=1 tests/run.sh -p pcmcache-tests --test points the_table writes it anew"
    );
}

/// What can be done at a point. A step that is over cannot fail any more; what the disk itself falsifies in a file that a
/// compiler is about to read is the disk's.
fn actions(point: &str) -> Vec<&'static str> {
    let is_over = point.ends_with(".done");
    let is_message = point.starts_with("http.") || point.starts_with("remote.");
    let is_step = is_message || point.contains('/') || point.starts_with("redb_file.");
    let mut actions = vec!["kill", "delay:50"];
    actions.push(if is_step && !is_over { "fail:EIO" } else { "kill in a crowd" });
    if point.starts_with("http.") && is_over {
        actions.extend(["fail:EIO", "corrupt"]);
    }
    if point.starts_with("local/") && point.ends_with(".write") {
        actions.push("corrupt");
    }
    actions
}

#[test]
fn at_every_point_of_the_table_nothing_costs_a_build() {
    let _turn = turn::beside_others();
    let stage = Stage::set();
    let only = std::env::var("PCMCACHE_TEST_POINT").unwrap_or_default();
    let points = table().into_iter().filter(|(point, _)| point.contains(&only));
    let plays: Vec<_> = points
        .flat_map(|(point, scene)| {
            actions(&point).into_iter().map(move |action| (scene, format!("{point}={action}")))
        })
        .collect();
    let kills = plays.iter().filter(|(_, plan)| plan.contains("=kill")).count();
    println!("tally: points={} kills={kills}", plays.len());
    let left = Mutex::new(plays.into_iter());
    let next = || left.lock().expect("what is left").next();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((scene, plan)) = next() {
                    println!("{scene:?} {plan}");
                    stage.play(scene, &plan, None).run();
                }
            });
        }
    });
}

/// One fault after the other, at each step of a launch: once, and from there on.
#[test]
fn every_single_fault_of_a_publish_and_of_a_fetch_costs_no_build() {
    let _turn = turn::beside_others();
    let stage = Stage::set();
    let faults = [
        "@K=fail:EIO",
        "@K+=fail:EIO",
        "@K=fail:ENOSPC",
        "@K+=fail:ENOSPC",
        "@K=fail:EINTR",
        "@K=short",
        "@K+=short",
    ];
    let mut sweeps = Vec::new();
    for scene in [Scene::Publish, Scene::Fetch] {
        sweeps.extend(faults.map(|fault| (scene, fault)));
    }
    let left = Mutex::new(sweeps.into_iter());
    let next = || left.lock().expect("what is left").next();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((scene, fault)) = next() {
                    let runs = sweep(&stage, scene, fault);
                    println!("{scene:?} {fault}: {runs} steps");
                    println!("tally: disk-faults={runs}");
                }
            });
        }
    });
}

/// Fails the first step, the second and so on, until a run has none left to fail.
fn sweep(stage: &Stage, scene: Scene, fault: &str) -> usize {
    for step in 1..500 {
        let reached = stage.scratch.path().join(format!("{scene:?}{fault}{step}.at"));
        // The rule that says so stands before the one that fails it.
        let plan = format!("*@{step}=note:{},*{}", reached.display(), fault.replace('K', &step.to_string()));
        stage.play(scene, &plan, None).run();
        if !reached.exists() {
            assert!(step > 10, "{scene:?} was over too soon");
            return step - 1;
        }
    }
    panic!("{scene:?} {fault} never comes to an end");
}

/// Where something else than `disk` may change files: tests, and what is not a program of ours.
const CHANGES: [&str; 15] = [
    "fs_err::write(",
    "fs_err::rename(",
    "fs_err::remove_",
    "fs_err::create_dir",
    "fs_err::hard_link(",
    "fs_err::copy(",
    "fs_err::File::create",
    "fs_err::File::options",
    "OpenOptions::new().write(",
    "OpenOptions::new().append(",
    "OpenOptions::new().create",
    "std::fs::DirBuilder",
    "syncfs(",
    "tokio::fs::OpenOptions",
    "fallocate(",
];

#[test]
fn nothing_but_disk_changes_a_file() {
    let mut found = Vec::new();
    let mut sources = 0;
    for crate_ in ["client/src", "server/src", "shared/src"] {
        for file in pcmcache_tests::scratch::files_below(&deployed::file(crate_)) {
            let path: PathBuf = Path::new(crate_).join(file);
            let may = path.starts_with("shared/src/disk")
                || path == Path::new("shared/src/disk.rs")
                || path.ends_with("failpoint.rs");
            if may || path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            sources += 1;
            let text = deployed::text(&path.to_string_lossy());
            let program = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            for (number, line) in program.lines().enumerate() {
                if CHANGES.iter().any(|change| {
                    line.contains(change) && !line.contains("disk::") && !path.ends_with("staged.rs")
                }) && !line.trim_start().starts_with("//")
                {
                    found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
                }
            }
        }
    }
    assert!(sources > 100, "the sources were not found: {sources}");
    assert_eq!(found, Vec::<String>::new(), "by pcmcache_shared::disk these steps would be failpoints");
}
