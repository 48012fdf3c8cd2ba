//! The bug report replayed: several builders on one host share the path of a BMI, each starts cold, one dies, and
//! somebody imports what is there all the while.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pcmcache_tests::scratch::names_in;
use pcmcache_tests::{Chance, Machine, Process, Scratch, Unit, Weight, turn, until, within};

/// What the builders are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Builders {
    Launchers,
    BareCompilers,
}

/// A shared BMI, and what went wrong with it.
struct Replay {
    scratch: Scratch,
    builders: Builders,
    chance: Chance,
    /// How long the last round's builders took: kills are spread over it.
    round_time: Duration,
    reads: usize,
    failures: Vec<String>,
}

const BUILDERS: usize = 3;
const FILLING: usize = 3_000_000;

#[test]
fn nobody_reads_half_a_module_however_many_build_it() {
    let _turn = turn::alone();
    let mut replay = Replay::new("shared-path", Builders::Launchers);
    for round in 0..50 {
        let machine = replay.round(round);
        replay.next_launcher_leaves_nothing_beside(&machine, round);
        let stats = machine.stats();
        assert!(stats.compiles <= 2, "one builder was killed, yet {} compiled: {stats:?}", stats.compiles);
        assert_eq!(stats.bypassed.len(), 0, "{stats:?}");
        fs_err::remove_dir_all(machine.cache()).expect("the round's cache");
    }
    println!("{} reads", replay.reads);
    assert!(replay.reads > 50, "the reader hardly read: {}", replay.reads);
    assert!(replay.failures.is_empty(), "{}", replay.failures.join("\n"));
}

/// Where the replay leaves it to chance what is read when.
#[test]
fn what_is_in_place_stays_until_what_replaces_it_is_whole() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("whole");
    let (unit, machine) =
        (Unit::write(&scratch, "unit", 7, Weight::Light), Machine::new(&scratch, "machine"));
    machine.compile(unit.arguments()).ok();
    let before = unit.outputs(machine.build());
    unit.add("export int one_more() { return 1; }");
    let at = scratch.path().join("at");
    let launch = machine.clone().waiting("launch.compiled", &at).launch(unit.arguments());
    until("a compile", || at.exists());
    assert_eq!(unit.outputs(machine.build()), before);
    fs_err::remove_file(&at).expect("the announcement");
    launch.finish().ok();
    let after = unit.outputs(machine.build());
    assert_eq!(after, unit.right_outputs(&scratch));
    assert_ne!(after, before);
}

/// The test's own test: without the launcher the same replay shows the bug that was reported.
#[test]
fn bare_compilers_do_let_somebody_read_half_a_module() {
    let _turn = turn::alone();
    let mut replay = Replay::new("shared-path-bare", Builders::BareCompilers);
    for round in 0..50 {
        replay.round(round);
        if let Some(failure) = replay.failures.first() {
            println!("round {round}: {failure}");
            return;
        }
    }
    panic!("50 rounds and {} reads without a failure: this test could not see the bug", replay.reads);
}

impl Replay {
    fn new(name: &str, builders: Builders) -> Self {
        Self {
            scratch: Scratch::new(name),
            builders,
            chance: Chance::new(name),
            round_time: Duration::from_secs(1),
            reads: 0,
            failures: Vec::new(),
        }
    }

    fn shared_bmi(&self) -> PathBuf {
        self.scratch.dir("shared").join("big.pcm")
    }

    /// The round's unit: most have much to write, some much to think.
    fn unit(&self, round: u32) -> Unit {
        let weight = if round % 10 == 9 { Weight::Headers } else { Weight::Filling(FILLING) };
        Unit::write(&self.scratch, "big", round, weight)
    }

    /// Three builders of one unit that nobody has built; one is killed; the others must end well.
    fn round(&mut self, round: u32) -> Machine {
        let unit = self.unit(round);
        let bmi = self.shared_bmi();
        if round.is_multiple_of(2) {
            let _ = fs_err::remove_file(&bmi);
        }
        let machine = Machine::new(&self.scratch, &format!("round-{round}"));
        let reader = self.reader(round);

        let mut builders: Vec<_> = (0..BUILDERS).map(|_| self.start(&machine, &unit, &bmi)).collect();
        let victim = self.chance.below(BUILDERS as u64) as usize;
        let moment = self.chance.moment(self.round_time);
        while builders.iter_mut().any(|builder| !builder.ended()) {
            if builders[victim].age() >= moment {
                builders[victim].kill();
            }
            self.read(&reader, &bmi, round);
        }
        self.round_time = builders[victim].age();
        for (index, builder) in builders.into_iter().enumerate() {
            let end = builder.finish();
            if index != victim && !end.status.success() {
                self.failures.push(format!("round {round}: builder {}", end.transcript()));
            }
        }
        self.read(&reader, &bmi, round);
        machine
    }

    fn start(&self, machine: &Machine, unit: &Unit, bmi: &Path) -> Process {
        match self.builders {
            Builders::Launchers => machine.launch(unit.precompile_arguments(bmi)),
            Builders::BareCompilers => machine.start("clang++-22", unit.precompile_arguments(bmi)),
        }
    }

    /// A machine without a cache, with a source that looks into the module's last corner.
    fn reader(&self, round: u32) -> Machine {
        let reader = Machine::new(&self.scratch, "reader");
        let last_round = round.saturating_sub(1);
        let text = format!(
            "import big;\nstatic_assert(big_number == {round} || big_number == {last_round});\n\
             int main() {{ return big_value(); }}\n"
        );
        fs_err::write(reader.build().join("use.cpp"), text).expect("the reader's source");
        reader
    }

    /// Imports what is there, if anything is.
    fn read(&mut self, reader: &Machine, bmi: &Path, round: u32) {
        if !bmi.exists() {
            std::thread::sleep(Duration::from_millis(1));
            return;
        }
        let import = format!("-fmodule-file=big={}", bmi.display());
        let end = reader.bare(["-std=c++23", "-c", &import, "use.cpp", "-o", "use.o"]);
        self.reads += 1;
        if !end.status.success() {
            self.failures.push(format!("round {round}: reader {}", end.transcript()));
        }
    }

    /// Once the killed builder's processes are gone, the next launcher leaves the BMI and nothing else.
    fn next_launcher_leaves_nothing_beside(&self, machine: &Machine, round: u32) {
        within(Duration::from_secs(2), "the end of all that the killed builder had started", || {
            machine.alive().is_empty().then_some(())
        });
        machine.compile(self.unit(round).precompile_arguments(&self.shared_bmi())).ok();
        assert_eq!(names_in(&self.scratch.dir("shared")), ["big.pcm"], "round {round}");
    }
}
