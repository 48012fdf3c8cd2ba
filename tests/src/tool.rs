//! The tools of the trade, and where they are.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Process;

/// The C++ compiler, by the name a user gives it.
pub const CLANG: &str = "clang++-22";

/// The launcher with failpoints.
pub fn launcher() -> PathBuf {
    under_test("pcmcache-under-test")
}

/// The server with failpoints.
pub fn server() -> PathBuf {
    under_test("pcmcache-server-under-test")
}

/// Copies a program that is to be run. It is `cp` that does: a child that is forked here meanwhile would have the copy open for
/// writing until it executes, and what is open for writing cannot be run ("text file busy").
pub fn copy(program: &Path, to: &Path) {
    let done = Command::new("cp").arg("--").args([program, to]).status();
    assert!(
        done.as_ref().is_ok_and(|status| status.success()),
        "{} to {}: {done:?}",
        program.display(),
        to.display()
    );
}

/// CMake, 4.4 or newer.
pub fn cmake() -> PathBuf {
    installed("PCMCACHE_TEST_CMAKE", "cmake")
}

/// Ninja.
pub fn ninja() -> PathBuf {
    installed("PCMCACHE_TEST_NINJA", "ninja")
}

/// Make.
pub fn make() -> PathBuf {
    installed("PCMCACHE_TEST_MAKE", "make")
}

/// nginx, which may lie where only root looks.
pub fn nginx() -> PathBuf {
    let beside = Some(PathBuf::from("/usr/sbin/nginx")).filter(|path| path.is_file());
    in_path("nginx").or(beside).unwrap_or_else(|| installed("PCMCACHE_TEST_NGINX", "nginx"))
}

/// What runs the browser's script.
pub fn node() -> PathBuf {
    installed("PCMCACHE_TEST_NODE", "node")
}

/// The browser.
pub fn chromium() -> PathBuf {
    installed("PCMCACHE_TEST_CHROMIUM", "chromium")
}

/// Where playwright-core and axe-core are.
pub fn node_modules() -> PathBuf {
    let named = std::env::var_os("PCMCACHE_TEST_NODE_MODULES").map(PathBuf::from);
    named.filter(|path| path.join("playwright-core").is_dir()).unwrap_or_else(|| {
        panic!("playwright-core is not in PCMCACHE_TEST_NODE_MODULES: run the tests by tests/run.sh")
    })
}

/// The OpenAPI fuzzer.
pub fn schemathesis() -> PathBuf {
    installed("PCMCACHE_TEST_SCHEMATHESIS", "schemathesis")
}

/// The Python in whose environment Helm's engine is.
pub fn python() -> PathBuf {
    installed("PCMCACHE_TEST_PYTHON", "python3")
}

/// Makes a certificate of `localhost` that vouches for itself, and its key: `NAME.crt` and `NAME.key`.
pub fn certificate(directory: &Path, name: &str) {
    let mut command = Command::new(installed("PCMCACHE_TEST_OPENSSL", "openssl"));
    command.current_dir(directory).args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
    ]);
    command.args([
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
    ]);
    command.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")]);
    Process::start(command).finish().ok();
}

/// The tool that the variable names, else the one in PATH.
pub fn installed(variable: &str, name: &str) -> PathBuf {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let found = named.or_else(|| in_path(name)).filter(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("{name} is neither in {variable} nor in PATH: run the tests by tests/run.sh")
    })
}

/// The tool in PATH, if there is one: nothing is wrong without it.
pub fn if_installed(name: &str) -> Option<PathBuf> {
    in_path(name)
}

fn in_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// A program of this package: Cargo names it, or it lies beside the directory of the test that runs.
fn under_test(name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(format!("CARGO_BIN_EXE_{name}")) {
        return path.into();
    }
    let test = std::env::current_exe().expect("the path of this test");
    let path = test.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file());
    path.unwrap_or_else(|| panic!("{name} is not built beside {}", Path::display(&test)))
}
