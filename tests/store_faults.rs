//! A cache directory that cannot be used: the build passes, and says nothing.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

use pcmcache_tests::faithful::Faithful;
use pcmcache_tests::machine::NOBODY;
use pcmcache_tests::{Machine, Modules, Process, Scratch, Server, tool, turn};
use rustix::process::getuid;

/// What a test does to the place of the cache directory before the machine builds.
type Fault = fn(&Machine);

const FAULTS: [(&str, Fault); 8] = [
    ("missing", |_| ()),
    ("read-only", |machine| {
        fs_err::create_dir(machine.cache()).expect("a cache directory");
        set_mode(machine, 0o500);
    }),
    ("no-rights", |machine| {
        fs_err::create_dir(machine.cache()).expect("a cache directory");
        set_mode(machine, 0o000);
    }),
    ("open-to-all", |machine| {
        fs_err::create_dir(machine.cache()).expect("a cache directory");
        set_mode(machine, 0o777);
    }),
    ("a-file", |machine| fs_err::write(machine.cache(), "not a directory").expect("a file")),
    ("a-link", |machine| {
        let target = machine.cache().with_file_name("target");
        fs_err::create_dir(&target).expect("a directory");
        symlink(target, machine.cache()).expect("a link");
    }),
    ("a-dangling-link", |machine| symlink("nowhere", machine.cache()).expect("a link")),
    ("a-loop", |machine| symlink(machine.cache(), machine.cache()).expect("a link")),
];

fn set_mode(machine: &Machine, mode: u32) {
    fs_err::set_permissions(machine.cache(), Permissions::from_mode(mode)).expect("a mode");
}

#[test]
fn whatever_stands_in_place_of_the_cache_directory_the_build_passes() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("store-faults");
    let faithful = Faithful::new(&scratch);
    let program = Modules::write(scratch.dir("source"), 3, 2);
    let right = program.right_outputs(&scratch);
    let server = Server::start(&scratch);
    for (name, fault) in FAULTS {
        println!("{name}");
        let machine = |kind: &str| {
            let machine = Machine::new(&scratch, &format!("{name}-{kind}"));
            fault(&machine);
            machine.used_by_no_root()
        };
        faithful.check(&machine("commands"));
        for machine in [machine("local"), machine("remote").remote(&server.url())] {
            program.build(&machine);
            program.check(&machine);
            assert_eq!(program.outputs(machine.build()), right, "{name}");
        }
        let linked = scratch.path().join(format!("{name}-local/target"));
        if linked.exists() {
            assert_eq!(
                fs_err::read_dir(linked).expect("the link's target").count(),
                0,
                "a link was followed"
            );
        }
    }
}

#[test]
fn a_cache_directory_of_somebody_else_is_neither_read_nor_written() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("somebody-else");
    let faithful = Faithful::new(&scratch);
    let machine = Machine::new(&scratch, "machine");
    if getuid().is_root() {
        fs_err::create_dir(machine.cache()).expect("a cache directory");
        chown(machine.cache(), Some(NOBODY), Some(NOBODY)).expect("only root gives files away");
        faithful.check(&machine);
        assert_eq!(fs_err::read_dir(machine.cache()).expect("the directory").count(), 0, "it was written to");
    }
    let roots = Machine::new(&scratch, "roots").with("PCMCACHE_DIR", "/usr").used_by_no_root();
    faithful.check(&roots);
    assert!(!roots.cache().join("v1").exists());
}

#[test]
fn on_a_full_disk_the_build_passes() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("full");
    let program = Modules::write(scratch.dir("source"), 3, 2);
    let right = program.right_outputs(&scratch);
    // Full from the start, full after a few files, full in the middle of one.
    for kilobytes in [4, 64, 200, 1000] {
        println!("{kilobytes} KB");
        let machine = Machine::new(&scratch, &format!("kb-{kilobytes}"));
        fs_err::create_dir(machine.cache()).expect("a cache directory");
        program.prepare(&machine);
        on_a_disk_of(kilobytes, &machine).finish().ok();
        program.check(&machine);
        assert_eq!(program.outputs(machine.build()), right, "{kilobytes} KB");
    }
}

/// Starts a build whose cache directory is a file system of so many kilobytes, in a name space of its own.
fn on_a_disk_of(kilobytes: u32, machine: &Machine) -> Process {
    let mut command = machine.command(tool::installed("PCMCACHE_TEST_UNSHARE", "unshare"));
    if !getuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let script = "mount -t tmpfs -o size=$1k,mode=700 none \"$PCMCACHE_DIR\" || {
        echo 'cannot mount a small disk: run this test as root, or where user name spaces are allowed' >&2; exit 1; }
        \"$2\" -j2 && df -k \"$PCMCACHE_DIR\"";
    command.args(["--mount", "sh", "-c", script, "sh", &kilobytes.to_string()]).arg(tool::ninja());
    Process::start(command)
}
