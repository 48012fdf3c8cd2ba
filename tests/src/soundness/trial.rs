//! One case, one contestant: each command in both worlds, and what differs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::contestant::{Seat, Training};
use super::script::{Case, Moment, Promise, Step, words};
use super::{Contestant, Outcome, Side, Traits, Worlds};
use crate::tool::CLANG;
use crate::{Finished, Machine, Process, Scratch, patience};

/// A case that is being tried.
#[derive(Debug)]
struct Trial<'a> {
    seat: Seat,
    worlds: Worlds,
    announcement: PathBuf,
    cwd: String,
    env: BTreeMap<String, Option<String>>,
    umask: Option<String>,
    terminal: bool,
    loosely: Vec<String>,
    during: Option<(Moment, String)>,
    hits: u64,
    changed: bool,
    compiled: bool,
    case: &'a Case,
    outcome: Outcome,
}

/// Tries the case. One that cannot be tried to its end is wrong, whoever's fault it is.
pub fn run(case: &Case, training: &Training) -> Outcome {
    let tried = std::panic::catch_unwind(|| attempt(case, training));
    tried.unwrap_or_else(|reason| {
        let reason = reason.downcast_ref::<String>().cloned().unwrap_or_default();
        Outcome { wrong: vec![format!("ended by a panic: {reason}")], ..Outcome::default() }
    })
}

fn attempt(case: &Case, training: &Training) -> Outcome {
    let scratch = Scratch::new("sound");
    let machine = Machine::new(&scratch, "home");
    let seat = Seat::new(training, machine, &scratch.path().join("home"));
    let mut trial = Trial {
        seat,
        worlds: Worlds::new(scratch.dir("worlds")),
        announcement: scratch.path().join("reached"),
        cwd: String::new(),
        env: BTreeMap::new(),
        umask: None,
        terminal: false,
        loosely: Vec::new(),
        during: None,
        hits: 0,
        changed: false,
        compiled: false,
        case,
        outcome: Outcome::default(),
    };
    for step in &case.steps {
        trial.take(step);
        if !trial.outcome.wrong.is_empty() {
            break;
        }
    }
    if training.contestant() == Contestant::Pcmcache {
        trial.outcome.bypassed = trial.seat.machine().stats().bypassed;
    }
    std::mem::take(&mut trial.outcome)
}

