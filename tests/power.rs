//! The power fails. A launcher's cache is afterwards what it may be: not everything is there, and nothing that a compiler gets is
//! wrong. And a server on a real ext4 or XFS that is shut down in the middle of its work (the ioctl drops all that is not on the
//! disk) has all that it acknowledged. What a server's store may look like after any step is in `server/tests/store/rules/power.rs`.
//!
//! `PCMCACHE_TEST_SEED` has the same steps again; `PCMCACHE_TEST_IMAGES` is how many caches there are.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use pcmcache_shared::disk::image::Disk;
use pcmcache_shared::disk::record;
use pcmcache_tests::unit::Outputs;
use pcmcache_tests::{Chance, Machine, Process, Scratch, Server, Unit, Weight, tool, turn, within};
use rustix::process::getuid;

const IMAGES: u64 = 60;
const AT_ONCE: usize = 3;
const UNITS: usize = 3;
/// Nobody listens there: what is made is queued.
const NOWHERE: &str = "http://127.0.0.1:9";

fn units(scratch: &Scratch, count: usize) -> Vec<(Unit, Outputs)> {
    let unit = |index: usize| Unit::write(scratch, &format!("unit{index}"), index as u32, Weight::Light);
    (0..count).map(unit).map(|unit| (unit.clone(), unit.right_outputs(scratch))).collect()
}

fn run(machine: &Machine, words: &[&str]) {
    let done = machine.start(machine.launcher(), words).finish();
    assert!(done.signal().is_none() && !done.stderr.contains("panicked"), "{}", done.transcript());
}

#[test]
fn a_cache_after_a_power_cut_gives_no_compiler_a_wrong_byte() {
    let _turn = turn::beside_others();
    let images = std::env::var("PCMCACHE_TEST_IMAGES").ok().and_then(|images| images.parse().ok());
    let images = images.unwrap_or(IMAGES);
    let scratch = Scratch::new("power");
    let (units, known) = (units(&scratch, UNITS), Machine::experienced(&scratch));
    let first = Machine::new(&scratch, "first").knowing(&known).with("PCMCACHE_MAX_SIZE", "1G");
    let (before, log) = (Disk::of(&first.cache()).expect("a cache"), scratch.path().join("log"));
    let recorded = first.clone().remote(NOWHERE).with("PCMCACHE_TEST_DISK_LOG", &log);
    for (unit, _) in &units {
        recorded.compile(unit.arguments()).ok();
    }
    for words in [&["stats"][..], &["sync"], &["trim"], &["verify"]] {
        run(&recorded, words);
    }
    for (unit, right) in &units {
        recorded.clone().building_in(scratch.dir("again")).compile(unit.arguments()).ok();
        assert_eq!(unit.outputs(&scratch.dir("again")), *right);
    }
    let entries = record::read(&log).expect("what was recorded");
    assert!(entries.len() > 100, "hardly anything was recorded: {}", entries.len());

    let chance = Mutex::new(Chance::new("power"));
    let numbers = Mutex::new(0..images);
    let next = || numbers.lock().expect("the numbers").next();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(number) = next() {
                    let image = Scratch::of(&scratch.dir(&format!("image{number}")));
                    let machine = Machine::new(&image, "machine");
                    {
                        let mut chance = chance.lock().expect("the chance");
                        let end = chance.below(entries.len() as u64 + 1) as usize;
                        let mut disk = before.clone();
                        entries.iter().take(end).for_each(|entry| disk.follow(entry));
                        println!(
                            "image {number}: {end} of {} steps, {} uncertain",
                            entries.len(),
                            disk.uncertain()
                        );
                        fs_err::create_dir(machine.cache()).expect("a cache directory");
                        disk.cut_to(&machine.cache(), &mut |below| chance.below(below as u64) as usize)
                            .expect("an image");
                    }
                    goes_on(&image, &machine, &units);
                    // What a launch left to a process of its own may still be about it.
                    let _ = fs_err::remove_dir_all(image.path());
                }
            });
        }
    });
    println!("tally: power-cuts={images}");
}

