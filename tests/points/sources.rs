//! Nothing but `pcmcache_shared::disk` changes a file; nor does anything else read one or look at one in the rooms of a cache, of a
//! store, and of what a compile reads. So each such step is a point.

use std::path::{Path, PathBuf};
use std::process::Command;

use pcmcache_tests::{Process, deployed};

/// Where something else than `disk` may change files: tests, and what is not a program of ours.
const CHANGES: [&str; 15] = [
    "fs_err::write(",
    "fs_err::rename(",
    "fs_err::remove_",
    "fs_err::create_dir",
    "fs_err::hard_link(",
    "fs_err::copy(",
    "fs_err::File::create",
    "fs_err::File::options",
    "OpenOptions::new().write(",
    "OpenOptions::new().append(",
    "OpenOptions::new().create",
    "std::fs::DirBuilder",
    "syncfs(",
    "tokio::fs::OpenOptions",
    "fallocate(",
];

/// And where it may read them.
const READS: [&str; 8] = [
    "fs_err::read(",
    "fs_err::read_to_string(",
    "fs_err::File::open(",
    "fs_err::OpenOptions::new().read(",
    "fs_err::metadata(",
    "fs_err::symlink_metadata(",
    "fs_err::read_dir(",
    ".exists()",
];
const ROOMS: [&str; 5] = [
    "client/src/inputs",
    "client/src/local",
    "client/src/search.rs",
    "server/src/embedded",
    "server/src/redb_file.rs",
];

#[test]
fn nothing_but_disk_changes_a_file() {
    let mut found = Vec::new();
    let mut sources = 0;
    for crate_ in ["client/src", "server/src", "shared/src"] {
        for file in pcmcache_tests::scratch::files_below(&deployed::file(crate_)) {
            let path: PathBuf = Path::new(crate_).join(file);
            let may = path.starts_with("shared/src/disk")
                || path == Path::new("shared/src/disk.rs")
                || path.ends_with("failpoint.rs");
            if may || path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            sources += 1;
            let is_room = ROOMS.iter().any(|room| path.to_string_lossy().starts_with(room));
            let changes = CHANGES.iter().chain(READS.iter().filter(|_| is_room));
            let text = deployed::text(&path.to_string_lossy());
            let program = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            for (number, line) in program.lines().enumerate() {
                if changes.clone().any(|change| {
                    line.contains(change) && !line.contains("disk::") && !path.ends_with("staged.rs")
                }) && !line.trim_start().starts_with("//")
                {
                    found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
                }
            }
        }
    }
    assert!(sources > 100, "the sources were not found: {sources}");
    assert_eq!(found, Vec::<String>::new(), "by pcmcache_shared::disk these steps would be failpoints");
}

/// Nor may a person's own build: where nobody names a crate, and where the programs are named as the README has it.
#[test]
fn what_users_build_has_no_points() {
    let tree = |crates: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.current_dir(deployed::file(""));
        command.args(["tree", "--locked", "--offline", "--edges", "normal,features"]).args(crates);
        Process::start(command).finish().ok().stdout
    };
    let points = "feature \"failpoints\"";
    assert!(tree(&["--workspace"]).contains(points), "the tests have them");
    for crates in [[].as_slice(), &["-p", "pcmcache", "-p", "pcmcache-server"]] {
        let tree = tree(crates);
        assert!(tree.contains("pcmcache-server v") && !tree.contains(points), "{crates:?}: {tree}");
    }
}
