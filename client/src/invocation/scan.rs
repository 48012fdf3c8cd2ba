//! A scan for modules: `clang-scan-deps -format=p1689 -- COMPILER ARGS...`. It writes to its standard output what the
//! source provides and requires, and a depfile; nothing is compiled. Pure.
//!
//! The scanner is a driver of its own that takes the compiler's name for granted: it follows no link from there. So what
//! it finds may lie under other names than what the compile finds, and a scan teaches nothing about the compile's files.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Arg, Bypass, Invocation, PathArg, parse};

/// A scan that may be cached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The compiler that it scans for, as it is named.
    pub compiler: PathBuf,
    /// The scanner's own arguments, up to the compiler.
    pub own: Vec<OsString>,
    /// The compiler's command.
    pub invocation: Invocation,
}

impl Scan {
    /// Reads the arguments behind the scanner's name.
    pub fn parse(args: &[OsString], read_response: &dyn Fn(&Path) -> Option<String>) -> Result<Self, Bypass> {
        let refused = |why: &str| Bypass::new("scan", why);
        let at =
            args.iter().position(|arg| arg == "--").ok_or_else(|| refused("no command of a compiler"))?;
        let (own, command) = args.split_at(at);
        match own {
            [format] if format == "-format=p1689" || format == "--format=p1689" => {}
            _ => return Err(refused("not by -format=p1689 alone")),
        }
        let [_, compiler, rest @ ..] = command else { return Err(refused("no compiler")) };
        // What the scanner makes of a name without a directory is not what a shell makes of it.
        let compiler = Path::new(compiler);
        if compiler.is_relative() {
            return Err(refused("the compiler is not named by its whole path"));
        }
        let (rest, resources) = without_resources(rest)?;
        let mut invocation = parse::parse_scan(&rest, read_response)?;
        if let Some(path) = resources {
            invocation.holds_cwd |= Path::new(&path).is_relative();
            let flag = "-resource-dir".to_owned();
            invocation.args.insert(0, Arg::Path(PathArg { flag, path, separate: true }));
        }
        if !invocation.says_language {
            return Err(refused("the language is not said by -x"));
        }
        let depfile = invocation.depfile.as_ref();
        if !depfile
            .is_some_and(|depfile| depfile.system_headers && depfile.target.is_some() && !depfile.phony)
        {
            return Err(refused("no depfile by -MD -MF -MT"));
        }
        let own = args.iter().take(at + 1).cloned().collect();
        Ok(Self { compiler: compiler.to_owned(), own, invocation })
    }
}

/// Whether the program scans, by the name of its file.
pub fn is_scanner(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-')) == "clang-scan-deps"
}

/// The compiler's arguments without the directory of its own files. It says where headers are looked for, and that is in
/// the key; what else may lie there plays no part in a scan.
fn without_resources(args: &[OsString]) -> Result<(Vec<OsString>, Option<String>), Bypass> {
    let Some(at) = args.iter().position(|arg| arg == "-resource-dir") else {
        return Ok((args.to_owned(), None));
    };
    let value = args.get(at + 1).and_then(|value| value.to_str());
    let value = value.ok_or_else(|| Bypass::new("missing-value", "-resource-dir"))?.to_owned();
    let (before, after) = (args.iter().take(at), args.iter().skip(at + 2));
    Ok((before.chain(after).cloned().collect(), Some(value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invocation::Kind;

    fn scan(line: &str) -> Result<Scan, Bypass> {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        Scan::parse(&args, &|_| None)
    }

    const REST: &str = "-x c++ -c -o d/m.o -resource-dir /r -MT d/m.o.ddi -MD -MF d/m.o.ddi.d /src/m.cppm";

    #[test]
    fn as_cmake_and_ninja_run_it() {
        let scan = scan(&format!("-format=p1689 -- /usr/bin/clang++-22 -O2 -std=c++23 {REST}")).unwrap();
        assert_eq!(scan.compiler, Path::new("/usr/bin/clang++-22"));
        let invocation = scan.invocation;
        assert_eq!(invocation.kind, Kind::Scan);
        assert_eq!((&invocation.object, &invocation.bmi), (&None, &None));
        assert_eq!(invocation.scanned.as_deref(), Some(Path::new("d/m.o")));
        assert_eq!(invocation.depfile.unwrap().path, Path::new("d/m.o.ddi.d"));
        assert!(!invocation.asks_anew);
        assert!(invocation.args[0].words() == ["-resource-dir", "/r"]);
    }

    #[test]
    fn what_is_not_understood_is_bypassed() {
        for line in [
            format!("-format=make -- /usr/bin/clang++ {REST}"),
            format!("-- /usr/bin/clang++ {REST}"),
            format!("-format=p1689 -j 2 -- /usr/bin/clang++ {REST}"),
            format!("-format=p1689 -o out -- /usr/bin/clang++ {REST}"),
            "-format=p1689 --compilation-database=compile_commands.json".to_owned(),
            "-format=p1689 --".to_owned(),
            format!("-format=p1689 -- clang++ {REST}"),
            format!("-format=p1689 -- /usr/bin/clang++ {REST} /src/other.cpp"),
            format!("-format=p1689 -- /usr/bin/clang++ -MP {REST}"),
            "-format=p1689 -- /usr/bin/clang++ -c /src/m.cpp -o m.o".to_owned(),
            "-format=p1689 -- /usr/bin/clang++ -c /src/m.cpp -o m.o -MMD -MF m.d -MT m".to_owned(),
            "-format=p1689 -- /usr/bin/clang++ -E /src/m.cpp -o m.o -MD -MF m.d -MT m".to_owned(),
        ] {
            assert!(scan(&line).is_err(), "{line}");
        }
    }

    #[test]
    fn scanners_are_known_by_their_names() {
        for (name, expected) in [
            ("/usr/bin/clang-scan-deps", true),
            ("clang-scan-deps-22", true),
            ("clang-scan-deps-22.1", true),
            ("clang++-22", false),
            ("my-clang-scan-deps-wrapper", false),
        ] {
            assert_eq!(is_scanner(Path::new(name)), expected, "{name}");
        }
    }
}
