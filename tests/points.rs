//! Every failpoint, in turn: the process is killed there, the step fails there, takes long, or writes something else. A build
//! passes all the same and places the compiler's own bytes, and whoever comes next goes on as if nothing had been.
//!
//! `points/table.txt` is the table: which points there are, and what passes them. A step that is new, or gone, shows: the steps of a disk are
//! points by being taken (`pcmcache_shared::disk`), and nothing else may change a file (`points/sources.rs`).
//!
//!     PCMCACHE_TEST_WRITE=1 tests/run.sh --test points the_table       writes the table anew
//!     PCMCACHE_TEST_POINT=local/ tests/run.sh --test points            only points with this in their name

#[path = "points/play.rs"]
mod play;
#[path = "points/scene.rs"]
mod scene;
#[path = "points/sources.rs"]
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Instant;

use pcmcache_tests::{deployed, turn};
use play::Stage;
use scene::Scene;

const TABLE: &str = "tests/points/table.txt";
/// As many at a time.
const AT_ONCE: usize = 3;
/// A lease is renewed only by who takes long over it.
const SOMETIMES: [&str; 4] =
    ["remote.renew", "remote.renew.done", "http.post-leases", "http.post-leases.done"];

/// The points that each scene passes; each is told by the first scene that passes it.
fn passed(stage: &Stage) -> BTreeMap<String, Scene> {
    let mut all = BTreeMap::new();
    for scene in Scene::ALL {
        let began = Instant::now();
        let file = stage.scratch.path().join(format!("{scene}.points"));
        stage.play(scene, "", Some(&file)).run();
        println!("{scene}: {:?}", began.elapsed());
        let points = fs_err::read_to_string(&file).unwrap_or_default();
        for point in points.lines() {
            all.entry(point.to_owned()).or_insert(scene);
        }
    }
    all
}

fn table() -> BTreeMap<String, Scene> {
    let rows = deployed::text(TABLE);
    let rows = rows.lines().filter_map(|line| line.split_once(' '));
    let named =
        |name| Scene::named(name).unwrap_or_else(|| panic!("{TABLE} has a scene {name}, which is none"));
    rows.map(|(name, point)| (point.to_owned(), named(name))).collect()
}

#[test]
fn the_table_has_every_point_that_is_passed() {
    let _turn = turn::beside_others();
    let stage = Stage::set();
    let now = passed(&stage);
    if std::env::var_os("PCMCACHE_TEST_WRITE").is_some() {
        let mut now = now.clone();
        for point in SOMETIMES {
            let scene = if point.starts_with("http.") { Scene::Serve } else { Scene::Background };
            now.insert(point.to_owned(), scene);
        }
        let mut rows: Vec<_> = now.iter().map(|(point, scene)| (*scene, point)).collect();
        rows.sort();
        let rows: String = rows.iter().map(|(scene, point)| format!("{scene} {point}\n")).collect();
        fs_err::write(deployed::file(TABLE), rows).expect("the table");
    }
    let there: BTreeSet<_> = table().into_keys().collect();
    let now: BTreeSet<_> = now.into_keys().collect();
    let new: Vec<_> = now.difference(&there).collect();
    let gone = there.difference(&now).filter(|point| !SOMETIMES.contains(&point.as_str()));
    let gone: Vec<_> = gone.collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "{TABLE} does not have {new:?}, and has {gone:?}, which nobody passes: \
         PCMCACHE_TEST_WRITE=1 tests/run.sh -p pcmcache-tests --test points the_table writes it anew"
    );
}

/// What can be done at a point. One that has an end is a step or a message; so is one of a disk whose end nobody ever sees, as that
/// of removing what is not there. A step that is over cannot fail any more; what the disk itself falsifies in a file that a
/// compiler is about to read is the disk's.
fn actions(point: &str, has_end: bool) -> Vec<&'static str> {
    let is_over = point.ends_with(".done");
    let mut actions = vec!["kill", "delay:50"];
    let is_disk = point.contains('/') || point.starts_with("redb_file.");
    let is_step = has_end || is_disk && !is_over;
    actions.push(if is_step { "fail:EIO" } else { "kill in a crowd" });
    if point.starts_with("http.") && is_over {
        actions.extend(["fail:EIO", "corrupt"]);
    }
    if point.starts_with("local/") && point.ends_with(".write") {
        actions.push("corrupt");
    }
    actions
}

#[test]
fn at_every_point_of_the_table_nothing_costs_a_build() {
    let _turn = turn::beside_others();
    let stage = Stage::set();
    let only = std::env::var("PCMCACHE_TEST_POINT").unwrap_or_default();
    let all = table();
    let points = all.iter().filter(|(point, _)| point.contains(&only));
    let plays: Vec<_> = points
        .flat_map(|(point, scene)| {
            let actions = actions(point, all.contains_key(&format!("{point}.done")));
            actions.into_iter().map(move |action| (*scene, format!("{point}={action}")))
        })
        .collect();
    let kills = plays.iter().filter(|(_, plan)| plan.contains("=kill")).count();
    println!("tally: points={} kills={kills}", plays.len());
    let left = Mutex::new(plays.into_iter());
    let next = || left.lock().expect("what is left").next();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((scene, plan)) = next() {
                    println!("{scene:?} {plan}");
                    stage.play(scene, &plan, None).run();
                }
            });
        }
    });
}

/// One fault after the other, at each step of a launch: once, and from there on.
#[test]
fn every_single_fault_of_a_publish_a_fetch_and_a_hit_costs_no_build() {
    let _turn = turn::beside_others();
    let stage = Stage::set();
    let faults = [
        ("*", "fail:EIO"),
        // A disk that is full can be read.
        ("*.change", "fail:ENOSPC"),
        ("*", "fail:EINTR"),
        // Nothing else can be done by half.
        ("*.write", "short"),
    ];
    let scenes = [Scene::Publish, Scene::Fetch, Scene::Hit].into_iter();
    let sweeps: Vec<_> = scenes
        .flat_map(|scene| faults.map(|fault| [(scene, fault, ""), (scene, fault, "+")]).into_iter().flatten())
        // What is interrupted is done again, for ever if need be.
        .filter(|(_, (_, action), goes_on)| (*action, *goes_on) != ("fail:EINTR", "+"))
        .collect();
    let left = Mutex::new(sweeps.into_iter());
    let next = || left.lock().expect("what is left").next();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((scene, fault, goes_on)) = next() {
                    let runs = sweep(&stage, scene, fault, goes_on);
                    println!("{scene} {fault:?}{goes_on}: {runs} steps");
                    println!("tally: disk-faults={runs}");
                }
            });
        }
    });
}

/// Fails the first such step, the second and so on, until a run has none left to fail.
fn sweep(stage: &Stage, scene: Scene, (steps, action): (&str, &str), goes_on: &str) -> usize {
    for step in 1..500 {
        let reached = stage.scratch.path().join(format!("{scene}{steps}{action}{goes_on}{step}.at"));
        // The rule that says so stands before the one that fails it.
        let plan = format!("{steps}@{step}=note:{},{steps}@{step}{goes_on}={action}", reached.display());
        stage.play(scene, &plan, None).run();
        if !reached.exists() {
            assert!(step > 10, "{scene} was over too soon");
            return step - 1;
        }
    }
    panic!("{scene} {action} never comes to an end");
}