impl Trial<'_> {
    fn take(&mut self, step: &Step) {
        let root = self.worlds.root();
        let here = |text: &String| text.replace("$W", &root.to_string_lossy());
        self.changed |= !matches!(step, Step::Compile(..) | Step::Loosely(_) | Step::Show(_));
        match step {
            Step::File(name, text) => self.edit(|trial| trial.put(name, &here(text))),
            Step::Do(line) => self.change(&here(line)),
            Step::During(moment, line) => self.during = Some((*moment, here(line))),
            Step::Show(line) => self.show(&here(line)),
            Step::Cd(dir) => self.cwd = here(dir),
            Step::Env(name, value) => drop(self.env.insert(name.clone(), value.as_ref().map(here))),
            Step::Umask(mask) => self.umask = Some(mask.clone()),
            Step::Terminal(yes) => self.terminal = *yes,
            Step::Loosely(endings) => self.loosely.extend(endings.split(' ').map(str::to_owned)),
            Step::Tick => next_second(),
            Step::Compile(promise, line) => self.compile(*promise, &words(&here(line))),
        }
    }

    fn machine(&self) -> Machine {
        let machine = self.seat.machine().clone().building_in(self.worlds.root().join(&self.cwd));
        self.env.iter().fold(machine, |machine, (name, value)| match value {
            Some(value) => machine.with(name, value),
            None => machine.without(name),
        })
    }

    fn edit<T>(&self, change: impl Fn(&Self) -> T) {
        for side in [Side::Launched, Side::Bare] {
            let _turn = self.worlds.enter(side);
            change(self);
        }
        self.worlds.agree();
    }

    /// A shell's change to both worlds. One that fails beside the bare compiler is a mistake in the case; one that fails
    /// only behind a launcher finds something missing.
    fn change(&mut self, line: &str) {
        let failed = |side| {
            let _turn = self.worlds.enter(side);
            let ended = self.shell(line);
            (!ended.status.success()).then(|| ended.transcript())
        };
        let (launched, bare) = (failed(Side::Launched), failed(Side::Bare));
        self.worlds.agree();
        if let Some(transcript) = bare {
            panic!("{}: {transcript}", self.case);
        }
        self.outcome.wrong.extend(launched);
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.worlds.root().join(name);
        fs_err::create_dir_all(path.parent().expect("a file has a directory")).expect("a directory");
        fs_err::write(path, text).expect("a file");
    }

    fn shell(&self, line: &str) -> Finished {
        self.machine().start("/bin/sh", ["-e", "-c", line]).finish()
    }

    fn show(&mut self, line: &str) {
        let [launched, bare] = [Side::Launched, Side::Bare].map(|side| {
            let _turn = self.worlds.enter(side);
            let shown = self.shell(line);
            (shown.status.code(), shown.stdout, shown.stderr)
        });
        if launched != bare {
            self.outcome.wrong.push(format!("$ {line}\n    shows {launched:?}\n    right {bare:?}"));
        }
    }

    fn compile(&mut self, promise: Promise, words: &[String]) {
        let second = self.compiled && self.changed;
        let (hit, right) = self.compare(words, None);
        // A hit with the wrong result is none.
        let hit = hit && self.outcome.wrong.is_empty();
        if second {
            self.outcome.seconds += 1;
            self.outcome.second_hits += u64::from(hit);
        } else if self.compiled {
            self.repeated(hit);
        }
        self.expect(hit || promise != Promise::Hit, "a hit", words);
        (self.changed, self.compiled) = (false, true);
        if promise == Promise::Once || !self.outcome.wrong.is_empty() {
            return;
        }
        let (hit, _) = self.compare(words, Some(right));
        let hit = hit && self.outcome.wrong.is_empty();
        self.repeated(hit);
        self.expect(hit || promise == Promise::Right, "a hit when repeated", words);
    }

    fn repeated(&mut self, hit: bool) {
        self.outcome.repeats += 1;
        self.outcome.repeat_hits += u64::from(hit);
    }

    fn expect(&mut self, kept: bool, what: &str, words: &[String]) {
        if !kept {
            self.outcome.missed.push(format!("{}: not {what}: {}", self.case, words.join(" ")));
        }
    }

    /// Runs the command in both worlds and compares; says whether it was a hit, and what was right. The compiler goes
    /// first, and once more where the two differ: the second may have changed in between, and a launcher that hands a
    /// command over does not embed sources. What was right a moment ago need not be found out again.
    fn compare(&mut self, words: &[String], known: Option<Traits>) -> (bool, Traits) {
        let during = self.during.take();
        let embedded = self.with_sources_embedded(words);
        let right = known.unwrap_or_else(|| self.bare(&embedded, during.as_ref()));
        let seen = self.launched(words, during.as_ref());
        let hits = self.seat.hits();
        let hit = std::mem::replace(&mut self.hits, hits) < hits;
        let mut difference = seen.difference(&right);
        if !difference.is_empty() && during.is_none() && self.is_right_after_all(&seen, words, &embedded) {
            difference.clear();
        }
        self.worlds.agree();
        if !difference.is_empty() {
            let how = if hit { "after a hit" } else { "without a hit" };
            let difference = difference.join("\n    ");
            self.outcome.wrong.push(format!("$ {} ({how})\n    {difference}", words.join(" ")));
        }
        (hit, seen)
    }

    fn is_right_after_all(&self, seen: &Traits, words: &[String], embedded: &[String]) -> bool {
        let again = self.bare(embedded, None);
        *seen == again
            || (embedded != words && seen.differs_only_in_bmis(&again) && *seen == self.bare(words, None))
    }

    /// The compiler's command, with what the launcher adds where a BMI is made.
    fn with_sources_embedded(&self, words: &[String]) -> Vec<String> {
        let makes_bmi = |word: &String| {
            word == "--precompile"
                || word.starts_with("-fmodule-output")
                || word.starts_with("-fmodule-header")
        };
        let _turn = self.worlds.enter(Side::Bare);
        let dir = self.worlds.root().join(&self.cwd);
        let listed = |word: &String| {
            word.strip_prefix('@').and_then(|name| fs_err::read_to_string(dir.join(name)).ok())
        };
        let makes_bmi = words
            .iter()
            .any(|word| makes_bmi(word) || listed(word).is_some_and(|text| text.contains("-fmodule-output")));
        let embed: &[&str] = if makes_bmi { &["-Xclang", "-fmodules-embed-all-files"] } else { &[] };
        words.iter().cloned().chain(embed.iter().map(|word| (*word).to_owned())).collect()
    }

    fn start(&self, machine: &Machine, mut words: Vec<OsString>) -> Process {
        if let Some(mask) = &self.umask {
            let shell = ["/bin/sh", "-c", "umask $0; exec \"$@\"", mask];
            words.splice(0..0, shell.map(OsString::from));
        }
        if self.terminal {
            let line: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
            words = ["script", "-qec", &line.join(" "), "/dev/null"].map(OsString::from).to_vec();
        }
        machine.start(&words[0], &words[1..])
    }

    fn bare(&self, words: &[String], during: Option<&(Moment, String)>) -> Traits {
        let _turn = self.worlds.enter(Side::Bare);
        if let Some((Moment::Before, line)) = during {
            self.shell(line).ok();
        }
        let words: Vec<_> = words.iter().map(|word| real_name(word).into()).collect();
        let finished = self.start(&self.machine(), words).finish();
        if let Some((Moment::After, line)) = during {
            self.shell(line).ok();
        }
        self.traits(&finished)
    }

    fn launched(&self, words: &[String], during: Option<&(Moment, String)>) -> Traits {
        let _turn = self.worlds.enter(Side::Launched);
        let words: Vec<_> = words.iter().map(|word| real_name(word)).collect();
        let words = self.seat.behind(&words);
        let machine = match during {
            Some((Moment::Before, _)) => self.machine().waiting("launch.granted", &self.announcement),
            Some((Moment::After, _)) => self.machine().waiting("launch.compiled", &self.announcement),
            None => self.machine(),
        };
        let mut process = self.start(&machine, words);
        if let Some((_, line)) = during {
            self.edit_in_the_middle(&mut process, line);
        }
        let finished = process.finish();
        let traits = self.traits(&finished);
        self.seat.settle();
        traits
    }

    /// What is compared: of the peers' files less than of ours, since sccache's server has a mask of its own for modes.
    fn traits(&self, finished: &Finished) -> Traits {
        let traits = Traits::of(finished, &self.worlds.root()).loosely(&self.loosely);
        if self.seat.contestant() == Contestant::Pcmcache { traits } else { traits.without_modes() }
    }

    fn edit_in_the_middle(&self, process: &mut Process, line: &str) {
        patience::until("the launcher to reach its step", || self.announcement.exists() || process.ended());
        assert!(self.announcement.exists(), "{}: the launcher never came to its step", self.case);
        self.shell(line).ok();
        fs_err::remove_file(&self.announcement).expect("the announcement");
    }
}

/// `clang++` stands for the compiler that the tests use.
fn real_name(word: &str) -> String {
    if word == "clang++" {
        CLANG.to_owned()
    } else if word == "clang" {
        CLANG.replace("++", "")
    } else {
        word.to_owned()
    }
}

/// Waits until the clock shows another second.
fn next_second() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |past| past.as_secs());
    let (start, limit) = (now(), Instant::now() + Duration::from_secs(3));
    while now() == start && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(20));
    }
}
