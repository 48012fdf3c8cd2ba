//! The launcher and the server under TLS: they share over it, and where they do not believe each other builds pass, and
//! `doctor` says why.

use std::time::Instant;

use pcmcache_shared::api::limits::GRACE;
use pcmcache_tests::authority::{Authority, Signed};
use pcmcache_tests::{Machine, Scratch, Server, Unit, Weight, turn, until};

const HOST: &str = "127.0.0.1";

/// A server that shows this certificate.
fn start(scratch: &Scratch, shows: &Signed, arguments: &[&str]) -> Server {
    let all = ["--tls-cert", &shows.cert, "--tls-key", &shows.key, "--log", "pcmcache_server=debug"];
    Server::start_as(scratch, all.into_iter().chain(arguments.iter().copied()))
}

fn doctor(machine: &Machine) -> String {
    machine.start(machine.launcher(), ["doctor"]).finish().stdout
}

#[test]
fn two_machines_share_over_http2() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("tls-share");
    let unit = Unit::write(&scratch, "unit", 7, Weight::Light);
    let right = unit.right_outputs(&scratch);
    let authority = Authority::new(&scratch, "team");
    let server = start(&scratch, &authority.sign(HOST), &[]);
    assert!(server.url().starts_with("https://"), "{}", server.url());
    let machine = |name: &str| {
        Machine::new(&scratch, name).remote(&server.url()).with("PCMCACHE_CA_FILE", authority.file())
    };
    let (first, second) = (machine("first"), machine("second"));
    for machine in [&first, &second] {
        machine.compile(unit.arguments()).ok();
        assert_eq!(unit.outputs(machine.build()), right);
        assert!(machine.stats().errors.is_empty(), "{:?}", machine.stats());
    }
    assert_eq!((first.stats().compiles, second.stats().compiles, second.stats().remote_hits), (1, 0, 1));
    assert!(doctor(&second).contains("grants leases"), "{}", doctor(&second));
    let log = server.log();
    assert!(log.contains("HTTP/2.0") && !log.contains("HTTP/1.1"), "{log}");
}

#[test]
fn the_system_s_certificates_are_those_that_the_environment_names() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("tls-system");
    let authority = Authority::new(&scratch, "team");
    let server = start(&scratch, &authority.sign(HOST), &[]);
    let machine = Machine::new(&scratch, "machine").remote(&server.url());
    let told = doctor(&machine.clone().with("SSL_CERT_FILE", authority.file()));
    assert!(told.contains("grants leases"), "{told}");
    let told = doctor(&machine.with("SSL_CERT_FILE", scratch.path().join("gone.pem")));
    assert!(told.contains("gone.pem"), "{told}");
}

#[test]
fn a_builder_that_is_killed_is_replaced_at_once() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("tls-killed");
    let unit = Unit::write(&scratch, "unit", 7, Weight::Light);
    let authority = Authority::new(&scratch, "team");
    let server = start(&scratch, &authority.sign(HOST), &[]);
    let machine = |name: &str| {
        Machine::new(&scratch, name).remote(&server.url()).with("PCMCACHE_CA_FILE", authority.file())
    };
    let (at, granted) = (scratch.path().join("at"), scratch.path().join("granted"));
    let mut victim = machine("victim").waiting("launch.granted", &at).launch(unit.arguments());
    until("the grant", || at.exists());
    let asked = server.log().matches("/acquire").count();
    let other = machine("other").waiting("launch.granted", &granted).launch(unit.arguments());
    until("the other machine to ask", || server.log().matches("/acquire").count() > asked);

    victim.kill();
    let killed = Instant::now();
    until("the other machine's grant", || granted.exists());
    let took = killed.elapsed();
    println!("another goes on {took:?} after the builder was killed");
    assert!(took < GRACE * 4, "another goes on only {took:?} after the builder was killed");
    fs_err::remove_file(&granted).expect("the announcement");
    other.finish().ok();
}

