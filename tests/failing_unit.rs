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
    let unit = Unit::write(&scratch, "unit", 7, Weight::Thinking(1));
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
    let together = as_many_bare_compilers_at_once(&scratch, &unit);
    println!("{took:?}; as many bare compilers take {together:?}; at most {at_once} compilers at once");
    let grants = server.metric("pcmcache_granted_total");
    assert_eq!(grants, 1.0, "a chain of leases: they fail one after another");
    assert!(at_once > WAITERS / 2, "only {at_once} compilers at once");
    // One compile while all wait, then all of them at once, on as many cores as there are.
    let two_compiles = (right.took + together).mul_f64(2.0) + Duration::from_secs(2);
    assert!(took < two_compiles, "all took {took:?}, more than {two_compiles:?}");
    assert_eq!(server.results(), 0);
}

/// How long this machine takes for the same compiles without us.
fn as_many_bare_compilers_at_once(scratch: &Scratch, unit: &Unit) -> Duration {
    let start = Instant::now();
    let bare = |index| Machine::new(scratch, &format!("bare-{index}")).start(CLANG, unit.arguments());
    let compilers: Vec<Process> = (0..WAITERS).map(bare).collect();
    compilers.into_iter().for_each(|compiler| assert!(!compiler.finish().status.success()));
    start.elapsed()
}

/// The compilers that run now, without their launchers and watchers.
fn compilers(mark: &str) -> usize {
    let is_compiler = |line: &&String| line.split(' ').nth(1).is_some_and(|program| program.ends_with(CLANG));
    process::alive(mark).iter().filter(is_compiler).count()
}
