//! What a launch sends only when it takes long, or fails, sent twice: a lease that lives counts once, one that is given back
//! is given back.

use pcmcache_shared::api::limits::RENEW_EVERY;
use pcmcache_tests::link::Link;
use pcmcache_tests::link::fault::{At, Fault, Of, What};
use pcmcache_tests::{Machine, Scratch, Server, Unit, Weight, turn, until};

/// Each such request goes twice.
fn twice(of: Of, copy_first: bool) -> Fault {
    Fault { of, at: At::RequestHead, what: What::Twice { copy_first }, times: usize::MAX }
}

#[test]
fn a_lease_that_is_renewed_twice_at_a_time_is_one_lease() {
    let _turn = turn::beside_others();
    let beside = Scratch::new("renewed-twice-server");
    let server = Server::start(&beside);
    let scratch = Scratch::new("renewed-twice");
    let holders = [true, false].map(|copy_first| {
        let link = Link::near(server.address());
        link.plays(twice(Of::Renew, copy_first));
        let name = format!("copy_first_{copy_first}");
        let unit = Unit::write(&scratch, &name, 7, Weight::Light);
        let (at, holder) = (scratch.path().join(format!("{name}.at")), Machine::new(&scratch, &name));
        let holder = holder.remote(&link.url()).with("PCMCACHE_AGENT", "off");
        let launch = holder.clone().waiting("launch.granted", &at).launch(unit.arguments());
        until("the lease", || at.exists());
        let waiting = Machine::new(&scratch, &format!("{name}-waits")).remote(&server.url());
        let waiter = waiting.launch(unit.arguments());
        (link, unit, at, holder, launch, waiting, waiter)
    });
    for (link, unit, at, holder, launch, waiting, waiter) in holders {
        until("two renewals, twice each", || link.befell() >= 2 && launch.age() > RENEW_EVERY * 2);
        fs_err::remove_file(&at).expect("the announcement");
        for (machine, launch) in [(&holder, launch), (&waiting, waiter)] {
            launch.finish().ok();
            assert_eq!(unit.outputs(machine.build()), unit.right_outputs(&scratch));
        }
        let (stats, waited) = (holder.stats(), waiting.stats());
        assert_eq!((stats.compiles, waited.compiles, waited.remote_hits), (1, 0, 1), "{waited:?}");
        assert!(stats.errors.is_empty() && stats.diverged == 0, "{stats:?}\n{}", holder.log());
    }
}

#[test]
fn a_lease_that_is_given_back_twice_is_given_back() {
    let _turn = turn::beside_others();
    let beside = Scratch::new("released-twice-server");
    let server = Server::start(&beside);
    let scratch = Scratch::new("released-twice");
    for copy_first in [true, false] {
        let link = Link::near(server.address());
        link.plays(twice(Of::Release, copy_first));
        let unit = Unit::write(&scratch, &format!("unit_{copy_first}"), 7, Weight::Light);
        unit.add("static_assert(false, \"not today\");");
        let machine = |name: &str| Machine::new(&scratch, &format!("{name}-{copy_first}"));
        let right = machine("reference").bare(unit.arguments());
        let (first, second) = (machine("first").remote(&link.url()), machine("second").remote(&server.url()));
        for machine in [&first, &second] {
            let end = machine.compile(unit.arguments());
            assert_eq!((end.status.code(), &end.stderr), (right.status.code(), &right.stderr));
        }
        assert!(link.befell() > 0, "nothing was given back: {}", first.log());
        let stats = second.stats();
        assert_eq!((stats.compiles, stats.waits), (1, 0), "nobody waits for what has failed: {stats:?}");
    }
}
