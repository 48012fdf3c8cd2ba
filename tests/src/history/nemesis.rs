//! What goes wrong: the server is killed, at a step of its own or at any moment, or stands still; roads break, or nothing passes
//! them.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::client::World;
use super::line::{Fault, Line, What};
use crate::{Chance, Server};

/// The steps of the server at which it dies.
const STEPS: [&str; 7] = [
    "upload.staged",
    "upload.renamed",
    "upload.committed",
    "publish.checked",
    "publish.blobs",
    "publish.committed",
    "publish.discharged",
];
/// How long a server may take to come to its step.
const SOON: Duration = Duration::from_secs(1);

/// Lets things go wrong until the clients go home; then all is well.
pub fn rage(world: &World, server: &mut Server, mut chance: Chance) {
    while world.recorder.now() < world.until {
        std::thread::sleep(Duration::from_millis(300) + chance.moment(Duration::from_millis(1200)));
        let from = world.recorder.now();
        // A server that starts lets nothing go for ten minutes of its time: late in a history it would hide evictions.
        let may_kill = world.rate <= MOST_KILLED || from < world.until / 3;
        let road = chance.below(world.roads.len() as u64) as usize;
        let what = match chance.below(10) {
            0..2 if may_kill => kill(server, &mut chance),
            2..4 if may_kill => step(server, &mut chance),
            4..6 => stop(server, &mut chance),
            6..8 => stall(world, road, &mut chance),
            _ => {
                world.roads[road].cut();
                What::Cut { road }
            }
        };
        world.recorder.note(Line::Fault(Fault { from, to: world.recorder.now(), what }));
    }
}

/// Where the clock goes faster, the server is killed early only.
const MOST_KILLED: u64 = 20;

fn kill(server: &mut Server, chance: &mut Chance) -> What {
    server.kill();
    std::thread::sleep(chance.moment(Duration::from_millis(200)));
    server.restart();
    What::Kill
}

fn step(server: &mut Server, chance: &mut Chance) -> What {
    let step = STEPS[chance.below(STEPS.len() as u64) as usize];
    server.kill();
    server.restart_with(Some(&format!("{step}=kill")));
    let armed = Instant::now();
    while !server.ended() && armed.elapsed() < SOON {
        std::thread::sleep(Duration::from_millis(2));
    }
    server.kill();
    server.restart();
    What::Step { step: step.to_owned() }
}

fn stop(server: &mut Server, chance: &mut Chance) -> What {
    server.signal(Signal::STOP);
    std::thread::sleep(chance.moment(Duration::from_millis(1500)));
    server.signal(Signal::CONT);
    What::Stop
}

/// What waits at its end arrives, or is lost with its connection.
fn stall(world: &World, road: usize, chance: &mut Chance) -> What {
    world.roads[road].stall(true);
    std::thread::sleep(chance.moment(Duration::from_millis(1500)));
    if chance.below(2) == 0 {
        world.roads[road].cut();
        world.roads[road].stall(false);
        return What::Cut { road };
    }
    world.roads[road].stall(false);
    What::Stall { road }
}
