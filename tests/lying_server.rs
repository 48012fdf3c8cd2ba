//! A server that lies, in every way that its rooms know: each time the build passes with the compiler's own bytes, says
//! nothing that the compiler did not say, ends in time, and hits locally after.

#[path = "lying_server/blobs.rs"]
mod blobs;
#[path = "lying_server/http.rs"]
mod http;
#[path = "lying_server/publishing.rs"]
mod publishing;
#[path = "lying_server/stream.rs"]
mod stream;
#[path = "lying_server/trust.rs"]
mod trust;
#[path = "lying_server/truth.rs"]
mod truth;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pcmcache_tests::liar::{Liar, Peer, Request};
use pcmcache_tests::unit::Outputs;
use pcmcache_tests::{Finished, Machine, Scratch, Unit, Weight, turn, until};
use truth::Truth;

/// No lie costs a compile of a hundredth of a second more than this; most cost a second at most.
const ENDS_WITHIN: Duration = Duration::from_secs(45);
/// As many launchers are lied to at a time. They wait more than they work.
const AT_ONCE: usize = 12;
/// The address space that a launcher and its compiler may take, in KiB: a bomb does not fit.
const MEMORY: u64 = 1024 * 1024;

/// A way to lie.
struct Lie {
    /// In words.
    name: &'static str,
    /// Answers a request; `false`: with nothing but the truth.
    tell: fn(&Request, &mut Peer, &Truth) -> bool,
}

/// What all lies are told about.
struct Stage {
    scratch: Scratch,
    unit: Unit,
    right: Outputs,
    truth: Arc<Truth>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.truth.end();
    }
}

impl Stage {
    fn set() -> Self {
        let scratch = Scratch::new("lying-server");
        let unit = Unit::write(&scratch, "unit", 7, Weight::Light);
        let right = unit.right_outputs(&scratch);
        let truth = Arc::new(Truth::of(&scratch, &unit));
        Self { scratch, unit, right, truth }
    }

    /// What goes wrong where this lie is told, if something does. `pinned`: to one who trusts one key.
    fn hear(&self, lie: &Lie, pinned: bool) -> Result<Duration, String> {
        let (told, truth, tell) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&self.truth), lie.tell);
        let counted = Arc::clone(&told);
        let liar = Liar::telling(move |request, peer| {
            if tell(request, peer, &truth) {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        let name = lie.name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let machine = Machine::new(&self.scratch, &name)
            .remote(&liar.url())
            .with("PCMCACHE_TOKEN", truth::TOKEN)
            .with("PCMCACHE_TIMEOUT", "3")
            .with("PCMCACHE_WAIT", "3")
            .with("PCMCACHE_COMPRESS", "on");
        let machine = match pinned {
            true => machine.with("PCMCACHE_TRUSTED_KEYS", self.truth.key().public().to_string()),
            false => machine,
        };
        let first = self.compile(&machine)?;
        // A lie that has no end is told when the launcher is gone.
        until(&format!("the lie to be told: {}", lie.name), || told.load(Ordering::SeqCst) > 0);
        let again = machine.clone().building_in(self.scratch.dir(&format!("{name}/again")));
        self.compile(&again)?;
        let stats = machine.stats();
        if (stats.compiles, stats.remote_hits, stats.local_hits) != (1, 0, 1) {
            return Err(format!("{stats:?}\n{}", machine.log()));
        }
        if pinned && !stats.errors.contains_key("unsigned") {
            return Err(format!("it was refused, but not for its signature: {stats:?}\n{}", machine.log()));
        }
        // Where the server may take it later, a process may just be asking.
        until(&format!("the end of all that it started: {}", lie.name), || machine.alive().is_empty());
        Ok(first)
    }

    fn compile(&self, machine: &Machine) -> Result<Duration, String> {
        let wrong =
            |what: &str, end: &Finished| Err(format!("{what}\n{}\n{}", end.transcript(), machine.log()));
        let within = format!("ulimit -v {MEMORY}; exec \"$0\" {} \"$@\"", pcmcache_tests::tool::CLANG);
        let mut command = machine.command("sh");
        command.arg("-c").arg(within).arg(machine.launcher()).args(self.unit.arguments());
        let end = pcmcache_tests::Process::start(command).finish();
        if !end.status.success() || !end.stdout.is_empty() || !end.stderr.is_empty() {
            return wrong("it did not pass in silence", &end);
        }
        if self.unit.outputs(machine.build()) != self.right {
            return wrong("other bytes than the compiler's", &end);
        }
        if end.took > ENDS_WITHIN {
            return wrong("it took too long", &end);
        }
        Ok(end.took)
    }
}

#[test]
fn no_lie_of_a_server_reaches_a_build() {
    let _turn = turn::beside_others();
    let stage = Stage::set();
    let only = std::env::var("PCMCACHE_TEST_LIE").unwrap_or_default();
    let to_anyone =
        [http::LIES, stream::LIES, blobs::LIES, publishing::LIES, trust::LIES].into_iter().flatten();
    let lies = to_anyone.map(|lie| (lie, false)).chain(trust::PINNED.iter().map(|lie| (lie, true)));
    let lies: Vec<(&Lie, bool)> = lies.filter(|(lie, _)| lie.name.contains(&only)).collect();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((lie, pinned)) = lies.get(next.fetch_add(1, Ordering::SeqCst)) {
                    match stage.hear(lie, *pinned) {
                        Ok(took) => println!("{:>6} ms  {}", took.as_millis(), lie.name),
                        Err(what) => failures.lock().expect("failures").push(format!("{}: {what}", lie.name)),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("failures");
    assert!(failures.is_empty(), "{} of {} lies:\n{}", failures.len(), lies.len(), failures.join("\n"));
    println!("{} lies", lies.len());
    stage.truth.no_token_came_to_the_thief();
}
