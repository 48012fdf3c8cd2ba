//! The agent: hundreds of launchers share a connection or two, and whatever happens to it costs a handshake, no build.

#[path = "agent/faults.rs"]
mod faults;
#[path = "agent/life.rs"]
mod life;
#[path = "agent/sharing.rs"]
mod sharing;
#[path = "agent/strangers.rs"]
mod strangers;

use std::time::Duration;

use pcmcache_tests::authority::Authority;
use pcmcache_tests::link::Link;
use pcmcache_tests::{Machine, Scratch, Server, Unit, Weight, until};
use rustix::process::{Pid, Signal, kill_process};

const HOST: &str = "127.0.0.1";

/// A fast and wide link.
const NEAR: (Duration, u64) = (Duration::from_millis(1), 1 << 30);

/// A server that speaks TLS, and a link to it.
struct Team {
    link: Link,
    server: Server,
    authority: Authority,
    /// Goes last.
    scratch: Scratch,
}

impl Team {
    fn start(name: &str) -> Self {
        Self::at(name, NEAR)
    }

    fn at(name: &str, (round_trip, bytes_per_second): (Duration, u64)) -> Self {
        let scratch = Scratch::new(name);
        let authority = Authority::new(&scratch, "team");
        let shows = authority.sign(HOST);
        let server = Server::start_as(&scratch, ["--tls-cert", &shows.cert, "--tls-key", &shows.key]);
        let link = Link::start(server.address(), round_trip, bytes_per_second);
        Self { link, server, authority, scratch }
    }

    fn url(&self) -> String {
        format!("https://{}", self.link.address())
    }

    fn machine(&self, name: &str) -> Machine {
        Machine::new(&self.scratch, name).remote(&self.url()).with("PCMCACHE_CA_FILE", self.authority.file())
    }

    fn unit(&self, name: &str) -> Unit {
        Unit::write(&self.scratch, name, 7, Weight::Light)
    }

    /// A machine whose agent is up, by a compile of something that nobody else compiles.
    fn warmed(&self, name: &str) -> Machine {
        let machine = self.machine(name);
        wake(self, &machine, &format!("first_{name}"));
        machine
    }
}

/// Compiles something new on the machine, and waits for its agent.
fn wake(team: &Team, machine: &Machine, unit: &str) {
    machine.compile(team.unit(unit).arguments()).ok();
    until("an agent", || machine.agents().len() == 1 && answers(machine));
}

/// Whether its agent answers a knock.
fn answers(machine: &Machine) -> bool {
    said(machine).contains("is up")
}

/// What `doctor` says of the agent.
fn said(machine: &Machine) -> String {
    let doctor = machine.start(machine.launcher(), ["doctor"]).finish().stdout;
    let of_agent = |line: &&str| line.contains("agent");
    doctor.lines().filter(of_agent).collect::<Vec<_>>().join("\n")
}

fn signal(agents: &[Pid], signal: Signal) {
    for agent in agents {
        // It may have ended by itself.
        let _ = kill_process(*agent, signal);
    }
}

fn only(machine: &Machine) -> Pid {
    let agents = machine.agents();
    assert_eq!(agents.len(), 1, "{agents:?}");
    agents[0]
}
