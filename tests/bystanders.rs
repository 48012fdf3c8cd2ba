//! What stands beside a build (the agent, the uploader, `warm`, `sync`) is killed at random moments, over and over, while two
//! machines build against a server under TLS: every build passes with the right bytes, and nothing that the server said it
//! has is gone.
//!
//! `PCMCACHE_TEST_SECONDS` says for how long; `PCMCACHE_TEST_SEED` has it again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use pcmcache::local::{Kind, Store};
use pcmcache::remote::pace::Pace;
use pcmcache::remote::{self, Remote};
use pcmcache::settings::Papers;
use pcmcache_shared::ActionKey;
use pcmcache_tests::authority::Authority;
use pcmcache_tests::modules::By;
use pcmcache_tests::{Chance, Finished, Machine, Modules, Scratch, Server, Unit, Weight, turn};
use rustix::process::{Pid, Signal, kill_process};

const HOST: &str = "127.0.0.1";

/// For how long, unless somebody says otherwise.
const SHORT: Duration = Duration::from_secs(60);

/// The longest pause between two kills.
const PAUSE: Duration = Duration::from_millis(150);

/// As many compiles of its own has each machine in a round.
const OWN: usize = 3;

/// One build.
const BUILD: Duration = Duration::from_secs(300);

fn run(machine: &Machine, words: &[&str]) -> Finished {
    machine.start(machine.launcher(), words).finish_within(BUILD)
}

/// How many of each kind were killed.
type Kills = BTreeMap<&'static str, usize>;

/// Kills what stands beside a build on this machine: what is there, or a command that is started for that.
fn strike(machine: &Machine, chance: &mut Chance, kills: &mut Kills) {
    let (kind, killed) = match chance.below(4) {
        0 => ("agent", signal(&machine.agents())),
        1 => ("uploader", signal(&machine.uploaders())),
        2 => ("warm", cut_short(machine, &["warm", "ci"], chance)),
        _ => ("sync", cut_short(machine, &["sync", "--wait"], chance)),
    };
    *kills.entry(kind).or_default() += killed;
}

fn signal(processes: &[Pid]) -> usize {
    // One that has ended by itself meanwhile is not counted.
    processes.iter().filter(|pid| kill_process(**pid, Signal::KILL).is_ok()).count()
}

/// Runs the command for a moment. One that ends by itself meanwhile is not counted.
fn cut_short(machine: &Machine, words: &[&str], chance: &mut Chance) -> usize {
    let mut command = machine.start(machine.launcher(), words);
    std::thread::sleep(chance.moment(PAUSE));
    let runs = !command.ended();
    command.kill();
    usize::from(runs)
}

/// The keys whose publish the server answered with 200 or 201.
fn acknowledged(audit: &Path) -> BTreeSet<ActionKey> {
    let text = fs_err::read_to_string(audit).expect("the audit");
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let done = lines.filter(|line| line["act"] == "publish" && line["outcome"] == "done");
    done.map(|line| line["what"].as_str().and_then(|key| key.parse().ok()).expect("a key")).collect()
}

/// The keys of all that the machine has; who was killed may have left stages beside them.
fn made(machine: &Machine) -> Vec<ActionKey> {
    let store = Store::open(&machine.cache()).expect("the store");
    let found = store.inventory(Kind::Results).into_iter().filter(|found| !found.is_stage());
    found.map(|found| found.name.parse().expect("a key")).collect()
}

/// Those of them that the server has not.
fn missing(url: &str, ca_file: &Path, keys: &BTreeSet<ActionKey>) -> Vec<ActionKey> {
    let remote = Remote::new(remote::Settings {
        url: url.to_owned(),
        papers: Papers { ca_file: Some(ca_file.to_owned()), ..Papers::default() },
        token: None,
        token_file: None,
        scope: "main".parse().expect("a scope"),
        timeout: Duration::from_secs(10),
        pace: Pace::never(),
        holder: String::new(),
    });
    let remote = remote.expect("settings");
    let all: Vec<_> = keys.iter().copied().collect();
    let found = all.chunks(100).flat_map(|some| remote.look_up(some, &|| false).expect("an answer"));
    let found: BTreeSet<_> = found.map(|keyed| keyed.action).collect();
    keys.difference(&found).copied().collect()
}

