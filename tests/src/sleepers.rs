//! A project of some two hundred modules whose compiler sleeps for as long as a real one worked: what a fleet makes of a real
//! graph, on a machine that has no cores for a fleet. The launcher, Ninja and the server are the real ones.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::tool::{self, CLANG};
use crate::{Machine, Process, Scratch};

/// See the file's first lines.
const GRAPH: &str = include_str!("../bench/graph.txt");

/// Answers as the real compiler whatever it is asked about itself; else sleeps for what the first line of the source says,
/// and writes an object, a BMI and a depfile that depend on nothing but the source.
const COMPILER: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
static char text[256];
static void put(const char *name, const char *kind) {
  FILE *file = fopen(name, "w");
  if (!file || fprintf(file, "%s of %s", kind, text) < 0 || fclose(file)) exit(98);
}
int main(int count, char **words) {
  const char *object = 0, *bmi = 0, *listing = 0, *target = 0, *source = 0;
  for (int i = 1; i < count; ++i) {
    size_t length = strlen(words[i]);
    if (!strcmp(words[i], "-###")) { words[0] = REAL; execv(REAL, words); return 99; }
    if (!strcmp(words[i], "-o")) object = words[++i];
    else if (!strcmp(words[i], "-MF")) listing = words[++i];
    else if (!strcmp(words[i], "-MQ") || !strcmp(words[i], "-MT")) target = words[++i];
    else if (!strncmp(words[i], "-fmodule-output=", 16)) bmi = words[i] + 16;
    else if (length > 5 && !strcmp(words[i] + length - 5, ".cppm")) source = words[i];
  }
  FILE *file = source ? fopen(source, "r") : 0;
  if (!file || !object || !bmi || !listing || !fgets(text, sizeof text, file)) return 97;
  long us = strtol(text + 3, 0, 10);
  struct timespec rest = {us / 1000000, us % 1000000 * 1000};
  nanosleep(&rest, 0);
  put(object, "object");
  put(bmi, "BMI");
  FILE *rules = fopen(listing, "w");
  /* A line of Clang's depfiles has 75 columns. */
  const char *wrap = strlen(target) + strlen(source) + 4 > 75 ? " \\\n " : "";
  return !rules || fprintf(rules, "%s:%s %s\n", target, wrap, source) < 0 || fclose(rules) ? 96 : 0;
}
"#;

/// The project.
#[derive(Debug)]
pub struct Sleepers {
    source: PathBuf,
    compiler: PathBuf,
    /// Each module with its cost and what it imports.
    modules: BTreeMap<&'static str, (Duration, Vec<&'static str>)>,
}

impl Sleepers {
    /// Writes the sources of at most so many modules and builds the compiler, which sleeps for each cost times `scale`.
    pub fn write(scratch: &Scratch, most: usize, scale: f64) -> Self {
        let modules: BTreeMap<_, _> =
            GRAPH.lines().filter_map(|line| module(line, scale)).take(most).collect();
        for (name, (cost, _)) in &modules {
            let text = format!("// {} us {name}\nexport module m;\n", cost.as_micros());
            scratch.file(&format!("sleepers/{name}.cppm"), text);
        }
        let (text, compiler) = (scratch.file("bin/clang.c", COMPILER), scratch.dir("bin").join("clang++"));
        let real = tool::installed("PCMCACHE_TEST_CLANG", CLANG);
        let mut build = Command::new(CLANG.replace("++", ""));
        build.arg(format!("-DREAL=\"{}\"", real.display())).args(["-O1", "-o"]).arg(&compiler).arg(text);
        Process::start(build).finish().ok();
        Self { source: scratch.path().join("sleepers"), compiler, modules }
    }

    /// How many modules there are.
    pub fn count(&self) -> usize {
        self.modules.len()
    }

    /// What all compiles take, one after another.
    pub fn sum(&self) -> Duration {
        self.modules.values().map(|(cost, _)| *cost).sum()
    }

    /// The longest chain of modules that wait for each other: no fleet is faster.
    pub fn critical(&self) -> Duration {
        let mut ends: BTreeMap<&str, Duration> = BTreeMap::new();
        for name in GRAPH.lines().filter_map(|line| line.split(' ').next()) {
            let Some((cost, imports)) = self.modules.get(name) else { continue };
            let start = imports.iter().filter_map(|import| ends.get(import)).max().copied();
            ends.insert(name, start.unwrap_or_default() + *cost);
        }
        ends.into_values().max().unwrap_or_default()
    }

    /// Starts the build of all on this machine, with so many launchers at once.
    pub fn start(&self, machine: &Machine, launchers: usize) -> Process {
        let (launcher, compiler) = (machine.launcher().display(), self.compiler.display());
        let mut text = format!(
            "rule module\n  command = {launcher} {compiler} -std=c++23 -c $in -o $out -fmodule-output=$out.pcm $imports\n"
        );
        for (name, (_, imports)) in &self.modules {
            let source = self.source.join(name);
            let before: String = imports.iter().map(|import| format!(" {import}.o")).collect();
            let _ = writeln!(text, "build {name}.o: module {}.cppm |{before}", source.display());
            let words = imports.iter().map(|import| format!(" -fmodule-file={import}={import}.o.pcm"));
            let _ = writeln!(text, "  imports ={}", words.collect::<String>());
        }
        fs_err::write(machine.build().join("build.ninja"), text).expect("a build file");
        machine.start(tool::ninja(), ["-j", &launchers.to_string()])
    }

    /// Panics unless everything was built on this machine.
    pub fn check(&self, machine: &Machine) {
        let is_there = |name: &&str| Path::exists(&machine.build().join(format!("{name}.o.pcm")));
        assert!(self.modules.keys().all(is_there), "{}", machine.log());
    }
}

fn module(line: &'static str, scale: f64) -> Option<(&'static str, (Duration, Vec<&'static str>))> {
    let mut words = line.split(' ').filter(|_| !line.starts_with('#'));
    let (name, cost) = (words.next()?, words.next()?.parse::<u64>().ok()?);
    Some((name, (Duration::from_millis(cost).mul_f64(scale), words.collect())))
}
