//! `tests/bench/hits`: what a hit, a bypassed command and a cold build cost, beside the peers and the bare compiler.
//!
//! Whole processes by the wall clock, from spawn to wait. Contenders take turns within each round, so that what else the
//! machine does falls on all of them. A time counts as a hit only where the contender's own statistics say that every
//! timed command was one; else the cell says what it was.

mod contender;
mod sample;

use std::path::{Path, PathBuf};
use std::time::Duration;

use pcmcache_tests::{Machine, Process, Scratch, atlas, tool};
use serde_json::{Map, Value, json};

use contender::Contender;
use sample::Sample;

const STD: &str = "/usr/lib/llvm-22/share/libc++/v1/std.cppm";
/// How often something slow is timed.
const FEW: usize = 3;
/// Longer than any cold build of the project takes.
const COLD: Duration = Duration::from_secs(600);

/// A command that is timed, and what it makes.
struct Case {
    name: &'static str,
    what: &'static str,
    arguments: Vec<String>,
    outputs: &'static [&'static str],
}

/// What a contender came to on a case.
struct Cell {
    sample: Sample,
    /// Whether every timed command was answered from the cache.
    hit: bool,
}

struct Options {
    rounds: usize,
    cold: usize,
    json: Option<PathBuf>,
}

fn main() {
    let options = Options::parse();
    let scratch = Scratch::new("bench");
    let launcher = std::env::var_os("PCMCACHE_BENCH_LAUNCHER").map(PathBuf::from);
    let launcher = launcher.expect("PCMCACHE_BENCH_LAUNCHER: run this by tests/bench/hits");
    let contenders: Vec<Contender> = [
        Some(Contender::pcmcache(&launcher, scratch.path())),
        Contender::ccache(scratch.path()),
        Contender::sccache(scratch.path()),
        Some(Contender::bare(scratch.path())),
    ]
    .into_iter()
    .flatten()
    .collect();
    for contender in &contenders {
        println!("{:<9} {}", contender.name, contender.version);
    }

    let mut report = Map::new();
    let titles: String = contenders.iter().map(|contender| format!(" {:>26}", contender.name)).collect();
    println!(
        "\nms: median [10 %-90 %] of {} runs\n{:<9}{titles}   pcmcache is, of each other",
        options.rounds, "hit of"
    );
    for case in cases(&scratch) {
        let cells = measure(&case, &contenders, &scratch, options.rounds);
        print_row(case.name, &contenders, &cells);
        report.insert(case.name.to_owned(), row_json(&case, &contenders, &cells));
    }
    report.insert("pass_through".to_owned(), pass_through(&contenders, &scratch, options.rounds));
    if options.cold > 0 {
        report.insert("cold_build".to_owned(), cold_build(&launcher, &scratch, options.cold));
    }
    if let Some(path) = options.json {
        let versions: Map<_, _> = contenders.iter().map(|c| (c.name.to_owned(), json!(c.version))).collect();
        report.insert("versions".to_owned(), versions.into());
        let text = serde_json::to_string_pretty(&report).expect("JSON of numbers");
        fs_err::write(&path, text + "\n").expect("the JSON file");
        println!("\n{}", path.display());
    }
}

impl Options {
    fn parse() -> Self {
        let mut options = Self { rounds: 40, cold: 2, json: None };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let value = words.next().unwrap_or_else(|| panic!("{word} needs a value"));
            let number = || value.parse().unwrap_or_else(|_| panic!("{word} takes a number, not {value}"));
            match word.as_str() {
                "--rounds" => options.rounds = number(),
                "--cold" => options.cold = number(),
                "--json" => options.json = Some(value.into()),
                _ => panic!("what is {word}?"),
            }
        }
        options
    }
}