#[test]
fn a_server_that_is_not_believed_costs_no_build_and_doctor_says_why() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("tls-disbelief");
    let unit = Unit::write(&scratch, "unit", 7, Weight::Light);
    let right = unit.right_outputs(&scratch);
    let (team, others) = (Authority::new(&scratch, "team"), Authority::new(&scratch, "others"));
    let server = start(&scratch, &team.sign(HOST), &[]);
    let away = Scratch::new("tls-elsewhere");
    let misnamed = start(&away, &team.sign("cache.example"), &[]);
    let missing = scratch.path().join("missing.pem");
    for (name, url, ca_file, error, told) in [
        ("stranger", server.url(), others.file(), "remote_untrusted", vec!["UnknownIssuer", "others.pem"]),
        ("misnamed", misnamed.url(), team.file(), "remote_untrusted", vec!["cache.example", "127.0.0.1"]),
        ("missing", server.url(), &missing, "remote_misconfigured", vec!["ca_file", "missing.pem"]),
        ("plain", server.url().replace("https", "http"), team.file(), "remote_refused", vec!["https://"]),
    ] {
        let machine = Machine::new(&scratch, name).remote(&url).with("PCMCACHE_CA_FILE", ca_file);
        let end = machine.compile(unit.arguments()).ok();
        assert_eq!((end.stdout.as_str(), end.stderr.as_str()), ("", ""));
        assert_eq!(unit.outputs(machine.build()), right);
        assert_eq!(machine.stats().errors.keys().collect::<Vec<_>>(), [error], "{name}");
        let said = doctor(&machine);
        for told in told {
            assert!(said.contains(told), "{name}: no {told} in {said}");
            assert!(machine.log().contains(told), "{name}: no {told} in {}", machine.log());
        }
    }
}

#[test]
fn a_server_that_wants_a_certificate_gets_one() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("tls-clients");
    let (team, runners) = (Authority::new(&scratch, "team"), Authority::new(&scratch, "runners"));
    let ca = runners.file().to_string_lossy();
    let server = start(&scratch, &team.sign(HOST), &["--tls-client-ca", &ca]);
    let machine =
        Machine::new(&scratch, "runner").remote(&server.url()).with("PCMCACHE_CA_FILE", team.file());
    let told = doctor(&machine);
    assert!(told.contains("asks for a certificate") && told.contains("PCMCACHE_CLIENT_CERT"), "{told}");

    let (ours, stolen) = (runners.sign("runner-7"), team.sign("runner-8"));
    let with = |cert: &str, key: &str| {
        machine.clone().with("PCMCACHE_CLIENT_CERT", cert).with("PCMCACHE_CLIENT_KEY", key)
    };
    assert!(doctor(&with(&ours.cert, &ours.key)).contains("grants leases"));
    assert!(doctor(&with(&stolen.cert, &stolen.key)).contains("client_cert is none that it believes"));
    assert!(doctor(&with(&ours.cert, &stolen.key)).contains("do not go together"));
    assert!(doctor(&with(&ours.cert, "")).contains("client_key is not"));
}

#[test]
fn a_local_hit_reads_no_certificate() {
    let _turn = turn::beside_others();
    let scratch = Scratch::new("tls-local");
    let unit = Unit::write(&scratch, "unit", 7, Weight::Light);
    // Whoever reads it finds out that it is not there, and that is counted.
    let machine = Machine::new(&scratch, "machine")
        .remote("https://127.0.0.1:1")
        .with("PCMCACHE_CA_FILE", scratch.path().join("missing.pem"));
    machine.compile(unit.arguments()).ok();
    assert_eq!(machine.stats().errors.get("remote_misconfigured"), Some(&1));
    machine.compile(unit.arguments()).ok();
    let stats = machine.stats();
    assert_eq!((stats.compiles, stats.local_hits), (1, 1), "{stats:?}");
    assert_eq!(stats.errors.get("remote_misconfigured"), Some(&1));
}
