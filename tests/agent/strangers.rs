//! Somebody else on the same host.

use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use pcmcache_tests::{Process, Scratch, tool, turn, until};

use super::{Team, only};

/// Nobody in particular.
const STRANGER: u32 = 65_534;
/// What the stranger does, and with which socket.
const ACT: &str = "PCMCACHE_TEST_ACT";
const SOCKET: &str = "PCMCACHE_TEST_SOCKET";

const KNOCK: &str = "GET /pcmcache-agent HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n";

/// Runs one of [`the_stranger`]'s acts as somebody else. Only root can.
fn stranger(scratch: &Scratch, act: &str, socket: &Path) -> Process {
    let copy = scratch.path().join("stranger");
    if !copy.exists() {
        tool::copy(&std::env::current_exe().expect("this program"), &copy);
        fs_err::set_permissions(scratch.path(), Permissions::from_mode(0o755)).expect("a way in");
    }
    let mut command = Command::new(copy);
    command.args(["--exact", "strangers::the_stranger", "--nocapture"]).current_dir("/");
    command.env(ACT, act).env(SOCKET, socket).uid(STRANGER).gid(STRANGER);
    Process::start(command)
}

/// Nothing of its own: what the tests below have somebody else do.
#[test]
fn the_stranger() {
    let Some(socket) = std::env::var_os(SOCKET) else { return };
    match std::env::var(ACT).as_deref() {
        Ok("knock") => {
            let mut stream = UnixStream::connect(socket).expect("a way to the socket");
            let mut said = String::new();
            // A reset is as good an answer as none.
            let _ =
                stream.write_all(KNOCK.as_bytes()).and_then(|()| stream.read_to_string(&mut said).map(drop));
            println!("heard {} bytes", said.len());
        }
        Ok("pretend") => {
            let listener = UnixListener::bind(&socket).expect("a socket of our own");
            fs_err::set_permissions(&socket, Permissions::from_mode(0o777)).expect("a socket for all");
            println!("pretending");
            for mut stream in listener.incoming().flatten() {
                let mut some = [0; 4096];
                let count = stream.read(&mut some).unwrap_or(0);
                println!("heard {count} bytes");
            }
        }
        act => panic!("{act:?}"),
    }
}

#[test]
fn an_agent_answers_nobody_else() {
    let _turn = turn::beside_others();
    let team = Team::start("agent-stranger");
    let machine = team.warmed("machine");
    let socket = machine.sockets().remove(0);
    let refused = stranger(&team.scratch, "knock", &socket).finish();
    assert!(!refused.status.success(), "its directory is closed: {}", refused.transcript());

    let all = Permissions::from_mode(0o777);
    for path in socket.ancestors().take_while(|path| *path != team.scratch.path()) {
        fs_err::set_permissions(path, all.clone()).expect("a way in");
    }
    let heard = stranger(&team.scratch, "knock", &socket).finish().ok();
    assert!(heard.stdout.contains("heard 0 bytes"), "{}", heard.transcript());
    let mut ours = UnixStream::connect(&socket).expect("a way to the socket");
    let mut said = String::new();
    ours.write_all(KNOCK.as_bytes()).and_then(|()| ours.read_to_string(&mut said)).expect("an answer");
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
}

#[test]
fn nobody_else_is_taken_for_an_agent() {
    let _turn = turn::beside_others();
    let team = Team::start("agent-impostor");
    let machine = team.warmed("machine").with("PCMCACHE_TOKEN", "of-nobody-else-s-business");
    let (socket, agent) = (machine.sockets().remove(0), only(&machine));
    for path in socket.ancestors().skip(1).take_while(|path| *path != team.scratch.path()) {
        fs_err::set_permissions(path, Permissions::from_mode(0o777)).expect("a way in");
    }
    rustix::process::kill_process(agent, rustix::process::Signal::KILL).expect("a kill");
    fs_err::remove_file(&socket).expect("its socket");
    let mut impostor = stranger(&team.scratch, "pretend", &socket);
    until("an impostor", || {
        assert!(!impostor.ended(), "{}", impostor.stderr());
        impostor.stdout().contains("pretending")
    });

    let before = team.link.connections();
    machine.compile(team.unit("unit").arguments()).ok();
    assert!(team.link.connections() > before, "it goes directly");
    assert!(machine.stats().errors.is_empty(), "{:?}", machine.stats());
    impostor.kill();
    for line in impostor.stdout().lines().filter(|line| line.starts_with("heard")) {
        assert_eq!(line, "heard 0 bytes", "nothing is said to it");
    }
}