fn cases(scratch: &Scratch) -> Vec<Case> {
    scratch.file("src/scale.h", "#pragma once\ninline int scale(int x) { return x * 3; }\n");
    let small =
        scratch.file("src/small.cpp", "#include \"scale.h\"\nint small(int x) { return scale(x) + 1; }\n");
    let text = "#include \"scale.h\"\n#include <string>\n#include <vector>\n\
                std::vector<std::string> usual(int x) { return {std::to_string(scale(x))}; }\n";
    let usual = scratch.file("src/usual.cpp", text);
    let compile = |source: &Path, output: &str| {
        let source = source.to_string_lossy().into_owned();
        ["-std=c++23", "-O2", "-c", &source, "-o", output].map(str::to_owned).to_vec()
    };
    let module = |more: &[&str]| {
        let flags = ["-std=c++23", "-stdlib=libc++", "-Wno-reserved-module-identifier"];
        flags.iter().chain(more).map(|word| (*word).to_owned()).collect()
    };
    vec![
        Case {
            name: "small",
            what: "an object of a unit that includes one header of its own",
            arguments: compile(&small, "small.o"),
            outputs: &["small.o"],
        },
        Case {
            name: "usual",
            what: "an object of a unit that includes <string> and <vector> as well",
            arguments: compile(&usual, "usual.o"),
            outputs: &["usual.o"],
        },
        Case {
            name: "std.pcm",
            what: "the module std, 35 MB, by --precompile",
            arguments: module(&["--precompile", STD, "-o", "std.pcm"]),
            outputs: &["std.pcm"],
        },
        Case {
            name: "std.pcm+o",
            what: "the module std, 35 MB, and its object, by -fmodule-output",
            arguments: module(&["-c", STD, "-o", "std.o", "-fmodule-output=std.pcm"]),
            outputs: &["std.o", "std.pcm"],
        },
    ]
}

/// Times the case: what fills the caches first, then the rounds.
fn measure(case: &Case, contenders: &[Contender], scratch: &Scratch, rounds: usize) -> Vec<Option<Cell>> {
    let run = |contender: &Contender| {
        let directory = scratch.dir(&format!("{}-{}", contender.name, case.name));
        case.outputs.iter().for_each(|output| drop(fs_err::remove_file(directory.join(output))));
        contender.time(&directory, &case.arguments)
    };
    // Sources must be older than the clock's tick.
    std::thread::sleep(Duration::from_millis(20));
    let warm: Vec<_> =
        contenders.iter().map(|contender| contender.is_bare() || warm_up(contender, run)).collect();
    let before: Vec<_> = contenders.iter().map(Contender::hits).collect();
    let mut times: Vec<Vec<Duration>> = contenders.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for turn in 0..contenders.len() {
            let index = (round + turn) % contenders.len();
            // What takes seconds tells as much in a few runs.
            if warm[index] && (round < FEW || is_quick(&times[index])) {
                times[index].extend(run(&contenders[index]));
            }
        }
    }
    let cell = |((contender, times), before): ((&Contender, Vec<Duration>), Option<u64>)| {
        let hits = contender.hits().zip(before).map(|(after, before)| after.saturating_sub(before));
        let hit = hits.is_some_and(|hits| hits >= times.len() as u64);
        (!times.is_empty()).then(|| Cell { sample: Sample::of(times), hit })
    };
    contenders.iter().zip(times).zip(before).map(cell).collect()
}

/// Fills the contender's cache, and tells whether it hits then.
fn warm_up(contender: &Contender, run: impl Fn(&Contender) -> Option<Duration>) -> bool {
    let _ = run(contender);
    let before = contender.hits();
    // Some learn in the second run what the third looks up.
    (0..2).any(|_| run(contender).is_some() && contender.hits() > before)
}

/// Whether what was timed so far is worth many rounds.
fn is_quick(times: &[Duration]) -> bool {
    times.last().is_none_or(|time| *time < Duration::from_secs(1))
}

fn print_row(name: &str, contenders: &[Contender], cells: &[Option<Cell>]) {
    let text = |(contender, cell): (&Contender, &Option<Cell>)| match cell {
        None => "n/a: it does not hit".to_owned(),
        Some(cell) if contender.is_bare() || cell.hit => cell.sample.text(),
        Some(cell) => format!("n/a: not all hit ({:.0})", cell.sample.median()),
    };
    let columns: String = contenders.iter().zip(cells).map(|pair| format!(" {:>26}", text(pair))).collect();
    let ratios: String =
        ratios(contenders, cells).iter().map(|(name, ratio)| format!(" {ratio:.3} {name}")).collect();
    println!("{name:<9}{columns}  {ratios}");
}

