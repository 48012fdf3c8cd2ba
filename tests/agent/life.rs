//! How it comes, what it leaves behind, and how it goes.

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use pcmcache_tests::{Process, tool, turn, until};
use rustix::process::{Pid, test_kill_process};

use super::{Team, only, wake};

fn is_gone(agent: Pid) -> bool {
    let stat = fs_err::read_to_string(format!("/proc/{}/stat", agent.as_raw_nonzero())).unwrap_or_default();
    test_kill_process(agent).is_err() || stat.contains(") Z ")
}

#[test]
fn it_inherits_nothing_of_the_build() {
    let _turn = turn::beside_others();
    let team = Team::start("agent-inherits");
    let machine = team.machine("machine").with("PCMCACHE_TOKEN", "secret-token").with("MAKEFLAGS", "-j");
    let unit = team.unit("unit");
    let held = team.scratch.file("held", "");
    // As make passes its pipes on, and `flock` its lock.
    let mut command = machine.command("/bin/sh");
    let script = "exec 7>>\"$1\" 8<\"$1\"; shift; \"$@\"";
    command
        .args(["-c", script, "sh"])
        .arg(&held)
        .arg(machine.launcher())
        .arg("clang++-22")
        .args(unit.arguments());
    Process::start(command).finish().ok();
    until("an agent", || machine.sockets().len() == 1);

    let proc = format!("/proc/{}", only(&machine).as_raw_nonzero());
    let link = |name: &str| fs_err::read_link(format!("{proc}/{name}")).expect("a link of an agent");
    for entry in fs_err::read_dir(format!("{proc}/fd")).expect("its descriptors").flatten() {
        let to = fs_err::read_link(entry.path()).unwrap_or_default().to_string_lossy().into_owned();
        let number = entry.file_name().to_string_lossy().into_owned();
        let fine = match number.as_str() {
            "0" => to.ends_with(".lock"),
            "1" | "2" => to == "/dev/null",
            _ => to.starts_with("socket:") || to.starts_with("anon_inode:"),
        };
        assert!(fine, "{number} is {to}");
    }
    assert_eq!(link("cwd").to_string_lossy(), "/");
    let environ = fs_err::read_to_string(format!("{proc}/environ")).expect("its environment");
    assert!(!environ.contains("secret-token") && !environ.contains("MAKEFLAGS"), "{environ}");
    let stat = fs_err::read_to_string(format!("{proc}/stat")).expect("its state");
    let session = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(3));
    assert_eq!(session, Some(only(&machine).to_string().as_str()), "it leads a session of its own");
    let directory = fs_err::metadata(machine.cache().join("v1/agents")).expect("its directory");
    assert_eq!(directory.mode() & 0o777, 0o700);
}

#[test]
fn it_goes_when_nobody_asks_it() {
    let _turn = turn::beside_others();
    let team = Team::start("agent-idle");
    let machine = team.machine("machine").with("PCMCACHE_AGENT_IDLE", "5");
    machine.compile(team.unit("unit").arguments()).ok();
    until("an agent", || !machine.agents().is_empty());
    let agent = only(&machine);
    until("its end", || is_gone(agent));
    let left = fs_err::read_dir(machine.cache().join("v1/agents")).expect("its directory").count();
    assert_eq!(left, 0, "it takes its files along");
}

#[test]
fn it_goes_when_its_socket_or_its_program_is_another() {
    let _turn = turn::beside_others();
    let team = Team::start("agent-replaced");
    let machine = team.warmed("machine");
    let agent = only(&machine);
    fs_err::remove_file(&machine.sockets()[0]).expect("its socket");
    until("its end", || is_gone(agent));

    let copy = team.scratch.path().join("pcmcache");
    tool::copy(machine.launcher(), &copy);
    let machine = team.machine("updated").with_launcher(copy.clone());
    wake(&team, &machine, "before");
    let agent = only(&machine);
    let newer = team.scratch.path().join("newer");
    tool::copy(machine.launcher(), &newer);
    fs_err::rename(newer, copy).expect("an update");
    machine.compile(team.unit("after").arguments()).ok();
    until("its end", || is_gone(agent));
    until("its successor", || machine.agents().len() == 1);
    assert!(machine.stats().errors.is_empty(), "{:?}", machine.stats());
}

#[test]
fn it_starts_for_nobody_but_a_launcher() {
    let _turn = turn::beside_others();
    let team = Team::start("agent-by-hand");
    let machine = team.machine("machine");
    let mut command: Command = machine.command(machine.launcher());
    command.args(["--pcmcache-agent", "nothing"]);
    assert_eq!(Process::start(command).finish().status.code(), Some(1));
    assert!(machine.sockets().is_empty());
}
