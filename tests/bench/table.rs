//! `tests/bench/run`: the table of what a person waits for, beside what they would use instead.
//!
//! Every row compares within one run, whose contenders take turns, so that what else the machine does falls on all of
//! them. What another bench measures is asked of that bench: it runs as a process and says its numbers as JSON.

mod host;
mod peers;
mod project;
mod row;
mod sample;

use std::path::{Path, PathBuf};
use std::process::Command;

use pcmcache_tests::{Process, Scratch, tool};
use serde_json::{Map, Value, json};

use project::Project;
use row::{Row, Times};

struct Options {
    rounds: usize,
    only: Option<String>,
    json: PathBuf,
}

/// A row of the table by its name, and what makes it.
type Maker = fn(&Options, &Scratch) -> Vec<Row>;
const ROWS: [(&str, Maker); 9] = [
    ("warm", |options, scratch| Project::new(scratch).warm(options.rounds)),
    ("remote", |options, scratch| Project::new(scratch).remote(options.rounds)),
    ("warmed", |options, scratch| Project::new(scratch).warmed(options.rounds)),
    ("link", |options, scratch| Project::new(scratch).link(options.rounds.min(ROUNDS.1))),
    ("pair", pair),
    ("fleet", fleet),
    ("memory", memory),
    ("hits", hits),
    ("server", server),
];
/// What is timed once is no median.
const ROUNDS: (usize, usize) = (7, 3);

fn main() {
    let options = Options::parse();
    println!("{}", host::describe());
    let mut report = Map::from_iter([("host".to_owned(), host::json())]);
    let mut table = "| | median [10 %-90 %], ms unless it says otherwise | |\n|---|---|---|\n".to_owned();
    let wanted = |name: &str| options.only.as_deref().is_none_or(|only| name == only);
    assert!(ROWS.iter().any(|(name, _)| wanted(name)), "{:?}: no such row", options.only);
    for (name, make) in ROWS.iter().filter(|(name, _)| wanted(name)) {
        let scratch = Scratch::new(&format!("bench-{name}"));
        let rows = make(&options, &scratch);
        rows.iter().for_each(Row::print);
        table.extend(rows.iter().map(Row::markdown));
        report.insert((*name).to_owned(), rows.iter().map(Row::json).collect());
    }
    let text = serde_json::to_string_pretty(&report).expect("JSON of numbers");
    fs_err::write(&options.json, text + "\n").expect("the JSON file");
    let markdown = options.json.with_extension("md");
    fs_err::write(&markdown, table).expect("the table as Markdown");
    println!("\n{}\n{}", options.json.display(), markdown.display());
}

impl Options {
    fn parse() -> Self {
        let mut options = Self { rounds: ROUNDS.0, only: None, json: "bench.json".into() };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
            match word.as_str() {
                "--quick" => options.rounds = ROUNDS.1,
                "--rounds" => options.rounds = value().parse().expect("a number of rounds"),
                "--only" => options.only = Some(value()),
                "--json" => options.json = value().into(),
                _ => panic!("what is {word}? See the first lines of tests/bench/run"),
            }
        }
        options
    }
}

/// What the bench of single hits says, as rows of this table.
fn hits(options: &Options, scratch: &Scratch) -> Vec<Row> {
    let rounds = if options.rounds < ROUNDS.0 { ["10", "1"] } else { ["40", "2"] };
    let mut command = Command::new(beside("pcmcache-bench-hits"));
    command.args(["--rounds", rounds[0], "--cold", rounds[1]]);
    let said = ask(command, &scratch.path().join("hits.json"));
    let row = |(name, what): (&str, &str)| {
        let times = said.get(name)?.as_object()?;
        let others = times.iter().filter(|(who, _)| ["bare", "ccache", "sccache"].contains(&who.as_str()));
        // A time that is none of a hit is no peer of one.
        let others = others.filter(|(who, times)| *who == "bare" || times["hit"] == true);
        let others = others.filter_map(|(who, times)| Some((who.clone(), Times::parse(times)?)));
        Some(Row::new(what, Times::parse(times.get("pcmcache")?)?).against(others))
    };
    let names = [
        ("small", "hit: a unit with one header"),
        ("usual", "hit: a unit with <string> and <vector>"),
        ("std.pcm", "hit: std.pcm"),
        ("std.pcm+o", "hit: std.pcm and its object"),
        ("pass_through", "a command that is not cached"),
        ("cold_build", "cold build"),
    ];
    names.into_iter().filter_map(row).collect()
}

/// What processors do for two machines that build at once.
fn pair(options: &Options, scratch: &Scratch) -> Vec<Row> {
    let Some(time) = tool::if_installed("time") else { return vec![Row::skipped("pair", "no GNU time")] };
    Project::new(scratch).pair(&time, options.rounds.min(ROUNDS.1))
}

/// What the bench of fleets says.
fn fleet(_: &Options, scratch: &Scratch) -> Vec<Row> {
    let said = ask(Command::new(beside("pcmcache-bench-fleet")), &scratch.path().join("fleet.json"));
    let times = |name| Some(Times::exactly(said.get(name)?.as_f64()? * 1e3));
    let what =
        format!("{} machines build {} modules, compilers that sleep", said["machines"], said["results"]);
    let row = |ours| Some(Row::new(&what, ours).against([("one machine".to_owned(), times("one_s")?)]));
    times("all_s").and_then(row).into_iter().collect()
}

/// What the bench of the server says.
fn server(options: &Options, scratch: &Scratch) -> Vec<Row> {
    let mut command = Command::new(beside("pcmcache-bench-server"));
    command.args(["--rounds", &options.rounds.min(5).to_string()]);
    let said = ask(command, &scratch.path().join("server.json"));
    let rows = said["rows"].as_object().cloned().unwrap_or_default();
    let row = |(name, row): (String, Value)| {
        let figures = |who: &str| Times::of_figures(row.get(who)?);
        let what = format!("server: {name}, {}", row["unit"].as_str().unwrap_or_default());
        let peer = row.get("peer").and_then(Value::as_str).map(str::to_owned);
        Some(Row::new(&what, figures("ours")?).against(peer.zip(figures("theirs"))))
    };
    rows.into_iter().filter_map(row).collect()
}

/// The most memory that a launcher holds on a hit, by GNU time.
fn memory(_: &Options, scratch: &Scratch) -> Vec<Row> {
    let Some(time) = tool::if_installed("time") else { return vec![Row::skipped("memory", "no GNU time")] };
    Project::new(scratch).memory(&time)
}

/// Runs another bench, which writes its numbers there.
fn ask(mut command: Command, json: &Path) -> Value {
    command.arg("--json").arg(json);
    // Its table is not ours.
    Process::start(command).finish_within(project::LONG).ok();
    let text = fs_err::read_to_string(json).expect("what the other bench wrote");
    serde_json::from_str(&text).unwrap_or_else(|error| json!({ "error": error.to_string() }))
}

fn beside(name: &str) -> PathBuf {
    std::env::current_exe().expect("this program").with_file_name(name)
}
