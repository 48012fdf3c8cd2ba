//! `tests/bench/server`: what the server serves and takes, beside nginx and what the disk allows.
//!
//! Both servers are processes of their own, asked over the loopback interface by one client process that does little but
//! read. They take turns within each round, so that what else the machine does falls on both. Processor time is what the
//! kernel says that all threads of a server took.

mod blobs;
mod figures;
mod millions;
mod publishes;
mod stand;
mod waits;
mod wire;

use std::path::PathBuf;

use figures::Report;
use pcmcache_tests::{Scratch, tool};
use serde_json::json;
use stand::Cached;

struct Options {
    rounds: usize,
    count: u64,
    only: Option<String>,
    json: Option<PathBuf>,
}

fn main() {
    let options = Options::parse();
    let scratch = Scratch::new("bench-server");
    let is_wanted = |part: &str| options.only.as_ref().is_none_or(|only| only == part);
    let versions = [stand::version(&stand::program(), "--version"), stand::version(&tool::nginx(), "-v")];
    versions.iter().for_each(|version| println!("{version}"));
    let load = fs_err::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load before: {}\n", load.trim());

    let mut report = Report::default();
    if is_wanted("blobs") {
        blobs::measure(&scratch, options.rounds, &mut report);
    }
    if is_wanted("publishes") {
        publishes::measure(&Cached::start(&scratch, "publishes"), &scratch, options.rounds, &mut report);
    }
    if is_wanted("waits") {
        waits::measure(&Cached::start(&scratch, "waits"), options.rounds, &mut report);
    }
    // It takes long, and gigabytes.
    if options.only.as_deref() == Some("millions") {
        millions::measure(&scratch, options.count, options.rounds, &mut report);
    }
    if let Some(path) = options.json {
        let text = json!({ "versions": versions, "load": load.trim(), "rows": report.json() });
        let text = serde_json::to_string_pretty(&text).expect("JSON of numbers");
        fs_err::write(&path, text + "\n").expect("the JSON file");
        println!("\n{}", path.display());
    }
}

impl Options {
    fn parse() -> Self {
        let mut options = Self { rounds: 5, count: 10_000_000, only: None, json: None };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let value = words.next().unwrap_or_else(|| panic!("{word} needs a value"));
            match word.as_str() {
                "--rounds" => options.rounds = value.parse().expect("--rounds takes a number"),
                "--count" => options.count = value.parse().expect("--count takes a number"),
                "--only" => options.only = Some(value),
                "--json" => options.json = Some(value.into()),
                _ => panic!("what is {word}?"),
            }
        }
        options
    }
}
