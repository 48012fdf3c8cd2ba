//! The real project of `tests/projects/atlas`, built by CMake and Ninja as its users would.

use std::path::{Path, PathBuf};

use crate::machine::Machine;
use crate::tool::{self, CLANG};
use crate::{Finished, Process};

const PROGRAMS: [&str; 3] = ["lexicon", "raycast", "planner"];
const STDLIB: &str = "/usr/lib/llvm-22/lib/libc++.modules.json";

/// Where the project's sources are.
pub fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("projects/atlas")
}

/// Configures the project on `machine`, with the launcher before its compiler. What CMake itself compiles to get to
/// know the compiler is not of the project, and passes the cache by.
pub fn configure(machine: &Machine) -> Finished {
    let launcher = format!("-DCMAKE_CXX_COMPILER_LAUNCHER={}", machine.launcher().display());
    configure_with(machine, &source(), "Release", &[&launcher])
}

/// Configures the project on `machine`, without the launcher.
pub fn configure_bare(machine: &Machine, source: &Path) -> Finished {
    configure_with(machine, source, "Release", &[])
}

/// Where the module for CMake is.
pub fn cmake_module() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/cmake/pcmcache.cmake")
}

/// Configures the project on `machine` by the module for CMake: the launcher stands before its scans, too.
pub fn configure_by_module(machine: &Machine, source: &Path) -> Finished {
    configure_type_by_module(machine, source, "Release")
}

/// The same for another type of build.
pub fn configure_type_by_module(machine: &Machine, source: &Path, build_type: &str) -> Finished {
    let module = format!("-DCMAKE_PROJECT_TOP_LEVEL_INCLUDES={}", cmake_module().display());
    let program = format!("-DPCMCACHE_PROGRAM={}", machine.launcher().display());
    configure_with(machine, source, build_type, &[&module, &program])
}

fn configure_with(machine: &Machine, source: &Path, build_type: &str, more: &[&str]) -> Finished {
    let mut command = machine.command(tool::cmake());
    command.env("PCMCACHE_MODE", "off").arg("-S").arg(source).args(["-B", ".", "-G", "Ninja"]);
    command.arg(format!("-DCMAKE_BUILD_TYPE={build_type}")).arg("-DCMAKE_CXX_FLAGS=-stdlib=libc++");
    command.arg(format!("-DCMAKE_CXX_COMPILER={CLANG}"));
    command.arg(format!("-DCMAKE_CXX_STDLIB_MODULES_JSON={STDLIB}"));
    command.arg(format!("-DCMAKE_MAKE_PROGRAM={}", tool::ninja().display())).args(more);
    Process::start(command).finish().ok()
}

/// A checkout of the project in this directory.
pub fn check_out(to: &Path) {
    copy_tree(&source(), to);
}

fn copy_tree(from: &Path, to: &Path) {
    fs_err::create_dir_all(to).expect("a directory of the checkout");
    for entry in fs_err::read_dir(from).expect("the project's sources") {
        let entry = entry.expect("an entry of the project's sources");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs_err::copy(entry.path(), target).expect("a file of the checkout");
        }
    }
}

/// Starts the build of what was configured on `machine`.
pub fn build(machine: &Machine) -> Process {
    machine.start(tool::ninja(), ["-j2"])
}

/// Runs the three programs and panics unless each prints what it should.
pub fn check(machine: &Machine) {
    for program in PROGRAMS {
        let said = machine.start(machine.build().join("bin").join(program), [""; 0]).finish().ok();
        let expected = fs_err::read_to_string(source().join(format!("expected/{program}.txt")));
        assert_eq!(said.stdout, expected.expect("what the program should print"));
    }
}
