//! One run of a scene under a plan, and what must hold of it and behind it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pcmcache_tests::scratch::names_in;
use pcmcache_tests::unit::Outputs;
use pcmcache_tests::{Finished, Machine, Process, Scratch, Server, Unit, Weight, tool};
use rustix::process::{Signal, kill_process};

use super::scene::Scene;

/// Behind a plan: while somebody else on the machine wants the same thing.
const CROWDED: &str = " in a crowd";
/// Longer than any launch takes here, whatever fails.
const LIMIT: Duration = Duration::from_secs(60);

/// What all scenes share.
pub(crate) struct Stage {
    server: Server,
    known: Machine,
    ground: Ground,
    /// What the server has for all who fetch.
    published: (Unit, Outputs),
    next: AtomicUsize,
    pub(crate) scratch: Scratch,
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
        let unit = Unit::write(scratch, "ground", 7, Weight::Light).searched_for(scratch);
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
pub(crate) struct Play<'a> {
    stage: &'a Stage,
    scene: Scene,
    number: usize,
    dir: Scratch,
    /// What nobody else compiles, but for those who fetch it, and those without a server.
    unit: Unit,
    /// What the launcher places.
    right: Outputs,
    plan: String,
    /// Whether somebody else on the machine wants the same thing meanwhile.
    crowded: bool,
    points: Option<&'a Path>,
}

impl Stage {
    pub(crate) fn set() -> Self {
        let (scratch, store) = (Scratch::new("points"), Scratch::new("points-server"));
        let (server, known) = (Server::start(&store), Machine::experienced(&scratch));
        let ground = Ground::lay(&scratch, &known);
        let unit = Unit::write(&scratch, "published", 7, Weight::Light).searched_for(&scratch);
        let publisher = Machine::new(&scratch, "publisher").knowing(&known).remote(&server.url());
        publisher.compile(unit.arguments()).ok();
        let published = (unit.clone(), unit.outputs(publisher.build()));
        Self { server, known, ground, published, next: AtomicUsize::new(0), scratch, _store: store }
    }

    pub(crate) fn play<'a>(&'a self, scene: Scene, plan: &str, points: Option<&'a Path>) -> Play<'a> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let dir = Scratch::of(&self.scratch.dir(&format!("run{number}")));
        // Who asks no server may compile what the others do.
        let (unit, right) = if scene == Scene::Fetch || scene.is_local() {
            self.published.clone()
        } else {
            let unit = Unit::write(&dir, "unit", number as u32, Weight::Light).searched_for(&dir);
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

    pub(crate) fn run(&self) {
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
        let is_local = scene.is_local();
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
