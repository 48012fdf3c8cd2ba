//! A build directory of CMake: does what it runs go through this launcher?

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::Finding;
use super::compilers::hidden_launcher;
use crate::os;

const WHAT: &str = "CMake build";
const MODULE: &str =
    "configure again with -DCMAKE_PROJECT_TOP_LEVEL_INCLUDES=/path/to/deploy/cmake/pcmcache.cmake";

/// What the generated files say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Build {
    /// What stands before compiles, each once.
    launchers: Vec<String>,
    /// Whether some compile has nothing before it.
    bare: bool,
    /// Whether modules are scanned for, and whether all scans go through a launcher.
    scans: bool,
    bare_scans: bool,
    precompiled_headers: bool,
}

pub(super) fn examine(dir: &Path) -> Vec<Finding> {
    let Ok(cache) = fs_err::read_to_string(dir.join("CMakeCache.txt")) else { return Vec::new() };
    let build = Build::read(dir, &cache);
    let mut findings = launchers(&build);
    if build.scans && build.bare_scans {
        findings.push(Finding::care(WHAT, "scans for modules do not go through pcmcache", MODULE));
    }
    if build.precompiled_headers {
        findings.push(Finding::care(
            WHAT,
            "precompiled headers are used: what makes or uses one is not cached",
            "configure again with -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON",
        ));
    }
    for language in ["C", "CXX"] {
        let compiler = value(&cache, &format!("CMAKE_{language}_COMPILER")).map(PathBuf::from);
        if let Some((compiler, other)) = compiler.and_then(|path| Some((hidden_launcher(&path)?, path))) {
            findings.push(Finding::care(
                WHAT,
                format!("CMAKE_{language}_COMPILER is {}, which is {compiler}", other.display()),
                "set it to the compiler itself, in a new build directory",
            ));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(WHAT, format!("what {} runs goes through this launcher", dir.display())));
    }
    findings
}

fn launchers(build: &Build) -> Vec<Finding> {
    let mut findings = Vec::new();
    if build.bare {
        findings.push(Finding::care(WHAT, "compiles do not go through pcmcache: no launcher is set", MODULE));
    }
    let own = fs_err::canonicalize(os::own_program()).ok();
    for launcher in &build.launchers {
        let path = Path::new(launcher.split(' ').next().unwrap_or_default());
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with("pcmcache") {
            let found = format!("the launcher is {launcher}, and not pcmcache");
            findings.push(Finding::care(WHAT, found, "set CMAKE_CXX_COMPILER_LAUNCHER to pcmcache alone"));
        } else if path.is_absolute() && !path.exists() {
            findings.push(Finding::care(WHAT, format!("the launcher {launcher} is not there"), MODULE));
        } else if path.is_absolute() && fs_err::canonicalize(path).ok() != own {
            let found = format!("the launcher {launcher} is another program than this pcmcache");
            findings.push(Finding::care(
                WHAT,
                found,
                "ask that one ('doctor', 'stats'), or configure again with this one",
            ));
        }
    }
    findings
}

impl Build {
    /// Reads what Ninja will run; for other generators, what CMake's cache says.
    fn read(dir: &Path, cache: &str) -> Self {
        let mut build = Self::default();
        let (ninja, rules) = (dir.join("build.ninja"), dir.join("CMakeFiles/rules.ninja"));
        if !ninja.exists() {
            build
                .launchers
                .extend(value(cache, "CMAKE_CXX_COMPILER_LAUNCHER").filter(|text| !text.is_empty()));
            build.bare = build.launchers.is_empty();
            return build;
        }
        each_line(&rules, |line| build.take_rule(line));
        let (mut compiles, mut launched) = (0, 0);
        each_line(&ninja, |line| {
            if line.starts_with("build ")
                && (line.contains(": CXX_COMPILER__") || line.contains(": C_COMPILER__"))
            {
                compiles += 1;
                build.precompiled_headers |= line.contains("cmake_pch");
            } else if let Some(launcher) = line.strip_prefix("  LAUNCHER = ") {
                launched += 1;
                let launcher = launcher.trim().replace(';', " ");
                if !build.launchers.contains(&launcher) {
                    build.launchers.push(launcher);
                }
            }
        });
        build.bare = launched < compiles;
        build
    }

    fn take_rule(&mut self, line: &str) {
        let Some(command) = line.strip_prefix("  command = ").filter(|line| line.contains("clang-scan-deps"))
        else {
            return;
        };
        let first = command.split(' ').next().unwrap_or_default().trim_matches('"');
        let name = Path::new(first).file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.scans = true;
        self.bare_scans |= !name.starts_with("pcmcache");
    }
}

/// A variable of CMake's cache.
fn value(cache: &str, name: &str) -> Option<String> {
    cache.lines().find_map(|line| {
        let (variable, value) = line.split_once('=')?;
        (variable.split(':').next() == Some(name)).then(|| value.to_owned())
    })
}

/// What cannot be read has no lines.
fn each_line(path: &Path, mut see: impl FnMut(&str)) {
    let Ok(file) = fs_err::File::open(path) else { return };
    for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
        see(&String::from_utf8_lossy(&line));
    }
}