/// The first contender's median as a share of each other's, where both hit.
fn ratios(contenders: &[Contender], cells: &[Option<Cell>]) -> Vec<(&'static str, f64)> {
    let Some(Some(ours)) = cells.first().filter(|cell| cell.as_ref().is_some_and(|cell| cell.hit)) else {
        return Vec::new();
    };
    let ratio = |(contender, cell): (&Contender, &Option<Cell>)| {
        let cell = cell.as_ref().filter(|cell| cell.hit || contender.is_bare())?;
        Some((contender.name, ours.sample.median() / cell.sample.median()))
    };
    contenders.iter().zip(cells).skip(1).filter_map(ratio).collect()
}

fn row_json(case: &Case, contenders: &[Contender], cells: &[Option<Cell>]) -> Value {
    let mut row = Map::from_iter([("what".to_owned(), json!(case.what))]);
    for (contender, cell) in contenders.iter().zip(cells) {
        let value = cell.as_ref().map(|cell| {
            let mut value = cell.sample.json();
            value["hit"] = json!(cell.hit);
            value
        });
        row.insert(contender.name.to_owned(), value.into());
    }
    let ratios = ratios(contenders, cells).into_iter().map(|(name, ratio)| (name.to_owned(), json!(ratio)));
    row.insert("ratio_to".to_owned(), Map::from_iter(ratios).into());
    row.into()
}

/// A command that the launcher hands on, against the same without it.
fn pass_through(contenders: &[Contender], scratch: &Scratch, rounds: usize) -> Value {
    let source = scratch.path().join("src/small.cpp").to_string_lossy().into_owned();
    let arguments = ["-std=c++23", "-E", &source, "-o", "small.ii"].map(str::to_owned).to_vec();
    let what = "a command that is not cached: preprocessing";
    let case = Case { name: "passed", what, arguments, outputs: &[] };
    let both: Vec<_> = contenders.iter().filter(|c| matches!(c.name, "pcmcache" | "bare")).collect();
    let mut times = [Vec::new(), Vec::new()];
    let directory = scratch.dir("passed");
    for round in 0..rounds + 2 {
        for turn in 0..both.len() {
            let index = (round + turn) % both.len();
            let took = both[index].time(&directory, &case.arguments);
            if round >= 2 {
                times[index].extend(took);
            }
        }
    }
    let [ours, bare] = times.map(Sample::of);
    let cost = ours.median() - bare.median();
    println!("\npass-through: {cost:.2} ms; {} with the launcher, {} without", ours.text(), bare.text());
    json!({ "what": case.what, "pcmcache": ours.json(), "bare": bare.json(), "cost_ms": cost })
}

/// The project built from nothing, with and without the launcher, in turns.
fn cold_build(launcher: &Path, scratch: &Scratch, rounds: usize) -> Value {
    let with = Machine::new(scratch, "cold-with").with_launcher(launcher.to_owned());
    let without = Machine::new(scratch, "cold-without");
    atlas::configure(&with).ok();
    atlas::configure_bare(&without, &atlas::source()).ok();
    let build = |machine: &Machine| {
        machine.start(tool::ninja(), ["-t", "clean"]).finish().ok();
        let _ = fs_err::remove_dir_all(machine.cache());
        let build: Process = atlas::build(machine);
        build.finish_within(COLD).ok().took
    };
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        for turn in 0..2 {
            let index = (round + turn) % 2;
            times[index].push(build([&with, &without][index]));
        }
    }
    let [ours, bare] = times.map(Sample::of);
    let ratio = ours.median() / bare.median();
    println!(
        "cold build:   {ratio:.3} of a bare one; {} ms with the launcher, {} without",
        ours.text(),
        bare.text()
    );
    json!({ "pcmcache": ours.json(), "bare": bare.json(), "ratio": ratio })
}