/// Builds with what a power cut left, and lets another machine have what comes of that.
fn goes_on(image: &Scratch, machine: &Machine, units: &[(Unit, Outputs)]) {
    let server = Server::start(image);
    let machine = machine.clone().remote(&server.url());
    run(&machine, &["sync"]);
    for (unit, right) in units {
        machine.compile(unit.arguments()).ok();
        assert_eq!(unit.outputs(machine.build()), *right, "{}", machine.log());
    }
    run(&machine, &["verify"]);
    let other = Machine::new(image, "other").remote(&server.url());
    for (unit, right) in units {
        other.compile(unit.arguments()).ok();
        assert_eq!(unit.outputs(other.build()), *right, "{}", other.log());
    }
}

/// A file system of its own in a file, mounted until dropped.
struct Mounted {
    file: PathBuf,
    at: PathBuf,
}

impl Mounted {
    /// `None`, with a word about it: this machine does not let us.
    fn new(scratch: &Scratch, kind: &str) -> Option<Self> {
        let (file, at) = (scratch.path().join(format!("{kind}.img")), scratch.dir(kind));
        let made = fs_err::File::create(&file).and_then(|file| file.set_len(400 << 20));
        made.expect("a file for a file system");
        let mounted = Self { file, at };
        if !getuid().is_root()
            || !silent(Command::new(format!("mkfs.{kind}")).arg("-q").arg(&mounted.file))
            || !mounted.mount()
        {
            println!("no {kind} can be mounted here: that the power fails on a real one is not shown");
            return None;
        }
        Some(mounted)
    }

    fn mount(&self) -> bool {
        silent(Command::new("mount").args(["-o", "loop"]).arg(&self.file).arg(&self.at))
    }

    fn unmount(&self) -> bool {
        silent(Command::new("umount").arg(&self.at))
    }

    /// Drops all that is not on the disk: nothing is written from here on, not even the journal.
    fn cut(&self) {
        const SHUTDOWN: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
        let python = tool::installed("PCMCACHE_TEST_PYTHON", "python3");
        assert!(silent(Command::new(python).args(["-c", SHUTDOWN]).arg(&self.at)), "the ioctl was refused");
    }

    /// Comes back, as after a boot.
    fn come_back(&self) {
        within(Duration::from_secs(10), "the file system to be let go", || self.unmount().then_some(()));
        assert!(self.mount(), "it cannot be mounted again");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = silent(Command::new("umount").arg("--lazy").arg(&self.at));
    }
}

fn silent(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

#[test]
fn on_a_real_ext4_and_xfs_a_power_cut_takes_nothing_that_was_acknowledged() {
    let _turn = turn::beside_others();
    for kind in ["ext4", "xfs"] {
        let scratch = Scratch::new(&format!("power-{kind}"));
        let Some(mounted) = Mounted::new(&scratch, kind) else { continue };
        let (units, known) = (units(&scratch, 6), Machine::experienced(&scratch));
        let store = Scratch::of(&mounted.at);
        let mut server = Server::start_as(&store, ["--keep-free", "1M"]);
        let url = server.url();
        for (cut, pair) in units.chunks(2).enumerate() {
            let machine = |name: &str| {
                Machine::new(&scratch, &format!("{kind}-{cut}-{name}")).knowing(&known).remote(&url)
            };
            let [(acknowledged, _), (under_way, right)] = pair else { panic!("two units for each cut") };
            machine("first").compile(acknowledged.arguments()).ok();
            let second = machine("second").with("PCMCACHE_TIMEOUT", "1");
            let launched: Process = second.launch(under_way.arguments());
            std::thread::sleep(Duration::from_millis(40 * cut as u64));
            mounted.cut();
            server.kill();
            mounted.come_back();
            server.restart();
            launched.finish().ok();
            assert_eq!(under_way.outputs(second.build()), *right, "{}", second.log());
            let third = machine("third");
            for (index, (unit, right)) in units.iter().take(2 * cut + 2).enumerate() {
                third.compile(unit.arguments()).ok();
                assert_eq!(unit.outputs(third.build()), *right, "{kind}: {}", third.log());
                let hits = third.stats().remote_hits;
                assert!(
                    index % 2 == 1 || hits > index as u64 / 2,
                    "{kind}: it was acknowledged, and is gone: {}",
                    third.log()
                );
            }
            println!("{kind}: the power failed {} times", cut + 1);
            println!("tally: power-cuts-of-file-systems=1");
        }
        drop(server);
    }
}