#[test]
fn builds_pass_and_nothing_acknowledged_is_lost_whatever_is_killed_beside_them() {
    let _turn = turn::alone();
    let scratch = Scratch::new("bystanders");
    let (authority, audit) = (Authority::new(&scratch, "team"), scratch.path().join("audit"));
    let (shows, at) = (authority.sign(HOST), audit.to_str().expect("a path"));
    let server =
        Server::start_as(&scratch, ["--tls-cert", &shows.cert, "--tls-key", &shows.key, "--audit-log", at]);
    let machine = |name: &str| {
        Machine::new(&scratch, name)
            .remote(&server.url())
            .with("PCMCACHE_CA_FILE", authority.file())
            .with("PCMCACHE_AGENT", "on")
            .with("PCMCACHE_UPLOAD", "background")
            .with("PCMCACHE_PROFILE", "ci")
    };
    let program = Modules::write(scratch.dir("source"), 6, 6);
    let reference = Machine::new(&scratch, "reference");
    let machines = ["first", "second"].map(machine);

    let named = std::env::var("PCMCACHE_TEST_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let (began, lasts) = (Instant::now(), named.map_or(SHORT, Duration::from_secs));
    let (mut chance, mut kills, mut rounds) = (Chance::new("bystanders"), Kills::new(), 0);
    while began.elapsed() < lasts {
        rounds += 1;
        let round = Instant::now();
        program.change(chance.below(3) as usize, rounds);
        program.start(&reference, By::Compiler, 2).finish_within(BUILD).ok();
        let right = program.outputs(reference.build());
        let mut builds: Vec<_> =
            machines.iter().map(|machine| program.start(machine, By::Launcher, 2)).collect();
        // What only one of them makes, no other mends.
        for (own, machine) in (0..2 * OWN).zip(machines.iter().cycle()) {
            let unit = Unit::write(&scratch, &format!("own{rounds}_{own}"), 7, Weight::Light);
            builds.push(machine.launch(unit.arguments()));
        }
        while builds.iter_mut().any(|build| !build.ended()) {
            std::thread::sleep(chance.moment(PAUSE));
            strike(&machines[chance.below(2) as usize], &mut chance, &mut kills);
        }
        builds.into_iter().for_each(|build| drop(build.finish_within(BUILD).ok()));
        for machine in &machines {
            program.check(machine);
            assert_eq!(program.outputs(machine.build()), right, "{}", machine.log());
        }
        run(&machines[0], &["profile", "push"]).ok();
        println!("round {rounds}: {:.1?}", round.elapsed());
    }
    println!("{rounds} rounds in {:?}, killed: {kills:?}", began.elapsed());
    println!("tally: builds={} kills={}", 2 * rounds, kills.values().sum::<usize>());
    assert!(kills.len() == 4 && kills.values().all(|count| *count > 0), "{kills:?}");

    for machine in &machines {
        run(machine, &["sync", "--wait"]).ok();
        assert_eq!(Store::open(&machine.cache()).expect("the store").queue().len(), 0, "{}", machine.log());
        run(machine, &["verify"]).ok();
        let stats = machine.stats();
        assert_eq!((stats.diverged, stats.errors.get("queue_gone")), (0, None), "{}", machine.log());
        run(machine, &["profile", "push"]).ok();
    }
    let (said, made) = (acknowledged(&audit), machines.iter().flat_map(made).collect());
    let missing = |keys: &BTreeSet<ActionKey>| missing(&server.url(), authority.file(), keys);
    assert_eq!(missing(&said), [], "of {} that were acknowledged", said.len());
    assert_eq!(missing(&made), [], "of {} that were made, or queued", made.len());

    let fresh = machine("fresh");
    run(&fresh, &["warm", "ci"]).ok();
    program.start(&fresh, By::Launcher, 2).finish_within(BUILD).ok();
    assert_eq!(program.outputs(fresh.build()), program.outputs(reference.build()));
    let stats = fresh.stats();
    println!("{} results acknowledged, {} made; the fresh machine: {stats:?}", said.len(), made.len());
    assert_eq!((stats.compiles, stats.remote_hits), (0, 0), "{}", fresh.log());
}
