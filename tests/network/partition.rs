//! A machine that is cut off while it holds the lease: somebody else builds, and publishes; once the network heals, what the
//! first one made overwrites nothing, and both have the same.

use std::path::PathBuf;
use std::time::Duration;

use pcmcache_shared::api::limits::{GRACE, LEASE_TTL};
use pcmcache_tests::counted::Counted;
use pcmcache_tests::link::Link;
use pcmcache_tests::unit::Outputs;
use pcmcache_tests::{Machine, Process, Scratch, Server, Unit, Weight, turn, until};

/// How long after the lease is over somebody else has it.
const TAKEOVER: Duration = Duration::from_secs(5);

#[test]
fn who_was_cut_off_with_the_lease_overwrites_nothing_and_has_what_all_have() {
    let _turn = turn::beside_others();
    let beside = Scratch::new("parted-server");
    let server = Server::start(&beside);
    let scratch = Scratch::new("parted");
    // Cut off before the compiler ran, and with what it made in its hands.
    let (compiler, steps) = (Counted::unsteady(&scratch), ["launch.granted", "launch.blobs"]);
    let cases = steps.map(|step| Parted::set(&scratch, &server, &compiler, step));
    cases.into_iter().for_each(|case| case.heals(&compiler));
}

struct Parted {
    unit: Unit,
    link: Link,
    at: PathBuf,
    far: Machine,
    cut_off: Process,
    near: Machine,
    builds: Process,
}

impl Parted {
    /// The far machine has the lease, and stands at this step; its cable is pulled, and a near one wants the same.
    fn set(scratch: &Scratch, server: &Server, compiler: &Counted, step: &str) -> Self {
        let name = step.replace('.', "_");
        let unit = Unit::write(scratch, &name, 7, Weight::Light);
        let (link, at) = (Link::near(server.address()), scratch.path().join(format!("{name}.at")));
        let far = Machine::new(scratch, &format!("{name}-far")).remote(&link.url());
        let near = Machine::new(scratch, &format!("{name}-near")).remote(&server.url());
        let cut_off = compiler.launch(&far.clone().waiting(step, &at), 0, unit.arguments());
        until("the far machine to hold the lease", || at.exists());
        link.part();
        let builds = compiler.launch(&near, 1, unit.arguments());
        Self { unit, link, at, far, cut_off, near, builds }
    }

    fn heals(self, compiler: &Counted) {
        let Self { unit, link, at, far, mut cut_off, near, builds } = self;
        builds.finish_within(LEASE_TTL + GRACE + TAKEOVER).ok();
        let right = unit.outputs(near.build());
        assert_eq!((near.stats().compiles, near.stats().waits), (1, 1), "{}", near.log());

        fs_err::remove_file(&at).expect("the announcement");
        assert!(!cut_off.ended(), "it has published nothing yet");
        link.heal();
        cut_off.finish().ok();
        let now: Outputs = unit.outputs(far.build());
        let stats = far.stats();
        assert_eq!(now, right, "both have the same: {stats:?}\n{}", far.log());
        assert_eq!((stats.compiles, stats.adopted), (1, 1), "it made its own, and took the other's");

        // Who comes later has it too, and so has either once more.
        for machine in [&far, &near] {
            let sync = machine.start(machine.launcher(), ["sync", "--wait"]).finish().ok();
            assert_eq!(sync.stdout, "", "nothing is queued");
            compiler.launch(machine, 2, unit.arguments()).finish().ok();
            assert_eq!(unit.outputs(machine.build()), right);
        }
        let late = near.clone().with("PCMCACHE_DIR", near.build().join("cache"));
        compiler.launch(&late, 3, unit.arguments()).finish().ok();
        assert_eq!((late.stats().compiles, late.stats().remote_hits), (0, 1));
        assert_eq!(unit.outputs(late.build()), right);
    }
}
