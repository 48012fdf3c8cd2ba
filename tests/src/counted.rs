//! A compiler that writes down when it begins: how often something was really compiled is not for the launcher to say.

use std::path::PathBuf;
use std::process::Command;

use crate::tool::{self, CLANG};
use crate::{Machine, Process, Scratch};

/// The variable by which a launch is known to the compiler that it starts.
const LAUNCH: &str = "PCMCACHE_TEST_LAUNCH";

/// Takes its time, so that there is a while in which it can be killed, and becomes the real compiler.
const COMPILER: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
int main(int count, char **words) {
  int compiles = 0;
  const char *object = 0;
  for (int i = 1; i < count; ++i) {
    if (!strcmp(words[i - 1], "-o")) object = words[i];
    if (!strcmp(words[i], "-###")) { compiles = 0; break; }
    compiles |= !strcmp(words[i], "-c");
  }
  if (compiles) {
    char line[64];
    const char *launch = getenv("PCMCACHE_TEST_LAUNCH");
    int length = snprintf(line, sizeof line, "%s %d\n", launch ? launch : "?", (int)getpid());
    int log = open(LOG, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (log < 0 || write(log, line, length) != length) return 99;
    struct timespec rest = {0, 300 * 1000 * 1000};
    nanosleep(&rest, 0);
  }
  words[0] = REAL;
  if (UNSTEADY && compiles && fork()) {
    int status = 0;
    if (wait(&status) < 0 || status) return 97;
    FILE *file = fopen(object, "a");
    return !file || fprintf(file, "made by %d", (int)getpid()) < 0 || fclose(file) ? 96 : 0;
  }
  execv(REAL, words);
  return 98;
}
"#;

/// The compiler.
#[derive(Debug)]
pub struct Counted {
    program: PathBuf,
    log: PathBuf,
}

/// A compile that began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// Whose.
    pub launch: usize,
    /// The compiler's process.
    pub compiler: i32,
}

impl Counted {
    /// Builds it.
    pub fn build(scratch: &Scratch) -> Self {
        Self::with(scratch, false)
    }

    /// Builds one whose object is another one each time: nobody minds what stands behind its end.
    pub fn unsteady(scratch: &Scratch) -> Self {
        Self::with(scratch, true)
    }

    fn with(scratch: &Scratch, unsteady: bool) -> Self {
        let (text, program) =
            (scratch.file("counted/clang.c", COMPILER), scratch.dir("counted").join("clang++"));
        let (log, real) = (scratch.path().join("counted/log"), tool::installed("PCMCACHE_TEST_CLANG", CLANG));
        let mut build = Command::new(CLANG.replace("++", ""));
        build.arg(format!("-DREAL=\"{}\"", real.display())).arg(format!("-DLOG=\"{}\"", log.display()));
        build.arg(format!("-DUNSTEADY={}", u8::from(unsteady)));
        build.args(["-O1", "-o"]).arg(&program).arg(text);
        Process::start(build).finish().ok();
        Self { program, log }
    }

    /// Starts the launcher on this machine with this compiler.
    pub fn launch(&self, machine: &Machine, launch: usize, arguments: Vec<String>) -> Process {
        let mut command = machine.command(machine.launcher());
        command.env(LAUNCH, launch.to_string()).arg(&self.program).args(arguments);
        Process::start(command)
    }

    /// All compiles that began so far.
    pub fn begun(&self) -> Vec<Begun> {
        let text = fs_err::read_to_string(&self.log).unwrap_or_default();
        let begun = |line: &str| {
            let (launch, compiler) = line.split_once(' ')?;
            Some(Begun { launch: launch.parse().ok()?, compiler: compiler.parse().ok()? })
        };
        text.lines().map(|line| begun(line).unwrap_or_else(|| panic!("a line {line:?}"))).collect()
    }

    /// Whether the compile's process still runs, and is the compiler.
    pub fn runs(&self, begun: Begun) -> bool {
        let environ = fs_err::read(format!("/proc/{}/environ", begun.compiler)).unwrap_or_default();
        let mark = format!("{LAUNCH}={}", begun.launch);
        environ.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    }
}
