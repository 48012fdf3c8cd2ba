//! Tokens as a launcher meets them: who may only read waits and takes, who may nothing is on their own, and what a revoked
//! writer published is used by nobody who has heard of it.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime};

use pcmcache_tests::scratch::files_below;
use pcmcache_tests::{Machine, Scratch, Server, Unit, Weight, turn, until};

/// A team's server: Alice and the nightly builds write, Bob reads.
struct Team {
    server: Server,
    alice: String,
    bob: String,
    /// Goes last.
    scratch: Scratch,
}

impl Team {
    fn new(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let server = Server::start(&scratch);
        let alice = server.new_token("alice", &["--write", "main"]);
        let bob = server.new_token("bob", &["--read", "main"]);
        Self { scratch, server, alice, bob }
    }

    fn machine(&self, name: &str, token: &str) -> Machine {
        Machine::new(&self.scratch, name).remote(&self.server.url()).with("PCMCACHE_TOKEN", token)
    }

    fn unit(&self, name: &str) -> Unit {
        Unit::write(&self.scratch, name, 7, Weight::Light)
    }
}

/// The machine after a compile that passes in silence: (compiles, remote hits, local hits).
#[track_caller]
fn compiled(machine: &Machine, unit: &Unit) -> (u64, u64, u64) {
    let end = machine.compile(unit.arguments()).ok();
    assert_eq!((end.stdout.as_str(), end.stderr.as_str()), ("", ""), "{}", machine.log());
    let stats = machine.stats();
    (stats.compiles, stats.remote_hits, stats.local_hits)
}

#[test]
fn who_may_only_read_takes_what_is_there_and_tries_no_upload() {
    let _turn = turn::beside_others();
    let team = Team::new("reader");
    let (known, unknown) = (team.unit("known"), team.unit("unknown"));
    assert_eq!(compiled(&team.machine("alice", &team.alice), &known), (1, 0, 0));
    let bob = team.machine("bob", &team.bob);
    assert_eq!(compiled(&bob, &known), (0, 1, 0), "{}", bob.log());
    assert_eq!(compiled(&bob, &unknown), (1, 1, 0), "{}", bob.log());
    let stats = bob.stats();
    assert_eq!(
        (stats.uploaded_bytes, stats.errors.keys().map(String::as_str).collect::<Vec<_>>()),
        (0, vec!["remote_read_only"])
    );
    assert_eq!(
        compiled(&team.machine("alice-again", &team.alice), &unknown),
        (1, 0, 0),
        "nothing was published"
    );
    // Who says that they only read is not refused anything.
    let modest = team.machine("modest", &team.bob).with("PCMCACHE_MODE", "read-only");
    assert_eq!(compiled(&modest, &known), (0, 1, 0));
    assert!(modest.stats().errors.is_empty(), "{:?}", modest.stats());
}

#[test]
fn who_may_nothing_builds_alone_and_is_told_by_doctor() {
    let _turn = turn::beside_others();
    let team = Team::new("stranger");
    let unit = team.unit("unit");
    compiled(&team.machine("alice", &team.alice), &unit);
    team.server.token(&["revoke", "bob", "--keep-results"]).ok();
    let file = team.scratch.file("token", format!("{}\n", team.alice));
    fs_err::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("a token for all to see");
    let plain = |name: &str| Machine::new(&team.scratch, name).remote(&team.server.url());
    let cases = [
        (plain("none"), "remote_unauthorized", "PCMCACHE_TOKEN"),
        (team.machine("wrong", "pcmc_wrong"), "remote_unauthorized", "PCMCACHE_TOKEN"),
        (team.machine("revoked", &team.bob), "remote_unauthorized", "PCMCACHE_TOKEN"),
        (
            team.machine("elsewhere", &team.alice).with("PCMCACHE_SCOPE", "nightly"),
            "remote_unknown_scope",
            "PCMCACHE_SCOPE",
        ),
        (plain("no-file").with("PCMCACHE_TOKEN_FILE", "/nowhere/at/all"), "remote_misconfigured", "token"),
    ];
    for (machine, error, remedy) in cases {
        assert_eq!(compiled(&machine, &unit), (1, 0, 0), "{}", machine.log());
        let stats = machine.stats();
        assert_eq!(stats.errors.keys().map(String::as_str).collect::<Vec<_>>(), [error], "{}", machine.log());
        assert_eq!(stats.errors[error], 1, "it is asked once: {}", machine.log());
        let doctor = machine.start(machine.launcher(), ["doctor"]).finish();
        assert_eq!(doctor.status.code(), Some(1), "{}", doctor.transcript());
        let care = doctor.stdout.lines().skip_while(|line| !line.starts_with("care  server")).take(2);
        assert!(care.clone().any(|line| line.contains(remedy)), "no {remedy} in {}", doctor.transcript());
        assert!(!doctor.stdout.contains("pcmc_"), "a token is shown: {}", doctor.transcript());
    }
    // A token in a file is as good as one in the environment; but others can read this one.
    let filed = plain("filed").with("PCMCACHE_TOKEN_FILE", &file);
    assert_eq!(compiled(&filed, &unit), (0, 1, 0), "{}", filed.log());
    let doctor = filed.start(filed.launcher(), ["doctor"]).finish();
    assert!(doctor.stdout.contains("chmod 600"), "{}", doctor.transcript());
}

