//! `tests/bench/fleet`: a fleet that builds one graph from nothing, beside one machine that does.
//!
//! Each machine has one core's worth of compilers: `PCMCACHE_JOBS=1`. Times are of whole builds by the wall clock.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pcmcache_tests::sleepers::Sleepers;
use pcmcache_tests::{Machine, Process, Scratch, Server, Stats, atlas};
use serde_json::{Value, json};

/// Longer than any of these builds takes.
const LONG: Duration = Duration::from_secs(1800);

fn main() {
    let mut words = std::env::args().skip(1);
    let (mut machines, mut launchers, mut scale, mut real) = (4, 8, 2.0, false);
    let mut json = None;
    while let Some(word) = words.next() {
        if word == "--json" {
            json = words.next();
            continue;
        }
        let mut number = || words.next().and_then(|word| word.parse::<f64>().ok()).expect("a number");
        match word.as_str() {
            "--machines" => machines = number() as usize,
            "--launchers" => launchers = number() as usize,
            "--scale" => scale = number(),
            "--real" => real = true,
            other => panic!("{other}: see the first lines of tests/bench/fleet"),
        }
    }
    let scratch = Scratch::new("bench-fleet");
    if real {
        return write(json, &compiling(&scratch, machines, launchers));
    }
    let project = Sleepers::write(&scratch, usize::MAX, scale);
    let (sum, critical) = (project.sum().as_secs_f64(), project.critical().as_secs_f64());
    println!("{} modules, {sum:.1} s of compiling, {critical:.1} s along the longest chain", project.count());
    let alone = [machine(&scratch, "alone")];
    let one = time(&alone, |machine| project.start(machine, launchers));
    println!("one machine:   {one:6.1} s, {} compiles", compiles(&alone));
    let server = Server::start(&scratch);
    let fleet: Vec<_> =
        (0..machines).map(|index| machine(&scratch, &format!("m{index}")).remote(&server.url())).collect();
    let all = time(&fleet, |machine| project.start(machine, launchers));
    fleet.iter().for_each(|machine| project.check(machine));
    write(json, &report(machines, all, one, &fleet, &server));
}

/// The numbers, for programs.
fn write(json: Option<String>, report: &Value) {
    if let Some(path) = json {
        fs_err::write(path, report.to_string() + "\n").expect("the JSON file");
    }
}

/// The same with a real project and real compilers: on a machine with fewer cores than the fleet has machines it shows that
/// the work is shared, not how fast.
fn compiling(scratch: &Scratch, machines: usize, launchers: usize) -> Value {
    let machine = |name: &str| {
        let machine = machine(scratch, name);
        atlas::configure(&machine);
        machine
    };
    let launchers = launchers.to_string();
    let build = |machine: &Machine| machine.start(machine.ninja(), ["-j", &launchers]);
    let alone = [machine("alone")];
    let one = time(&alone, build);
    println!("one machine:   {one:6.1} s, {} compiles", compiles(&alone));
    let server = Server::start(scratch);
    let fleet: Vec<_> = (0..machines).map(|i| machine(&format!("m{i}")).remote(&server.url())).collect();
    let all = time(&fleet, build);
    fleet.iter().for_each(atlas::check);
    report(machines, all, one, &fleet, &server)
}

fn report(machines: usize, all: f64, one: f64, fleet: &[Machine], server: &Server) -> Value {
    let took: Vec<_> = fleet.iter().map(|machine| machine.stats().compiles).collect();
    println!(
        "{machines} machines:    {all:6.1} s, {} compiles of {} results",
        compiles(fleet),
        server.results()
    );
    println!("each compiled: {took:?}; leases given back: {}", server.metric("pcmcache_released_total"));
    println!("ratio:         {:6.3}", all / one);
    json!({
        "machines": machines, "one_s": one, "all_s": all, "ratio": all / one,
        "compiles": took, "results": server.results(),
    })
}

fn machine(scratch: &Scratch, name: &str) -> Machine {
    // One machine stands for many: that it is slow to answer means nothing here.
    let machine = Machine::new(scratch, name).with("PCMCACHE_JOBS", "1").with("PCMCACHE_TIMEOUT", "20");
    match std::env::var_os("PCMCACHE_BENCH_LAUNCHER").map(PathBuf::from) {
        Some(launcher) => machine.with_launcher(launcher),
        None => machine,
    }
}

/// How long all of them take together, in seconds.
fn time(machines: &[Machine], build: impl Fn(&Machine) -> Process) -> f64 {
    let start = Instant::now();
    let builds: Vec<_> = machines.iter().map(build).collect();
    builds.into_iter().for_each(|build| drop(build.finish_within(LONG).ok()));
    start.elapsed().as_secs_f64()
}

fn compiles(machines: &[Machine]) -> u64 {
    let of = |stats: Stats| {
        if !stats.bypassed.is_empty() || !stats.errors.is_empty() {
            println!("not as it should be: {:?} {:?}", stats.bypassed, stats.errors);
        }
        stats.compiles
    };
    machines.iter().map(|machine| of(machine.stats())).sum()
}
