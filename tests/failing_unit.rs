//! A unit that does not compile, and a fleet that waits for it: everyone sees the compiler's message soon, and nobody
//! queues up for it.

use std::time::{Duration, Instant};

use pcmcache_tests::process::{self, MARK};
use pcmcache_tests::tool::CLANG;
use pcmcache_tests::{Machine, Process, Scratch, Server, Unit, Weight, turn, until};

const WAITERS: usize = 19;

#[test]
fn all_who_wait_for_a_unit_that_does_not_compile_fail_at_once_not_one_after_another() {
    let _turn = turn::alone();
    let scratch = Scratch::new("failing");
    let unit = Unit::write(&scratch, "unit", 7, Weight::Thinking(2));
    unit.add("int broken = nobody_declared_this;");
    let right = Machine::new(&scratch, "reference").bare(unit.arguments());
    assert_eq!(right.status.code(), Some(1));
    let server = Server::start(&scratch);
    let mark = scratch.path().to_string_lossy().into_owned();
    let machine = |name: &str| Machine::new(&scratch, name).remote(&server.url()).with(MARK, &mark);

    let at = scratch.path().join("at");
    let first = machine("first").waiting("launch.staged", &at).launch(unit.arguments());
    until("the first to hold the lease", || at.exists());
    let waiters: Vec<Process> =
        (0..WAITERS).map(|index| machine(&format!("waiter-{index}")).launch(unit.arguments())).collect();
    until("all others to wait", || server.metric("pcmcache_waited_total") as usize == WAITERS);

    fs_err::remove_file(&at).expect("the announcement");
    let start = Instant::now();
    let mut launches: Vec<Process> = std::iter::once(first).chain(waiters).collect();
    let mut at_once = 0;
    while launches.iter_mut().any(|launch| !launch.ended()) {
        at_once = at_once.max(compilers(&mark));
        std::thread::sleep(Duration::from_millis(10));
    }
    let took = start.elapsed();
    for launch in launches {
        let end = launch.finish();
        assert_eq!((end.status.code(), &end.stdout, &end.stderr), (Some(1), &right.stdout, &right.stderr));
    }
    println!("one compile takes {:?}, all took {took:?}, at most {at_once} compilers at once", right.took);
    // One compile while all wait, then all at once; two cores at most share the work here.
    assert_eq!(
        server.metric("pcmcache_granted_total"),
        1.0,
        "a chain of leases: they fail one after another"
    );
    assert!(at_once > WAITERS / 2, "only {at_once} compilers at once");
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(WAITERS);
    let rounds = 1.0 + (WAITERS as f64 / cores as f64) * 1.5;
    let limit = right.took.mul_f64(rounds) + Duration::from_secs(2);
    assert!(took < limit, "all took {took:?}, more than {limit:?}");
    assert_eq!(server.results(), 0);
}

/// The compilers that run now, without their launchers and watchers.
fn compilers(mark: &str) -> usize {
    let is_compiler = |line: &&String| line.split(' ').nth(1).is_some_and(|program| program.ends_with(CLANG));
    process::alive(mark).iter().filter(is_compiler).count()
}