#[test]
fn doctor_says_what_a_token_is_good_for() {
    let _turn = turn::beside_others();
    let team = Team::new("doctor-tokens");
    let doctor = |machine: Machine| machine.start(machine.launcher(), ["doctor"]).finish();
    let well = doctor(team.machine("alice", &team.alice)).ok();
    assert!(well.stdout.contains("grants leases in the scope main"), "{}", well.transcript());
    let reads = doctor(team.machine("bob", &team.bob));
    assert!(reads.stdout.contains("PCMCACHE_MODE=read-only"), "{}", reads.transcript());
    let modest = doctor(team.machine("modest", &team.bob).with("PCMCACHE_MODE", "read-only")).ok();
    assert!(modest.stdout.contains("reads main"), "{}", modest.transcript());
    let nightly = team.server.new_token("nightly", &["--write", "nightly", "--read", "main"]);
    let lost = doctor(team.machine("lost", &nightly));
    assert!(lost.stdout.contains("writes the scope nightly"), "{}", lost.transcript());
    assert!(lost.stdout.contains("PCMCACHE_SCOPE=nightly"), "{}", lost.transcript());
}

#[test]
fn what_a_revoked_writer_published_is_forgotten_once_it_is_heard_of() {
    let _turn = turn::beside_others();
    let team = Team::new("revoked");
    let carol = team.server.new_token("carol", &["--write", "main"]);
    let [hers, his, fresh, fresher] = ["hers", "his", "fresh", "fresher"].map(|name| team.unit(name));
    compiled(&team.machine("alice", &team.alice), &hers);
    compiled(&team.machine("carol", &carol), &his);
    let bob = team.machine("bob", &team.bob);
    assert_eq!(compiled(&bob, &hers), (0, 1, 0), "{}", bob.log());
    assert_eq!(compiled(&bob, &his), (0, 2, 0), "{}", bob.log());
    assert_eq!(compiled(&bob, &fresh), (1, 2, 0), "{}", bob.log());
    assert_eq!(compiled(&bob, &hers), (1, 2, 1));

    team.server.token(&["revoke", "alice"]).ok();
    // It is heard of with the next thing that the server is asked; killed just before it is written down, with the one after.
    let killed =
        bob.clone().with("PCMCACHE_FAILPOINT", "launch.taken-back=kill").compile(fresher.arguments());
    assert_eq!(killed.signal(), Some(9), "{}", killed.transcript());
    assert_eq!(compiled(&bob, &fresher), (2, 2, 1), "{}", bob.log());
    assert_eq!(compiled(&bob, &hers), (3, 2, 1), "{}", bob.log());
    assert_eq!(bob.stats().errors.get("revoked"), Some(&1), "{:?}", bob.stats());
    // What others published, and what was compiled here, stays.
    assert_eq!(compiled(&bob, &his), (3, 2, 2), "{}", bob.log());
    assert_eq!(compiled(&bob, &fresh), (3, 2, 3), "{}", bob.log());
    assert_eq!(compiled(&bob, &hers), (3, 2, 4), "its own by now: {}", bob.log());
    let explained = bob.start(bob.launcher(), ["verify"]).finish().ok();
    assert!(explained.stdout.contains(" 0 bad"), "{}", explained.transcript());
}

#[test]
fn who_finds_everything_here_hears_of_it_as_well() {
    let _turn = turn::beside_others();
    let team = Team::new("warm");
    let [unit, other] = ["unit", "other"].map(|name| team.unit(name));
    compiled(&team.machine("alice", &team.alice), &unit);
    compiled(&team.machine("alice", &team.alice), &other);
    let bob = team.machine("bob", &team.bob);
    assert_eq!(compiled(&bob, &unit), (0, 1, 0), "{}", bob.log());
    assert_eq!(compiled(&bob, &other), (0, 2, 0), "{}", bob.log());
    team.server.token(&["revoke", "alice"]).ok();

    // No server is asked for what is here; until that was so for ten minutes.
    assert_eq!(compiled(&bob, &unit), (0, 2, 1), "{}", bob.log());
    let notes = bob.cache().join("v1/servers");
    let notes = notes.join(files_below(&notes).first().expect("what is known of the server"));
    let heard = || fs_err::read_to_string(&notes).expect("what is known of the server");
    let before = heard();
    let eleven_minutes_ago = SystemTime::now() - Duration::from_secs(660);
    let file = fs_err::OpenOptions::new().write(true).open(&notes).expect("what is known of the server");
    file.set_modified(eleven_minutes_ago).expect("an older file");
    assert_eq!(compiled(&bob, &unit), (0, 2, 2), "nobody waits for it: {}", bob.log());
    until("the server to be asked", || heard() != before);
    until("whoever asked to be gone", || bob.alive().is_empty());
    assert_eq!(compiled(&bob, &unit), (1, 2, 2), "{}", bob.log());
    assert_eq!(compiled(&bob, &other), (2, 2, 2), "{}", bob.log());
}
